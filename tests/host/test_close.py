"""Flush, state, close and exit: everything is written, and what takes too long is named."""

import atexit
import contextlib
import gc
import json
import linecache
import signal
import subprocess
import sys
import threading
import time
import warnings
import weakref
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import lerax_dist as ld
from lerax_dist.host._closing_wait import ClosingWait
from tests.loop import iteration, reset, run_threads, step_states, training
from tests.memory import Hangs, Memory
from tests.readers import journal_records, journal_steps, start_step_of

LIMIT = 20.0


def log(logger, steps):
    for step in steps:
        logger.log({"x": float(step)}, step)


def steps_of(backend):
    return [step for step, _ in backend.rows]


def last_record(logger):
    return journal_records(logger.run_dir)[-1]


def is_closing(logger):
    """Whether `close` has written the last record."""
    return b'"kind":"close"' in (logger.run_dir / "journal.jsonl").read_bytes()


def test_a_second_close_does_nothing(tmp_path):
    backend = Memory()
    logger = ld.Logger(backend, "r", log_dir=tmp_path)
    logger.close()
    logger.close(failed=True)
    assert backend.calls.count(("close",)) == 1
    assert last_record(logger).body["state"] == "finished"


def test_flush_returns_when_every_row_is_with_every_backend(tmp_path):
    backends = [Memory(), Memory()]
    with ld.Logger(backends, "r", log_dir=tmp_path) as logger:
        log(logger, range(100))
        logger.flush(LIMIT)
        for backend in backends:
            assert steps_of(backend) == list(range(100))
        assert journal_steps(logger.run_dir) == list(range(100))


def test_flush_names_what_it_waited_for(tmp_path):
    backend = Hangs("log_scalars")
    with ld.Logger(backend, "r", log_dir=tmp_path) as logger:
        log(logger, range(3))
        # All three are in the journal, and none is with the backend.
        logger.state(LIMIT)
        assert backend.began.wait(LIMIT)
        with pytest.raises(TimeoutError, match="Hangs: `log_scalars` has been running.*3 records"):
            logger.flush(0.5)
        backend.release.set()


def test_flush_after_close_returns_at_once(tmp_path):
    logger = ld.Logger(Memory(), "r", log_dir=tmp_path)
    logger.close()
    start = time.monotonic()
    logger.flush(10.0)
    assert time.monotonic() - start < 5.0


def test_warnings_that_are_errors_end_no_thread(tmp_path):
    backend = Memory()
    with ld.Logger(backend, "r", log_dir=tmp_path) as logger:
        # The filter of this test run turns warnings into errors.
        logger.log({"a": float("nan")}, 0)
        log(logger, range(1, 4))
    assert steps_of(backend) == [0, 1, 2, 3]
    assert [failure.where for failure in logger.failures] == ["metrics"]


class Gate:
    """A compiled step that logs a row, once it may: until then its devices are at work."""

    def __init__(self, logger):
        self.logger, self.open = logger, threading.Event()
        self.began = threading.Event()
        # On two devices, as with one a program that calls the host is run by its caller.
        self.mesh = jax.sharding.Mesh(jax.devices()[:2], ("a",))

    def __call__(self, count):
        def wait(x):
            self.began.set()
            self.open.wait(60)
            return x

        def step(count):
            shape = jax.ShapeDtypeStruct((), jnp.int32)
            count = jax.pure_callback(wait, shape, count)
            iteration(self.logger, step_states(count[None]), {"x": count}, count)
            return count

        mapped = jax.shard_map(
            step, mesh=self.mesh, in_specs=jax.P(), out_specs=jax.P(), check_vma=False
        )
        return jax.jit(mapped)(jnp.int32(count))


