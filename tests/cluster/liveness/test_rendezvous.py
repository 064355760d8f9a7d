"""The rendezvous, over real sockets: each process is a thread here, as only addresses matter."""

import socket
import threading
from collections.abc import Sequence

from lerax_dist.cluster.liveness import rendezvous


def meet(processes: Sequence[tuple[int, int]], timeout: float) -> list[str]:
    """A rendezvous of processes with these indices and counts; what each of them raised."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    return meet_at(address, processes, timeout)


def meet_at(address: str, processes: Sequence[tuple[int, int]], timeout: float) -> list[str]:
    errors = [""] * len(processes)

    def arrive(number: int, index: int, count: int) -> None:
        try:
            rendezvous(index, count, address, timeout)
        except (TimeoutError, RuntimeError, OSError) as error:
            errors[number] = f"{type(error).__name__}: {error}"

    threads = [
        threading.Thread(target=arrive, args=(number, *process))
        for number, process in enumerate(processes)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    return errors


def test_all_are_there():
    assert meet([(2, 3), (1, 3), (0, 3)], timeout=30) == [""] * 3


def test_missing_processes_are_named_to_all():
    errors = meet([(0, 5), (2, 5), (4, 5)], timeout=3)
    for error in errors:
        assert error.startswith("TimeoutError: processes 1, 3 of 5 did not arrive at 127.0.0.1:")
        assert "(the 3 that did are on " in error


def test_without_process_0_the_others_time_out():
    (error,) = meet([(1, 2)], timeout=1)
    assert "process 0 could not be reached at 127.0.0.1:" in error
    assert "Connection refused" in error


def test_a_program_that_scans_ports_does_not_count():
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
    errors = [""]

    def wait() -> None:
        try:
            rendezvous(0, 2, f"127.0.0.1:{address[1]}", 20)
        except (TimeoutError, RuntimeError, OSError) as error:
            errors[0] = str(error)

    first = threading.Thread(target=wait)
    first.start()
    while True:
        try:
            with socket.create_connection(address) as stranger:
                stranger.sendall(b"GET / HTTP/1.0\n")
                break
        except ConnectionRefusedError:
            continue
    rendezvous(1, 2, f"127.0.0.1:{address[1]}", 20)
    first.join(60)
    assert errors == [""]


def test_an_index_given_twice_is_not_reported_as_missing():
    errors = meet([(0, 3), (1, 3), (1, 3)], timeout=20)
    for error in errors:
        assert "two processes are process 1 of 3: one on " in error


def test_a_process_of_a_launch_of_another_size_is_named():
    errors = meet([(0, 3), (1, 2)], timeout=20)
    for error in errors:
        assert "belongs to a launch of 2 processes, this one has 3" in error


def test_a_port_in_use_is_an_error():
    with socket.create_server(("", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        (error,) = meet_at(address, [(0, 2)], timeout=1)
    assert error.startswith("OSError: ") and "End the program that uses the port" in error
