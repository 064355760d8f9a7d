"""One thread a backend: whatever a backend does, training and the other backends go on."""

import threading
import time
import warnings
from types import SimpleNamespace

import pytest

import lerax_dist as ld
from lerax_dist.host import _backend_worker
from tests.memory import Batches, Hangs, Memory, Raises
from tests.readers import journal_records, journal_row_records, journal_steps

LIMIT = 20.0
NO_NETWORK = ConnectionError("no network")


def log(logger, steps):
    for step in steps:
        logger.log({"x": float(step)}, step)


def steps_of(backend):
    return [step for step, _ in backend.rows]


def messages(logger):
    return [f"{failure.where}: {failure.message}" for failure in logger.failures]


def test_every_backend_gets_every_row_in_order_from_one_thread_of_its_own(tmp_path):
    backends = [Memory(), Memory()]
    hparams = {"rate": 0.5}
    with ld.Logger(backends, "r", log_dir=tmp_path, total_steps=500, hparams=hparams) as logger:
        log(logger, range(500))
    for backend in backends:
        assert backend.rows == [(step, {"x": float(step)}) for step in range(500)]
        assert backend.calls == [
            ("open", "r"),
            ("hparams", {"rate": 0.5}),
            ("start", 500, 0),
            ("close",),
        ]
        assert len(backend.threads) == 1
    assert backends[0].threads.isdisjoint(backends[1].threads)
    assert threading.current_thread() not in backends[0].threads | backends[1].threads
    assert logger.failures == ()
    assert journal_steps(logger.run_dir) == list(range(500))
    assert journal_records(logger.run_dir)[-1].body == {"state": "finished", "failures": []}


def test_a_backend_that_fails_to_open_is_left_out_and_named(tmp_path):
    good, bad = Memory(), Raises("open", NO_NETWORK)
    with pytest.warns(ld.LoggingWarning, match="^Raises: .*no network"):
        logger = ld.Logger([bad, good], "r", log_dir=tmp_path)
    log(logger, range(10))
    logger.close()
    assert steps_of(good) == list(range(10))
    assert (bad.calls, bad.rows) == ([], [])


def test_a_backend_that_opens_late_gets_every_row(tmp_path):
    late = Hangs("open")
    with pytest.warns(ld.LoggingWarning, match="^Hangs: .*0.1 s"):
        logger = ld.Logger(late, "r", log_dir=tmp_path, open_timeout=0.1)
    log(logger, range(10))
    late.release.set()
    logger.close()
    assert steps_of(late) == list(range(10))


def test_a_failure_to_close_is_kept(tmp_path):
    logger = ld.Logger(Raises("close", NO_NETWORK), "r", log_dir=tmp_path)
    with pytest.warns(ld.LoggingWarning, match="^Raises: .*no network"):
        logger.close()
    assert [failure.where for failure in logger.failures] == ["Raises"]
    assert logger.failures[0].error is NO_NETWORK


def test_a_backend_that_raises_for_a_moment_loses_nothing(tmp_path):
    backend = Raises("log_scalars", NO_NETWORK, times=2)
    with ld.Logger(backend, "r", log_dir=tmp_path) as logger:
        log(logger, range(10))
    assert steps_of(backend) == list(range(10))
    assert logger.failures == ()


def test_a_backend_that_raises_for_long_is_reported_once_and_what_it_lacks_is_counted(tmp_path):
    """The one test that waits out all pauses between retries, of several backends at once."""
    good, never = Memory(), Raises("log_scalars", NO_NETWORK)
    # Eight attempts for the first row, one for each of the next two, then it takes them again.
    heals = Raises("log_scalars", NO_NETWORK, times=10)
    logger = ld.Logger([never, good, heals], "r", log_dir=tmp_path)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        log(logger, range(10))
        logger.close()
    assert steps_of(good) == list(range(10))
    assert steps_of(heals) == list(range(3, 10))
    assert never.rows == []
    assert [backend.calls[-1] for backend in (good, heals, never)] == [("close",)] * 3
    said = [str(entry.message) for entry in shown]
    for name, count in (("Raises", 10), ("Raises_2", 3)):
        (raised, lacks) = [text for text in said if text.startswith(f"{name}: ")]
        assert "log_scalars" in raised and "no network" in raised and "at step 0" in raised
        assert f" {count} " in lacks
    assert len(said) == 4


