import threading

import pytest

import lerax_dist as ld
from lerax_dist._session import Session
from lerax_dist.backends import unwrap
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
    backend, close = Hangs(), Session.close

    def let_go_and_close(session, failed, timeout):
        backend.let_go.set()
        close(session, failed, timeout)

    monkeypatch.setattr(Session, "close", let_go_and_close)
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
    a, b = object(), object()
    assert unwrap(ld.Required(a)) == (a, (a,))
    assert unwrap([a, ld.Required(b)]) == ([a, b], (b,))
    assert unwrap(a) == (a, ())
    assert unwrap("text") == ("text", ())