def test_rows_that_the_devices_do_not_deliver_in_time_are_reported(tmp_path):
    logger = ld.LoggingCallback(Memory(), "r", log_dir=tmp_path)
    gate = Gate(logger)
    gate(1)
    assert gate.began.wait(LIMIT)
    with pytest.raises(TimeoutError, match="devices"):
        logger.flush(0.3)
    with pytest.warns(ld.LoggingWarning, match="^close: .*devices.* 0.5 s"):
        logger.close(timeout=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gate.open.set()
        jax.effects_barrier()


def test_a_checkpoint_says_which_row_is_the_last_unless_rows_are_late(tmp_path):
    logger = ld.LoggingCallback(Memory(), "r", log_dir=tmp_path)
    gate = Gate(logger)
    assert start_step_of(logger.state(LIMIT)) == 0
    gate.open.set()
    jax.block_until_ready(gate(7))
    assert start_step_of(logger.state(LIMIT)) == 15
    gate.open.clear()
    gate.began.clear()
    gate(8)
    assert gate.began.wait(LIMIT)
    with pytest.warns(ld.LoggingWarning, match="^state: .* 0.3 s: .*devices"):
        late = logger.state(0.3)
    assert start_step_of(late) is None
    gate.open.set()
    assert start_step_of(logger.state(LIMIT)) == 17
    logger.close()
    assert start_step_of(logger.state(LIMIT)) == 17


def python(program, *args):
    return subprocess.run(
        [sys.executable, "-c", program, *args], capture_output=True, text=True, timeout=60
    )


# How a program ends, the state of its run, and its exit status. `other` is a second run.
ENDS = [
    ("", "finished", 0),
    ("sys.exit()", "finished", 0),
    ("raise SystemExit(0)", "finished", 0),
    ("raise ValueError", "failed", 1),
    ("sys.excepthook = lambda *_: None; 1/0", "failed", 1),
    ("raise KeyboardInterrupt", "failed", -signal.SIGINT),
    ("sys.exit(3)", "failed", 3),
    ("sys.exit('it failed')", "failed", 1),
    ("raise SystemExit(3)", "failed", 3),
    ("exit(1)", "failed", 1),
    ("stop(4)", "failed", 4),
    ("class Stop(SystemExit): pass\nraise Stop(2)", "failed", 2),
    ("try: 1/0\nexcept ZeroDivisionError: stop(5)", "failed", 5),
    ("try: sys.exit(3)\nexcept SystemExit as error: assert error.code == 3", "finished", 0),
    ("try: raise KeyboardInterrupt\nexcept KeyboardInterrupt: stop(130)", "failed", 130),
    ("t = threading.Thread(target=sys.exit, args=(3,)); t.start(); t.join()", "finished", 0),
    ("os.kill(os.getpid(), signal.SIGTERM); sys.exit(0)", "preempted", 0),
    ("os.kill(os.getpid(), signal.SIGTERM); sys.exit(75)", "preempted", 75),
    ("os.kill(os.getpid(), signal.SIGTERM); 1/0", "failed", 1),
    ("logger.flush(); other.flush(); os._exit(0)", None, 0),
]
END_WITHOUT_CLOSE = """
import json, os, signal, sys, threading
import lerax_dist as ld
from tests.memory import Memory
class Prints(Memory):
    def close(self):
        os.write(1, f"{len(self.rows)}\\n".encode())
statuses = []
for number, way in enumerate(json.loads(sys.argv[2])):
    child = os.fork()
    if child == 0:
        break
    statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
else:
    sys.stdout.write(json.dumps(statuses))
    sys.stdout.flush()
    os._exit(0)
logger = ld.Logger(Prints(), f"{number}/r", log_dir=sys.argv[1], handle_signals="SIG" in way)
other = ld.Logger(ld.NoOpBackend(), f"{number}/other", log_dir=sys.argv[1])
for step in range(1000):
    logger.log({"x": float(step)}, step)
def stop(status):
    sys.exit(status)
exec(way)
"""


def test_a_program_that_ends_without_close_loses_nothing_and_its_end_is_known(tmp_path):
    done = python(END_WITHOUT_CLOSE, str(tmp_path), json.dumps([way for way, *_ in ENDS]))
    *prints, statuses = done.stdout.splitlines()
    assert prints == ["1000"] * (len(ENDS) - 1), done.stderr
    assert json.loads(statuses) == [status for *_, status in ENDS], done.stderr
    for number, (way, state, _) in enumerate(ENDS):
        for name in ("r", "other"):
            records = journal_records(tmp_path / str(number) / name)
            assert getattr(records[-1], "body", {}).get("state") == state, (way, name)
        assert journal_steps(tmp_path / str(number) / "r") == list(range(1000))


FORKED = """
import os, sys, warnings
warnings.simplefilter("ignore")
import lerax_dist as ld
from tests.memory import Memory
logger = ld.Logger(Memory(), "r", log_dir=sys.argv[1])
for step in range(3):
    logger.log({"x": float(step)}, step)
logger.flush(10)
r, w = os.pipe()
child = os.fork()
if child == 0:
    logger.log({"x": 99.0}, 99); logger.flush(10); logger.close()
    os.close(w); os.read(r, 1); os._exit(0)
logger.close()
# The child lives on, and so would its lock.
ld.Logger(Memory(), "r", log_dir=sys.argv[1], resume="must").close()
os.write(w, b"x"); os.waitpid(child, 0)
print("done")
"""


def test_a_forked_process_writes_nothing_and_does_not_keep_the_run(tmp_path):
    """A data loader that lives on after `close`."""
    done = python(FORKED, str(tmp_path))
    assert done.stdout == "done\n", done.stderr
    assert journal_steps(tmp_path / "r") == [0, 1, 2]


def send_to_main_thread(number):
    """A signal that interrupts what the main thread waits for."""
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, number)


