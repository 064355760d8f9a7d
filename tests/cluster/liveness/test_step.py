"""The pure step of liveness: what is concluded, taken back, logged, and when a process ends."""

import copy
import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lerax_dist.cluster.liveness._heartbeat import Status, choose_timing, decode_status
from lerax_dist.cluster.liveness._step import (
    FAILURE_GRACE,
    Action,
    Log,
    Observation,
    Publish,
    Setup,
    State,
    step,
)

# interval 1, timeout 18, give_up 27
TIMING = choose_timing(60.0, 4)
HOSTS = {0: "n0", 1: "n1", 2: "n2", 3: "n3"}


def initial(index: int, *, recoverable: bool = False) -> State:
    return State(Setup(index, 4, HOSTS[index], TIMING, recoverable), now=100.0, hosts=HOSTS)


def run(
    state: State, observation: Observation, seconds: float, each: float = 1.0
) -> tuple[State, list[Action]]:
    """Steps with the same observation for a while."""
    actions: list[Action] = []
    for _ in range(math.ceil(seconds / each)):
        state, due = step(state, observation, state.now + each)
        actions += due
    return state, actions


def logs(actions: list[Action]) -> list[str]:
    return [action.text for action in actions if isinstance(action, Log)]


def published(actions: list[Action], key: str) -> list[str]:
    return [action.text for action in actions if isinstance(action, Publish) and action.key == key]


def test_process_0_names_an_unresponsive_process_once_and_publishes_it():
    state, _ = step(initial(0), Observation(numbers={1: 0, 2: 0, 3: 0}), 101.0)
    messages: list[str] = []
    statuses: list[Status] = []
    for number in range(1, 20):
        state, actions = step(
            state, Observation(numbers={1: number, 2: 0, 3: number}), state.now + 1
        )
        messages += logs(actions)
        statuses += map(decode_status, published(actions, "status"))
    assert messages == [
        "process 2 (host n2) has sent no heartbeat for 18 s: a call into C holds the GIL there, "
        "or it was killed, stands still or cannot be reached; then, if this lasts, JAX ends all "
        "processes"
    ]
    assert [status.unresponsive for status in statuses[16:]] == [{}, {2: 18.0}, {2: 19.0}]
    assert statuses[-1].hosts == {0: "n0", 2: "n2"}


def test_a_process_that_is_heard_again_is_alive_again_everywhere():
    first = Observation(numbers={1: 0, 2: 0})
    state, _ = run(initial(0), first, 40)
    assert state.unresponsive.keys() == {1, 2} and state.lost == {1, 2}
    state, actions = step(state, Observation(numbers={1: 1, 2: 0}), state.now + 1)
    assert logs(actions) == ["process 1 (host n1) sends heartbeats again, after 39 s: it is alive"]
    assert state.unresponsive.keys() == state.lost == {2}
    (text,) = published(actions, "status")

    other, actions = step(initial(3), Observation(reported={1: 39.0, 2: 39.0}), 101.0)
    assert other.unresponsive.keys() == {1, 2} and len(logs(actions)) == 2
    status = decode_status(text)
    heard = Observation(numbers={0: status.number}, reported=status.unresponsive)
    other, actions = step(other, heard, 102.0)
    assert other.unresponsive.keys() == {2}
    assert logs(actions) == ["process 1 (host n1) sends heartbeats again, after 39 s: it is alive"]
    assert not other.must_leave


def test_a_stall_of_process_0_is_taken_back_and_lets_no_process_leave():
    """Process 0 holds its GIL for 28 s: its service answers with the same status meanwhile."""
    stalled = Observation(numbers={0: 7})
    state, actions = run(initial(1), stalled, 29)
    (text,) = logs(actions)
    assert text == (
        "process 0 (host n0), which holds the coordination service, has sent no heartbeat for 18 s;"
        " its service answers, so a call into C holds the GIL there, or it is stuck"
    )
    assert state.lost == frozenset() and not state.must_leave
    state, actions = step(state, Observation(numbers={0: 8}), state.now + 1)
    assert logs(actions) == ["process 0 (host n0) sends heartbeats again, after 28 s: it is alive"]
    assert not state.unresponsive and not state.cause_known


def test_process_0_is_lost_if_its_service_does_not_answer_and_not_once_it_does():
    state, _ = step(initial(1), Observation(numbers={0: 7}), 101.0)
    state, actions = run(state, Observation(answered=False), 27)
    assert "cannot be reached; then, if this lasts" in logs(actions)[0]
    assert published(actions, "heartbeats/1") == []
    assert state.lost == {0} and state.must_leave
    state, actions = step(state, Observation(numbers={0: 8}), state.now + 1)
    assert state.lost == frozenset() and not state.must_leave
    assert logs(actions) == ["process 0 (host n0) sends heartbeats again, after 27 s: it is alive"]
    assert published(actions, "heartbeats/1") == ["1"]


