"""One thread a backend: reads the journal at its own pace and calls the backend's methods.

A backend may raise, hang or lag: neither the training nor another backend notices. What it missed
is in the journal.
"""

import itertools
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np

from lerax_dist._failures import Failures
from lerax_dist.backends import (
    AbstractLoggingBackend,
    FileRemoved,
    as_backend,
    takes_batches,
)
from lerax_dist.host._clip_file import load_clip
from lerax_dist.journal import (
    Event,
    Identity,
    Journal,
    JournalReader,
    Record,
    Row,
    step_and_names,
)

# Records that are read from the journal, or handed over, at once.
_MAX_RECORDS = 256
# Numbers in one `log_rows`: 4 MiB.
_MAX_NUMBERS = 1 << 19
# A call that raises `OSError` (a network, a disk) is retried after these pauses, in seconds; then
# its row is skipped. Any other error would only be raised again.
_RETRY_PAUSES = (0.05, 0.5, 5.0)
# All pauses of a backend together.
_MAX_PAUSED = 30.0


class Call(NamedTuple):
    """A call of a backend's method; `step` is the one that it is about, if there is one."""

    method: str
    args: tuple[Any, ...]
    step: int | None = None


def batches(records: Iterable[Record], backend: AbstractLoggingBackend) -> Iterator[list[Record]]:
    """Records in their order, with rows that the backend takes in one call as one list."""
    if not takes_batches(backend):
        yield from ([record] for record in records)
        return
    for names, group in itertools.groupby(records, key=_row_names):
        most = 1 if names is None else _MAX_NUMBERS // max(len(names), 1)
        size = max(min(most, _MAX_RECORDS), 1)
        while batch := list(itertools.islice(group, size)):
            yield batch


def _row_names(record: Record) -> tuple[str, ...] | None:
    return record.names if isinstance(record, Row) and not record.vectors else None


def batch_call(rows: Sequence[Row]) -> Call:
    """The call that writes rows with the same metrics at once."""
    values = np.stack([row.values for row in rows])
    steps, times = [row.step for row in rows], [row.time for row in rows]
    return Call("log_rows", (rows[0].names, values, steps, times), steps[0])


def calls_of(record: Record, backend: AbstractLoggingBackend, run_dir: Path) -> list[Call]:
    """The calls that hand a record to a backend.

    Args:
        record: what the journal holds.
        backend: the backend; one that takes batches gets a row as a batch of one.
        run_dir: folder of the run, with the files of its clips.

    Raises:
        OSError: if the file of a clip cannot be read.
        ValueError: if its frames are not those that the journal describes.
    """
    match record:
        case Row():
            calls = []
            if record.names or not record.vectors:
                scalars = Call("log_scalars", (record.metrics, record.step), record.step)
                calls.append(batch_call([record]) if takes_batches(backend) else scalars)
            if record.vectors:
                vectors = dict(record.vectors)
                calls.append(Call("log_vectors", (vectors, record.step), record.step))
            return calls
        case Event(kind="hparams", body=body):
            return [Call("log_hparams", (dict(body["hparams"]),))]
        case Event(kind="open", body=body):
            return [Call("on_run", ({**body, "time": record.time},))]
        case Event(kind="close", body=body):
            return [Call("on_end", (str(body["state"]),))]
        case Event(kind="resume", body=body):
            return [Call("on_resume", (body["start_step"],))]
        case Event(kind="start", body=body):
            total = body["total_timesteps"], body["total_iterations"]
            return [Call("on_training_start", total)]
        case Event(kind="video", body=body):
            frames = load_clip(run_dir / body["file"], body["shape"][0], body["fps"])
            args = (body["tag"], frames, body["step"], body["fps"])
            return [Call("log_video", args, body["step"])]
    return []


