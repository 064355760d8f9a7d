"""Heartbeats: which are overdue, decided from numbers and times alone."""

import socket

import pytest

from lerax_dist.cluster.liveness._heartbeat import (
    Status,
    choose_timing,
    decode_status,
    encode_status,
    is_consequence,
    overdue,
    receive,
)
from lerax_dist.cluster.liveness._monitor import check_service


def test_an_unchanged_number_is_not_a_heartbeat():
    heartbeats = receive({}, {1: 0, 2: 0}, now=10.0)
    heartbeats = receive(heartbeats, {1: 1, 2: 0}, now=12.0)
    assert overdue(heartbeats, (), now=13.0, timeout=3.0) == {2: 3.0}
    assert overdue(heartbeats, (), now=15.5, timeout=3.0) == {1: 3.5, 2: 5.5}
    assert overdue(heartbeats, {2}, now=15.5, timeout=3.0) == {1: 3.5}
    heartbeats = receive(heartbeats, {2: 1}, now=16.0)
    assert overdue(heartbeats, (), now=16.0, timeout=3.0) == {1: 4.0}


def test_a_process_without_a_first_heartbeat_is_not_overdue():
    assert overdue(receive({}, {}, now=0.0), (), now=1e6, timeout=3.0) == {}


@pytest.mark.parametrize(
    ("jax_timeout", "count", "interval", "timeout"),
    [(60, 2, 1.0, 18.0), (100, 250, 2.5, 30.0), (10, 4, 1.0, 3.0), (4, 4, 1.0, 3.0)],
)
def test_an_unresponsive_process_is_named_before_jax_ends_all(
    jax_timeout: float, count: int, interval: float, timeout: float
):
    timing = choose_timing(jax_timeout, count)
    assert (timing.interval, timing.timeout) == pytest.approx((interval, timeout))
    # JAX ends all after half of its timeout at the earliest, and aborts take 6 s.
    assert timing.timeout + 2 * timing.interval < jax_timeout / 2 + 6
    assert timing.give_up < jax_timeout / 2 + 6


def test_many_processes_send_less_often_and_are_named_before_jax_ends_all():
    assert [choose_timing(60, count).interval for count in (100, 200, 10_000)] == [1.0, 2.0, 4.0]
    for count in (512, 10_000):
        timing = choose_timing(60, count)
        assert timing.timeout == 18.0
        assert timing.timeout + 2 * timing.interval < 60 / 2 + 6
        # JAX aborts a process 6 s after the service was lost; a read of it may take 0.5 s.
        assert timing.interval + 0.5 < 6


def test_a_status_survives_text():
    status = Status(7, {0: "n0", 3: "n3"}, {3: 4.5}, {1: "ValueError: π"})
    assert decode_status(encode_status(status)) == status


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("ValueError: UNKNOWN: Gloo all-reduce failed: Connection closed by peer [::1]:9", True),
        ("JaxRuntimeError: INTERNAL: NCCL operation ncclAllReduce failed: remote process", True),
        ("RuntimeError: UNAVAILABLE: Socket closed", True),
        ("ValueError: a wrong turn", False),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'data.npz'", False),
    ],
)
def test_errors_that_another_process_caused(reason: str, expected: bool):
    assert is_consequence(reason) == expected


def test_a_service_is_lost_once_its_port_is_closed():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        check_service(address)
    with pytest.raises(RuntimeError, match=f"no program listens at {address} any more"):
        check_service(address)
    check_service("")  # not known
