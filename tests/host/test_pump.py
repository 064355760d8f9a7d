"""A backend may do what it likes: its rows are told of, and nobody else notices."""

import math
import threading
import time
import warnings

import pytest

from lerax_dist._failures import Failures, LoggingWarning
from lerax_dist.host import _pump
from lerax_dist.host._lifecycle import Run
from lerax_dist.host._sink import HostRow
from lerax_dist.journal._identity import Identity
from lerax_dist.journal._journal import Journal
from lerax_dist.journal._record import Row
from tests.memory import Memory
from tests.readers import journal_records

LIMIT = 20.0


class Quits(Memory):
    """Calls `sys.exit` in a method, as a library may on a bad login."""

    def __init__(self, where):
        super().__init__()
        self.where = where

    def open(self, name):
        super().open(name)
        self._quit("open")

    def log_scalars(self, scalars, step):
        if step == 1:
            self._quit("log_scalars")
        super().log_scalars(scalars, step)

    def close(self):
        self._quit("close")

    def _quit(self, where):
        if where == self.where:
            raise SystemExit("bad login")


class Batches(Memory):
    """Takes rows together; `failures` are raised by the first calls."""

    def __init__(self, *failures):
        super().__init__()
        self.failures = list(failures)

    def log_rows(self, names, values, steps, times):
        if self.failures:
            raise self.failures.pop(0)
        self.rows += zip(steps, times, strict=True)


def open_run(tmp_path, *backends):
    failures = Failures()
    journal = Journal(tmp_path / "journal.jsonl", failures)
    who = Identity("id", 1)
    return Run(
        "run", backends, journal, failures, who, {}, open_timeout=LIMIT, settle=lambda timeout: None
    )


def log(run, steps):
    for step in steps:
        row = HostRow(step, (("x",), {"x": 1.0}, []), time.time())
        run.log(row, 8, time.perf_counter())


@pytest.mark.parametrize(
    ("where", "taken"),
    [("open", []), ("log_scalars", [0, 2, 3]), ("close", [0, 1, 2, 3])],
)
def test_a_backend_that_quits_the_program_costs_only_what_it_was_given(tmp_path, where, taken):
    backend, other = Quits(where), Memory()
    with pytest.warns(LoggingWarning) as warned:
        run = open_run(tmp_path, backend, other)
        log(run, range(4))
        run.close("finished", LIMIT)
    assert str(warned[0].message).startswith("Quits: ")
    assert "SystemExit('bad login')" in str(warned[0].message)
    assert [step for step, _ in backend.rows] == taken
    assert [step for step, _ in other.rows] == [0, 1, 2, 3]
    assert (run.unopened(backend) is None) == (where != "open")


def test_a_backend_that_never_opens_lags_behind_for_ever_and_its_namesake_does_not(tmp_path):
    with pytest.warns(LoggingWarning, match=r"^Quits_\d: could not be opened"):
        run = open_run(tmp_path, Quits(""), Quits("open"), Quits("open"))
        log(run, range(4))
        run.flush(LIMIT)
    for pump in run._pumps[1:]:
        assert pump.ended.wait(LIMIT)
    assert run._lags() == {"Quits": 0.0, "Quits_2": math.inf, "Quits_3": math.inf}
    assert {failure.where for failure in run.failures.all()} == {"Quits_2", "Quits_3"}
    run.close("finished", LIMIT)


def test_rows_that_did_not_go_together_go_alone_at_their_own_times(tmp_path, monkeypatch):
    monkeypatch.setattr(_pump, "_PAUSES", (0.0,))
    # The batch, and its first row at the first attempt.
    backend = Batches(*[OSError("disk")] * 2)
    run = open_run(tmp_path, backend)
    log(run, range(5))
    run.close("finished", LIMIT)
    kept = [(row.step, row.time) for row in journal_records(tmp_path) if isinstance(row, Row)]
    assert [step for step, _ in kept] == list(range(5))
    assert backend.rows == kept
    assert run.failures.all() == ()


def test_a_row_that_is_never_taken_is_named_by_its_step(tmp_path, monkeypatch):
    monkeypatch.setattr(_pump, "_PAUSES", (0.0,))
    backend = Batches(*[OSError("disk")] * 3)
    run = open_run(tmp_path, backend)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        log(run, [7])
        run.close("finished", LIMIT)
    assert backend.rows == []
    assert "`log_rows` raised OSError('disk') at step 7" in str(warned[0].message)
    assert "did not take 1 records" in str(warned[1].message)


def test_no_thread_of_a_closed_run_is_left(tmp_path):
    before = set(threading.enumerate())
    run = open_run(tmp_path, Memory())
    # A signal that comes while the run is closed.
    stop = run._writer.stop
    run._writer.stop = lambda patience: (stop(patience), run.sync_soon())[0]
    log(run, range(3))
    run.close("finished", LIMIT)
    for thread in set(threading.enumerate()) - before:
        thread.join(LIMIT)
        assert not thread.is_alive(), thread.name
