"""A roll call before JAX joins: JAX would end whoever waits without saying for whom."""

import contextlib
import json
import os
import socket
import time
from typing import Any

from lerax_dist.cluster.launchers import Launch

_MAGIC = "lerax_dist roll call"
# How long one that has connected may take to say who it is, or to hang up.
_PATIENCE = 5.0
_PAUSE = 0.1
_MOST_NAMED = 16


def call_roll(launch: Launch, address: str, timeout: float) -> None:
    """Wait until every process of a launch is there.

    Args:
        launch: launch of this process; its index and count are known.
        address: where process 0 listens, and the coordination service later.
        timeout: longest wait in seconds.

    Raises:
        TimeoutError: names those that did not arrive; or process 0 could not be reached.
        RuntimeError: two processes say that they are the same one, or mean launches of
            different sizes.
        OSError: process 0 cannot listen there.
    """
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + timeout
    if launch.process_index == 0:
        _listen(launch, int(port), address, deadline, timeout)
    else:
        _report(launch, host.strip("[]"), int(port), address, deadline, timeout)


def _listen(launch: Launch, port: int, address: str, deadline: float, timeout: float) -> None:
    """Process 0: note who comes, and tell everybody how it went."""
    count = launch.process_count or 1
    came: dict[int, str] = {}
    told: list[socket.socket] = []
    wrong = ""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_server(port, address))
        while len(came) < count - 1 and not wrong and (left := deadline - time.monotonic()) > 0:
            server.settimeout(left)
            try:
                connection = stack.enter_context(server.accept()[0])
            except TimeoutError:
                break
            said = _read(connection)
            if said is None:
                continue  # somebody else who tries ports
            index, host = said["index"], said["host"]
            told.append(connection)
            if said["count"] != count:
                wrong = (
                    f"process {index} on {host} (pid {said['pid']}) belongs to a launch of "
                    f"{said['count']} processes, this one has {count}. Give all the same number."
                )
            elif index == 0 or index in came:
                other = "this one" if index == 0 else f"one on {came[index]}"
                wrong = (
                    f"two processes are process {index} of {count}: {other}, and one on {host} "
                    f"(pid {said['pid']}). Number the processes 0 to {count - 1}."
                )
            else:
                came[index] = host
        error: Exception | None = None
        if wrong:
            error = RuntimeError(f"At {address} {wrong}")
        elif len(came) < count - 1:
            error = TimeoutError(_missing(came, launch, address, timeout))
        for connection in told:
            _answer(connection, str(error) if error else "")
    if error:
        raise error


def _report(
    launch: Launch, host: str, port: int, address: str, deadline: float, timeout: float
) -> None:
    """Another process: report to process 0 and hear how it went."""
    said = {
        "magic": _MAGIC,
        "index": launch.process_index,
        "count": launch.process_count,
        "host": socket.gethostname(),
        "pid": os.getpid(),
    }
    reason = "it did not answer"
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection((host, port), timeout=left) as connection:
                connection.sendall(json.dumps(said).encode() + b"\n")
                # Process 0 may have started later, and then waits longer.
                connection.settimeout(left + timeout)
                verdict = _read(connection)
        except OSError as error:
            verdict, reason = None, error.strerror or str(error)
        if verdict is not None:
            if verdict["error"]:
                raise TimeoutError(verdict["error"])
            return
        time.sleep(_PAUSE)
    raise TimeoutError(
        f"process 0 could not be reached at {address} within {timeout:g} s ({reason}). Was it "
        "started, does that name mean its host here, and does a firewall let the port through?"
    )


def _server(port: int, address: str) -> socket.socket:
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        raise OSError(
            error.errno,
            f"process 0 cannot listen at {address}: {error.strerror}. End the program that has the "
            "port (an earlier run?) or choose another.",
        ) from error


def _read(connection: socket.socket) -> dict[str, Any] | None:
    """One line from the other side, if it is one of ours."""
    if connection.gettimeout() is None:
        connection.settimeout(_PATIENCE)
    try:
        with connection.makefile("rb") as lines:
            said = json.loads(lines.readline(65536))
    except (OSError, ValueError):
        return None
    return said if isinstance(said, dict) and said.get("magic") == _MAGIC else None


def _answer(connection: socket.socket, error: str) -> None:
    with contextlib.suppress(OSError):
        connection.settimeout(_PATIENCE)
        connection.sendall(json.dumps({"magic": _MAGIC, "error": error}).encode() + b"\n")
        # The one who hangs up first keeps the port occupied for a while, and JAX needs it here.
        connection.recv(1)


def _missing(came: dict[int, str], launch: Launch, address: str, timeout: float) -> str:
    count = launch.process_count or 1
    missing = [str(index) for index in range(1, count) if index not in came]
    named = ", ".join(missing[:_MOST_NAMED])
    if len(missing) > _MOST_NAMED:
        named += f" and {len(missing) - _MOST_NAMED} more"
    there = sorted({*came.values(), socket.gethostname()})
    here = ", ".join(there[:_MOST_NAMED]) + (", ..." if len(there) > _MOST_NAMED else "")
    return (
        f"{'process' if len(missing) == 1 else 'processes'} {named} of {count} did not arrive at "
        f"{address} within {timeout:g} s (the {len(came) + 1} that did are on {here}). Was every "
        "process started, and can its host reach that address? Their output says; if they are "
        "only slow, raise `timeout`."
    )
