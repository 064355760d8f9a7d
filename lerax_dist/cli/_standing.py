"""Which records of a journal stand, and which were done again by a later incarnation. Pure."""

from typing import final

from lerax_dist.journal._record import Event, Record, Row, decode

MARK = b'"kind":"resume"'
"""What every `resume` record holds, and hardly any other."""


@final
class Standing:
    """What the `resume` records of a journal say: each hides rows of those who came before it."""

    def __init__(self) -> None:
        self._marks: list[tuple[int, int]] = []

    def learn(self, line: bytes) -> None:
        """Look at a line of the journal, of any kind; those that come later may be seen first."""
        # Decoding takes ten times as long as this.
        decoded = decode(line) if MARK in line else None
        if decoded is not None:
            self.learn_record(*decoded)

    def learn_record(self, number: int, record: Record) -> None:
        """Look at a record of the journal."""
        if isinstance(record, Event) and record.kind == "resume":
            mark = (number, record.body["start_step"])
            if mark not in self._marks:
                self._marks.append(mark)

    def hides(self, number: int, record: Record) -> bool:
        """Whether a record is a row or a clip that came again, as far as is known by now."""
        step = _step_of(record)
        return step is not None and any(number < at and step >= start for at, start in self._marks)


def _step_of(record: Record) -> int | None:
    if isinstance(record, Row):
        return record.step
    return record.body["step"] if record.kind == "video" else None