class FailsTwice(Memory):
    """Its disk fails for a second, and 5 s later once more; its thread's pauses are its clock."""

    def __init__(self):
        super().__init__()
        self.now = 0.0

    def log_scalars(self, scalars, step):
        if self.now < 1.0 or 5.0 < self.now < 6.0:
            raise OSError("disk")
        super().log_scalars(scalars, step)
        self.now += 0.5

    def sleep(self, seconds):
        self.now += seconds


def test_two_short_failures_that_a_long_pause_would_join_cost_no_row(tmp_path, monkeypatch):
    backend = FailsTwice()
    clock = SimpleNamespace(sleep=backend.sleep, monotonic=time.monotonic)
    monkeypatch.setattr(_backend_worker, "time", clock)
    with ld.Logger(backend, "r", log_dir=tmp_path) as logger:
        log(logger, range(20))
    assert steps_of(backend) == list(range(20))
    assert backend.now > 6.0
    assert logger.failures == ()


class Odd(Memory):
    """Fails for a reason that no second attempt helps, at each odd step and at the end."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def log_scalars(self, scalars, step):
        self.asked.append(step)
        if step % 2:
            raise ValueError("odd")
        super().log_scalars(scalars, step)

    def close(self):
        raise ValueError("not uploaded")


def test_an_error_that_would_only_come_again_is_not_tried_again_and_hides_no_other(tmp_path):
    backend = Odd()
    logger = ld.Logger(backend, "r", log_dir=tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log(logger, range(40))
        logger.close()
    assert backend.asked == list(range(40))
    assert steps_of(backend) == list(range(0, 40, 2))
    said = " ".join(messages(logger))
    assert "odd" in said and "not uploaded" in said and " 20 " in said


def test_a_backend_that_hangs_stops_neither_its_neighbor_nor_the_close(tmp_path):
    good, bad = Memory(), Hangs("log_scalars")
    logger = ld.Logger([bad, good], "r", log_dir=tmp_path)
    log(logger, range(10))
    assert bad.began.wait(LIMIT)
    start = time.monotonic()
    with pytest.warns(ld.LoggingWarning, match="^Hangs: .* 3 s: `log_scalars` has been"):
        logger.close(timeout=3.0)
    assert time.monotonic() - start < 8.0
    assert steps_of(good) == list(range(10))
    assert good.calls[-1] == ("close",)
    assert journal_steps(logger.run_dir) == list(range(10))
    bad.release.set()


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


@pytest.mark.parametrize(
    ("where", "taken"),
    [("open", []), ("log_scalars", [0, 2, 3]), ("close", [0, 1, 2, 3])],
)
def test_a_backend_that_quits_the_program_costs_only_what_it_was_given(tmp_path, where, taken):
    backend, other = Quits(where), Memory()
    with pytest.warns(ld.LoggingWarning) as warned:
        logger = ld.Logger([backend, other], "r", log_dir=tmp_path)
        log(logger, range(4))
        logger.close()
    assert str(warned[0].message).startswith("Quits: ")
    assert "SystemExit('bad login')" in str(warned[0].message)
    assert steps_of(backend) == taken
    assert steps_of(other) == [0, 1, 2, 3]


def test_a_required_backend_that_quits_the_program_is_an_error(tmp_path):
    with pytest.raises(RuntimeError, match="bad login"):
        with pytest.warns(ld.LoggingWarning, match="bad login"):
            ld.Logger(ld.Required(Quits("open")), "r", log_dir=tmp_path)


def test_backends_of_one_class_are_told_apart_by_a_number(tmp_path):
    with pytest.warns(ld.LoggingWarning, match=r"^Quits_\d: "):
        logger = ld.Logger([Quits(""), Quits("open"), Quits("open")], "r", log_dir=tmp_path)
        log(logger, range(4))
        # Who never opened is not waited for.
        logger.flush(LIMIT)
        logger.close()
    assert {failure.where for failure in logger.failures} == {"Quits_2", "Quits_3"}


def test_rows_with_the_same_metrics_come_together_each_with_its_time(tmp_path):
    backend = Batches()
    with ld.Logger(backend, "r", log_dir=tmp_path) as logger:
        log(logger, range(3))
        for step in (3, 4):
            logger.log({"y": step, "x": 0.5}, step)
        log(logger, [5])
        logger.log_hparams({"a": 1})
        log(logger, [6])
    assert steps_of(backend) == list(range(7))
    assert {names for names, *_ in backend.batches} == {("x",), ("y", "x")}
    assert sum(len(steps) for _, _, steps, _ in backend.batches) == 7
    # What stands between them keeps its place.
    assert backend.batches[-1][2] == [6]
    assert backend.times == [row.time for row in journal_row_records(logger.run_dir)]
    assert [row["y"] for _, row in backend.rows[3:5]] == [3.0, 4.0]


class LateBatches(Batches):
    """Opens once it may, so that many rows wait for it."""

    def __init__(self):
        super().__init__()
        self.release = threading.Event()

    def open(self, name):
        self.release.wait(LIMIT)
        super().open(name)


def test_rows_of_many_metrics_come_in_calls_of_4_mib_at_most(tmp_path):
    backend = LateBatches()
    with pytest.warns(ld.LoggingWarning, match="^LateBatches: "):
        logger = ld.Logger(backend, "r", log_dir=tmp_path, open_timeout=0.01)
    metrics = {f"m{place}": float(place) for place in range(2500)}
    for step in range(240):
        logger.log(metrics, step)
    logger.state(LIMIT)
    backend.release.set()
    logger.close()
    assert steps_of(backend) == list(range(240))
    assert 2**21 < max(values.nbytes for _, values, _, _ in backend.batches) <= 2**22


def test_rows_that_are_not_taken_together_are_taken_one_by_one_at_their_own_times(tmp_path):
    # A batch, its first row at the first attempt; and another batch.
    backend = Batches(*[OSError("disk")] * 3)
    logger = ld.Logger(backend, "r", log_dir=tmp_path)
    for start in range(0, 40, 10):
        log(logger, range(start, start + 10))
        logger.flush(LIMIT)
    logger.close()
    assert steps_of(backend) == list(range(40))
    # By `log_rows` all the same, which has their times.
    assert sum(len(steps) for _, _, steps, _ in backend.batches) == 40
    assert backend.times == [row.time for row in journal_row_records(logger.run_dir)]
    assert logger.failures == ()


def test_a_backend_that_never_takes_rows_together_is_reported_and_gets_them_alone(tmp_path):
    backend = Batches(*[TypeError("what is this")] * 100)
    logger = ld.Logger(backend, "r", log_dir=tmp_path)
    with pytest.warns(ld.LoggingWarning, match=r"^Batches: `log_rows` raised TypeError"):
        log(logger, range(10))
        logger.flush(LIMIT)
    logger.close()
    assert steps_of(backend) == list(range(10))


class Picky(Batches):
    """Takes a row at step 7 in no way."""

    def log_rows(self, names, values, steps, times):
        if 7 in steps:
            raise ValueError("seven")
        super().log_rows(names, values, steps, times)

    def log_scalars(self, scalars, step):
        if step == 7:
            raise ValueError("seven")
        super().log_scalars(scalars, step)


def test_a_row_that_is_never_taken_is_named_by_its_step(tmp_path):
    backend = Picky()
    logger = ld.Logger(backend, "r", log_dir=tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log(logger, range(5, 10))
        logger.close()
    assert steps_of(backend) == [5, 6, 8, 9]
    said = messages(logger)
    assert any("ValueError('seven') at step 7" in text for text in said)
    assert sum(" 1 records" in text for text in said) == 1


class Textless:
    def __str__(self):
        raise KeyError


@pytest.mark.parametrize(
    "odd",
    [10**5000, Textless(), {1: {2: Textless()}}, "\ud800", b"\xff"],
    ids=["digits", "textless", "nested", "half", "bytes"],
)
def test_a_value_that_json_has_not_costs_neither_its_record_nor_another(tmp_path, odd):
    memory = Memory()
    # A warning is an error here.
    with ld.Logger(memory, "r", log_dir=tmp_path) as logger:
        log(logger, range(100))
        logger.log_hparams({"x": odd, "y": 1})
        log(logger, range(100, 200))
    assert journal_steps(logger.run_dir) == list(range(200))
    (hparams,) = [call[1] for call in memory.calls if call[0] == "hparams"]
    assert hparams["y"] == 1 and len(hparams) == 2
    if odd == 10**5000:
        assert int(hparams["x"], 16) == odd
    assert dict(ld.read_run(logger.run_dir).hparams) == hparams


def test_a_step_that_a_journal_cannot_hold_is_refused(tmp_path):
    with ld.Logger(Memory(), "r", log_dir=tmp_path) as logger:
        with pytest.raises(ValueError, match="`step` must be below"):
            logger.log({"x": 1.0}, 10**5000)
