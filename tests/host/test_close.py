"""Flush, state, close and exit: everything is written, and what takes too long is named."""

import atexit
import gc
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
from tests.loop import iteration, reset, step_states, training
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


END_WITHOUT_CLOSE = """
import sys
import lerax_dist as ld
from tests.memory import Memory
class Prints(Memory):
    def close(self):
        print(len(self.rows), flush=True)
logger = ld.Logger(Prints(), "r", log_dir=sys.argv[1])
for step in range(1000):
    logger.log({"x": float(step)}, step)
"""


@pytest.mark.parametrize(
    ("end", "state"), [("", "finished"), ("raise ValueError", "failed"), ("1/0", "failed")]
)
def test_a_program_that_ends_without_close_loses_nothing(tmp_path, end, state):
    done = python(END_WITHOUT_CLOSE + end, str(tmp_path))
    assert done.stdout == "1000\n", done.stderr
    assert journal_steps(tmp_path / "r") == list(range(1000))
    assert journal_records(tmp_path / "r")[-1].body["state"] == state


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


def test_no_thread_of_a_closed_run_is_left(tmp_path):
    before = set(threading.enumerate())
    # A signal that comes while the run is closed.
    backend = AtClose(lambda _: send_to_main_thread(signal.SIGUSR1))
    backend.logger = logger = ld.Logger(backend, "r", log_dir=tmp_path, handle_signals=True)
    log(logger, range(3))
    logger.close(timeout=LIMIT)
    assert logger.preempted
    for thread in set(threading.enumerate()) - before:
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
    before = set(threading.enumerate())
    with ld.Logger([Memory(), Memory()], "r", log_dir=tmp_path) as logger:
        log(logger, range(3))
        logger.flush(LIMIT)
        logger.state(LIMIT)  # what is new is put on the disk, which then need not be done later
        threads = sorted(set(threading.enumerate()) - before, key=lambda thread: thread.name)
        assert len(threads) >= 3
        counts = [_switches(thread) for thread in threads]
        seconds = 3
        threading.Event().wait(seconds)
        for thread, count in zip(threads, counts, strict=True):
            assert _switches(thread) - count < seconds, thread.name


def _switches(thread):
    status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
    return sum(int(line.split()[1]) for line in status.splitlines() if "ctxt_switches" in line)
