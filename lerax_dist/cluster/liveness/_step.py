"""What this process concludes about the others, and when it has to end. Pure.

`step(state, observation, now)` returns the next state and the actions that are due. What this
process concludes about each other process, from its heartbeats alone:

    alive ---- no heartbeat for `timeout` ----> unresponsive ---- for `give_up` ----> lost
      ^                                              |                                 |
      +-------------------- its heartbeat advances: taken back, and logged ------------+

Process 0 hears all and publishes who is unresponsive; the others hear it, and believe it. For them
process 0 is lost only while its coordination service does not answer either.

What another process says of itself is final: it finished (no exception) or it failed (a reason).

What becomes of this process:

    running ---- another process failed, or the service is lost ----> ending, until `deadline`
                                                                        |
                          End, with status 1 <---- deadline passed -----+
                                                                        |
                         never from here <---- it ends by itself -------+

No heartbeat is never a reason to end: JAX decides who is dead, and ends all processes itself. Only
`step` sets `deadline`; nothing clears it; a process that ends by itself in time is left alone.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

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
_MAX_PROCESSES_NAMED = 16
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
        leaving: whether this program runs its shutdown hook.
        ending: whether it does, or its main thread has ended.
    """

    answered: bool = True
    service_error: str = ""
    numbers: Mapping[int, int] = field(default_factory=dict)
    reported: Mapping[int, float] = field(default_factory=dict)
    failed: Mapping[int, str] = field(default_factory=dict)
    finished: frozenset[int] = frozenset()
    hosts: Mapping[int, str] = field(default_factory=dict)
    own_failure: str = ""
    leaving: bool = False
    ending: bool = False


