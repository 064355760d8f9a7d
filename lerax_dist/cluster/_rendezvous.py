"""Where the processes of a launch meet, and how they do so before JAX joins them.

`jax.distributed.initialize` times out without naming who is missing. So process 0 first listens
where the coordination service will; each other process connects, says which one it is, and gets the
outcome: nothing, or the error that all of them raise. A process of another launch, e.g. one left
over from an earlier one, is refused alone, and process 0 waits on.
"""

import contextlib
import json
import logging
import os
import socket
import sys
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lerax_dist.cluster._group import name_processes
from lerax_dist.cluster.launchers import LAUNCH_ID, Launch

_log = logging.getLogger("lerax_dist")

_MAGIC = "lerax_dist rendezvous"
# How long a process that has connected may take to send its line, or to close.
_LINE_TIMEOUT = 5.0
_RETRY_INTERVAL = 0.1
_MAX_NAMED = 16
_MAX_LINE = 65536


def rendezvous_address(launch: Launch, environ: Mapping[str, str]) -> str | None:
    """The "host:port" where processes can meet before JAX joins them there.

    `None` if the launch has none (MPI agrees on one by messages; only JAX finds that of Kubernetes
    and of TPU pods on Compute Engine), or if process 0 listens elsewhere than the others connect.
    """
    if not launch.several or None in (launch.process_index, launch.process_count):
        return None
    return None if environ.get("JAX_COORDINATOR_BIND_ADDRESS") else launch.coordinator


def coordinator_host(hosts: Sequence[str], launch: Launch) -> str:
    """The name under which all processes reach process 0, by their host names and its launch."""
    # Containers on several hosts may all have the same host name; the launcher knows better.
    together = launch.local_count is None or launch.local_count == len(hosts)
    return "127.0.0.1" if together and len(set(hosts)) == 1 else hosts[0]


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """A free port that no other program gets while the block runs.

    The coordination service can open it nevertheless: gRPC servers share ports that were bound, as
    here, with SO_REUSEPORT, and a socket that does not listen gets no connection.
    """
    has_ipv6 = socket.has_dualstack_ipv6()
    with socket.socket(socket.AF_INET6 if has_ipv6 else socket.AF_INET) as holder:
        if has_ipv6:  # IPv4 too, as the coordination service does
            holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("", 0))
        yield holder.getsockname()[1]


def rendezvous(index: int, count: int, address: str, timeout: float, identity: str = "") -> None:
    """Wait at most `timeout` seconds until all processes are at `address`, where process 0 listens.

    Processes of another `Launch.identity` are refused.

    Raises:
        TimeoutError: names the processes that did not arrive; or process 0 could not be reached.
        RuntimeError: two processes have the same index, or expect different numbers of processes;
            or process 0 belongs to another launch.
        OSError: process 0 cannot listen there.
    """
    deadline = time.monotonic() + timeout
    line = _describe_process(index, count, identity)
    if index == 0:
        _coordinate(line, address, deadline, timeout)
    else:
        _arrive(line, address, deadline, timeout)


def _describe_process(index: int, count: int, identity: str) -> dict[str, Any]:
    """What a process sends about itself."""
    # Without numbers at the end of arguments, e.g. the index of the process or the name of its
    # host; and only a checksum, as a command may hold a password.
    command = [part.rstrip("0123456789") for part in sys.argv]
    return {
        **{"index": index, "count": count, "host": socket.gethostname(), "pid": os.getpid()},
        **{"launch": identity, "folder": os.path.abspath(""), "script": sys.argv[0]},
        "command": zlib.crc32(json.dumps(command).encode()),
    }


def _coordinate(mine: dict[str, Any], address: str, deadline: float, timeout: float) -> None:
    """Process 0: collect the others, and send all of them the outcome."""
    count, is_same = mine["count"], True
    arrived: dict[int, str] = {}
    connections: list[socket.socket] = []
    error: Exception | None = None
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_listen(address))
        while error is None and len(arrived) < count - 1:
            accepted = _accept(server, stack, deadline)
            if accepted is None:
                error = TimeoutError(_missing_text(arrived, count, address, timeout))
                break
            line, connection = accepted
            if line.get("launch", "") != mine["launch"]:
                refused = f"{_name(line)} is refused at {address}: it belongs to {_launch(line)}"
                text = f"{refused}, but process 0 (pid {mine['pid']}) to {_launch(mine)}."
                _log.warning("%s The other processes are waited for.", text)
                _answer(connection, f"{text} Two launches need two ports.", late=False)
                continue
            connections.append(connection)
            if is_same and not mine["launch"]:
                is_same = _is_same_program(line, mine, address)
            if wrong := _contradiction(line, arrived, count):
                error = RuntimeError(f"At {address} {wrong}")
            arrived[line["index"]] = line["host"]
        for connection in connections:
            _answer(connection, str(error or ""), late=isinstance(error, TimeoutError))
    if error:
        raise error


def _accept(
    server: socket.socket, stack: contextlib.ExitStack, deadline: float
) -> tuple[dict[str, Any], socket.socket] | None:
    """The line of the next process and its connection; None if none arrives in time."""
    while (left := deadline - time.monotonic()) > 0:
        server.settimeout(left)
        try:
            connection = stack.enter_context(server.accept()[0])
        except TimeoutError:
            break
        line = _read_line(connection)
        if line is not None:  # else another program that scans ports
            return line, connection
    return None


