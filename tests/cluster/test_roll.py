"""The roll call, over real sockets: each process is a thread here, as only addresses matter."""

import socket
import threading
from collections.abc import Sequence

from lerax_dist.cluster import Launch
from lerax_dist.cluster._roll import call_roll


def roll(places: Sequence[tuple[int, int]], timeout: float) -> list[str]:
    """Call the roll with processes of these indices and counts; what each of them raised."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    return roll_at(address, places, timeout)


def roll_at(address: str, places: Sequence[tuple[int, int]], timeout: float) -> list[str]:
    errors = [""] * len(places)

    def take_part(number: int, index: int, count: int) -> None:
        launch = Launch("explicit", index, count, None, None, address, "")
        try:
            call_roll(launch, address, timeout)
        except (TimeoutError, RuntimeError, OSError) as error:
            errors[number] = f"{type(error).__name__}: {error}"

    threads = [
        threading.Thread(target=take_part, args=(number, *place))
        for number, place in enumerate(places)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    return errors


def test_all_are_there():
    assert roll([(2, 3), (1, 3), (0, 3)], timeout=30) == [""] * 3


def test_those_missing_are_named_to_all():
    errors = roll([(0, 5), (2, 5), (4, 5)], timeout=3)
    for error in errors:
        assert error.startswith("TimeoutError: processes 1, 3 of 5 did not arrive at 127.0.0.1:")
        assert "(the 3 that did are on " in error


def test_without_process_0_the_others_say_so():
    (error,) = roll([(1, 2)], timeout=1)
    assert "process 0 could not be reached at 127.0.0.1:" in error
    assert "Connection refused" in error


def test_one_index_given_twice_is_told_from_one_missing():
    errors = roll([(0, 3), (1, 3), (1, 3)], timeout=20)
    for error in errors:
        assert "two processes are process 1 of 3: one on " in error


def test_a_launch_of_another_size():
    errors = roll([(0, 3), (1, 2)], timeout=20)
    for error in errors:
        assert "belongs to a launch of 2 processes, this one has 3" in error


def test_a_port_that_is_taken():
    with socket.create_server(("", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        (error,) = roll_at(address, [(0, 2)], timeout=1)
    assert error.startswith("OSError: ") and "End the program that has the port" in error
