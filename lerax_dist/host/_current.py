"""The rows of a run as it stands: what a later incarnation has done again counts once. Pure."""

from collections.abc import Iterable

from lerax_dist.host._record import Event, Record, Row


def current_rows(records: Iterable[Record]) -> list[Row]:
    """The rows that are not superseded, in the order of the journal.

    Args:
        records: records of a journal, from its beginning.
    """
    rows: list[Row] = []
    for record in records:
        if isinstance(record, Row):
            rows.append(record)
        elif isinstance(record, Event) and record.kind == "resume":
            start_step = record.body["start_step"]
            rows = [row for row in rows if row.step < start_step]
    return rows
