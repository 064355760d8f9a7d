"""The host half as a whole: queue, writer, journal, pumps, close."""

import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from lerax_dist._failures import Failures, LoggingWarning
from lerax_dist.backends import AbstractLoggingBackend
from lerax_dist.host import _pump
from lerax_dist.host._lifecycle import Run
from lerax_dist.host._sink import HostRow, Packet, Start
from lerax_dist.journal._identity import Identity
from lerax_dist.journal._journal import Journal
from lerax_dist.journal._record import Event, Row
from tests.readers import journal_records, journal_rows


class Memory(AbstractLoggingBackend):
    def __init__(self):
        self.rows = []
        self.calls = []
        self.threads = set()

    def open(self, name):
        self._called("open", name)

    def on_training_start(self, total_timesteps, total_iterations):
        self._called("start", total_timesteps, total_iterations)

    def log_hparams(self, hparams):
        self._called("hparams", hparams)

    def log_scalars(self, scalars, step):
        self.threads.add(threading.current_thread())
        self.rows.append((step, scalars))

    def log_video(self, tag, frames, step, fps):
        self._called("video", tag)

    def close(self):
        self._called("close")

    def _called(self, *call):
        self.threads.add(threading.current_thread())
        self.calls.append(call)


class Raises(Memory):
    def __init__(self, where, times=10**9):
        super().__init__()
        self.where, self.times = where, times

    def _maybe(self, where):
        if where == self.where and self.times > 0:
            self.times -= 1
            raise ConnectionError(f"no network in {where}")

    def open(self, name):
        self._maybe("open")
        super().open(name)

    def log_scalars(self, scalars, step):
        self._maybe("log_scalars")
        super().log_scalars(scalars, step)

    def close(self):
        self._maybe("close")
        super().close()


class Hangs(Memory):
    def __init__(self, where):
        super().__init__()
        self.where, self.began, self.let_go = where, threading.Event(), threading.Event()

    def open(self, name):
        if self.where == "open":
            self.let_go.wait()

    def log_scalars(self, scalars, step):
        if self.where == "log_scalars":
            self.began.set()
            self.let_go.wait()
        super().log_scalars(scalars, step)


def open_run(tmp_path, backends, open_timeout=10.0, settle=lambda timeout: None):
    failures = Failures()
    journal = Journal(tmp_path / "journal.jsonl", failures)
    who = Identity("id", 1)
    return Run(
        "run", backends, journal, failures, who, {}, open_timeout=open_timeout, settle=settle
    )


def journal_steps(tmp_path):
    return [step for step, _ in journal_rows(tmp_path)]


def last_record(tmp_path):
    return journal_records(tmp_path)[-1]


def log_row(run, metrics, step):
    run.log(HostRow(step, (tuple(metrics), metrics, []), 0.0), 100, 0.0)


def log(run, steps):
    for step in steps:
        log_row(run, {"x": float(step)}, step)


def test_every_backend_gets_every_row_in_order_from_one_thread_of_its_own(tmp_path):
    backends = [Memory(), Memory()]
    run = open_run(tmp_path, backends)
    run.put(Start(1, 0, 500, 5, {"rate": 0.5}, time.time(), time.perf_counter()))
    log(run, range(500))
    run.close("finished", 10.0)
    for backend in backends:
        assert backend.rows == [(step, {"x": float(step)}) for step in range(500)]
        assert backend.calls == [
            ("open", "run"),
            ("hparams", {"rate": 0.5}),
            ("start", 500, 5),
            ("close",),
        ]
        assert len(backend.threads) == 1
    assert backends[0].threads.isdisjoint(backends[1].threads)
    assert run.failures.all() == ()
    assert journal_steps(tmp_path) == list(range(500))
    assert last_record(tmp_path).body == {"state": "finished", "failures": []}


def test_a_second_close_does_nothing(tmp_path):
    backend = Memory()
    run = open_run(tmp_path, [backend])
    run.close("finished", 10.0)
    run.close("failed", 10.0)
    assert backend.calls.count(("close",)) == 1
    assert last_record(tmp_path).body["state"] == "finished"


