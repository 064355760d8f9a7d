"""Where the coordinator listens: an address that all can reach, a port that nobody has."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lerax_dist.cluster._launch import Launch


def coordinator_host(hosts: Sequence[str], launch: Launch) -> str:
    """The host name under which every process reaches process 0.

    Args:
        hosts: host name of every process.
        launch: launch of process 0.

    Returns:
        "127.0.0.1" if all are on one host, else the name of process 0's host.
    """
    # Containers on several hosts may all go by one name; the launcher knows better.
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

    JAX ends the process by a segmentation fault on a port that is taken, and two of its services
    that share one join each other's processes.

    Raises:
        OSError: another program has the port.
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


def nobody_listens(address: str) -> bool:
    """Whether the host of "host:port" says that no program has the port; false if it is silent."""
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
