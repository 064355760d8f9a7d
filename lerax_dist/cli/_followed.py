"""A run followed by its journal, for `lerax-dist watch`."""

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import final

from lerax_dist.backends._format import format_duration
from lerax_dist.backends.console._view import RunView
from lerax_dist.journal import (
    Ends,
    Event,
    JournalFormatError,
    JournalReader,
    Liveness,
    Record,
    Row,
    state_of,
)

# Seconds between two looks at whether the writer is alive.
_LIVENESS_INTERVAL = 2.0
# Seconds between two looks into a bucket.
_REFRESH_INTERVAL = 5.0
# Seconds without a record after which a note is shown.
_SILENCE = 60.0


@final
class FollowedRun:
    """Follows a run to its end, and fills in the `view` of it that is shown.

    Args:
        journal: its journal, which need not exist yet.
        label: name to show; `None` for the name in the journal.
        chart: metric to draw.
        clock: present time in seconds since the epoch.
        monotonic: monotonic time in seconds.
        refresh: brings what is new to that file, if it is a copy.
    """

    def __init__(
        self,
        journal: Path,
        label: str | None,
        chart: str,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        refresh: Callable[[], None] = lambda: None,
    ) -> None:
        self._reader = JournalReader(journal)
        self._liveness = Liveness(journal, monotonic, clock)
        self._refresh = refresh
        self._refresh_at = -math.inf
        self._label = label
        self._chart = chart
        self._clock = clock
        self._monotonic = monotonic
        self._generation = self._reader.generation
        self._looked: float | None = None
        self._alive = False
        self._unreadable = ""
        self._begin()

    @property
    def behind(self) -> bool:
        """Whether there is more to read at once."""
        return self._reader.behind and not self._unreadable

    @property
    def ended(self) -> bool:
        """Whether it has finished or failed: nothing more is expected."""
        return self._closed is not None and self.view.state in ("finished", "failed")

    def poll(self) -> None:
        """Read what is new, one batch of it."""
        self._unreadable = ""
        try:
            if self._monotonic() >= self._refresh_at:
                self._refresh_at = self._monotonic() + _REFRESH_INTERVAL
                self._refresh()
            records = self._reader.read()
        except (OSError, JournalFormatError) as error:
            records = []
            self._unreadable = str(error)
            if isinstance(error, OSError):
                self._unreadable = f"cannot read {self._reader.path} ({error.strerror})"
        if self._reader.generation != self._generation:
            self._generation = self._reader.generation
            self._begin()
        for _, record in records:
            self._take(record)
        with self.view.lock:
            self.view.state = self._state()
            self.view.notes = self._notes()

    def now(self) -> float:
        """Present time; that of the end once it has ended."""
        return self._clock() if self._closed is None else self._closed.time

    def _begin(self) -> None:
        name = self._label or self._reader.path.resolve().parent.name
        self.view = RunView(name, self._chart, self._clock())
        self._closed: Event | None = None
        self._last: Record | None = None

    def _take(self, record: Record) -> None:
        self._last = record
        if isinstance(record, Row):
            self.view.add(record.metrics, record.step, record.time)
            return
        match record.kind:
            case "open":
                self._closed = None
                with self.view.lock:
                    self.view.facts = record.body
                    self.view.name = self._label or str(record.body.get("name", self.view.name))
                    self.view.progress.begin(self.view.progress.total, record.time)
            case "start":
                with self.view.lock:
                    self.view.progress.begin(record.body["total_timesteps"], record.time)
            case "resume":
                self.view.drop(record.body["start_step"], record.body.get("metrics"))
            case "close":
                self._closed = record

    def _state(self) -> str:
        if self._closed is None:
            if not self._reader.path.exists():
                return "waiting"
            if self.behind:
                return "reading"
        now = self._monotonic()
        if self._looked is None or now - self._looked >= _LIVENESS_INTERVAL:
            self._looked = now
            self._alive = self._liveness.is_alive()
        last = [] if self._last is None else [(0, self._last)]
        return state_of(Ends(self._reader.size, last), self._alive)

    def _notes(self) -> list[str]:
        reader = self._reader
        notes = [self._unreadable] if self._unreadable else []
        if self._closed is None and self.behind and reader.size:
            notes.append(f"reading the journal: {reader.offset / reader.size:.0%}")
        if not self.behind and self.view.state == "waiting":
            notes.append(f"no journal in {os.path.dirname(reader.path)} yet")
        damage = reader.damage
        if damage.lines:
            notes.append(f"damaged lines in the journal: {damage.lines:,}")
        if damage.missing:
            notes.append(f"records missing from the journal: {damage.missing:,}")
        if self._closed is None and self._last is not None:
            silence = self._clock() - self._last.time
            if silence > _SILENCE:
                notes.append(f"no new row for {format_duration(silence)}")
        if self._closed is not None:
            notes += [str(failure) for failure in self._closed.body.get("failures", [])]
        return notes
