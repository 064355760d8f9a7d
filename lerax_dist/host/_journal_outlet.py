"""The outlet of the process that writes: rows are merged, finished and appended to the journal,
from which every backend is fed."""

import functools
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any, final

from lerax_dist._failures import Failures
from lerax_dist.cluster import Mailbox
from lerax_dist.host._backend_worker import BackendWorker, labels
from lerax_dist.host._clips import ClipPart, ClipRenderer
from lerax_dist.host._closing_wait import ClosingWait
from lerax_dist.host._compare import Comparer, Sample
from lerax_dist.host._peers import PeerMerger, PeerReceiver, PeerRows
from lerax_dist.host._queue import RowQueue, TrainingStart
from lerax_dist.host._rewind import Position, Rewinder, resume_at
from lerax_dist.host._rows import PartialRow, RowFinisher
from lerax_dist.host._self_metrics import SelfMetrics
from lerax_dist.host._steps import RowSteps
from lerax_dist.host._worker import AbstractOutlet, FlushMarker
from lerax_dist.journal import Event, Heartbeat, Identity, Journal, Record, Row

# How long a record may be with the operating system only, where a power failure loses it.
_SYNC_AFTER = 0.5
# How often the journal is looked for where it belongs: while rows come, and at all, in seconds.
_LOOK_INTERVAL = 0.5
_IDLE_INTERVAL = 1.0
# How long `state` waits for a bucket, in seconds; a checkpoint must not wait for one that is gone.
_UPLOAD_TIMEOUT = 5.0
# How often rows that wait for other processes are looked at, in seconds.
_PEER_INTERVAL = 1.0
# How often `flush` looks at a backend, in seconds.
_DELIVERY_INTERVAL = 0.002


