"""Rows of process 0 wait for the shares of the other processes, in `scope="process"`. No thread."""

from collections import deque
from collections.abc import Sequence
from math import inf
from typing import Any, final

from lerax_dist._failures import Failures
from lerax_dist.host._assemble import Share
from lerax_dist.host._parcel import Theirs

# How long a process may be silent while a row of process 0 waits for its share.
PATIENCE = 300.0
# Shares of a process that is ahead of process 0, in bytes; with more it has to wait.
_MOST_AHEAD = 4 << 20
# What a share takes beside its numbers.
_SHARE = 500


@final
class Gathering:
    """What waits on process 0 until every process has sent its share.

    Shares are matched in the order in which each process has sent them. A process that has sent
    nothing for five minutes while it is waited for is left out from then on, and so is one that has
    ended. One that is slower is waited for: the rows are those of all.

    Args:
        hosts: host of every process.
        failures: where to keep what goes wrong.
    """

    def __init__(self, hosts: list[str], failures: Failures) -> None:
        self._hosts = hosts
        self._failures = failures
        # What waits, and since when.
        self._due: deque[tuple[Any, float]] = deque()
        self._theirs: dict[int, deque[Theirs]] = {p: deque() for p in range(1, len(hosts))}
        self._ahead = dict.fromkeys(self._theirs, 0)
        # Since when each is waited for, if it is: from its last share on, and its last message.
        self._heard = dict.fromkeys(self._theirs, -inf)
        self._ended: set[int] = set()

    @property
    def waits(self) -> bool:
        """Whether something waits here."""
        return bool(self._due)

    def put(self, items: Sequence[Any], now: float) -> None:
        """Shares of process 0, or whatever must not overtake them.

        Args:
            items: in their order.
            now: seconds of a monotonic clock.
        """
        self._due.extend((item, now) for item in items)

    def arrive(self, process: int, shares: list[Theirs], now: float) -> None:
        """Shares of another process.

        Args:
            process: its index.
            shares: in their order.
            now: seconds of a monotonic clock.
        """
        if process in self._ended:
            return
        self._heard[process] = now
        self._theirs[process].extend(shares)
        self._ahead[process] += sum(_size(share) for share in shares)

    def is_ahead(self, process: int) -> bool:
        """Whether so many shares of a process wait that it has to wait, too. For any thread."""
        return self._ahead[process] > _MOST_AHEAD

    def end(self, process: int, state: str) -> None:
        """Another process has closed its run; what it has sent still counts."""
        self._ended.add(process)
        if state == "failed":
            self._failures.record(
                self._who(process), "ended its run as failed; rows go on without it"
            )

    def ready(self, now: float, deadline: float | None = None) -> list[Any]:
        """What need not wait any longer, merged.

        Args:
            now: seconds of a monotonic clock.
            deadline: when nobody is waited for any longer, by that clock; `None` for never.
        """
        if not self._theirs:
            # Nobody else has shares.
            ready = [item for item, _ in self._due]
            self._due.clear()
            return ready
        ready = []
        while self._due:
            item, since = self._due[0]
            if isinstance(item, Share):
                missing = [p for p in self._theirs if not self._theirs[p] and p not in self._ended]
                for process in missing:
                    silent = now - max(since, self._heard[process])
                    if deadline is not None and now >= deadline:
                        self._leave_behind(process, item.number)
                    elif silent >= PATIENCE:
                        self._leave_out(process, item.number, silent)
                if not self._ended.issuperset(missing):
                    break
                item = self._merged(item, now)
            self._due.popleft()
            ready.append(item)
        return ready

    def _leave_out(self, process: int, number: int, silent: float) -> None:
        self._ended.add(process)
        self._failures.record(
            self._who(process),
            f"has sent nothing in {silent:.0f} s, while row {number} waits for it; rows go on "
            "without it. It died, hangs, or logs less often than process 0.",
        )

    def _leave_behind(self, process: int, number: int) -> None:
        self._ended.add(process)
        self._failures.record(
            self._who(process),
            f"had not sent its share of row {number} when the run was closed and there was no more "
            "time to wait; the rows from there on are without it. It is slower than process 0: "
            "close with a longer `timeout`.",
        )

    def _merged(self, share: Share, now: float) -> Share:
        found = [share.totals]
        for process, queue in self._theirs.items():
            while queue and queue[0].number < share.number:
                self._misfit(process, f"row {queue[0].number}", f"process 0 is at {share.number}")
                self._taken(process, now)
            if not queue or queue[0].number > share.number:
                if queue:
                    self._misfit(process, f"row {queue[0].number}", f"it is {share.number} there")
                continue
            theirs = self._taken(process, now)
            if theirs.names != share.format.names:
                self._misfit(process, *_difference(share.format.names, theirs.names))
                continue
            found.append(theirs.totals)
        if len(found) == 1:
            return share
        try:
            return share._replace(totals=share.format.combine(found))
        except Exception as error:
            self._failures.record("writer", f"shares of a row do not fit ({error!r})", error)
            return share

    def _taken(self, process: int, now: float) -> Theirs:
        # While its shares were here nobody may have listened to it, see `is_ahead`.
        self._heard[process] = now
        share = self._theirs[process].popleft()
        self._ahead[process] -= _size(share)
        return share

    def _misfit(self, process: int, theirs: str, ours: str) -> None:
        self._failures.record(
            self._who(process),
            f"sends {theirs}, but {ours}: its share is left out of the row. Log the same metrics "
            "on the same iterations on every process.",
            kind="misfit",
        )

    def _who(self, process: int) -> str:
        return f"process {process} ({self._hosts[process]})"


def _size(share: Theirs) -> int:
    return _SHARE + 8 * len(share.names)


def _difference(ours: tuple[str, ...], theirs: tuple[str, ...]) -> tuple[str, str]:
    more = [name for name in theirs if name not in ours]
    less = [name for name in ours if name not in theirs]
    if not more and not less:
        return "its metrics in another order", "process 0 has " + ", ".join(ours)
    sends = "the metrics " + ", ".join(more) if more else "less"
    lacks = "process 0 has " + ", ".join(less) if less else "process 0 has none of these"
    return sends, lacks
