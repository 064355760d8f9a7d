"""The one thread between the queue and the journal: orders rows, finishes them, appends them."""

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, final

from lerax_dist._failures import Failures
from lerax_dist.host._assemble import PATIENCE, Assembler, Share, together
from lerax_dist.host._clips import ClipPart, ClipRenderer
from lerax_dist.host._finish import Finisher
from lerax_dist.host._gather import Gathering
from lerax_dist.host._post import Arrival
from lerax_dist.host._queue import RowQueue
from lerax_dist.host._sink import HostRow, Start
from lerax_dist.host._token import Token
from lerax_dist.journal._journal import Journal
from lerax_dist.journal._record import Event, Record, Row

# How long a record may be with the operating system only, which a machine that breaks down loses.
_SYNC_AFTER = 0.5


@final
class Writer:
    """Empties the queue into the journal until it is stopped."""

    def __init__(
        self,
        queue: RowQueue,
        journal: Journal,
        failures: Failures,
        clips: ClipRenderer,
        *,
        resumes: bool,
        gathering: Gathering,
        gauges: Callable[[], dict[str, Any]],
    ) -> None:
        """
        Args:
            queue: what to empty.
            journal: where to.
            failures: where to keep what goes wrong.
            clips: renders clips, given the steps of their rows.
            resumes: whether the journal holds rows of an earlier process, which the first row
                here supersedes from its own step on.
            gathering: where rows wait for the shares of other processes, if there are any.
            gauges: what the logger says about itself in a row.
        """
        self._queue = queue
        self._resumes = resumes
        self._journal = journal
        self._failures = failures
        self._clips = clips
        self._start_step = None if resumes else 0
        self._gathering = gathering
        self._gauges = gauges
        self._assembler = Assembler(failures)
        self._finisher = Finisher(failures)
        self._deadline: float | None = None
        self._sync_at: float | None = None
        self._over = False
        self._thread = threading.Thread(target=self._run, name="lerax_dist-writer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def flush(self, *, sync: bool = False) -> Token:
        """Ask for all that is queued to be written; wait for the token's `reached`.

        Args:
            sync: whether the journal is to be put on the disk as well.
        """
        token = Token(sync=sync)
        self._queue.put(token)
        return token

    def stop(self, patience: float) -> Token:
        """Like `flush`, and the thread ends there.

        Args:
            patience: how long rows may still wait for other processes, in seconds.
        """
        token = Token(last=True, deadline=time.monotonic() + patience)
        self._queue.put(token)
        return token

    def _run(self) -> None:
        while True:
            for item, size in together(self._queue.take(self._longest_wait())):
                self._put(item, size)
            if self._assembler.overdue():
                self._wait_for_others(self._assembler.release())
            now = time.monotonic()
            self._write(self._gathering.ready(now, self._deadline))
            if self._over:
                return
            if self._sync_at is not None and self._sync_at <= now:
                self._sync()

    def _longest_wait(self) -> float | None:
        """Seconds until something is due if nothing comes; `None` if nothing is."""
        waits = [PATIENCE] if self._assembler.holds or self._gathering.waits else []
        if self._sync_at is not None:
            waits.append(max(self._sync_at - time.monotonic(), 0.0))
        return min(waits, default=None)

    def _sync(self) -> None:
        self._journal.sync()
        self._sync_at = None

    def _put(self, item: Any, size: int) -> None:
        """Take in what was queued, each in its place among the rows."""
        try:
            match item:
                case list():
                    self._wait_for_others(self._assembler.packets(item))
                case HostRow():
                    self._wait_for_others([self._assembler.host_row(item, size)])
                case Arrival(process=process, shares=shares, state=state):
                    self._gathering.arrive(process, shares, time.monotonic())
                    if state is not None:
                        self._gathering.end(process, state)
                case ClipPart() | Event(kind="video"):
                    # They belong to rows of their own, and must not hurry the next.
                    self._wait_for_others([item])
                case Start():
                    self._wait_for_others([*self._assembler.restart(item.stride), item])
                case Token(at_once=True):
                    # The job is about to end: what is there goes to the disk at once.
                    self._wait_for_others(self._assembler.release())
                    self._write([*self._gathering.ready(time.monotonic(), self._deadline), item])
                case _:
                    # Nothing that is queued before it may come after it.
                    self._wait_for_others([*self._assembler.release(), item])
                    if isinstance(item, Token) and item.last:
                        self._deadline = item.deadline
        except Exception as error:
            self._failures.record("writer", f"a row could not be read ({error!r})", error)
            self._queue.done(size)

    def _wait_for_others(self, items: list[Any]) -> None:
        self._gathering.put(items, time.monotonic())

    def _write(self, items: list[Any]) -> None:
        """Append what items say to the journal, and tell who waits for that."""
        if self._over:
            # The journal may be closed by now.
            return
        records: list[Record] = []
        for _, group in itertools.groupby(items, key=_alike):
            records += self._records(list(group))
        if records:
            self._append(records)
        self._queue.done(sum(item.size for item in items if isinstance(item, Share)))
        tokens = [item for item in items if isinstance(item, Token)]
        if any(token.sync for token in tokens):
            self._sync()
        for token in tokens:
            token.end = self._journal.end
            token.start_step = self._start_step
            self._over |= token.last
            token.reached.set()

    def _append(self, records: list[Record]) -> None:
        if self._resumes:
            records = self._resumed(records)
        self._start_step = _after(self._start_step, records)
        if self._sync_at is None:
            self._sync_at = time.monotonic() + _SYNC_AFTER
        try:
            self._journal.append(records)
        except Exception as error:
            self._failures.record("journal", f"rows could not be written ({error!r})", error)

    def _resumed(self, records: list[Record]) -> list[Record]:
        """The records with a marker before the first row, unless the user has set one."""
        for place, record in enumerate(records):
            if isinstance(record, Row):
                marker = Event(record.time, "resume", {"start_step": record.step})
                records = [*records[:place], marker, *records[place:]]
            elif record.kind != "resume":
                continue
            self._resumes = False
            break
        return records

    def _records(self, items: list[Any]) -> Sequence[Record]:
        """What to write of items that are alike."""
        try:
            match items[0]:
                case Token():
                    return []
                case ClipPart():
                    for part in items:
                        self._clips.part(part)
                    return []
                case Share(format=row_format):
                    finished = row_format.finish([share.totals for share in items])
                    return [self._row(row) for row in self._finisher.rows(items, finished)]
                case Start():
                    return [record for item in items for record in self._start(item)]
            return items
        except Exception as error:
            if len(items) > 1:
                return [record for item in items for record in self._records([item])]
            self._failures.record("writer", f"a row could not be read ({error!r})", error)
            return []

    def _start(self, item: Start) -> list[Record]:
        self._clips.restart()
        records: list[Record] = []
        self._finisher.start(item.clock, item.iteration)
        if item.hparams:
            records.append(Event(item.time, "hparams", {"hparams": item.hparams}))
        body = {
            "iteration": item.iteration,
            "total_timesteps": item.total_timesteps,
            "total_iterations": item.total_iterations,
        }
        return [*records, Event(item.time, "start", body)]

    def _row(self, row: Row) -> Row:
        """A row with what the logger says about itself, once in a while."""
        self._clips.row(row.iteration, row.step)
        gauges = self._gauges()
        if not gauges:
            return row
        return Row.of(row.time, row.step, row.iteration, row.metrics | gauges)


def _alike(item: Any) -> Any:
    """What items have in common that are dealt with at once."""
    return item.format if isinstance(item, Share) else type(item)


def _after(start_step: int | None, records: Sequence[Record]) -> int | None:
    """Where a run would go on after these records."""
    for record in records:
        if isinstance(record, Row):
            start_step = max(start_step or 0, record.step + 1)
        elif record.kind == "resume":
            start_step = record.body["start_step"]
    return start_step