@final
class JournalOutlet(AbstractOutlet):
    """Appends the rows of a run to its journal, and feeds its backends from there."""

    def __init__(
        self,
        name: str,
        identity: Identity,
        journal: Journal,
        backends: Sequence[Any],
        queue: RowQueue,
        failures: Failures,
        *,
        mailbox: Mailbox | None,
        hosts: Sequence[str | None],
        merges_all: bool,
        position: Position | None,
        step_offset: int,
    ) -> None:
        """
        Args:
            name: name of the run.
            identity: its id, and its incarnation.
            journal: its journal, open.
            backends: backends to feed, as the user passed them.
            queue: the queue of this process.
            failures: where to record what fails.
            mailbox: receives the rows of other processes; `None` if there are no others.
            hosts: host of every process, this one's first, as far as known.
            merges_all: whether all rows are merged, see `PeerMerger`; else they are compared.
            position: where a resumed run continues; `None` if its first rows decide.
            step_offset: added to the step of every row.
        """
        self.clips = self._clips = ClipRenderer(queue.put, journal, failures)
        self.late_message = f"not all rows are in the journal {journal.path} yet"
        self._journal = journal
        self._failures = failures
        continues = identity.incarnation > 1
        self._rewinder: Rewinder | None = None
        lowest: int | None = None
        if position is not None:
            body, lowest = resume_at(position, journal.path, journal.end, failures)
            queue.put(Event(time.time(), "resume", body))
        elif continues:
            self._rewinder = Rewinder(journal.path, journal.end, failures)
        # The step after that of the last row; `None` before the first of a continued run.
        self._next_step = 0 if not continues else position and position.start_step
        self._merger: PeerMerger | None = None
        self._receiver: PeerReceiver | None = None
        self._comparer: Comparer | None = None
        if mailbox is not None:
            self._merger = merger = PeerMerger(hosts, failures, merges_all=merges_all)
            self._comparer = None if merges_all else Comparer(merger.describe, failures)
            self._receiver = PeerReceiver(mailbox, len(hosts), queue, merger.is_ahead, failures)
        self._steps = RowSteps(step_offset, lowest, failures)
        self._finisher = RowFinisher(failures, self._steps)
        self._workers = [
            BackendWorker(backend, label, name, identity, journal, failures)
            for backend, label in zip(backends, labels(backends), strict=True)
        ]
        self._self_metrics = SelfMetrics(queue, self._lags)
        self._look_at = 0.0
        self._heartbeat = Heartbeat()
        self._peer_deadline: float | None = None
        self._sync_at: float | None = None
        self._hparams: dict[str, Any] = {}
        self._is_over = False
        # State and failures of the last close record.
        self._closed_with: tuple[str, list[str]] = ("", [])
        self._is_closed = False

    def start(self, open_timeout: float, on_open: Callable[[], None]) -> None:
        """Start the threads, and wait for the backends to open.

        A backend that fails to open is disabled with a warning; one that takes longer than
        `open_timeout` seconds gets its rows when it is open.
        """
        if self._receiver is not None:
            self._receiver.start()
        if self._journal.mirror is not None:
            self._journal.mirror.upload(0.0)
        for worker in self._workers:
            worker.start(on_open)
        deadline = time.monotonic() + open_timeout
        for worker in self._workers:
            if not worker.opened.wait(max(deadline - time.monotonic(), 0.0)):
                self._failures.record(
                    worker.label,
                    f"is not open after {open_timeout:g} s; the training continues, and the "
                    "backend gets its rows once it is open",
                )

    def why_unopened(self, backend: Any) -> str | None:
        (worker,) = (worker for worker in self._workers if worker.given is backend)
        if worker.open_error is not None:
            return f"{worker.label}: {worker.open_error!r}"
        return None if worker.opened.is_set() else f"{worker.label}: {worker.describe_delay()}"

    def _lags(self) -> dict[str, float]:
        return {worker.label: worker.lag for worker in self._workers}

    def next_write_in(self, now: float) -> float | None:
        waits = [_IDLE_INTERVAL]
        if self._merger is not None and self._merger.is_waiting:
            waits.append(_PEER_INTERVAL)
            if self._peer_deadline is not None:
                waits.append(max(self._peer_deadline - now, 0.0))
        if self._sync_at is not None:
            waits.append(max(self._sync_at - now, 0.0))
        return min(waits)

    def write(self, items: list[Any], now: float) -> int:
        self._heartbeat.beat(self._journal.folder)
        if now >= self._look_at and not self._is_over:
            self._journal.restore_if_lost()
            # A copy that fails may have taken long.
            self._look_at = now + max(_LOOK_INTERVAL, 10 * (time.monotonic() - now))
        if self._merger is not None:
            items = self._merged(self._merger, items, now)
        # After the last marker the journal may be closed.
        written = 0 if self._is_over else self._append_items(items)
        if self._sync_at is not None and self._sync_at <= now and not self._is_over:
            self._sync()
        return written

    def _merged(self, merger: PeerMerger, items: list[Any], now: float) -> list[Any]:
        """The items that wait for no other process, rows merged with those of the others."""
        ready: list[Any] = []
        for item in items:
            if isinstance(item, PeerRows):
                merger.receive(item, now)
            elif isinstance(item, Sample):
                if self._comparer is not None:
                    self._comparer.receive(item)
            elif isinstance(item, FlushMarker) and item.urgent:
                # The job is about to end: what is complete goes to the disk at once.
                ready += [*merger.ready(now), item]
            else:
                if isinstance(item, FlushMarker) and item.ending is not None:
                    self._peer_deadline = item.ending.deadline
                if isinstance(item, PartialRow) and self._comparer is not None:
                    # Of what came from the devices no other process has a value of its own.
                    if item.clock is None and item.schema.unit is None:
                        self._comparer.put(item.number, item.schema.plain, item.totals.plain)
                merger.put([item], now)
        return ready + merger.ready(now, self._peer_deadline)

    def _append_items(self, items: list[Any]) -> int:
        """Append the records of items to the journal, and set the markers among them."""
        records: list[Record] = []
        for _, group in itertools.groupby(items, key=_kind):
            records += self._records(list(group))
        if records and self._rewinder is not None:
            records = self._rewinder.rewound(records)
        markers = [item for item in items if isinstance(item, FlushMarker)]
        for marker in markers:
            if marker.ending is not None:
                records.append(self._close_event(marker.ending.state))
        for record in records:
            if isinstance(record, Row):
                self._next_step = max(self._next_step or 0, record.step + 1)
        if records:
            try:
                self._journal.append(records)
            except Exception as error:
                self._failures.record("journal", f"rows could not be written ({error!r})", error)
            if self._sync_at is None:
                self._sync_at = time.monotonic() + _SYNC_AFTER
        if any(marker.sync for marker in markers):
            self._sync()
            if self._journal.mirror is not None:
                self._journal.mirror.upload(0.0)
        for marker in markers:
            marker.end = self._journal.end
            marker.start_step = self._next_step
            self._is_over |= marker.ending is not None
            marker.reached.set()
        return sum(item.size for item in items if isinstance(item, PartialRow))

    def _records(self, items: list[Any]) -> Sequence[Record]:
        """The records of items of one kind."""
        try:
            match items[0]:
                case PartialRow():
                    return self._rows(items)
                case ClipPart():
                    for part in items:
                        self._clips.part(part)
                    return []
                case TrainingStart():
                    return [record for item in items for record in self._start_training(item)]
                case FlushMarker():
                    return []
            return [self._complete(event) for event in items]
        except Exception as error:
            if len(items) > 1:
                return [record for item in items for record in self._records([item])]
            self._failures.record("writer", f"a row could not be read ({error!r})", error)
            return []

    def _rows(self, partials: list[PartialRow]) -> list[Row]:
        rows = self._finisher.rows(partials)
        if self._clips.opened:
            for row in rows:
                self._clips.row(row.iteration, row.step)
        self._add_self_metrics(rows)
        return rows

    def _add_self_metrics(self, rows: list[Row]) -> None:
        try:
            metrics = self._self_metrics.take()
        except Exception as error:
            # They must not cost the rows that they would be added to.
            self._failures.record("writer", f"`lerax_dist/*` metrics failed ({error!r})", error)
            return
        if metrics:
            last = rows[-1]
            metrics = last.metrics | metrics
            rows[-1] = Row.of(last.time, last.step, last.iteration, metrics, last.vectors)

    def _start_training(self, start: TrainingStart) -> list[Record]:
        self._clips.restart()
        self._finisher.start(start.clock, start.iteration)
        records: list[Record] = []
        if start.hparams:
            records.append(self._complete(Event(start.time, "hparams", {"hparams": start.hparams})))
        body = {
            "iteration": start.iteration,
            "total_timesteps": self._steps.total(start.total_timesteps),
            "total_iterations": start.total_iterations,
        }
        return [*records, Event(start.time, "start", body)]

    def _complete(self, event: Event) -> Event:
        """An event; one of hyperparameters with all that this incarnation has logged so far, so
        that the last one says what runs, and no backend has to know the others."""
        if event.kind != "hparams":
            return event
        self._hparams |= event.body["hparams"]
        return Event(event.time, event.kind, {"hparams": dict(self._hparams)})

    def _close_event(self, state: str) -> Event:
        """How the run ends, and what has failed so far."""
        if self._merger is not None and self._merger.has_failed:
            state = "failed"
        failures = [f"{each.where}: {each.message}" for each in self._failures.all()]
        self._closed_with = (state, failures)
        return Event(time.time(), "close", {"state": state, "failures": failures})

    def _sync(self) -> None:
        self._journal.sync()
        self._sync_at = None

    def await_sample(self) -> bool:
        if self._comparer is None or self._receiver is None:
            return False
        return self._receiver.await_sample()

    def flush(self, marker: FlushMarker, deadline: float) -> str | None:
        for worker in self._workers:
            while worker.delivered < marker.end and not worker.ended.is_set():
                if time.monotonic() > deadline:
                    return f"{worker.label}: {worker.describe_delay()}"
                worker.ended.wait(_DELIVERY_INTERVAL)
        self.upload(deadline)
        return None

    def upload(self, deadline: float) -> None:
        mirror = self._journal.mirror
        deadline = min(deadline, time.monotonic() + _UPLOAD_TIMEOUT)
        if mirror is not None and not mirror.upload(deadline):
            self._failures.record("bucket", mirror.describe_missing(), kind="wait")

    def close(self, written: bool, deadline: float, waiting: ClosingWait) -> None:
        if self._receiver is not None:
            self._receiver.stop()
        for worker in self._workers:
            worker.close()
        mirror = self._journal.mirror
        # A share that is left to the bucket.
        share = 0.0 if mirror is None else 0.3 * max(deadline - time.monotonic(), 0.0)
        for worker in self._workers:
            delay = functools.partial(_describe, worker)
            if not waiting.wait(worker.ended.wait, deadline - share, delay):
                late = f"did not end in {waiting.timeout:g} s: {worker.describe_delay()}"
                self._failures.record(worker.label, late)
        # Once: a close that Ctrl-C cut off behind this line comes here again.
        if written and not self._is_closed:
            state, failures = self._closed_with
            # The record is there before the backends close, which may take longer than this process
            # is given. What has failed since stands in one more, the last line again.
            if len(failures) < len(self._failures.all()):
                self._journal.append([self._close_event(state)])
            self._journal.close()
            self._is_closed = True
        if mirror is not None:
            mirror.end(deadline)
            in_time = waiting.wait(mirror.ended.wait, deadline, mirror.describe_missing)
            if mirror.is_failing or not in_time:
                hint = "The next start there uploads them, unless another host is first"
                self._failures.record("bucket", f"{mirror.describe_missing()}. {hint}")


def _describe(worker: BackendWorker) -> str:
    return f"{worker.label}: {worker.describe_delay()}"


def _kind(item: Any) -> Any:
    """What items share that become records at once."""
    return id(item.schema) if isinstance(item, PartialRow) else type(item)
