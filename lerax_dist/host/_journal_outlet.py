"""The outlet of the process that writes: rows are merged, finished and appended to the journal,
from which every backend is fed."""

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any, final

from lerax_dist._failures import Failures
from lerax_dist.cluster import Mailbox
from lerax_dist.host._backend_worker import BackendWorker, labels
from lerax_dist.host._clips import ClipPart, ClipRenderer
from lerax_dist.host._finish import RowFinisher, SelfMetrics
from lerax_dist.host._peers import PeerMerger, PeerReceiver, PeerRows
from lerax_dist.host._queue import RowQueue
from lerax_dist.host._reorder import PartialRow
from lerax_dist.host._sink import TrainingStart
from lerax_dist.host._worker import AbstractOutlet, FlushMarker, Item
from lerax_dist.journal import HEARTBEAT_INTERVAL, Event, Heartbeat, Identity, Journal, Record, Row

# How long a record may be with the operating system only, where a power failure loses it.
_SYNC_AFTER = 0.5
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
        backends: Sequence[Any],
        journal: Journal,
        identity: Identity,
        queue: RowQueue,
        clips: ClipRenderer,
        failures: Failures,
        *,
        hosts: Sequence[str],
        mailbox: Mailbox | None,
        has_start_step: bool,
        on_open: Callable[[], None],
    ) -> None:
        """
        Args:
            name: name of the run.
            backends: backends to feed, as the user passed them.
            journal: journal of the run, open.
            identity: id of the run, and its incarnation.
            queue: the queue of this process.
            clips: renders the clips.
            failures: where to record what fails.
            hosts: host of every process whose rows are merged, this one's first.
            mailbox: where the rows of the others come from; `None` if there are none.
            has_start_step: whether a "resume" event is queued; else the first row of a continued
                run supersedes from its own step on.
            on_open: called whenever a backend has opened.
        """
        self._journal = journal
        self._clips = clips
        self._failures = failures
        resumes = identity.incarnation > 1
        self._needs_resume_event = resumes and not has_start_step
        self._start_step = None if resumes else 0
        self._merger = PeerMerger(hosts, failures)
        self._receiver = None
        if mailbox is not None:
            self._receiver = PeerReceiver(
                mailbox, len(hosts), queue, self._merger.is_ahead, failures
            )
        self._finisher = RowFinisher(failures)
        self._workers = [
            BackendWorker(backend, label, name, identity, journal, failures, on_open)
            for backend, label in zip(backends, labels(backends), strict=True)
        ]
        self._self_metrics = SelfMetrics(queue, self._lags)
        self._heartbeat = Heartbeat(journal.path.parent)
        self._peer_deadline: float | None = None
        self._sync_at: float | None = None
        self._is_over = False

    def start(self, open_timeout: float) -> None:
        """Start the threads, and wait for the backends to open.

        A backend that fails to open is disabled with a warning; one that takes longer than
        `open_timeout` seconds gets its rows when it is open.
        """
        if self._receiver is not None:
            self._receiver.start()
        for worker in self._workers:
            worker.start()
        deadline = time.monotonic() + open_timeout
        for worker in self._workers:
            if not worker.opened.wait(max(deadline - time.monotonic(), 0.0)):
                self._failures.record(
                    worker.label,
                    f"is not open after {open_timeout:g} s; the training continues, and the "
                    "backend gets its rows once it is open",
                )

    def why_unopened(self, backend: Any) -> str | None:
        """Why a backend is not open; `None` if it is."""
        (worker,) = (worker for worker in self._workers if worker.feeds(backend))
        if worker.open_error is not None:
            return f"{worker.label}: {worker.open_error!r}"
        return None if worker.opened.is_set() else f"{worker.label}: {worker.describe_delay()}"

    def _lags(self) -> dict[str, float]:
        return {worker.label: worker.lag for worker in self._workers}

    def timeout(self, now: float) -> float | None:
        waits = [HEARTBEAT_INTERVAL]
        if self._merger.is_waiting:
            waits.append(_PEER_INTERVAL)
        if self._sync_at is not None:
            waits.append(max(self._sync_at - now, 0.0))
        return min(waits)

    def write(self, items: list[Item], now: float) -> int:
        self._heartbeat.beat()
        written = 0
        for item in items:
            if isinstance(item, PeerRows):
                self._merger.receive(item, now)
            elif isinstance(item, FlushMarker) and item.urgent:
                # The job is about to end: what is complete goes to the disk at once.
                written += self._append_items([*self._merger.ready(now), item])
            else:
                if isinstance(item, FlushMarker) and item.last:
                    self._peer_deadline = item.deadline
                self._merger.put([item], now)
        written += self._append_items(self._merger.ready(now, self._peer_deadline))
        if self._sync_at is not None and self._sync_at <= now and not self._is_over:
            self._sync()
        return written

    def _append_items(self, items: list[Item]) -> int:
        """Append what items say to the journal, and set the markers among them."""
        if self._is_over:
            # The journal may be closed by now.
            return 0
        records: list[Record] = []
        for _, group in itertools.groupby(items, key=_kind):
            records += self._records(list(group))
        if records:
            self._append(records)
        markers = [item for item in items if isinstance(item, FlushMarker)]
        if any(marker.sync for marker in markers):
            self._sync()
        for marker in markers:
            marker.end = self._journal.end
            marker.start_step = self._start_step
            self._is_over |= marker.last
            marker.reached.set()
        return sum(item.size for item in items if isinstance(item, PartialRow))

    def _records(self, items: list[Any]) -> Sequence[Record]:
        """The records of items of one kind."""
        try:
            match items[0]:
                case PartialRow():
                    return [self._with_self_metrics(row) for row in self._finisher.rows(items)]
                case ClipPart():
                    for part in items:
                        self._clips.part(part)
                    return []
                case TrainingStart():
                    return [record for item in items for record in self._start_training(item)]
                case FlushMarker():
                    return []
            return items
        except Exception as error:
            if len(items) > 1:
                return [record for item in items for record in self._records([item])]
            self._failures.record("writer", f"a row could not be read ({error!r})", error)
            return []

    def _start_training(self, start: TrainingStart) -> list[Record]:
        self._clips.restart()
        self._finisher.start(start.clock, start.iteration)
        records: list[Record] = []
        if start.hparams:
            records.append(Event(start.time, "hparams", {"hparams": start.hparams}))
        body = {
            "iteration": start.iteration,
            "total_timesteps": start.total_timesteps,
            "total_iterations": start.total_iterations,
        }
        return [*records, Event(start.time, "start", body)]

    def _with_self_metrics(self, row: Row) -> Row:
        self._clips.row(row.iteration, row.step)
        due = self._self_metrics.due()
        if not due:
            return row
        return Row.of(row.time, row.step, row.iteration, row.metrics | due, row.vectors)

    def _append(self, records: list[Record]) -> None:
        if self._needs_resume_event:
            records = self._with_resume_event(records)
        for record in records:
            if isinstance(record, Row):
                self._start_step = max(self._start_step or 0, record.step + 1)
            elif record.kind == "resume":
                self._start_step = record.body["start_step"]
        if self._sync_at is None:
            self._sync_at = time.monotonic() + _SYNC_AFTER
        try:
            self._journal.append(records)
        except Exception as error:
            self._failures.record("journal", f"rows could not be written ({error!r})", error)

    def _with_resume_event(self, records: list[Record]) -> list[Record]:
        """The records with a "resume" event before the first row."""
        for i, record in enumerate(records):
            if isinstance(record, Row):
                self._needs_resume_event = False
                event = Event(record.time, "resume", {"start_step": record.step})
                return [*records[:i], event, *records[i:]]
        return records

    def _sync(self) -> None:
        self._journal.sync()
        self._sync_at = None

    def flush(self, marker: FlushMarker, deadline: float) -> str | None:
        for worker in self._workers:
            while worker.delivered < marker.end and not worker.ended.is_set():
                if time.monotonic() > deadline:
                    return f"{worker.label}: {worker.describe_delay()}"
                worker.ended.wait(_DELIVERY_INTERVAL)
        return None

    def describe_delay(self) -> str:
        return f"not all rows are in the journal {self._journal.path} yet"

    def finish(self, state: str, deadline: float) -> list[Event]:
        if self._clips.opened:
            self._clips.close(max(deadline - time.monotonic(), 0.0))
        failures = [f"{each.where}: {each.message}" for each in self._failures.all()]
        return [Event(time.time(), "close", {"state": state, "failures": failures})]

    def close(self, written: bool, deadline: float, timeout: float) -> None:
        if self._receiver is not None:
            self._receiver.stop()
        for worker in self._workers:
            worker.close()
        for worker in self._workers:
            if not worker.ended.wait(max(deadline - time.monotonic(), 0.0)):
                self._failures.record(
                    worker.label, f"did not end in {timeout:g} s: {worker.describe_delay()}"
                )
        if written:
            self._journal.close()


def _kind(item: Any) -> Any:
    """What items share that become records at once."""
    return id(item.schema) if isinstance(item, PartialRow) else type(item)
