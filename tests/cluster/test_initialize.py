"""Errors of `initialize` before it waits for other processes; joining is in tests/multiprocess."""

import pytest

from lerax_dist.cluster import initialize


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
