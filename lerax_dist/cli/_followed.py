"""A run as it is seen from outside, by its journal."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import final

from lerax_dist.backends._format import format_duration
from lerax_dist.backends.console._view import RunView
from lerax_dist.cli._locks import is_locked
from lerax_dist.cli._reader import JournalReader
from lerax_dist.cli._runs import state_of
from lerax_dist.journal._record import Event, Record, Row

_ASK_AGAIN = 2.0
"""Seconds between two looks at whether somebody has the journal open."""
_BATCH_BYTES = 1 << 20
"""How much is read before the display may be drawn again."""


@final
class FollowedRun:
    """Follows a run: what it was, what it is, and how it ended.

    Attributes:
        view: what to show.

    Args:
        journal: its journal, which need not be there yet.
        label: what to call it; `None` for its own name, as soon as the journal says.
        chart: metric to draw.
        clock: present time in seconds since the epoch.
    """

    def __init__(
        self, journal: Path, label: str | None, chart: str, clock: Callable[[], float]
    ) -> None:
        self._reader = JournalReader(journal)
        self._label = label
        self._chart = chart
        self._clock = clock
        self._age = self._reader.age
        self._asked: float | None = None
        self._locked: bool | None = None
        self._unreadable = ""
        self._begin()

    @property
    def behind(self) -> bool:
        """Whether there is more to read at once."""
        return self._reader.behind and not self._unreadable

    @property
    def ended(self) -> bool:
        """Whether it is over, and nothing says that it will be continued."""
        return self._closed is not None and self.view.state in ("finished", "failed")

    def poll(self) -> None:
        """Read what is new, one batch of it."""
        self._unreadable = ""
        try:
            records = self._reader.read(_BATCH_BYTES)
        except OSError as error:
            records = []
            self._unreadable = f"cannot read {self._reader.path} ({error.strerror})"
        if self._reader.age != self._age:
            self._age = self._reader.age
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
        self._newest: float | None = None

    def _take(self, record: Record) -> None:
        self._newest = record.time
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
                self.view.drop(record.body["start_step"])
            case "close":
                self._closed = record

    def _state(self) -> str:
        if self._closed is not None:
            return str(self._closed.body.get("state", "finished"))
        if not self._reader.path.exists():
            return "waiting"
        if self.behind:
            return "reading"
        return state_of(None, self._reader.size, self._newest is not None, self._ask())

    def _ask(self) -> bool | None:
        now = self._clock()
        if self._asked is None or now - self._asked >= _ASK_AGAIN:
            self._asked = now
            try:
                with self._reader.path.open("rb") as file:
                    self._locked = is_locked(file)
            except OSError:
                self._locked = None
        return self._locked

    def _notes(self) -> list[str]:
        reader = self._reader
        notes = [self._unreadable] if self._unreadable else []
        if self._closed is None and self.behind and reader.size:
            notes.append(f"reading the journal: {reader.offset / reader.size:.0%}")
        if not self.behind and self.view.state == "waiting":
            notes.append(f"no journal in {os.path.dirname(reader.path)} yet")
        lost = []
        if reader.damage.lines:
            lost.append(f"{reader.damage.lines:,} damaged lines")
        if reader.damage.missing:
            lost.append(f"{reader.damage.missing:,} records missing")
        if lost:
            notes.append("the journal has " + ", ".join(lost))
        if self._closed is None and self._newest is not None:
            silent = self._clock() - self._newest
            if silent > _SILENT:
                notes.append(f"nothing new for {format_duration(silent)}")
        if self._closed is not None:
            notes += [str(told) for told in self._closed.body.get("failures", [])]
        return notes


_SILENT = 60.0
"""Seconds without a record after which it is said."""
