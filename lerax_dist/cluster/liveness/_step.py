"""What this process concludes about the others, and when it has to end. Pure.

`step(state, observation, now)` returns the next state and the actions that are due. What this
process concludes about each other process, from its heartbeats alone:

    alive ---- no heartbeat for `timeout` ----> unresponsive ---- for `give_up` ----> lost
      ^                                              |                                 |
      +-------------------- its heartbeat advances: alive again, and logged -----------+

Process 0 reads all heartbeats and publishes which processes are unresponsive; the others read only
this and process 0's heartbeat. For them process 0 is lost only while its coordination service does
not answer either. What a process publishes about its own end is final: it finished (no exception)
or it failed (a reason).

What becomes of this process:

    running ---- another process failed, or the service is lost ----> ending, until `deadline`
                                                                        |
                          ended, with status 1 <-- deadline passed -----+
                                                                        |
                          left alone <------------ it ends by itself ---+

No heartbeat is never a reason to end: JAX decides who is dead, and ends all processes itself. Only
`step` sets `deadline`; nothing clears it; a process that ends by itself in time is left alone.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

from lerax_dist.cluster._group import name_processes
from lerax_dist.cluster.liveness._heartbeat import (
    Heartbeat,
    Status,
    Timing,
    encode_status,
    is_consequence,
    overdue,
    receive,
)

# How long a program may go on after the failure of another one, to end by itself.
FAILURE_GRACE = 5.0
# JAX aborts the process 6 s after the service was lost.
_SERVICE_GRACE = 2.0
# How long a process that has finished waits for the others without a message.
QUIET_WAIT = 10.0
# Of a thousand processes that fail because of one, a few are enough.
_MAX_FAILURES_LOGGED = 4
_MAX_REASON_LENGTH = 300
# Reading and writing take this long at most; between two steps no more time is counted.
_MAX_TURN = 3.0


@final
@dataclass(frozen=True)
class Setup:
    """What stays the same: this process, the timing, and JAX's `jax_enable_recoverability`.

    With `recoverable` the others go on when a process fails.
    """

    index: int
    count: int
    host: str
    timing: Timing
    recoverable: bool


@final
@dataclass(frozen=True)
class Observation:
    """What this process reads in one turn; empty where it reads nothing.

    Attributes:
        answered: whether the coordination service answered.
        service_error: why the coordination service is lost.
        numbers: heartbeat numbers; on process 0 of the others, elsewhere of process 0.
        reported: seconds without a heartbeat as process 0 has published them.
        failed: why processes have ended, by process.
        finished: on process 0, the processes that have ended without an exception.
        hosts: host names, by process.
        own_failure: the exception that has ended this program.
        ending: whether this program runs its shutdown hook, or its main thread has ended.
    """

    answered: bool = True
    service_error: str = ""
    numbers: Mapping[int, int] = field(default_factory=dict)
    reported: Mapping[int, float] = field(default_factory=dict)
    failed: Mapping[int, str] = field(default_factory=dict)
    finished: frozenset[int] = frozenset()
    hosts: Mapping[int, str] = field(default_factory=dict)
    own_failure: str = ""
    ending: bool = False


@final
@dataclass
class State:
    """What this process knows; `failed`, `hosts` and `service_error` as in `Observation`.

    `step` makes a new one, which nothing changes after that.

    Attributes:
        now: time of the last step.
        clock: seconds for which this process has observed the others: the time while it stood still
            itself says nothing about them. The times below are times of this clock.
        resumed: when this process last went on after it had stood still.
        number: number of its next heartbeat.
        heartbeats: last heartbeat by process.
        unresponsive: seconds without a heartbeat, by unresponsive process.
        lost: the processes that a process that has finished no longer waits for.
        finished: on process 0, when processes ended without an exception.
        deadline: when this process is ended unless it ends by itself.
        logged: what is logged once and has been.
        ended: whether this process has to be ended now, with status 1.
    """

    setup: Setup
    now: float
    clock: float = 0.0
    resumed: float = float("-inf")
    number: int = 0
    heartbeats: Mapping[int, Heartbeat] = field(default_factory=dict)
    unresponsive: Mapping[int, float] = field(default_factory=dict)
    lost: frozenset[int] = frozenset()
    failed: Mapping[int, str] = field(default_factory=dict)
    finished: Mapping[int, float] = field(default_factory=dict)
    hosts: Mapping[int, str] = field(default_factory=dict)
    service_error: str = ""
    deadline: float = float("inf")
    logged: frozenset[str] = frozenset()
    ended: bool = False

    @property
    def others_failed(self) -> Mapping[int, str]:
        """Why the other processes have ended."""
        return {i: reason for i, reason in self.failed.items() if i != self.setup.index}

    @property
    def cause_known(self) -> bool:
        """Whether it is known with which process the trouble began, if there is any."""
        reasons = self.others_failed.values()
        first = any(not is_consequence(reason) for reason in reasons)
        return bool(self.unresponsive) or bool(self.service_error) or first

    @property
    def must_leave(self) -> bool:
        """Whether a process that has finished has nothing to wait for any more."""
        # Process 0 waits for those that are left.
        process_0_lost = self.setup.index != 0 and bool(self.lost)
        return bool(self.others_failed) or bool(self.service_error) or process_0_lost

    @property
    def unconfirmed(self) -> frozenset[int]:
        """The processes without a heartbeat since this process stood still: they may have left."""
        late = (i for i, last in self.heartbeats.items() if last.time <= self.resumed)
        return frozenset(late)

    @property
    def pause(self) -> float:
        """Seconds until the next step."""
        left = self.deadline - self.clock
        return min(self.setup.timing.interval, left) if left > 0 else self.setup.timing.interval

    def name(self, process: int) -> str:
        """A process with its host, for messages."""
        return f"process {process} (host {self.hosts.get(process, '?')})"


@final
@dataclass(frozen=True)
class Log:
    """Write a message to standard error."""

    text: str


@final
@dataclass(frozen=True)
class Publish:
    """Set a key of the key-value store, in the folder of liveness."""

    key: str
    text: str


Action = Log | Publish


def step(state: State, observation: Observation, now: float) -> tuple[State, list[Action]]:
    """The state after an observation at time `now` (seconds), and the actions that are due."""
    state = dataclasses.replace(state, hosts={**state.hosts, **observation.hosts})
    actions: list[Action] = []
    _advance_clock(state, now, actions)
    # Each sets fields of the new state, by those that the ones before it have set.
    _check_failures(state, observation, actions)
    _check_heartbeats(state, observation, actions)
    _check_finished(state, observation, actions)
    _check_service(state, observation, actions)
    _publish(state, observation, actions)
    _check_deadline(state, observation, actions)
    return state, actions


def _advance_clock(state: State, now: float, actions: list[Action]) -> None:
    elapsed, longest = now - state.now, state.setup.timing.interval + _MAX_TURN
    state.now = now
    state.clock += min(elapsed, longest)
    if elapsed > longest:
        state.resumed = state.clock
    if elapsed >= max(longest, state.setup.timing.timeout):
        text = (
            f"the Python threads of this process did not run for {elapsed:.0f} s: a call into C "
            "held the GIL, or the process was stopped or swapped out"
        )
        actions.append(Log(text))


def _check_failures(state: State, observation: Observation, actions: list[Action]) -> None:
    """Which processes have failed, and how long this one may go on."""
    for process, reason in observation.failed.items():
        if process in state.failed or process == state.setup.index:
            continue
        if not state.setup.recoverable:
            grace = FAILURE_GRACE + is_consequence(reason) * state.setup.timing.give_up
            state.deadline = min(state.deadline, state.clock + grace)
        entry = f"failed: {reason}"
        few = sum(one.startswith("failed: ") for one in state.logged) < _MAX_FAILURES_LOGGED
        if few and entry not in state.logged:
            state.logged |= {entry}
            actions.append(Log(f"{state.name(process)} has ended: {reason}"))
    state.failed = {**state.failed, **observation.failed}


def _check_heartbeats(state: State, observation: Observation, actions: list[Action]) -> None:
    """Which processes are unresponsive, and which are alive again."""
    if observation.service_error:
        return  # no heartbeat can be read any more
    own, timing, before = state.setup.index, state.setup.timing, state.unresponsive
    state.heartbeats = receive(state.heartbeats, observation.numbers, state.clock)
    excluded = state.failed if own == 0 else ()
    unresponsive = overdue(state.heartbeats, excluded, state.clock, timing.timeout)
    state.lost = frozenset(overdue(state.heartbeats, excluded, state.clock, timing.give_up))
    if own != 0:
        reported = observation.reported if observation.answered else before
        unresponsive |= {i: late for i, late in reported.items() if i not in (0, own)}
        if observation.answered:
            # Its service answers, so its host and the process are there: it may go on.
            state.lost = frozenset()
    state.unresponsive = unresponsive
    for process, seconds in unresponsive.items():
        # JAX may have ended process 0 because of another one that is unresponsive.
        if process not in before and (process != 0 or len(unresponsive) == 1):
            actions.append(Log(_unresponsive_text(state, process, seconds, observation.answered)))
    for process, seconds in before.items():
        if process not in unresponsive and process not in state.failed:
            text = f"{state.name(process)} sends heartbeats again, after {seconds:.0f} s"
            actions.append(Log(f"{text}: it is alive"))


def _unresponsive_text(state: State, process: int, seconds: float, answered: bool) -> str:
    holder = ", which holds the coordination service," if process == 0 else ""
    text = f"{state.name(process)}{holder} has sent no heartbeat for {seconds:.0f} s"
    if process == 0 and answered:
        return f"{text}; its service answers, so a call into C holds the GIL there, or it is stuck"
    end = "" if state.setup.recoverable else "; then, if this lasts, JAX ends all processes"
    holds = "a call into C holds the GIL there"
    return f"{text}: {holds}, or it was killed, stands still or cannot be reached{end}"


def _check_finished(state: State, observation: Observation, actions: list[Action]) -> None:
    """On process 0: log once which processes have finished, as this one may wait for them."""
    finished = {**dict.fromkeys(observation.finished - {0}, state.clock), **state.finished}
    state.finished = {i: since for i, since in finished.items() if i not in state.failed}
    waited = max((state.clock - since for since in state.finished.values()), default=0.0)
    if waited >= QUIET_WAIT and not observation.ending and "finished" not in state.logged:
        state.logged |= {"finished"}
        text = (
            f"{name_processes(sorted(state.finished))} ended {waited:.0f} s ago without an "
            "exception (`sys.exit`?) and waits at the shutdown barrier. If this process is in a "
            "collective with it, that collective will not complete"
        )
        actions.append(Log(text))


def _check_service(state: State, observation: Observation, actions: list[Action]) -> None:
    """Whether the coordination service is lost, with which this process cannot go on."""
    if not observation.service_error or state.service_error:
        return
    reason = " ".join(observation.service_error.split())[:_MAX_REASON_LENGTH]
    if not state.cause_known:
        holder = f"{state.name(0)}, which holds the coordination service,"
        actions.append(Log(f"{holder} is lost: {reason}"))
    state.service_error = reason
    state.deadline = min(state.deadline, state.clock + _SERVICE_GRACE)


def _publish(state: State, observation: Observation, actions: list[Action]) -> None:
    """The heartbeat of this process, with what process 0 knows, and its own failure."""
    own, number = state.setup.index, state.number
    # Not one more message to a service that does not answer, but the first heartbeat.
    if state.service_error or not (observation.answered or number == 0):
        return
    if own == 0:
        named = {i: state.hosts.get(i, "?") for i in (*state.unresponsive, *state.failed)}
        status = Status(number, named | {0: state.setup.host}, state.unresponsive, state.failed)
        actions.append(Publish("status", encode_status(status)))
    else:
        actions.append(Publish(f"heartbeats/{own}", str(number)))
    # At once: a logger that is closed at the exit may take its time.
    if observation.own_failure and "own failure" not in state.logged:
        state.logged |= {"own failure"}
        actions.append(Publish(f"ends/{own}", observation.own_failure))
    state.number = number + 1


def _check_deadline(state: State, observation: Observation, actions: list[Action]) -> None:
    """Whether this process had to end by itself and did not."""
    if state.ended or observation.ending or state.clock < state.deadline:
        return
    state.ended = True
    text = "this process cannot continue without the others and exits now, with status 1"
    actions.append(Log(text))
    if not state.service_error:
        reason = "it could not continue, as another process had failed"
        actions.append(Publish(f"ends/{state.setup.index}", reason))