def test_flush_returns_when_every_row_is_with_every_backend(tmp_path):
    backend = Memory()
    run = open_run(tmp_path, [backend])
    log(run, range(100))
    run.flush(10.0)
    assert [step for step, _ in backend.rows] == list(range(100))
    assert journal_steps(tmp_path) == list(range(100))
    run.close("finished", 10.0)


def test_flush_names_what_it_waited_for(tmp_path):
    backend = Hangs("log_scalars")
    run = open_run(tmp_path, [backend])
    log(run, range(3))
    assert run.start_step(10.0) == 3 and backend.began.wait(10.0)
    with pytest.raises(TimeoutError, match="Hangs: `log_scalars` has been running.*3 records"):
        run.flush(1.0)
    backend.let_go.set()
    run.close("finished", 10.0)


def test_a_backend_that_cannot_open_is_left_out_and_named(tmp_path):
    good, bad = Memory(), Raises("open")
    with pytest.warns(LoggingWarning, match="Raises: could not be opened.*no network in open"):
        run = open_run(tmp_path, [bad, good])
    log(run, range(10))
    run.close("finished", 10.0)
    assert len(good.rows) == 10
    assert bad.calls == []


def test_a_backend_that_raises_for_a_moment_loses_nothing(tmp_path):
    backend = Raises("log_scalars", times=2)
    run = open_run(tmp_path, [backend])
    log(run, range(10))
    run.close("finished", 10.0)
    assert [step for step, _ in backend.rows] == list(range(10))
    assert run.failures.all() == ()


def test_a_backend_that_keeps_raising_is_reported_once_with_its_count(tmp_path):
    good, bad = Memory(), Raises("log_scalars")
    run = open_run(tmp_path, [bad, good])
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        log(run, range(10))
        run.close("finished", 20.0)
    assert len(good.rows) == 10
    messages = [str(entry.message) for entry in shown]
    assert sum("`log_scalars` raised ConnectionError" in message for message in messages) == 1
    assert sum("did not take 10 records" in message for message in messages) == 1
    assert bad.calls[-1] == ("close",)


def test_a_backend_that_heals_goes_on_and_what_it_lacks_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(_pump, "_PAUSES", (0.01,))
    backend = Raises("log_scalars", times=4)
    run = open_run(tmp_path, [backend])
    with pytest.warns(LoggingWarning) as shown:
        log(run, range(10))
        run.close("finished", 10.0)
    # Two attempts for the first row, one for each of the next two, then it takes them again.
    assert [step for step, _ in backend.rows] == list(range(3, 10))
    assert any("did not take 3 records" in str(entry.message) for entry in shown)


def test_a_backend_that_hangs_stops_neither_its_neighbour_nor_the_close(tmp_path):
    good, bad = Memory(), Hangs("log_scalars")
    run = open_run(tmp_path, [bad, good])
    log(run, range(10))
    start = time.monotonic()
    with pytest.warns(LoggingWarning, match="Hangs: did not end in 3 s: `log_scalars` has been"):
        run.close("finished", 3.0)
    assert time.monotonic() - start < 8.0
    assert len(good.rows) == 10
    assert good.calls[-1] == ("close",)
    assert journal_steps(tmp_path) == list(range(10))
    bad.let_go.set()


def test_a_backend_that_opens_late_gets_every_row(tmp_path):
    late = Hangs("open")
    with pytest.warns(LoggingWarning, match="Hangs: is not open after 0.1 s"):
        run = open_run(tmp_path, [late], open_timeout=0.1)
    log(run, range(10))
    late.let_go.set()
    run.close("finished", 10.0)
    assert [step for step, _ in late.rows] == list(range(10))


def test_a_failure_to_close_is_kept(tmp_path):
    run = open_run(tmp_path, [Raises("close")])
    with pytest.warns(LoggingWarning, match="could not be closed.*no network in close"):
        run.close("finished", 10.0)
    assert [failure.where for failure in run.failures.all()] == ["Raises"]


def test_the_first_value_that_is_not_finite_is_named_and_only_the_first(tmp_path):
    backend = Memory()
    run = open_run(tmp_path, [backend])
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        log_row(run, {"a": 1.0, "b": float("nan")}, 7)
        log_row(run, {"a": float("inf"), "b": float("nan")}, 8)
        run.close("finished", 10.0)
    assert len(shown) == 1
    assert "'b' is nan at step 7" in str(shown[0].message)
    assert np.isnan(backend.rows[0][1]["b"])