class AtClose(Memory):
    """Does something, in its own thread, while the run is being closed."""

    def __init__(self, act):
        super().__init__()
        self.act, self.release = act, threading.Event()
        self.logger: ld.Logger | None = None

    def log_scalars(self, scalars, step):
        assert self.logger is not None
        until = time.monotonic() + LIMIT
        while not is_closing(self.logger) and time.monotonic() < until:
            self.release.wait(0.01)
        if step == 0:
            self.act(self)
        super().log_scalars(scalars, step)


def test_a_close_that_is_interrupted_goes_on_at_the_next(tmp_path):
    def interrupt(backend):
        send_to_main_thread(signal.SIGINT)
        assert backend.release.wait(LIMIT)

    backend = AtClose(interrupt)
    backend.logger = logger = ld.Logger(backend, "r", log_dir=tmp_path)
    log(logger, range(3))
    with pytest.raises(KeyboardInterrupt):
        logger.close(timeout=LIMIT)
    assert ("close",) not in backend.calls
    backend.release.set()
    logger.close(timeout=LIMIT)
    assert backend.calls[-1] == ("close",)
    assert steps_of(backend) == [0, 1, 2]
    assert [getattr(record, "kind", "row") for record in journal_records(logger.run_dir)] == [
        *("open", "start", "row", "row", "row", "close")
    ]
    assert logger.failures == ()


