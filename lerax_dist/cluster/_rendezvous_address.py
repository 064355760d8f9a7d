"""The address where the processes of a launch meet: which one it is, and whether it is free."""

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from lerax_dist.cluster.launchers import Launch


def rendezvous_address(launch: Launch, environ: Mapping[str, str]) -> str | None:
    """Where processes can meet before JAX joins them: the address that JAX uses later.

    Args:
        launch: launch of this process.
        environ: its environment variables.

    Returns:
        "host:port"; `None` if the launch has none (MPI agrees on one by messages; only JAX finds
        that of Kubernetes and of TPU pods on Compute Engine), or if process 0 listens at another
        address than the one where the others connect.
    """
    if not launch.several or None in (launch.process_index, launch.process_count):
        return None
    return None if environ.get("JAX_COORDINATOR_BIND_ADDRESS") else launch.coordinator


def coordinator_host(hosts: Sequence[str], launch: Launch) -> str:
    """The host name under which every process reaches process 0.

    Args:
        hosts: host name of every process.
        launch: launch of process 0.

    Returns:
        "127.0.0.1" if all are on one host, else the name of process 0's host.
    """
    # Containers on several hosts may all have the same host name; the launcher knows better.
    together = launch.local_count is None or launch.local_count == len(hosts)
    return "127.0.0.1" if together and len(set(hosts)) == 1 else hosts[0]


@contextmanager
def reserved_port() -> Iterator[int]:
    """A free port that no other program gets while the block runs.

    The coordination service can open it nevertheless: gRPC servers share ports that were bound, as
    here, with SO_REUSEPORT, and a socket that does not listen gets no connection.
    """
    with _bound(0, share=True) as holder:
        yield holder.getsockname()[1]


def check_port(name: str, address: str) -> None:
    """Check that process 0 can listen on the port of `address`.

    JAX ends the process by a segmentation fault if the port is taken, and two of its services that
    share a port join each other's processes.

    Raises:
        OSError: if another program has the port.
    """
    port = int(address.rpartition(":")[2])
    try:
        _bound(port, share=False).close()
    except OSError as error:
        raise OSError(
            error.errno,
            f"`{name}` needs a port that is free on process 0, got {address!r}: {error.strerror}. "
            "End the program that has it (an earlier run?) or choose another port.",
        ) from error


def connection_refused(address: str) -> bool:
    """Whether the host of "host:port" says that no program listens there.

    False if there is no answer: the host may be unreachable, the program alive.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=1.0).close()
    except ConnectionRefusedError:
        return True
    except (OSError, ValueError):
        pass
    return False


def _bound(port: int, *, share: bool) -> socket.socket:
    family = socket.AF_INET6 if _has_ipv6() else socket.AF_INET
    holder = socket.socket(family)
    try:
        if family == socket.AF_INET6:  # IPv4 too, as the coordination service does
            holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # Without SO_REUSEADDR a port would count as taken for a minute after its last use.
        option = socket.SO_REUSEPORT if share else socket.SO_REUSEADDR
        holder.setsockopt(socket.SOL_SOCKET, option, 1)
        holder.bind(("::" if family == socket.AF_INET6 else "", port))
        return holder
    except BaseException:
        holder.close()
        raise


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::", 0))
            return True
    except OSError:
        return False