def test_warnings_that_are_errors_end_no_thread(tmp_path):
    backend = Memory()
    run = open_run(tmp_path, [backend])
    log_row(run, {"a": float("nan")}, 0)  # the filter of this test run turns warnings into errors
    log(run, range(1, 4))
    run.close("finished", 10.0)
    assert len(backend.rows) == 4


def test_what_the_devices_do_not_deliver_in_time_is_named(tmp_path):
    run = open_run(tmp_path, [Memory()], settle=lambda timeout: f"no devices in {timeout} s")
    with pytest.warns(LoggingWarning, match="close: no devices in 2.5 s"):
        run.close("finished", 5.0)


def test_a_checkpoint_is_told_which_row_is_the_last_unless_rows_are_late(tmp_path):
    missing = []
    run = open_run(tmp_path, [Memory()], settle=lambda timeout: missing[0] if missing else None)
    assert run.start_step(5.0) == 0
    log(run, range(7))
    assert run.start_step(5.0) == 7
    missing.append("no devices")
    with pytest.warns(LoggingWarning, match="which row is the last after 2.5 s: no devices"):
        assert run.start_step(2.5) is None
    missing.clear()
    run.close("finished", 5.0)
    assert run.start_step(5.0) == 7


END_WITHOUT_CLOSE = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_lifecycle import Memory, log, open_run
class Prints(Memory):
    def close(self):
        print(len(self.rows), flush=True)