def test_a_first_heartbeat_is_sent_without_an_answer():
    state, actions = step(initial(1), Observation(answered=False), 101.0)
    assert published(actions, "heartbeats/1") == ["0"]
    _, actions = step(state, Observation(answered=False), 102.0)
    assert published(actions, "heartbeats/1") == []


def test_the_time_while_this_process_stood_still_says_nothing_about_the_others():
    state, _ = step(initial(0), Observation(numbers={1: 0, 2: 0}), 101.0)
    state, actions = step(state, Observation(numbers={1: 0, 2: 0}), 161.0)
    assert state.unresponsive == {}
    (text,) = logs(actions)
    assert text.startswith("the Python threads of this process did not run for 60 s")
    # They may have left meanwhile, until a heartbeat arrives.
    assert state.unconfirmed == {1, 2}
    state, _ = step(state, Observation(numbers={1: 1, 2: 0}), 162.0)
    assert state.unconfirmed == {2}


def test_process_0_is_not_blamed_beside_another_that_is_unresponsive():
    state, actions = step(initial(1), Observation(numbers={0: 7}, reported={2: 18.0}), 101.0)
    assert len(logs(actions)) == 1
    state, actions = run(state, Observation(answered=False), 20)
    assert logs(actions) == []
    assert state.unresponsive.keys() == {0, 2}


def test_the_failure_of_another_process_is_logged_and_ends_this_one():
    failed = Observation(failed={2: "ValueError: a wrong turn"})
    state, actions = step(initial(1), failed, 101.0)
    assert logs(actions) == ["process 2 (host n2) has ended: ValueError: a wrong turn"]
    assert state.cause_known and state.must_leave
    state, actions = run(state, failed, FAILURE_GRACE - 0.5, each=0.5)
    assert not state.ended and logs(actions) == []
    state, actions = run(state, failed, 5.0, each=0.5)
    assert state.ended
    assert logs(actions) == [
        "this process cannot continue without the others and exits now, with status 1"
    ]
    assert published(actions, "ends/1") == ["it could not continue, as another process had failed"]


def test_an_error_that_another_process_caused_leaves_time_to_find_that_one():
    failed = Observation(failed={2: "RuntimeError: UNAVAILABLE: Socket closed"})
    state, _ = run(initial(1), failed, FAILURE_GRACE + 2)
    assert not state.ended and not state.cause_known
    state, _ = run(state, failed, TIMING.give_up + 1)
    assert state.ended


def test_a_process_that_ends_by_itself_is_left_alone():
    failed = Observation(failed={2: "ValueError: a wrong turn"}, ending=True)
    state, _ = run(initial(1), failed, 100)
    assert not state.ended


def test_recoverable_processes_go_on_after_a_failure():
    failed = Observation(failed={2: "ValueError: a wrong turn"})
    state, actions = run(initial(1, recoverable=True), failed, 100)
    assert not state.ended and len(logs(actions)) == 1


@pytest.mark.parametrize("recoverable", [False, True])
def test_the_loss_of_the_service_ends_this_process_within_the_time_before_jax_aborts(
    recoverable: bool,
):
    lost = Observation(answered=False, service_error="UNAVAILABLE: Connection refused")
    state, actions = step(initial(2, recoverable=recoverable), lost, 101.0)
    assert logs(actions) == [
        "process 0 (host n0), which holds the coordination service, is lost: "
        "UNAVAILABLE: Connection refused"
    ]
    assert state.pause == 1.0
    state, actions = run(state, lost, 2)
    assert state.ended and published(actions, "ends/2") == []


def test_the_loss_of_the_service_is_not_logged_if_it_has_another_cause():
    state, _ = step(initial(2), Observation(failed={1: "ValueError: a wrong turn"}), 101.0)
    lost = Observation(answered=False, service_error="UNAVAILABLE: Connection refused")
    _, actions = step(state, lost, 102.0)
    assert logs(actions) == []


def test_many_failures_are_not_all_logged():
    failed = {index: f"ValueError: {index}" for index in range(1, 1000)}
    _, actions = step(initial(0), Observation(failed=failed), 101.0)
    assert len(logs(actions)) == 4
    same = dict.fromkeys(range(1, 1000), "ValueError: the same")
    _, actions = step(initial(0), Observation(failed=same), 101.0)
    assert len(logs(actions)) == 1


def test_its_own_failure_is_published_once_and_not_logged():
    own = Observation(own_failure="ValueError: mine", failed={1: "ValueError: mine"}, ending=True)
    state, actions = run(initial(1), own, 10)
    assert published(actions, "ends/1") == ["ValueError: mine"]
    assert logs(actions) == [] and not state.must_leave