def _contradiction(line: dict[str, Any], arrived: dict[int, str], count: int) -> str:
    """Why a process does not belong to this launch; empty if it does."""
    index, host, pid = line["index"], line["host"], line["pid"]
    if line["count"] != count:
        return (
            f"{_name(line)} belongs to a launch of {line['count']} "
            f"processes, this one has {count}. Pass the same number to all."
        )
    if index == 0 or index in arrived:
        other = "this one" if index == 0 else f"one on {arrived[index]}"
        return (
            f"two processes are process {index} of {count}: {other}, and one on {host} "
            f"(pid {pid}). Number the processes 0 to {count - 1}."
        )
    return ""


def _is_same_program(line: dict[str, Any], mine: dict[str, Any], address: str) -> bool:
    """Whether a process runs what process 0 runs; a warning if not: healthy launches do that, too.

    Only where nothing tells launches apart.
    """
    if all(line.get(key) == mine[key] for key in ("folder", "command")):
        return True
    _log.warning(
        "At %s %s runs %s in %s, and process 0 %s in %s, or with other arguments. If it is left "
        "over from another launch, set %s on all processes, to another value for each launch.",
        *(address, _name(line), line.get("script"), line.get("folder")),
        *(mine["script"], mine["folder"], LAUNCH_ID),
    )
    return False


def _name(line: dict[str, Any]) -> str:
    return f"process {line['index']} on {line['host']} (pid {line['pid']})"


def _launch(line: dict[str, Any]) -> str:
    return f"the launch {line['launch']}" if line.get("launch") else "a launch without an id"


def _arrive(line: dict[str, Any], address: str, deadline: float, timeout: float) -> None:
    """Another process: connect to process 0 and wait for the outcome."""
    host, _, port = address.rpartition(":")
    reason = "no answer"
    while (left := deadline - time.monotonic()) > 0:
        outcome = None
        try:
            with socket.create_connection((host.strip("[]"), int(port)), left) as connection:
                _send_line(connection, line)
                # Process 0 may have started later, and then waits longer.
                connection.settimeout(left + timeout)
                reason = "what listens there is not process 0 of a launch that starts"
                outcome = _read_line(connection)
        except OSError as error:
            reason = error.strerror or str(error)
        if outcome is not None:
            if outcome["error"]:
                kind = TimeoutError if outcome["late"] else RuntimeError
                raise kind(outcome["error"])
            return
        time.sleep(_RETRY_INTERVAL)
    raise TimeoutError(
        f"process 0 could not be reached at {address} within {timeout:g} s ({reason}). Check that "
        "it was started, that the name resolves to its host here, and that no firewall blocks the "
        "port."
    )


def _listen(address: str) -> socket.socket:
    """A server on the port of `address`, which is closed before JAX takes the port.

    JAX ends the process by a segmentation fault if another program has it, and two of its services
    that share a port join each other's processes.
    """
    port = int(address.rpartition(":")[2])
    has_ipv6 = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if has_ipv6 else socket.AF_INET
    try:
        return socket.create_server(("", port), family=family, dualstack_ipv6=has_ipv6)
    except OSError as error:
        raise OSError(
            error.errno,
            f"`coordinator_address` needs a port that is free on process 0, got {address!r}: "
            f"{error.strerror}. Another program has it, perhaps a training that runs. Choose "
            "another port, by `JAX_COORDINATOR_PORT` where the launcher gives the address.",
        ) from error


def _send_line(connection: socket.socket, values: dict[str, Any]) -> None:
    connection.sendall(json.dumps({"magic": _MAGIC, **values}).encode() + b"\n")


def _read_line(connection: socket.socket) -> dict[str, Any] | None:
    """The line that the other side sends; None if it is not a process of ours."""
    if connection.gettimeout() is None:
        connection.settimeout(_LINE_TIMEOUT)
    try:
        with connection.makefile("rb") as lines:
            line = json.loads(lines.readline(_MAX_LINE))
    except (OSError, ValueError):
        return None
    return line if isinstance(line, dict) and line.get("magic") == _MAGIC else None


def _answer(connection: socket.socket, error: str, *, late: bool) -> None:
    with contextlib.suppress(OSError):
        connection.settimeout(_LINE_TIMEOUT)
        _send_line(connection, {"error": error, "late": late})
        # The side that closes first keeps the port in use for a while, and JAX needs it here.
        connection.recv(1)


def _missing_text(arrived: dict[int, str], count: int, address: str, timeout: float) -> str:
    missing = [index for index in range(1, count) if index not in arrived]
    hosts = sorted({*arrived.values(), socket.gethostname()})
    hosts_text = ", ".join(hosts[:_MAX_NAMED]) + (", ..." if len(hosts) > _MAX_NAMED else "")
    return (
        f"{name_processes(missing)} of {count} did not arrive at {address} within {timeout:g} s "
        f"(the {len(arrived) + 1} that did are on {hosts_text}). Check that every process was "
        "started and that its host reaches that address; read their output. If they are only slow, "
        "raise `timeout`."
    )