run = open_run(Path(sys.argv[1]), [Prints()])
log(run, range(1000))
"""


@pytest.mark.parametrize(
    ("end", "state"), [("", "finished"), ("raise ValueError", "failed"), ("1/0", "failed")]
)
def test_a_program_that_ends_without_close_loses_nothing(tmp_path, end, state):
    program = textwrap.dedent(END_WITHOUT_CLOSE) + end
    here = __file__.rsplit("/", 1)[0]
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), here],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "1000\n", done.stderr
    assert journal_steps(tmp_path) == list(range(1000))
    assert last_record(tmp_path).body["state"] == state


class Wrong(Memory):
    """Fails for a reason that no second attempt mends."""

    def log_scalars(self, scalars, step):
        if step % 2:
            raise ValueError("odd")
        super().log_scalars(scalars, step)

    def close(self):
        raise ValueError("not uploaded")


def test_an_error_that_would_only_come_again_costs_no_time_and_hides_no_other(tmp_path):
    backend = Wrong()
    run = open_run(tmp_path, [backend])
    log(run, range(40))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run.close("finished", 10.0)
    assert [pump._paused for pump in run._pumps] == [0.0]
    assert [step for step, _ in backend.rows] == list(range(0, 40, 2))
    told = " ".join(failure.message for failure in run.failures.all())
    assert "odd" in told and "not uploaded" in told and "did not take 20 records" in told


class Batches(Memory):
    """Takes many rows at once; `failures` are raised by the first calls."""

    def __init__(self, *failures):
        super().__init__()
        self.batches = []
        self.failures = list(failures)

    def log_rows(self, names, values, steps, times):
        if self.failures:
            raise self.failures.pop(0)
        self.batches.append((names, values.tolist(), list(steps), list(times)))
        for step, row in zip(steps, values, strict=True):
            self.rows.append((step, dict(zip(names, row, strict=True))))


def test_rows_with_the_same_metrics_come_together_each_with_its_time(tmp_path):
    backend = Batches()
    run = open_run(tmp_path, [backend])
    log(run, range(3))
    for step in (3, 4):
        log_row(run, {"y": step, "x": 0.5}, step)
    log(run, [5])
    run.put(Event(0.0, "hparams", {"hparams": {"a": 1}}))
    log(run, [6])
    run.close("finished", 10.0)
    assert [step for step, _ in backend.rows] == list(range(7))
    assert {names for names, *_ in backend.batches} == {("x",), ("y", "x")}
    assert sum(len(steps) for _, _, steps, _ in backend.batches) == 7
    # What stands between them keeps its place.
    assert backend.batches[-1][2] == [6]
    in_journal = [row.time for row in journal_records(tmp_path) if isinstance(row, Row)]
    assert [time for *_, times in backend.batches for time in times] == in_journal
    assert [row["y"] for _, row in backend.rows[3:5]] == [3.0, 4.0]


def test_rows_that_are_not_taken_together_are_taken_one_by_one(tmp_path):
    backend = Batches(ConnectionError("no network"), ConnectionError("no network"))
    run = open_run(tmp_path, [backend])
    for start in range(0, 40, 10):
        log(run, range(start, start + 10))
        run.flush(10.0)
    run.close("finished", 10.0)
    assert [step for step, _ in backend.rows] == list(range(40))
    # By `log_rows` all the same, which has their times.
    assert sum(len(steps) for _, _, steps, _ in backend.batches) == 40


def test_a_backend_that_never_takes_rows_together_is_told_of(tmp_path):
    backend = Batches(*[TypeError("what is this")] * 100)
    run = open_run(tmp_path, [backend])
    with pytest.warns(LoggingWarning, match=r"`log_rows` raised TypeError.*one by one"):
        log(run, range(10))
        run.flush(10.0)
    run.close("finished", 10.0)
    assert [step for step, _ in backend.rows] == list(range(10))


def test_a_record_that_cannot_be_encoded_costs_only_itself(tmp_path):
    run = open_run(tmp_path, [Memory()])
    with pytest.warns(LoggingWarning, match="cannot encode"):
        log(run, range(100))
        run.put(Event(0.0, "hparams", {"hparams": {"x": {(1, 2): 3}}}))
        log(run, range(100, 200))
        run.close("finished", 10.0)
    assert journal_steps(tmp_path) == list(range(200))


class Numbers:
    """Rows whose step and metric are their number."""

    names: tuple[str, ...] = ("x",)

    def combine(self, shares):
        return shares[0]

    def rows(self, bodies):
        return [[(number, number) for number in body] for body in bodies.tolist()]

    def finish(self, rows):
        values = np.array(rows, float)[:, None]
        return self.names, list(rows), values, np.zeros(values.shape, bool)


def packet(*numbers, stride=1):
    """A message from the devices with rows of these numbers."""
    payload = np.array([numbers[0], *numbers], np.int32)
    return Packet(Numbers(), 0, 1, payload, stride, 0.0, 0.0)


def test_a_metric_by_the_name_of_a_rate_makes_room_for_it(tmp_path):
    backend = Batches()
    run = open_run(tmp_path, [backend])
    for number, clock in ((1, 1.0), (2, 3.0)):
        message = packet(number)._replace(clock=clock)
        message.format.names = ("time/iteration_seconds",)
        run._queue.put_row(message, 8, 0.0)
    run.close("finished", 10.0)
    rows = [metrics for _, metrics in journal_rows(tmp_path)]
    assert rows[0]["time/iteration_seconds"] == 1.0  # nothing to compare with yet
    assert rows[1]["time/iteration_seconds"] == 2.0
    assert "time/steps_per_second" in rows[1]
    # A journal's line has a name once in any case, what a backend gets has not.
    assert all(len(names) == len(set(names)) for names, *_ in backend.batches)


def test_rows_of_one_message_have_times_of_their_own_between_it_and_the_one_before(tmp_path):
    run = open_run(tmp_path, [Memory()])
    run._queue.put_row(packet(1)._replace(time=110.0, clock=10.0), 8, 0.0)
    run._queue.put_row(packet(2, 3, 4, 5)._replace(time=114.0, clock=14.0), 8, 0.0)
    run.close("finished", 10.0)
    times = [row.time for row in journal_records(tmp_path) if isinstance(row, Row)]
    assert times == [110.0, 111.0, 112.0, 113.0, 114.0]


class Gaps(Numbers):
    """Of what `Numbers` has, there is nothing yet for each third; beside it a metric `y`."""

    def finish(self, rows):
        _, steps, values, _ = super().finish(rows)
        absent = np.hstack([values % 3 == 0, np.zeros(values.shape, bool)])
        return ("x", "y"), steps, np.hstack([values, -values]), absent


def test_what_is_not_there_yet_is_left_out_of_that_row_alone(tmp_path):
    backend = Memory()
    run = open_run(tmp_path, [backend])
    run._queue.put_row(packet(*range(1, 8))._replace(format=Gaps(), clock=0.0), 8, 0.0)
    run.close("finished", 10.0)
    expected = [(n, ({} if n % 3 == 0 else {"x": n}) | {"y": -n}) for n in range(1, 8)]
    assert [(step, metrics) for step, metrics in backend.rows] == expected
    assert journal_rows(tmp_path) == expected


def test_rows_that_wait_for_their_turn_come_before_the_close(tmp_path):
    """A loop that counts by tens, and does not say so."""
    run = open_run(tmp_path, [Memory()])
    for number in (0, 10, 20):
        run._queue.put_row(packet(number), 8, 0.0)
    run.close("finished", 10.0)
    assert journal_steps(tmp_path) == [0, 10, 20]
    assert last_record(tmp_path).kind == "close"


def test_rows_are_put_in_order_also_after_a_pause(tmp_path):
    run = open_run(tmp_path, [Memory()])
    run._queue.put_row(packet(0), 8, 0.0)
    run.flush(10.0)
    threading.Event().wait(1.2)
    run._queue.put_row(packet(2), 8, 0.0)
    run._queue.put_row(packet(1), 8, 0.0)
    run.close("finished", 10.0)
    assert journal_steps(tmp_path) == [0, 1, 2]


def test_a_close_that_is_interrupted_goes_on_at_the_next(tmp_path):
    backend = Memory()
    run = open_run(tmp_path, [backend])
    log(run, range(3))
    wait = run._writer.stop

    def interrupted(patience):
        run._stop = wait(patience)
        raise KeyboardInterrupt

    run._writer.stop = interrupted
    with pytest.raises(KeyboardInterrupt):
        run.close("finished", 10.0)
    assert ("close",) not in backend.calls
    run.close("finished", 10.0)
    assert backend.calls[-1] == ("close",)
    assert len(backend.rows) == 3


def test_flush_after_close_returns_at_once(tmp_path):
    run = open_run(tmp_path, [Memory()])
    run.close("finished", 10.0)
    start = time.monotonic()
    run.flush(10.0)
    assert time.monotonic() - start < 5.0


def test_a_forked_process_writes_nothing_and_does_not_keep_the_run(tmp_path):
    """A data loader that lives on after `close`."""
    program = f"""
