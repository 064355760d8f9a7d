"""Rows of the other processes are sent to process 0 and merged with its own: all of them with
`scope="process"`, else those with partials, and samples of the others (see `_compare.py`).

On the others `PeerOutlet` sends. On process 0 `PeerReceiver` is a thread that empties a mailbox,
and `PeerMerger` decides when a row is complete; it has neither a thread nor a clock.
"""

import base64
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple, final

import numpy as np

from lerax_dist._failures import Failures
from lerax_dist._schema import Totals
from lerax_dist.cluster import Mailbox
from lerax_dist.host._closing_wait import ClosingWait
from lerax_dist.host._compare import Sample
from lerax_dist.host._queue import RowQueue
from lerax_dist.host._rows import PartialRow
from lerax_dist.host._worker import AbstractOutlet, FlushMarker

# How long a process may send nothing while a row of process 0 waits for it, in seconds.
PEER_TIMEOUT = 300.0
# How long a row of `emit` waits for a process that goes on without sending it, in seconds.
_EMIT_TIMEOUT = 10.0
# Rows of other kinds by which a process is seen to go on.
_MIN_PASSED = 64
# Rows of a process that is ahead of process 0, in bytes; with more it has to wait.
_MAX_AHEAD_BYTES = 4 << 20
# What a row takes beside its numbers, in bytes.
_ROW_BYTES = 500
# Seconds for one look at every process if no message arrives, but for at most 100 of them.
_ROUND = 1.0
# Messages of a process at a turn; it sends one a second.
_MAX_MESSAGES = 8
# How long a message waits for process 0, which is behind, until that is reported, in seconds.
_SEND_TIMEOUT = 60.0
# How often a waiting message looks whether there is room, in seconds.
_ROOM_INTERVAL = 1.0
# Names of rows of `emit`; `None` for all others.
_Lane = tuple[str, ...] | None
# How soon after the start of a run the first sample is here, in seconds.
_FIRST_SAMPLE = 0.3
# How long a sample waits for room, in seconds.
_ROOM_TIMEOUT = 0.01


class PeerRow(NamedTuple):
    """A partial row of another process; `number` is that of its iteration, or its step in a plain
    loop and of `emit`."""

    number: int
    names: tuple[str, ...]
    totals: Totals
    is_emitted: bool = False


@final
class Encoder:
    """Makes messages, which are JSON values, of partial rows; names are sent once."""

    def __init__(self, merges_all: bool = True) -> None:
        self._merges_all = merges_all
        self._known: dict[tuple[str, ...], int] = {}

    def encode(self, rows: Sequence[PartialRow]) -> dict[str, Any]:
        """A message with rows, in their order; see `sent`."""
        known = dict(self._known)
        encoded = []
        for row in rows:
            names, totals = _merged_part(row, self._merges_all)
            i, is_emitted = known.setdefault(names, len(known)), row.schema.unit is not None
            encoded.append([row.number, i, [*map(_encode, totals)], is_emitted])
        return {"names": list(known)[len(self._known) :], "rows": encoded}

    def sent(self, message: dict[str, Any]) -> None:
        """The message has been sent, so its names are known from now on."""
        for names in message["names"]:
            self._known[names] = len(self._known)


@final
class Decoder:
    """Reads the messages of one process, in their order."""

    def __init__(self) -> None:
        self._known: list[tuple[str, ...]] = []

    def decode(self, message: dict[str, Any]) -> list[PeerRow]:
        """The rows in a message."""
        self._known += [tuple(names) for names in message["names"]]
        return [
            PeerRow(number, self._known[i], Totals(*map(_decode, totals)), is_emitted)
            for number, i, totals, is_emitted in message["rows"]
        ]


def _encode(number: Any) -> Any:
    """Arrays as base64 of their float64, integers as they are."""
    if isinstance(number, np.ndarray):
        return base64.b64encode(number.astype("<f8").tobytes()).decode()
    return number


def _decode(value: Any) -> Any:
    return np.frombuffer(base64.b64decode(value), "<f8") if isinstance(value, str) else value


