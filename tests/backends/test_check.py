import threading

import numpy as np
import pytest

import lerax_dist as ld
from lerax_dist.backends import MemoryBackend, as_backend, check_backends, takes_batches
from lerax_dist.host._run import Run
from tests.memory import Memory


class Hangs(Memory):
    def __init__(self):
        super().__init__()
        self.let_go = threading.Event()

    def open(self, name):
        self.let_go.wait(60)


def test_a_required_backend_that_opens_is_like_any_other(tmp_path):
    memory = Memory()
    with ld.Logger([ld.Required(memory), Memory()], "r", log_dir=tmp_path) as logger:
        logger.log({"x": 1.0}, 3)
        assert logger.backends[0] is memory
    assert memory.rows == [(3, {"x": 1.0})]


def test_one_that_does_not_open_in_time_is_an_error_that_says_so(tmp_path, monkeypatch):
    backend, close = Hangs(), Run.close

    def let_go_and_close(run, failed, timeout):
        backend.let_go.set()
        close(run, failed, timeout)

    monkeypatch.setattr(Run, "close", let_go_and_close)
    with (
        pytest.warns(ld.LoggingWarning, match="not open after 0.5 s"),
        pytest.raises(RuntimeError, match="Hangs: `open` has been running"),
    ):
        ld.Logger(ld.Required(backend), "r", log_dir=tmp_path, open_timeout=0.5)
    # Nothing holds the run any more.
    with ld.Logger(Memory(), "r", log_dir=tmp_path) as logger:
        assert logger.incarnation == 2


def test_what_is_no_backend_is_still_refused(tmp_path):
    with pytest.raises(TypeError, match="`backend` must be a logging backend, got 3"):
        ld.Logger(ld.Required(3), "r", log_dir=tmp_path)


def test_marks_come_off():
    a, b = MemoryBackend(), MemoryBackend()
    assert check_backends(ld.Required(a)) == ((a,), (a,))
    assert check_backends([a, ld.Required(b)]) == ((a, b), (b,))
    assert check_backends(a) == ((a,), ())


class FiveMethods:
    """A backend as lerax has them: of no class of ours."""

    def __init__(self):
        self.calls = []

    def open(self, name):
        self.calls.append(("open", name))

    def log_hparams(self, hparams):
        self.calls.append(("log_hparams", hparams))

    def log_scalars(self, scalars, step):
        self.calls.append(("log_scalars", scalars, step))

    def log_video(self, tag, frames, step, fps):
        self.calls.append(("log_video", tag))

    def close(self):
        self.calls.append(("close",))


class WithHooks(FiveMethods):
    def on_end(self, state):
        self.calls.append(("on_end", state))

    def log_rows(self, names, values, steps, times):
        self.calls.append(("log_rows", names, values.tolist(), steps, times))


ROWS = (("a", "b"), np.array([[1.0, 2.0], [3.0, 4.0]]), [5, 6], [0.5, 0.6])


def call_all(backend):
    backend.on_identity("id", 1)
    backend.open("r")
    backend.on_run({})
    backend.on_training_start(1, 2)
    backend.on_resume(3)
    backend.log_hparams({"lr": 1.0})
    backend.log_rows(*ROWS)
    backend.log_vectors({"v": np.zeros(2)}, 5)
    backend.log_video("v", np.zeros((1, 2, 2, 3), np.uint8), 1, 50.0)
    backend.on_end("finished")
    backend.close()


def test_an_object_with_five_methods_gets_the_hooks_that_it_lacks():
    inner = FiveMethods()
    call_all(as_backend(inner))
    assert inner.calls == [
        ("open", "r"),
        ("log_hparams", {"lr": 1.0}),
        ("log_scalars", {"a": 1.0, "b": 2.0}, 5),
        ("log_scalars", {"a": 3.0, "b": 4.0}, 6),
        ("log_video", "v"),
        ("close",),
    ]


def test_hooks_that_an_object_has_by_name_are_called():
    inner = WithHooks()
    call_all(as_backend(inner))
    assert ("on_end", "finished") in inner.calls
    assert ("log_rows", ("a", "b"), [[1.0, 2.0], [3.0, 4.0]], [5, 6], [0.5, 0.6]) in inner.calls


def test_a_backend_stays_as_it_is():
    backend = MemoryBackend()
    assert as_backend(backend) is backend
    assert check_backends([backend]) == ((backend,), ())


def test_batches_go_to_backends_that_override_log_rows(tmp_path):
    for takes in (ld.JSONLBackend(tmp_path), ld.TensorBoardBackend(tmp_path), WithHooks()):
        assert takes_batches(as_backend(takes))
    for does_not in (MemoryBackend(), FiveMethods()):
        assert not takes_batches(as_backend(does_not))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ([], ValueError, "at least one backend"),
        (MemoryBackend, TypeError, "got the class MemoryBackend. Call it to make an instance"),
        ("text", TypeError, "got 'text'"),
        (object(), TypeError, "it lacks open, log_hparams, log_scalars, log_video, close"),
        ([MemoryBackend()] * 2, ValueError, "contains one backend twice"),
    ],
)
def test_an_error_says_what_is_wrong_with_a_backend(given, error, message):
    with pytest.raises(error, match=message):
        check_backends(given)


def test_a_backend_is_not_for_replay_and_needs_nothing_unless_it_says_so(tmp_path):
    assert MemoryBackend.replay_name is None
    assert MemoryBackend.check_setup(0.1) == []
    with pytest.raises(TypeError, match="`MemoryBackend` cannot be replayed to"):
        MemoryBackend.for_replay(tmp_path, project=None)