import os, sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_lifecycle import Memory, log, open_run
folder = Path({str(tmp_path)!r})
run = open_run(folder, [Memory()])
log(run, range(3))
run.flush(10)
r, w = os.pipe()
child = os.fork()
if child == 0:
    log(run, [99]); run.flush(10); run.close("finished", 10)
    os.close(w); os.read(r, 1); os._exit(0)
run.close("finished", 10.0)
open_run(folder, [Memory()]).close("finished", 10.0)
os.write(w, b"x"); os.waitpid(child, 0)
print("done")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "done\n", done.stderr
    assert journal_steps(tmp_path) == [0, 1, 2]


def test_no_thread_of_an_idle_run_wakes_more_than_once_a_second(tmp_path):
    run = open_run(tmp_path, [Memory(), Memory()])
    log(run, range(3))
    run.flush(10.0)
    run.start_step(10.0)  # what is new is put on the disk, which then need not be done later
    threads = [run._writer._thread, *(pump._thread for pump in run._pumps)]
    before = [_switches(thread) for thread in threads]
    seconds = 3
    threading.Event().wait(seconds)
    for thread, count in zip(threads, before, strict=True):
        assert _switches(thread) - count < seconds
    run.close("finished", 10.0)


def _switches(thread):
    status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
    return sum(int(line.split()[1]) for line in status.splitlines() if "ctxt_switches" in line)


class Chokes(Numbers):
    """Cannot finish the row of number 3."""

    def finish(self, rows):
        if 3 in rows:
            raise ValueError("three")
        return super().finish(rows)


def test_a_row_that_cannot_be_finished_costs_none_of_those_beside_it(tmp_path):
    run = open_run(tmp_path, [Memory()])
    message = packet(1, 2, 3, 4, 5)._replace(format=Chokes())
    with pytest.warns(LoggingWarning, match="a row could not be read.*three"):
        run._queue.put_row(message, 8, 0.0)
        run.close("finished", 10.0)
    assert journal_steps(tmp_path) == [1, 2, 4, 5]