@final
class PeerOutlet(AbstractOutlet):
    """Sends the rows of this process to process 0, which writes events and clips of its own."""

    clips = None
    late_message = "process 0 has not consumed all rows of this process"

    def __init__(self, mailbox: Mailbox, failures: Failures, *, merges_all: bool = True) -> None:
        self._mailbox = mailbox
        self._failures = failures
        self._encoder = Encoder(merges_all)
        self._has_sent_rows = False
        self._hurry = threading.Event()

    def start(self, open_timeout: float, on_open: Callable[[], None]) -> None:
        pass

    def write(self, items: list[Any], now: float) -> int:
        rows = [item for item in items if isinstance(item, PartialRow)]
        if rows:
            self._send(rows)
        for item in items:
            if isinstance(item, Sample):
                self._send_sample(item)
            elif isinstance(item, FlushMarker):
                if item.ending is not None:
                    self._end(item.ending.state)
                item.reached.set()
        return sum(row.size for row in rows)

    def next_write_in(self, now: float) -> float | None:
        return None

    def _send(self, rows: list[PartialRow]) -> None:
        try:
            message = self._encoder.encode(rows)
            self._wait_for_room()
            self._mailbox.send(message)
            self._encoder.sent(message)
            self._has_sent_rows = True
        except Exception as error:
            self._failures.record("peer", f"rows could not be sent ({error!r})", error)

    def _send_sample(self, sample: Sample) -> None:
        """Send a sample if there is room; a lost one does no harm."""
        try:
            if self._mailbox.has_room(timeout=_ROOM_TIMEOUT):
                self._mailbox.send({"step": sample.step, "sample": sample.read()})
        except Exception as error:
            self._failures.record("peer", f"values could not be compared ({error!r})", error)

    def _wait_for_room(self) -> None:
        """Wait until process 0 has room for rows; this slows down the training here as well."""
        since = time.monotonic()
        while not self._hurry.is_set() and not self._mailbox.has_room(timeout=_ROOM_INTERVAL):
            if time.monotonic() - since > _SEND_TIMEOUT:
                self._failures.record(
                    "peer",
                    f"process 0 has not consumed this process's rows for {_SEND_TIMEOUT:.0f} s; "
                    "later rows are queued here",
                )

    def _end(self, state: str) -> None:
        try:
            self._mailbox.send({"end": state})
            self._mailbox.finish(timeout=_SEND_TIMEOUT)
        except Exception as error:
            if self._has_sent_rows:
                self._failures.record(
                    "peer", f"could not notify process 0 of the end of the run ({error!r})", error
                )

    def await_sample(self) -> bool:
        return False

    def flush(self, marker: FlushMarker, deadline: float) -> str | None:
        return None

    def close(self, written: bool, deadline: float, waiting: ClosingWait) -> None:
        if not written:
            # What is left is sent without waiting for room.
            self._hurry.set()


@final
@dataclass(frozen=True, slots=True, eq=False)
class PeerRows:
    """What another process has sent; `state` is how its run ended, if it did."""

    process: int
    rows: list[PeerRow]
    state: str | None = None


