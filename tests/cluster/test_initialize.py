"""What `initialize` refuses before it waits for anybody; joining is in tests/multiprocess."""

import socket

import pytest

from lerax_dist.cluster import Launch, initialize
from lerax_dist.cluster._address import check_port, coordinator_host, reserved_port


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"coordinator_address": "h0:1"}, ["`num_processes`, `process_id`", "'h0:1' only"]),
        ({"num_processes": 2, "process_id": 0}, ["`coordinator_address`", "num_processes=2"]),
        (
            {"coordinator_address": "h0", "num_processes": 2, "process_id": 0},
            ["`coordinator_address`", "'h0'"],
        ),
        (
            {"coordinator_address": "h0:1", "num_processes": 2, "process_id": 2},
            ["`process_id`", "2 of 2"],
        ),
        (
            {"coordinator_address": "h0:1", "num_processes": 0, "process_id": 0},
            ["`num_processes`", "0 of 0"],
        ),
        ({"timeout": 0.0}, ["`timeout`", "0.0"]),
    ],
)
def test_incomplete_or_malformed_arguments_are_named(arguments: dict, words: list[str]):
    with pytest.raises(ValueError) as caught:
        initialize(**arguments)
    for word in words:
        assert word in str(caught.value)


def test_another_address_in_jaxs_own_variable_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "h9:1")
    with pytest.raises(ValueError, match=r"same coordinator, got 'h9:1' and 'h0:1' \(explicit"):
        initialize("h0:1", 2, 0)


@pytest.mark.parametrize(
    ("hosts", "local_count", "expected"),
    [
        (["n0", "n0"], 2, "127.0.0.1"),
        (["n0", "n0"], None, "127.0.0.1"),
        (["n0", "n1"], 1, "n0"),
        (["box", "box"], 1, "box"),  # containers on two hosts, all of one name
    ],
)
def test_coordinator_is_where_all_can_reach_it(
    hosts: list[str], local_count: int | None, expected: str
):
    assert coordinator_host(hosts, Launch("openmpi", 0, 2, 0, local_count, None, "")) == expected


def test_reserved_port_is_taken_until_the_block_ends():
    with reserved_port() as port:
        with pytest.raises(OSError, match="`address` needs a port that is free"):
            check_port("address", f"127.0.0.1:{port}")
    check_port("address", f"127.0.0.1:{port}")


def test_port_with_a_listener_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(OSError, match="`address` needs a port that is free on process 0"):
            check_port("address", address)