def test_processes_that_finished_are_named_once_unless_this_one_leaves_too():
    finished = Observation(finished=frozenset({1, 2}))
    _, actions = run(initial(0), finished, 60)
    (text,) = logs(actions)
    assert text.startswith("processes 1, 2 ended 10 s ago without an exception (`sys.exit`?) and w")
    leaving = Observation(finished=frozenset({1, 2}), ending=True)
    assert logs(run(initial(0), leaving, 60)[1]) == []


_REASONS = st.sampled_from(["ValueError: a", "ValueError: b", "RuntimeError: Gloo failed"])
_OBSERVATIONS = st.builds(
    Observation,
    answered=st.booleans(),
    numbers=st.dictionaries(st.integers(0, 3), st.integers(0, 3)),
    reported=st.dictionaries(st.integers(0, 3), st.floats(18, 100)),
    failed=st.dictionaries(st.integers(0, 3), _REASONS, max_size=1),
    finished=st.frozensets(st.integers(0, 3)),
    ending=st.booleans(),
)


def as_read_by(state: State, observation: Observation) -> Observation:
    """The part of an observation that the process can read: process 0 all, the others only it."""
    others = range(1, 4) if state.setup.index == 0 else range(int(observation.answered))
    numbers = {i: number for i, number in observation.numbers.items() if i in others}
    reported = observation.reported if state.setup.index != 0 else {}
    return dataclasses.replace(observation, numbers=numbers, reported=reported)


_TURNS = st.lists(st.tuples(_OBSERVATIONS, st.floats(0.01, 60.0)), max_size=30)
_STATES = st.builds(initial, st.integers(0, 3), recoverable=st.booleans())


@given(_STATES, _TURNS)
def test_no_process_that_is_heard_again_stays_unresponsive_and_each_change_is_logged(
    state: State, turns: list[tuple[Observation, float]]
):
    for observation, seconds in turns:
        before = state
        observation = as_read_by(state, observation)
        state, actions = step(before, observation, before.now + seconds)
        own = state.setup.index
        advanced = {
            process
            for process, number in observation.numbers.items()
            if process not in before.heartbeats or before.heartbeats[process].number != number
        }
        assert not advanced & (state.unresponsive.keys() | state.lost)
        if own != 0 and observation.answered:
            reported = observation.reported.keys() - {0, own}
            assert state.unresponsive.keys() - {0} == reported
        for process in before.unresponsive.keys() - state.unresponsive.keys() - state.failed.keys():
            again = f"process {process} (host {HOSTS[process]}) sends heartbeats again"
            assert any(text.startswith(again) for text in logs(actions))
        assert state.lost <= state.unresponsive.keys()


@given(_STATES, _TURNS, st.booleans())
def test_once_its_cause_is_known_a_process_that_goes_on_always_ends(
    state: State, turns: list[tuple[Observation, float]], service: bool
):
    for observation, seconds in turns:
        state, _ = step(state, as_read_by(state, observation), state.now + seconds)
    index = state.setup.index
    if service:
        last = Observation(answered=False, service_error="UNAVAILABLE")
    else:
        last = Observation(failed={(index + 1) % 4: "ValueError: a"})
    ended = state.ended
    limit = FAILURE_GRACE + TIMING.give_up + 2.0
    state, actions = run(state, last, limit)
    if service or not state.setup.recoverable:
        said = sum("exits now, with status 1" in text for text in logs(actions))
        assert state.ended and said == (not ended)
    assert not any("exits now" in text for text in logs(run(state, last, limit)[1]))


@given(_STATES, _TURNS)
def test_no_heartbeat_alone_never_ends_a_process(
    state: State, turns: list[tuple[Observation, float]]
):
    for observation, seconds in turns:
        index, read = state.setup.index, as_read_by(state, observation)
        own = {i: reason for i, reason in observation.failed.items() if i == index}
        quiet = dataclasses.replace(read, failed=own, ending=False)
        state, _ = step(state, quiet, state.now + seconds)
        assert not state.ended
        assert state.deadline == math.inf


@given(_STATES, _TURNS)
def test_a_step_changes_nothing_of_the_state_before(
    state: State, turns: list[tuple[Observation, float]]
):
    for observation, seconds in turns:
        before = copy.deepcopy(state)
        following, _ = step(state, as_read_by(state, observation), state.now + seconds)
        assert state == before
        state = following


@given(_STATES, _TURNS)
def test_the_number_of_its_own_heartbeat_only_grows(
    state: State, turns: list[tuple[Observation, float]]
):
    numbers: list[int] = []
    for observation, seconds in turns:
        state, actions = step(state, as_read_by(state, observation), state.now + seconds)
        numbers += map(int, published(actions, f"heartbeats/{state.setup.index}"))
        numbers += [decode_status(text).number for text in published(actions, "status")]
    assert numbers == list(range(len(numbers)))
