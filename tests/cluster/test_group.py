"""The group of one, and the errors that larger groups raise."""

import math

import jax
import pytest

from lerax_dist.cluster import JaxGroup, ProcessGroup, SoloGroup, current_group
from lerax_dist.cluster._group import (
    Message,
    Missing,
    check_same,
    decode,
    encode,
    missing_error,
)
from tests.peers import Peer, World


def test_solo_group_is_process_0_of_1():
    group = SoloGroup()
    assert isinstance(group, ProcessGroup)
    assert (group.process_index, group.process_count) == (0, 1)
    assert group.launcher == "solo"
    assert group.is_writer
    assert group.hostname


def test_solo_group_gives_what_a_larger_one_would():
    group = SoloGroup()
    value = {"shape": (2, 3), "loss": math.inf, "none": None}
    expected = {"shape": [2, 3], "loss": math.inf, "none": None}
    assert group.broadcast(value, timeout=1, what="the name") == expected
    assert group.gather(value, timeout=1, what="rows") == [expected]
    assert group.barrier(timeout=1, what="the end") is None


def test_solo_group_has_a_mailbox_and_no_shared_store():
    group = SoloGroup()
    assert group.hosts == [group.hostname]
    assert group.key_per_process("logs") is None
    mailbox = group.mailbox()
    assert mailbox.receive(0, timeout=1) is None
    mailbox.send({"shape": (2, 3)})
    mailbox.send(math.inf)
    assert mailbox.has_room(timeout=1) and mailbox.finish(timeout=1)
    assert [mailbox.receive(0, timeout=1) for _ in range(2)] == [{"shape": [2, 3]}, math.inf]


def test_a_group_that_lacks_an_operation_cannot_be_made():
    class Partial(ProcessGroup):
        pass

    with pytest.raises(TypeError, match="abstract methods? .*barrier"):
        Partial(0, 1, "solo")  # pyright: ignore[reportAbstractUsage]


def test_a_group_says_which_process_it_is():
    assert repr(SoloGroup("slurm")) == "SoloGroup(process 0 of 1, launcher='slurm')"


def test_groups_are_compared_by_identity():
    group = SoloGroup()
    assert group == group
    assert group != SoloGroup()
    assert len({group, SoloGroup()}) == 2


@pytest.mark.parametrize("timeout", [0.0, -1.0, math.inf, math.nan])
def test_a_wait_needs_a_finite_timeout(timeout: float):
    group = SoloGroup()
    for operate in (
        lambda: group.broadcast(1, timeout=timeout, what="the name"),
        lambda: group.gather(1, timeout=timeout, what="the name"),
        lambda: group.barrier(timeout=timeout, what="the name"),
    ):
        with pytest.raises(ValueError, match="`timeout` must be a finite number of seconds"):
            operate()


def test_a_value_that_is_not_json_is_shown():
    with pytest.raises(TypeError, match=r"`value` of the gather of rows .* got \{1, 2\}"):
        SoloGroup().gather({1, 2}, timeout=1, what="rows")


def test_messages_survive_text():
    message = Message(3, "gather", "the run's name", {"π": [1.5, None, "x"]})
    assert decode(encode(message)) == message
    assert math.isnan(decode(encode(Message(0, "gather", "rows", math.nan))).value)
    assert decode(encode(Message(0, "gather", "rows", 0.1 + 0.2))).value == 0.1 + 0.2


def test_missing_processes_are_named_with_their_hosts():
    mine = Message(4, "gather", "the run's name", None)
    group = Peer(World(4), 0)
    text = str(missing_error(group, {0: "n0", 1: "n1"}, mine, 2.5, Missing([1, 3])))
    assert "The gather of the run's name timed out after `timeout` = 2.5 s" in text
    assert "processes 1 (host n1), 3 did not arrive" in text
    assert "This is process 0 of 4 (host host0)" in text


def test_many_missing_processes_are_counted():
    mine = Message(4, "barrier", "the start", None)
    missing = Missing(range(1, 1024), "Process 0 had stopped waiting. ")
    text = str(missing_error(Peer(World(1024), 0), {}, mine, 2.5, missing))
    assert "15, 16 and 1007 more did not arrive. Process 0 had stopped waiting. This" in text


def test_operations_that_differ_are_shown_side_by_side():
    mine = Message(4, "gather", "rows", None)
    check_same(mine, Message(4, "gather", "rows", 1), their_index=2, my_index=0)
    with pytest.raises(RuntimeError) as caught:
        check_same(mine, Message(5, "broadcast", "the name", 1), their_index=2, my_index=0)
    assert "operation 4 is the gather of rows on process 0" in str(caught.value)
    assert "operation 5 is the broadcast of the name on process 2" in str(caught.value)


def test_jax_group_needs_the_service():
    with pytest.raises(RuntimeError, match=r"Call `lerax_dist.initialize\(\)`"):
        JaxGroup()


def test_current_group_takes_the_given_one():
    group = SoloGroup()
    assert current_group(group) is group
    with pytest.raises(TypeError, match="`group` must be a `ProcessGroup`, got 'solo'"):
        current_group("solo")  # pyright: ignore[reportArgumentType]


def test_a_pod_that_only_its_devices_show_must_be_joined(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TPU_ML_PLATFORM", "JAX")
    monkeypatch.delenv("TPU_SKIP_MDS_QUERY", raising=False)
    assert current_group().process_count == 1
    monkeypatch.setattr(jax, "process_index", lambda: 2)
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    with pytest.raises(RuntimeError, match=r"process 2 of 4 \(tpu: TPU_ML_PLATFORM=JAX\), but it"):
        current_group()
    group = SoloGroup()
    assert current_group(group) is group


def test_devices_that_cannot_start_are_not_a_pod(monkeypatch: pytest.MonkeyPatch):
    def fail() -> int:
        raise RuntimeError("no driver")

    monkeypatch.setattr(jax, "process_count", fail)
    assert current_group().process_count == 1
