from pathlib import Path

from lerax_dist.host import _dispatch
from lerax_dist.host._dispatch import call_of, rows_call, together
from lerax_dist.journal._record import Event, Row


class Curious:
    def on_run(self, facts):
        pass


def test_where_a_run_runs_is_told_to_who_wants_to_know():
    record = Event(1.0, "open", {"name": "r", "launcher": "slurm"})
    facts = {"name": "r", "launcher": "slurm", "time": 1.0}
    assert call_of(record, Curious(), Path()) == ("on_run", (facts,))
    assert call_of(record, object(), Path()) is None


class Table:
    def log_rows(self, names, values, steps, times):
        pass


def row(step, **metrics):
    return Row.of(100.0 + step, step, None, metrics)


def test_rows_with_the_same_metrics_are_one_call_for_who_takes_them_so(monkeypatch):
    monkeypatch.setattr(_dispatch, "_MOST_AT_ONCE", 6)
    event = Event(1.0, "hparams", {"hparams": {}})
    records = [row(0, a=1), row(1, a=2), event, row(2, a=3), row(3, a=4, b=5)]
    records += [row(step, a=0, b=0) for step in range(4, 9)]
    batches = list(together(records, Table()))
    # Of 2 metrics 3 rows at most come at once.
    assert [len(batch) for batch in batches] == [2, 1, 1, 3, 3]
    assert [record for batch in batches for record in batch] == records
    assert [[record] for record in records] == list(together(records, object()))
    call = rows_call(batches[0], Table())
    assert call is not None
    names, values, steps, times = call[1]
    assert (call[0], names, steps, times) == ("log_rows", ("a",), [0, 1], [100.0, 101.0])
    assert values.tolist() == [[1.0], [2.0]]
    assert rows_call([event], Table()) is None
    assert rows_call(batches[0], object()) is None
