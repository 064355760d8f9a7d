"""The one thread between the queue and the journal: orders rows, finishes them, appends them."""

import threading
import time
from queue import Empty, SimpleQueue
from typing import Any, final

import numpy as np

from lerax_dist.host import _order, _rates
from lerax_dist.host._failures import Failures
from lerax_dist.host._film import FilmPart
from lerax_dist.host._journal import Journal
from lerax_dist.host._record import Event, Record, Row
from lerax_dist.host._sink import HostRow, Packet, Start
from lerax_dist.host._studio import Studio

# How long a row may wait for one before it that has not come.
_PATIENCE = 1.0
_MOST_AT_ONCE = 1024


@final
class Token:
    """A place in the queue: `reached` is set once all before it is in the journal.

    Attributes:
        last: whether the writer ends here.
        sync: whether the journal is put on the disk here.
        reached: set when it is.
        end: number of the record after the last one before it.
    """

    def __init__(self, *, last: bool = False, sync: bool = False) -> None:
        self.last = last
        self.sync = sync
        self.reached = threading.Event()
        self.end = 0


@final
class Writer:
    """Empties the queue into the journal until it is stopped."""

    def __init__(
        self,
        queue: SimpleQueue,
        journal: Journal,
        failures: Failures,
        studio: Studio,
        *,
        resumes: bool,
    ) -> None:
        """
        Args:
            queue: what to empty.
            journal: where to.
            failures: where to keep what goes wrong.
            studio: where clips go, and who hears of the rows that they belong to.
            resumes: whether the journal holds rows of an earlier process, which the first row
                here supersedes from its own step on.
        """
        self._queue = queue
        self._resumes = resumes
        self._journal = journal
        self._failures = failures
        self._studio = studio
        self._order = _order.Order()
        self._held_since = 0.0
        self._rates = _rates.Rates()
        self._parts: dict[int, dict[int, Packet]] = {}
        self._thread = threading.Thread(target=self._run, name="lerax_dist-writer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def flush(self) -> Token:
        """Ask for all that is queued to be written; wait for the token's `reached`."""
        token = Token()
        self._queue.put(token)
        return token

    def stop(self) -> Token:
        """Like `flush`, and the thread ends there."""
        token = Token(last=True)
        self._queue.put(token)
        return token

    def _run(self) -> None:
        while True:
            records: list[Record] = []
            tokens: list[Token] = []
            for item in self._take():
                if isinstance(item, Token):
                    tokens.append(item)
                    records += self._release()
                else:
                    records += self._process(item)
            if self._overdue():
                records += self._release()
            if records:
                self._append(records)
            if any(token.sync for token in tokens):
                self._journal.sync()
            for token in tokens:
                token.end = self._journal.end
                token.reached.set()
            if any(token.last for token in tokens):
                return

    def _take(self) -> list[Any]:
        """What is queued by now; waits for at least one thing, unless rows are held."""
        items = []
        try:
            items.append(self._queue.get(timeout=_PATIENCE if self._order.held else None))
            while len(items) < _MOST_AT_ONCE:
                items.append(self._queue.get_nowait())
        except Empty:
            pass
        return items

    def _append(self, records: list[Record]) -> None:
        if self._resumes:
            records = self._resumed(records)
        try:
            self._journal.append(records)
        except Exception as error:
            self._failures.keep("journal", f"rows could not be written ({error!r})", error)

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

    def _process(self, item: Any) -> list[Record]:
        try:
            match item:
                case Packet():
                    return list(self._packet(item))
                case HostRow():
                    return [self._host_row(item)]
                case Start():
                    return self._start(item)
                case FilmPart():
                    self._studio.part(item)
                    return []
                case Event(kind="video"):
                    # It belongs to a row that is long written, and must not hurry later ones.
                    return [item]
                case _:
                    # Nothing that is queued before an event may come after it.
                    return [*self._release(), item]
        except Exception as error:
            self._failures.keep("writer", f"a row could not be read ({error!r})", error)
            return []

    def _start(self, item: Start) -> list[Record]:
        self._order, ready = _order.restart(self._order, item.stride)
        records: list[Record] = [*self._finish(ready)]
        self._studio.restart()
        self._rates = _rates.start(item.clock, item.iteration)
        if item.hparams:
            records.append(Event(item.time, "hparams", {"hparams": item.hparams}))
        body = {
            "iteration": item.iteration,
            "total_timesteps": item.total_timesteps,
            "total_iterations": item.total_iterations,
        }
        return [*records, Event(item.time, "start", body)]

    def _packet(self, packet: Packet) -> list[Row]:
        number = int(packet.payload[0])
        parts = [packet]
        if packet.parts > 1:
            waiting = self._parts.setdefault(number, {})
            waiting[packet.part] = packet
            if len(waiting) < packet.parts:
                return []
            del self._parts[number]
            parts = [waiting[part] for part in range(packet.parts)]
        if self._order.due is None:
            self._order = self._order._replace(stride=packet.stride)
        held_before = bool(self._order.held)
        self._order, ready = _order.arrive(self._order, number, parts)
        if self._order.held and not held_before:
            self._held_since = time.monotonic()
        return self._finish(ready)

    def _overdue(self) -> bool:
        return bool(self._order.held) and time.monotonic() - self._held_since > _PATIENCE

    def _release(self) -> list[Row]:
        self._order, ready = _order.release(self._order)
        return self._finish(ready)

    def _finish(self, ready: list[list[Packet]]) -> list[Row]:
        rows = []
        for parts in ready:
            try:
                rows.append(self._row(parts))
            except Exception as error:
                self._failures.keep("writer", f"a row could not be read ({error!r})", error)
        return rows

    def _row(self, parts: list[Packet]) -> Row:
        first = parts[0]
        iteration = int(first.payload[0])
        body = np.concatenate([part.payload[1:] for part in parts])
        step, metrics = first.unpack(body)
        self._rates, times = _rates.advance(self._rates, first.clock, step or 0, iteration)
        self._studio.row(iteration, step or 0)
        return self._checked(Row(first.time, step or 0, iteration, metrics | times))

    def _host_row(self, item: HostRow) -> Row:
        values: dict[str, Any] = dict.fromkeys(item.names)
        values |= item.numbers
        for names, array in item.arrays:
            try:
                # Waits for the device that computes it, here and not on the training thread.
                values |= zip(names, np.asarray(array).astype(np.float64), strict=True)
            except Exception as error:
                missing = ", ".join(names)
                self._failures.keep("writer", f"{missing} could not be read ({error!r})", error)
        metrics = {name: np.float64(value) for name, value in values.items() if value is not None}
        return self._checked(Row(item.time, item.step, None, metrics))

    def _checked(self, row: Row) -> Row:
        values = np.fromiter(row.metrics.values(), np.float64, len(row.metrics))
        if not np.isfinite(values).all():
            name, value = next((k, v) for k, v in row.metrics.items() if not np.isfinite(v))
            self._failures.keep(
                "metrics",
                f"{name!r} is {value} at step {row.step}, the first value that is not finite",
                kind="not finite",
            )
        return row