@final
class PeerReceiver:
    """Brings what arrives in a mailbox to the queue, from every process in turn.

    A process waits while `is_ahead` says that it is too far ahead of this one.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        process_count: int,
        queue: RowQueue,
        is_ahead: Callable[[int], bool],
        failures: Failures,
    ) -> None:
        self._mailbox = mailbox
        self._decoders = {process: Decoder() for process in range(1, process_count)}
        self._queue = queue
        self._is_ahead = is_ahead
        self._failures = failures
        self._stopping = threading.Event()
        self._has_sample = threading.Event()
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="lerax_dist-peers", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def await_sample(self) -> bool:
        """See `AbstractOutlet.await_sample`; nor does it wait for processes that have ended."""
        return self._has_sample.wait(max(self._started + _FIRST_SAMPLE - time.monotonic(), 0.0))

    def stop(self) -> None:
        """Let the thread end within a second; later messages are not received."""
        self._stopping.set()

    def _run(self) -> None:
        while self._decoders and not self._stopping.is_set():
            senders = self._senders()
            for process in senders:
                try:
                    self._receive(process, _ROUND / min(len(senders), 100))
                except Exception as error:
                    if not self._stopping.is_set():
                        self._failures.record(
                            f"process {process}", f"receiving its rows failed ({error!r})", error
                        )
                    del self._decoders[process]
        self._has_sample.set()

    def _senders(self) -> list[int]:
        """The processes that have sent something, and may send more."""
        try:
            senders = self._mailbox.senders(timeout=_ROUND)
        except Exception as error:
            if not self._stopping.wait(_ROUND):
                self._failures.record("peers", f"receiving rows failed ({error!r})", error)
            return []
        left = [process for process in senders if process in self._decoders]
        if senders and not left:
            self._stopping.wait(_ROUND)
        return left

    def _receive(self, process: int, timeout: float) -> None:
        """The messages of a process that are there; waits `timeout` seconds for the first."""
        if self._is_ahead(process):
            self._stopping.wait(timeout)
            return
        for _ in range(_MAX_MESSAGES):
            message = self._mailbox.receive(process, timeout=timeout)
            if message is None:
                return
            if "end" in message:
                self._queue.put(PeerRows(process, [], message["end"]))
                del self._decoders[process]
                return
            if "sample" in message:
                names, values = tuple(message["sample"]), [*message["sample"].values()]
                self._queue.put(Sample(process, message["step"], names, [(names, values)]))
                self._has_sample.set()
            else:
                self._queue.put(PeerRows(process, self._decoders[process].decode(message)))
            timeout = 0.0


@final
class PeerMerger:
    """What waits on process 0 until every process has sent its row.

    Rows are matched in the order in which each process has sent them, those of `emit` among those
    with the same names, as the callbacks of one program may overtake one another. A process that
    has sent nothing for five minutes while it is waited for is excluded from then on, and so is one
    that has ended. A slower one is waited for: a row is the row of all. Times are those of a
    monotonic clock, in seconds.

    With `merges_all` all rows are merged, and all of their metrics; else the local partials of
    those rows that have some.

    Attributes:
        has_failed: whether a process has ended its run as failed.
    """

    def __init__(
        self, hosts: Sequence[str | None], failures: Failures, *, merges_all: bool = True
    ) -> None:
        self._hosts = hosts
        self._failures = failures
        self._merges_all = merges_all
        # What waits, and since when.
        self._waiting: deque[tuple[Any, float]] = deque()
        self._received: dict[int, defaultdict[_Lane, deque[PeerRow]]] = {
            process: defaultdict(deque) for process in range(1, len(hosts))
        }
        self._bytes_ahead = dict.fromkeys(self._received, 0)
        # When each last sent something, or had a row used: its timeout counts from then.
        self._last_heard = dict.fromkeys(self._received, -inf)
        self._excluded: set[int] = set()
        self.has_failed = False

    @property
    def is_waiting(self) -> bool:
        """Whether something waits for other processes."""
        return bool(self._waiting)

    def put(self, items: Sequence[Any], now: float) -> None:
        """Partial rows of process 0, and what must not overtake them, in their order."""
        self._waiting.extend((item, now) for item in items)

    def receive(self, peer: PeerRows, now: float) -> None:
        """Rows, or the end, of another process arrive at `now`."""
        process = peer.process
        if process not in self._excluded and (peer.rows or self._merges_all):
            self._last_heard[process] = now
            for row in peer.rows:
                self._received[process][row.names if row.is_emitted else None].append(row)
            self._bytes_ahead[process] += sum(_size(row) for row in peer.rows)
        if peer.state is None:
            return
        # What it has sent still counts.
        self._excluded.add(process)
        if peer.state == "failed":
            self.has_failed = True
        if peer.state == "failed" and (self._merges_all or self._last_heard[process] > -inf):
            self._record(process, "ended its run as failed; rows continue without it")

    def is_ahead(self, process: int) -> bool:
        """Whether a process has to wait, as too many of its rows are queued. For any thread."""
        return self._bytes_ahead[process] > _MAX_AHEAD_BYTES

    def ready(self, now: float, deadline: float | None = None) -> list[Any]:
        """What need not wait any longer, merged, in its order; from `deadline` on no process is
        waited for."""
        ready = []
        while self._waiting:
            item, since = self._waiting[0]
            if isinstance(item, PartialRow) and (self._merges_all or item.schema.local_names):
                lane = _lane(item)
                if lane is None:
                    self._drop_older(item.number, now)
                missing = [p for p, received in self._received.items() if not received[lane]]
                for process in missing:
                    if process not in self._excluded:
                        self._exclude_if_late(process, item.number, since, now, deadline)
                    elif not self._merges_all and self._last_heard[process] == -inf:
                        self._record(process, _absent(item), kind="late")
                missing = [process for process in missing if process not in self._excluded]
                is_late = lane is not None and now - since > _EMIT_TIMEOUT
                if missing and not (is_late and all(map(self._goes_on, missing))):
                    break
                what = f"{_MIN_PASSED} rows but not row {item.number} of `emit`"
                for process in missing:
                    self._mismatch(process, what)
                item = self._merged(item, now)
            self._waiting.popleft()
            ready.append(item)
        return ready

    def _goes_on(self, process: int) -> bool:
        return sum(map(len, self._received[process].values())) >= _MIN_PASSED

    def _exclude_if_late(
        self, process: int, number: int, since: float, now: float, deadline: float | None
    ) -> None:
        silence = now - max(since, self._last_heard[process])
        if deadline is not None and now >= deadline:
            self._excluded.add(process)
            self._record(
                process,
                f"did not send row {number} before `close(timeout=...)` expired; rows from there "
                "on exclude it. It lags behind process 0: raise `timeout`.",
                kind="late",
            )
        elif silence >= PEER_TIMEOUT:
            self._excluded.add(process)
            self._record(
                process,
                f"sent nothing for {silence:.0f} s while row {number} was waiting for it; rows "
                "continue without it. It died, is hung, or logs less often than process 0.",
                kind="late",
            )

    def _drop_older(self, number: int, now: float) -> None:
        """Drop rows that process 0 has not logged, or has no more: its own comes behind them."""
        for process, lanes in self._received.items():
            while lanes[None] and lanes[None][0].number < number:
                self._unexpected(process, lanes[None][0].number, number)
                self._pop(process, None, now)

    def _merged(self, row: PartialRow, now: float) -> PartialRow:
        parts, lane = [row.totals], _lane(row)
        names, own = _merged_part(row, self._merges_all)
        for process, lanes in self._received.items():
            received = lanes[lane]
            if lane is not None and all(peer.number != row.number for peer in received):
                if received:
                    self._mismatch(process, f"no row {row.number} of `emit`, as process 0 does")
                continue
            while received and received[0].number != row.number:
                self._unexpected(process, received[0].number, row.number)
                if lane is None and received[0].number > row.number:
                    break
                self._pop(process, lane, now)
            if not received or received[0].number != row.number:
                continue
            peer = self._pop(process, lane, now)
            sizes = [(len(each.sums), len(each.maxima)) for each in (own, peer.totals)]
            if peer.names != names or sizes[0] != sizes[1]:
                self._mismatch(process, _difference(names, peer.names))
                continue
            totals = peer.totals
            if not self._merges_all:
                # The other metrics are those of process 0.
                more = len(row.totals.sums) - len(totals.sums)
                sums = np.pad(totals.sums, (0, more))
                totals = totals._replace(plain=np.zeros_like(row.totals.plain), sums=sums)
            parts.append(totals)
        if len(parts) == 1:
            return row
        try:
            return row._replace(totals=row.schema.merge(parts))
        except Exception as error:
            self._failures.record("writer", f"rows could not be merged ({error!r})", error)
            return row

    def _pop(self, process: int, lane: _Lane, now: float) -> PeerRow:
        # While its rows were here, its messages may have been kept waiting (see `is_ahead`).
        self._last_heard[process] = now
        row = self._received[process][lane].popleft()
        self._bytes_ahead[process] -= _size(row)
        return row

    def _unexpected(self, process: int, sent: int, number: int) -> None:
        self._mismatch(process, f"row {sent} while process 0 expected row {number}")

    def _mismatch(self, process: int, what: str) -> None:
        self._record(
            process,
            f"sent {what}; its values were left out of the row. Log the same metrics on the same "
            "iterations on every process.",
            kind="mismatch",
        )

    def _record(self, process: int, message: str, kind: str | None = None) -> None:
        self._failures.record(self.describe(process), message, kind=kind)

    def describe(self, process: int) -> str:
        """A process with its host, for messages."""
        host = self._hosts[process]
        return f"process {process}" if host is None else f"process {process} ({host})"


def _merged_part(row: PartialRow, merges_all: bool) -> tuple[tuple[str, ...], Totals]:
    """Names and numbers of what is merged over processes."""
    if merges_all:
        return row.schema.names, row.totals
    return row.schema.local_names, row.schema.local(row.totals)


def _lane(row: PartialRow) -> _Lane:
    return None if row.schema.unit is None else row.schema.names


def _size(row: PeerRow) -> int:
    return _ROW_BYTES + 8 * len(row.names)


def _absent(row: PartialRow) -> str:
    return (
        f"has ended without sending {', '.join(row.schema.local_names)}; row {row.number} and "
        "later ones exclude it. Log partials on every process, or a plain value on process 0."
    )


def _difference(ours: tuple[str, ...], theirs: tuple[str, ...]) -> str:
    more = [name for name in theirs if name not in ours]
    less = [name for name in ours if name not in theirs]
    if ours == theirs:
        return f"partials of other types than process 0 ({', '.join(ours)})"
    if not more and not less:
        return f"its metrics in another order than process 0 ({', '.join(ours)})"
    parts = []
    if more:
        parts.append(f"the metrics {', '.join(more)}, which process 0 does not log")
    if less:
        parts.append(f"no {', '.join(less)}, which process 0 logs")
    return " and ".join(parts)
