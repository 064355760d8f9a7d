from pathlib import Path

from lerax_dist.host._dispatch import call_of
from lerax_dist.host._record import Event


class Curious:
    def on_run(self, facts):
        pass


def test_where_a_run_runs_is_told_to_who_wants_to_know():
    record = Event(1.0, "open", {"name": "r", "launcher": "slurm"})
    facts = {"name": "r", "launcher": "slurm", "time": 1.0}
    assert call_of(record, Curious(), Path()) == ("on_run", (facts,))
    assert call_of(record, object(), Path()) is None