def test_a_close_that_is_interrupted_at_its_end_goes_on_at_the_next(tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    logger = ld.Logger(Memory(), "r", log_dir=tmp_path, handle_signals=True)
    unregister = atexit.unregister

    def interrupt(handler):
        monkeypatch.setattr(atexit, "unregister", unregister)
        raise KeyboardInterrupt

    monkeypatch.setattr(atexit, "unregister", interrupt)
    with pytest.raises(KeyboardInterrupt):
        logger.close()
    logger.close()
    assert signal.getsignal(signal.SIGTERM) == before
    assert logger.failures == ()


def test_a_journal_is_closed_once_though_its_outlet_is_closed_again(tmp_path):
    """Ctrl-C may come right behind the first time."""
    logger = ld.Logger(Memory(), "r", log_dir=tmp_path)
    logger.close()
    outlet = logger._run._outlet
    assert outlet is not None
    outlet.close(True, time.monotonic() + LIMIT, ClosingWait("r", LIMIT))
    assert logger.failures == ()


def test_ctrl_c_at_any_line_of_a_close_loses_nothing(tmp_path):
    """A trace function raises it, at each line in turn."""
    left = number = 0

    def interrupt(frame, event, arg):
        nonlocal left
        if "lerax_dist" not in frame.f_code.co_filename:
            return None
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        # The end of a `with` is traced, too, where no signal is handled before it is left.
        if event == "line" and not line.lstrip().startswith("with "):
            left -= 1
            if left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return interrupt

    for number in range(1, 1000):
        logger = ld.Logger(Memory(), f"r{number}", log_dir=tmp_path, handle_signals=True)
        log(logger, range(3))
        left = number
        before = sys.gettrace()
        try:
            sys.settrace(interrupt)
            logger.close(timeout=LIMIT)
            break
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        logger.close(timeout=LIMIT)
        assert logger.failures == ()
        kinds = [getattr(record, "kind", "row") for record in journal_records(logger.run_dir)]
        assert kinds == ["open", "start", "row", "row", "row", "close"], number
    assert 50 < number < 999


def test_ctrl_c_right_after_the_journal_is_opened_does_not_keep_the_run(tmp_path, monkeypatch):
    def interrupt(stack, function, *args, real=contextlib.ExitStack.callback, **options):
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(contextlib.ExitStack, "callback", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ld.Logger(Memory(), "r", log_dir=tmp_path)
    ld.Logger(Memory(), "r", log_dir=tmp_path).close()


class FailsToClose(Memory):
    def on_end(self, state):
        self.calls.append(("on_end", state))

    def close(self):
        super().close()
        raise OSError("no route to host")


def test_what_fails_while_closing_is_in_the_last_line(tmp_path):
    backends = [FailsToClose(), Hangs("close")]
    logger = ld.Logger(backends, "r", log_dir=tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.close(timeout=1.0)
    body = last_record(logger).body
    assert body["state"] == "finished"
    failed, late = sorted(body["failures"])
    assert failed == "FailsToClose: failed to close (OSError('no route to host'))"
    assert late.startswith("Hangs: did not end in 1 s: `close` has been running for ")
    backends[1].release.set()
    assert backends[0].calls[-2:] == [("on_end", "finished"), ("close",)]


def test_a_close_that_takes_long_says_what_it_waits_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lerax_dist.host._closing_wait._FIRST", 0.3)
    monkeypatch.setattr("lerax_dist.host._closing_wait._INTERVAL", 0.3)
    backend = Hangs("close")
    logger = ld.Logger(backend, "r", log_dir=tmp_path)
    with pytest.warns(ld.LoggingWarning, match="Hangs: did not end"):
        logger.close(timeout=1.5)
    backend.release.set()
    said = capsys.readouterr().err.splitlines()
    assert 2 <= len(said) <= 4
    for line in said:
        assert line.startswith("lerax_dist: the run 'r' has been closing for ")
        assert "of 1.5 s at most. Waiting for: Hangs: `close` has been running" in line


def test_no_thread_of_a_closed_run_is_left(tmp_path):
    before = run_threads()
    # A signal that comes while the run is closed.
    backend = AtClose(lambda _: send_to_main_thread(signal.SIGUSR1))
    backend.logger = logger = ld.Logger(backend, "r", log_dir=tmp_path, handle_signals=True)
    log(logger, range(3))
    logger.close(timeout=LIMIT)
    assert logger.preempted
    for thread in run_threads() - before:
        thread.join(LIMIT)
        assert not thread.is_alive(), thread.name
    assert steps_of(backend) == [0, 1, 2]


def test_a_closed_run_is_kept_by_nothing_that_jax_caches(tmp_path):
    def train(backend):
        """Outside of `jit`, where JAX caches each operation, and the callbacks in it."""
        with ld.LoggingCallback(backend, "r", log_dir=tmp_path, rows_per_transfer=2) as logger:
            state = reset(logger)
            logger.on_training_start(training(state, 10), key=jax.random.key(0))
            state = iteration(logger, step_states([1]), {"x": 1.0}, 1, state=state)
            logger.flush_state(state)

    backend = Memory()
    train(backend)
    assert len(backend.rows) == 1
    kept = weakref.ref(backend)
    backend.threads.clear()
    del backend
    gc.collect()
    assert kept() is None


def test_no_thread_of_an_idle_run_wakes_more_than_once_a_second(tmp_path):
    before = run_threads()
    with ld.Logger([Memory(), Memory()], "r", log_dir=tmp_path) as logger:
        log(logger, range(3))
        logger.flush(LIMIT)
        logger.state(LIMIT)  # what is new is put on the disk, which then need not be done later
        threads = sorted(run_threads() - before, key=lambda thread: thread.name)
        assert len(threads) >= 3
        seconds, found = 3, []
        # The best of three, as other programs and threads add switches and never take any away.
        for _ in range(3):
            counts = [_switches(thread) for thread in threads]
            threading.Event().wait(seconds)
            now = [_switches(thread) for thread in threads]
            found.append([after - before for before, after in zip(counts, now, strict=True)])
            if max(found[-1]) <= seconds:
                break
        for thread, each in zip(threads, zip(*found, strict=True), strict=True):
            assert min(each) <= seconds, (thread.name, each)


def _switches(thread):
    status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
    # Those that the thread asks for: a busy machine adds others.
    (line,) = (line for line in status.splitlines() if line.startswith("voluntary_ctxt_switches"))
    return int(line.split()[1])