@final
@dataclass(frozen=True)
class State:
    """What this process knows; `failed`, `hosts` and `service_error` as in `Observation`.

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
        ended: whether `End` was due.
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


@final
@dataclass(frozen=True)
class End:
    """End this process at once, with status 1."""


Action = Log | Publish | End


def step(state: State, observation: Observation, now: float) -> tuple[State, list[Action]]:
    """The state after an observation at time `now` (seconds), and the actions that are due."""
    state = dataclasses.replace(state, hosts={**state.hosts, **observation.hosts})
    state, actions = _advance_clock(state, now)
    for rule in _RULES:
        state, due = rule(state, observation)
        actions += due
    return state, actions


def _advance_clock(state: State, now: float) -> tuple[State, list[Action]]:
    elapsed, longest = now - state.now, state.setup.timing.interval + _MAX_TURN
    clock = state.clock + min(elapsed, longest)
    resumed = clock if elapsed > longest else state.resumed
    state = dataclasses.replace(state, now=now, clock=clock, resumed=resumed)
    if elapsed < max(longest, state.setup.timing.timeout):
        return state, []
    text = (
        f"the Python threads of this process did not run for {elapsed:.0f} s: a call into C held "
        "the GIL, or the process was stopped or swapped out"
    )
    return state, [Log(text)]


def _check_heartbeats(state: State, observation: Observation) -> tuple[State, list[Action]]:
    """Which processes are unresponsive, and which are heard again."""
    if observation.service_error:
        return state, []  # no heartbeat can be read any more
    own, timing = state.setup.index, state.setup.timing
    heartbeats = receive(state.heartbeats, observation.numbers, state.clock)
    failed = {**state.failed, **observation.failed}
    excluded = failed if own == 0 else ()
    unresponsive = overdue(heartbeats, excluded, state.clock, timing.timeout)
    lost = frozenset(overdue(heartbeats, excluded, state.clock, timing.give_up))
    if own != 0:
        reported = observation.reported if observation.answered else state.unresponsive
        reported = {i: late for i, late in reported.items() if i not in (0, own)}
        unresponsive |= reported
        # Its service answers, so its host and the process are there: it may go on.
        lost = frozenset() if observation.answered else lost
    actions: list[Action] = []
    for process, seconds in unresponsive.items():
        # JAX may have ended process 0 because of another one that is unresponsive.
        if process not in state.unresponsive and (process != 0 or len(unresponsive) == 1):
            actions.append(Log(_unresponsive_text(state, process, seconds, observation.answered)))
    for process, seconds in state.unresponsive.items():
        if process not in unresponsive and process not in failed:
            text = f"{state.name(process)} sends heartbeats again, after {seconds:.0f} s"
            actions.append(Log(text))
    found = {"heartbeats": heartbeats, "unresponsive": unresponsive, "lost": lost}
    return dataclasses.replace(state, **found), actions


def _unresponsive_text(state: State, process: int, seconds: float, answered: bool) -> str:
    holder = ", which holds the coordination service," if process == 0 else ""
    text = f"{state.name(process)}{holder} has sent no heartbeat for {seconds:.0f} s"
    if process == 0 and answered:
        return f"{text}; its service answers, so a call into C holds the GIL there, or it is stuck"
    end = "" if state.setup.recoverable else ". If this lasts, JAX ends all processes"
    return f"{text}: it was killed, is stuck, or cannot be reached{end}"


def _check_failures(state: State, observation: Observation) -> tuple[State, list[Action]]:
    """Which processes have failed, and how long this one may go on."""
    actions: list[Action] = []
    logged, deadline = state.logged, state.deadline
    for process, reason in observation.failed.items():
        if process in state.failed or process == state.setup.index:
            continue
        if not state.setup.recoverable:
            grace = FAILURE_GRACE + is_consequence(reason) * state.setup.timing.give_up
            deadline = min(deadline, state.clock + grace)
        entry = f"failed: {reason}"
        few = sum(one.startswith("failed: ") for one in logged) < _MAX_FAILURES_LOGGED
        if few and entry not in logged:
            logged |= {entry}
            actions.append(Log(f"{state.name(process)} has ended: {reason}"))
    failed = {**state.failed, **observation.failed}
    return dataclasses.replace(state, failed=failed, logged=logged, deadline=deadline), actions


def _check_finished(state: State, observation: Observation) -> tuple[State, list[Action]]:
    """On process 0: log once which processes have finished, as this one may wait for them."""
    new = {i: state.clock for i in observation.finished if i not in state.finished and i != 0}
    finished = {i: t for i, t in {**state.finished, **new}.items() if i not in state.failed}
    waited = max((state.clock - since for since in finished.values()), default=0.0)
    logged = state.logged
    actions: list[Action] = []
    if waited >= QUIET_WAIT and not observation.leaving and "finished" not in logged:
        logged |= {"finished"}
        text = (
            f"{name_all(sorted(finished))} ended {waited:.0f} s ago without an exception "
            "(`sys.exit`?) and waits at the shutdown barrier. If this process is in a collective "
            "with it, that collective will not complete"
        )
        actions.append(Log(text))
    return dataclasses.replace(state, finished=finished, logged=logged), actions


def _check_service(state: State, observation: Observation) -> tuple[State, list[Action]]:
    """Whether the coordination service is lost, with which this process cannot go on."""
    if not observation.service_error or state.service_error:
        return state, []
    reason = " ".join(observation.service_error.split())[:_MAX_REASON_LENGTH]
    text = f"{state.name(0)}, which holds the coordination service, is lost: {reason}"
    actions: list[Action] = [] if state.cause_known else [Log(text)]
    deadline = min(state.deadline, state.clock + _SERVICE_GRACE)
    return dataclasses.replace(state, service_error=reason, deadline=deadline), actions


def _publish(state: State, observation: Observation) -> tuple[State, list[Action]]:
    """The heartbeat of this process, with what process 0 knows, and its own failure."""
    own, number, logged = state.setup.index, state.number, state.logged
    # Not one more message to a service that does not answer, but the first heartbeat.
    if state.service_error or not (observation.answered or number == 0):
        return state, []
    actions: list[Action] = []
    if own == 0:
        named = {i: state.hosts.get(i, "?") for i in (*state.unresponsive, *state.failed)}
        status = Status(number, named | {0: state.setup.host}, state.unresponsive, state.failed)
        actions.append(Publish("status", encode_status(status)))
    else:
        actions.append(Publish(f"heartbeats/{own}", str(number)))
    # At once: a logger that is closed at the exit may take its time.
    if observation.own_failure and "own failure" not in logged:
        logged |= {"own failure"}
        actions.append(Publish(f"ends/{own}", observation.own_failure))
    return dataclasses.replace(state, number=number + 1, logged=logged), actions


def _end(state: State, observation: Observation) -> tuple[State, list[Action]]:
    """End this process if it had to end by itself and did not."""
    if state.ended or observation.ending or state.clock < state.deadline:
        return state, []
    actions: list[Action] = [
        Log("this process cannot continue without the others and exits now, with status 1")
    ]
    if not state.service_error:
        reason = "it could not continue, as another process had failed"
        actions.append(Publish(f"ends/{state.setup.index}", reason))
    return dataclasses.replace(state, ended=True), [*actions, End()]


_RULES = (_check_heartbeats, _check_failures, _check_finished, _check_service, _publish, _end)


def name_all(processes: Sequence[int]) -> str:
    """Processes by their indices, the first of many."""
    plural = "process" if len(processes) == 1 else "processes"
    return f"{plural} {', '.join(map(str, processes[:_MAX_PROCESSES_NAMED]))}"
