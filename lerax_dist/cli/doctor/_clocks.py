"""Check: whether the wall clocks of the hosts agree."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import final

from lerax_dist.cli.doctor._check import AbstractCheck, Context, Finding, Shown, named

# Messages to a process and back.
_ROUNDS = 10
# Seconds. Clocks that NTP synchronizes agree within milliseconds.
_MAX_SKEW = 1.0


@final
@dataclass(frozen=True)
class Clock:
    """How far a clock is ahead of process 0's, in seconds."""

    offset: float  # best estimate
    bound: float  # the truth is at most this far from it


@final
class ClocksCheck(AbstractCheck[Clock]):
    """The wall clock of each process against that of process 0."""

    key = "clocks"
    fact = Clock

    def collect(self, context: Context) -> Clock:
        rounds: list[list[tuple[float, float, float]]] = []
        for _ in range(_ROUNDS):
            sent = time.time()
            context.broadcast(None, "a request for the time")
            times = context.gather(time.time(), "the time")
            if times is not None:
                received = time.time()
                rounds.append([(sent, there, received) for there in times])
        clocks = [asdict(compare_clocks(each)) for each in zip(*rounds, strict=True)]
        clocks[:1] = [asdict(Clock(0.0, 0.0))]
        return Clock(**context.broadcast(clocks, "clock offsets")[context.group.process_index])

    def judge(self, facts: Sequence[Clock], hosts: Sequence[str]) -> Iterator[Finding]:
        for index, clock in enumerate(facts):
            if abs(clock.offset) - clock.bound > _MAX_SKEW:
                yield Finding(
                    "problem",
                    f"clock skew of {named([index], hosts)} is {clock.offset:+.1f} s "
                    f"against process 0 (±{clock.bound:.2g} s)",
                    "synchronize the clock of that host (chrony or ntpd); until then times of the "
                    "two hosts cannot be compared, and W&B may reject certificates",
                )

    def show(self, facts: Sequence[Clock]) -> Iterator[Shown]:
        if len(facts) > 1:
            yield "clock", ["reference", *map(_format, facts[1:])]


def compare_clocks(rounds: Sequence[tuple[float, float, float]]) -> Clock:
    """How far another process's clock is ahead, by rounds `(sent, there, received)` in seconds.

    It reads its clock at `there`, after this process has sent a message at `sent` and before the
    answer is back at `received`, both by this process's clock. So each round bounds the offset:
    `there - received <= offset <= there - sent` (Cristian), and all rounds hold at once.

    Returns:
        The middle of the interval that all rounds allow, and half its width. If a clock was set
        meanwhile the interval is empty; then the bound covers the contradiction.
    """
    lower = max(there - received for _, there, received in rounds)
    upper = min(there - sent for sent, there, _ in rounds)
    return Clock((lower + upper) / 2, abs(upper - lower) / 2)


def _format(clock: Clock) -> str:
    if max(abs(clock.offset), clock.bound) < 1.0:
        return f"{clock.offset * 1e3:+.1f} ms ±{clock.bound * 1e3:.1f}"
    return f"{clock.offset:+.2f} s ±{clock.bound:.2f}"
