"""One thread a backend: reads the journal at its own pace and hands rows on."""

import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, final

from lerax_dist._failures import Failures
from lerax_dist.host._dispatch import Call, call_of, rows_call, together
from lerax_dist.journal._identity import Identity
from lerax_dist.journal._journal import Journal
from lerax_dist.journal._record import Record

_MOST_AT_ONCE = 256
# A call that fails for an error of input or output (a network, a disk) is made again after these
# pauses, in seconds; then its row is left out. Any other error would only come again.
_PAUSES = (0.05, 0.5, 5.0)
# All pauses of a backend together.
_MOST_PAUSED = 30.0


@final
class Pump:
    """Feeds one backend. It may raise, hang or lag: nobody else notices."""

    def __init__(
        self,
        backend: Any,
        label: str,
        run_name: str,
        identity: Identity,
        journal: Journal,
        failures: Failures,
        on_open: Callable[[], None],
    ) -> None:
        """
        Args:
            backend: the backend.
            label: what it is called where several are spoken of.
            run_name: name of the run.
            identity: who the run is.
            journal: what to read.
            failures: where to keep what goes wrong.
            on_open: called in the thread once the backend is open.
        """
        self.label = label
        self.opened = threading.Event()
        self.ended = threading.Event()
        self.failed_to_open: BaseException | None = None
        self.delivered = journal.cursor().number
        self._backend = backend
        self._run_name = run_name
        self._identity = identity
        self._journal = journal
        self._failures = failures
        self._on_open = on_open
        self._closing = threading.Event()
        self._doing: tuple[str, float] | None = None
        self._failing = False
        self._paused = 0.0
        self._left_out = 0
        self._thread = threading.Thread(
            target=self._run, name=f"lerax_dist-{self.label}", daemon=True
        )

    def feeds(self, backend: Any) -> bool:
        """Whether it is this backend that it feeds."""
        return self._backend is backend

    def start(self) -> None:
        """Start the thread; `opened` is set once the backend is open or has failed to."""
        self._thread.start()

    def close(self) -> None:
        """Ask the thread to hand on what is left and to close the backend; see `ended`."""
        self._closing.set()
        self._journal.wake()

    @property
    def lag(self) -> float:
        """Records that the backend has not taken yet; infinite if it never will."""
        if self.ended.is_set() and not self._closing.is_set():
            return math.inf
        return float(max(self._journal.end - self.delivered, 0))

    def stuck(self) -> str:
        """What the backend is doing, for the report that it did not end in time."""
        doing = self._doing
        left = self._journal.end - self.delivered
        what = "is still at work"
        if doing is not None:
            what = f"`{doing[0]}` has been running for {time.monotonic() - doing[1]:.0f} s"
        return f"{what}; {left} records not handed on, they are in {self._journal.path}"

    def _run(self) -> None:
        cursor = self._journal.cursor()
        try:
            if not self._open():
                return
            while True:
                self._journal.wait(cursor, unless=self._closing)
                records = self._journal.read(cursor, _MOST_AT_ONCE)
                if not records and self._closing.is_set():
                    break
                for batch in together(records, self._backend):
                    self._hand_on(batch)
                self.delivered = cursor.number
            self._close()
        except BaseException as error:
            # Only the journal can raise here; the backend's own errors are dealt with.
            self._failures.record(self.label, f"stopped: {error!r}", error)
        finally:
            cursor.close()
            self.opened.set()
            self.ended.set()

    def _hand_on(self, batch: list[Record]) -> None:
        rows = rows_call(batch, self._backend)
        if rows is not None:
            try:
                self._call(rows[0], *rows[1])
                self._failing = False
                self.delivered += len(batch)
                return
            except OSError:
                # One by one, and again after a while if need be.
                pass
            except BaseException as error:
                rows = None
                self._failures.record(
                    self.label,
                    f"`log_rows` raised {error!r}; its rows go to `log_scalars` one by one",
                    error,
                    kind="log_rows",
                )
        for record in batch:
            call = self._call_of(record) if rows is None else rows_call([record], self._backend)
            if call is not None:
                self._try(call[0], *call[1])
            self.delivered += 1

    def _call_of(self, record: Record) -> Call | None:
        try:
            return call_of(record, self._backend, self._journal.path.parent)
        except Exception as error:
            self._left_out += 1
            self._failures.record(self.label, f"got no clip, its file is broken: {error}", error)
            return None

    def _open(self) -> bool:
        try:
            if hasattr(self._backend, "on_identity"):
                self._call("on_identity", *self._identity)
            self._call("open", self._run_name)
        except BaseException as error:
            # `SystemExit` as well: it would end this thread without a word.
            self.failed_to_open = error
            self._failures.record(
                self.label,
                f"could not be opened, so it is left out ({error!r}); the journal "
                f"{self._journal.path} has every row",
                error,
            )
            return False
        self._on_open()
        self.opened.set()
        return True

    def _close(self) -> None:
        try:
            self._call("close")
        except BaseException as error:
            self._failures.record(
                self.label, f"could not be closed ({error!r})", error, kind="close"
            )
        if self._left_out:
            self._failures.record(self.label, f"did not take {self._left_out} records")

    def _try(self, method: str, *args: Any) -> None:
        # A backend that has given up a row gets one attempt for each until one succeeds.
        pauses = () if self._failing or self._paused > _MOST_PAUSED else _PAUSES
        for pause in (*pauses, None):
            try:
                self._call(method, *args)
                self._failing = False
                return
            except BaseException as error:
                if pause is not None and isinstance(error, OSError):
                    self._paused += pause
                    time.sleep(pause)
                    continue
                self._failing = True
                self._left_out += 1
                self._failures.record(
                    self.label,
                    f"`{method}` raised {error!r}{_where(method, args)}; what it does not take is "
                    f"left out there, the journal {self._journal.path} has every row",
                    error,
                    kind=f"{method} {type(error).__name__}",
                )
                return

    def _call(self, method: str, *args: Any) -> None:
        self._doing = (method, time.monotonic())
        try:
            getattr(self._backend, method)(*args)
        finally:
            self._doing = None


def labels(backends: Sequence[Any]) -> list[str]:
    """What each is called: its class, with a number from the second of a class on."""
    names = [type(backend).__name__ for backend in backends]
    counts = [names[: place + 1].count(name) for place, name in enumerate(names)]
    return [
        name if count == 1 else f"{name}_{count}" for name, count in zip(names, counts, strict=True)
    ]


def _where(method: str, args: tuple[Any, ...]) -> str:
    match method:
        case "log_scalars":
            return f" at step {args[1]}"
        case "log_rows":
            return f" at step {args[2][0]}"
    return ""