@final
class BackendWorker:
    """Feeds one backend from the journal.

    Attributes:
        label: what the backend is called in messages.
        given: the backend, as the user passed it.
        opened: set once it is open or has failed to open.
        ended: set once the thread has ended.
        open_error: why it failed to open; `None` if it did not.
        delivered: number of the next record that it is to get.
    """

    def __init__(
        self,
        backend: Any,
        label: str,
        run_name: str,
        identity: Identity,
        journal: Journal,
        failures: Failures,
    ) -> None:
        """
        Args:
            backend: the backend, as the user passed it.
            label: what it is called in messages.
            run_name: name of the run.
            identity: id of the run.
            journal: what to read.
            failures: where to record what fails.
        """
        self.label = label
        self.opened = threading.Event()
        self.ended = threading.Event()
        self.open_error: BaseException | None = None
        self.delivered = journal.cursor().number
        self.given = backend
        self._backend = as_backend(backend)
        self._run_name = run_name
        self._identity = identity
        self._journal = journal
        self._failures = failures
        self._closing = threading.Event()
        self._running: tuple[str, float] | None = None
        self._is_failing = False
        self._is_started = self._has_ended = False
        self._paused = 0.0
        self._skipped = 0

    def start(self, on_open: Callable[[], None]) -> None:
        """Start the thread, which calls `on_open` once the backend is open."""
        self._is_started = True
        threading.Thread(
            target=self._run, args=(on_open,), name=f"lerax_dist-{self.label}", daemon=True
        ).start()

    def close(self) -> None:
        """Ask the thread to deliver what is left and to close the backend; see `ended`."""
        if not self._is_started:  # Ctrl-C came before
            self.ended.set()
        self._closing.set()
        self._journal.wake()

    @property
    def lag(self) -> float:
        """Records that the backend has not received yet; infinite if it never will."""
        if self.ended.is_set() and not self._closing.is_set():
            return math.inf
        return float(max(self._journal.end - self.delivered, 0))

    def describe_delay(self) -> str:
        """What the backend is doing, for the report that it did not end in time."""
        running, what = self._running, "is still running"
        left = self._journal.end - self.delivered
        if running is not None:
            what = f"`{running[0]}` has been running for {time.monotonic() - running[1]:.0f} s"
        return f"{what}; {left} records not delivered yet (they are in {self._journal.path})"

    def _run(self, on_open: Callable[[], None]) -> None:
        cursor = self._journal.cursor()
        try:
            if not self._open():
                return
            on_open()
            self.opened.set()
            while True:
                self._journal.wait(cursor, unless=self._closing)
                records = self._journal.read(cursor, _MAX_RECORDS)
                if not records and self._closing.is_set():
                    break
                for batch in batches(records, self._backend):
                    self._deliver(batch)
                    self.delivered += len(batch)
                self.delivered = cursor.number
            self._close()
        except BaseException as error:
            # Only the journal can raise here; the backend's own errors are handled below.
            self._failures.record(self.label, f"stopped: {error!r}", error)
        finally:
            self.opened.set()
            self.ended.set()

    def _deliver(self, batch: list[Record]) -> None:
        rows = [record for record in batch if isinstance(record, Row)]
        if len(rows) > 1:
            try:
                self._call(batch_call(rows))
                self._is_failing = False
                return
            except BaseException as error:
                # One by one, with retries.
                self._record_rejected_batch(error)
        for record in batch:
            for call in self._calls_of(record):
                self._try(call, record if isinstance(record, Row) else None)
            if isinstance(record, Event) and record.kind == "resume":
                self._deliver_kept(record)

    def _deliver_kept(self, resume: Event) -> None:
        """Hand over again what a `resume` event has hidden at the backend only.

        The event supersedes rows of some metrics; a backend hides all from its step on.
        """
        hides = type(self._backend).on_resume is not AbstractLoggingBackend.on_resume
        if "metrics" in resume.body and hides:
            try:
                for batch in batches(self._kept(resume), self._backend):
                    self._deliver(batch)
            except OSError as error:
                self._failures.record(self.label, f"may lack older rows ({error!r})", error)

    def _kept(self, resume: Event) -> Iterator[Record]:
        for _, record in JournalReader(self._journal.readable).records():
            if isinstance(record, Event) and record.body == resume.body:
                return
            found = step_and_names(record)
            if found is not None and found[0] >= resume.body["start_step"]:
                yield record
        raise FileNotFoundError(f"{self._journal.path} cannot be read to its end")

    def _calls_of(self, record: Record) -> list[Call]:
        if isinstance(record, Event) and record.kind == "close":
            # The second one has what failed while the backends closed.
            self._has_ended, ended = True, self._has_ended
            if ended:
                return []
        try:
            return calls_of(record, self._backend, self._journal.folder)
        except Exception as error:
            self._skipped += 1
            self._failures.record(
                self.label, f"skipped a clip, since its file is damaged: {error}", error
            )
            return []

    def _record_rejected_batch(self, error: BaseException) -> None:
        if not isinstance(error, OSError):
            self._failures.record(
                self.label,
                f"`log_rows` raised {error!r}; rows that it rejects go to `log_scalars` one by one",
                error,
                kind="log_rows",
            )

    def _open(self) -> bool:
        try:
            self._call(Call("on_identity", (*self._identity,)))
            self._call(Call("open", (self._run_name,)))
        except BaseException as error:
            # `SystemExit` as well: it would end this thread in silence.
            self.open_error = error
            self._failures.record(
                self.label,
                f"failed to open and is disabled for this run ({error!r}). The journal "
                f"{self._journal.path} has every row: fill the backend later with `lerax-dist "
                "replay`.",
                error,
            )
            return False
        return True

    def _close(self) -> None:
        try:
            self._call(Call("close", ()))
        except BaseException as error:
            self._failures.record(self.label, f"failed to close ({error!r})", error, kind="close")
        if self._skipped:
            self._failures.record(self.label, f"skipped {self._skipped} records")

    def _try(self, call: Call, row: Row | None) -> None:
        """Make a call, with retries; skip it if it fails for good."""
        # A backend that has skipped a row gets one attempt for each until one succeeds.
        pauses = () if self._is_failing or self._paused > _MAX_PAUSED else _RETRY_PAUSES
        for pause in (*pauses, None):
            try:
                self._call(call)
                self._is_failing = False
                return
            except BaseException as error:
                if pause is not None and isinstance(error, OSError):
                    self._paused += pause
                    time.sleep(pause)
                    continue
                if row is not None and call.method == "log_rows" and not isinstance(error, OSError):
                    self._record_rejected_batch(error)
                    self._try(Call("log_scalars", (row.metrics, row.step), row.step), None)
                else:
                    self._skip(call, error)
                return

    def _skip(self, call: Call, error: BaseException) -> None:
        self._is_failing = True
        self._skipped += 1
        at_step = "" if call.step is None else f" at step {call.step}"
        self._failures.record(
            self.label,
            f"`{call.method}` raised {error!r}{at_step}. What it rejects is skipped for this "
            f"backend; all rows are in {self._journal.path}.",
            error,
            kind=f"{call.method} {type(error).__name__}",
        )

    def _call(self, call: Call) -> None:
        self._running = (call.method, time.monotonic())
        try:
            getattr(self._backend, call.method)(*call.args)
        except FileRemoved as error:
            # It succeeds when it is retried, so nothing else would report it.
            self._failures.record(self.label, str(error), error)
            raise
        finally:
            self._running = None


def labels(backends: Sequence[Any]) -> list[str]:
    """What each backend is called: its class, with a number from the second of a class on."""
    names = [type(backend).__name__ for backend in backends]
    counts = [names[: i + 1].count(name) for i, name in enumerate(names)]
    return [
        name if count == 1 else f"{name}_{count}" for name, count in zip(names, counts, strict=True)
    ]
