"""`scope="process"`: rows of process 0 and those of its peers become one row each."""

import signal
import threading
import time
import warnings

import numpy as np
import pytest

import lerax_dist as ld
from tests.memory import Memory
from tests.peers import open_together
from tests.readers import journal_records, journal_rows

LIMIT = 20.0


class Run:
    """A run of several processes, each with a logger of its own, all in this one."""

    def __init__(self, tmp_path, count=2, make=ld.Logger):
        self.backend = Memory()
        self.world, self.loggers = open_together(
            count,
            lambda group: make(self.backend, "r", log_dir=tmp_path, group=group, scope="process"),
        )
        self.writer, *self.peers = self.loggers

    def log(self, step, *values, name="x"):
        """A row of each process, or of the first ones."""
        for logger, value in zip(self.loggers, values, strict=False):
            logger.log({name: float(value)}, step)

    def close(self, **options):
        for logger in reversed(self.loggers):
            logger.close(timeout=LIMIT, **options)

    @property
    def rows(self):
        return journal_rows(self.writer.run_dir)


def messages(logger):
    return [f"{failure.where}: {failure.message}" for failure in logger.failures]


@pytest.fixture(autouse=True)
def no_warnings_as_errors():
    """Threads of several loggers warn here; what they say is read from `failures`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ld.LoggingWarning)
        yield


def test_a_row_is_the_mean_of_all_processes_once_every_one_has_sent_its_own(tmp_path):
    run = Run(tmp_path, 3)
    run.log(0, 1, 2)
    run.peers[0].flush(LIMIT)
    with pytest.raises(TimeoutError):
        run.writer.flush(0.3)
    assert run.backend.rows == []
    run.peers[1].log({"x": 6.0}, 0)
    run.peers[1].flush(LIMIT)
    run.writer.flush(LIMIT)
    assert run.backend.rows == [(0, {"x": 3.0})]
    run.close()
    assert run.rows == [(0, {"x": 3.0})]
    assert [logger.failures for logger in run.loggers] == [(), (), ()]


def test_what_is_no_row_keeps_its_place(tmp_path):
    run = Run(tmp_path)
    run.writer.log_hparams({"before": 1})
    run.log(0, 1)
    run.writer.log_hparams({"after": 2})
    run.peers[0].log({"x": 3.0}, 0)
    run.close()
    calls = [getattr(record, "kind", "row") for record in journal_records(run.writer.run_dir)]
    assert calls == ["open", "start", "hparams", "row", "hparams", "close"]


def test_numbers_travel_to_the_last_bit(tmp_path):
    run = Run(tmp_path)
    values = [0.1, np.nan, np.inf, -np.inf, 1e-320, 1.7e308, 1 / 3, 2.0**53 + 2]
    for step, value in enumerate(values):
        run.log(step, 0.0, value)
    run.close()
    assert [step for step, _ in run.rows] == list(range(len(values)))
    np.testing.assert_array_equal([row["x"] for _, row in run.rows], np.array(values) / 2)


def test_rows_of_several_kinds_take_turns_on_their_way(tmp_path):
    run = Run(tmp_path)
    for step in range(100):
        run.log(step, step, step + 2, name=f"m{step % 3}")
    run.close()
    assert run.rows == [(step, {f"m{step % 3}": step + 1.0}) for step in range(100)]


def test_a_process_that_is_far_ahead_loses_nothing(tmp_path):
    run = Run(tmp_path)
    count = 12_000
    for step in range(count):
        run.peers[0].log({"x": 2.0, "y": float(step)}, step)
    for step in range(count):
        run.writer.log({"x": 0.0, "y": float(step)}, step)
    run.close()
    assert run.rows == [(step, {"x": 1.0, "y": float(step)}) for step in range(count)]
    assert run.writer.failures == run.peers[0].failures == ()


def test_a_process_that_has_ended_is_waited_for_no_longer_and_what_it_sent_counts(tmp_path):
    run = Run(tmp_path, 3)
    run.log(0, 1, 3, 5)
    run.peers[0].close(timeout=LIMIT)
    run.peers[1].close(timeout=LIMIT)
    run.log(1, 7)
    run.writer.close(timeout=LIMIT)
    assert run.rows == [(0, {"x": 3.0}), (1, {"x": 7.0})]
    assert run.writer.failures == ()


def test_a_process_that_has_failed_is_named(tmp_path):
    run = Run(tmp_path)
    run.log(0, 1, 3)
    run.peers[0].close(timeout=LIMIT, failed=True)
    run.log(1, 7)
    run.writer.close(timeout=LIMIT)
    assert run.rows == [(0, {"x": 2.0}), (1, {"x": 7.0})]
    (said,) = messages(run.writer)
    assert said.startswith("process 1 (host1): ") and "failed" in said


def test_rows_of_other_steps_are_left_out_and_the_process_is_named(tmp_path):
    run = Run(tmp_path, 3)
    for step in (1, 2, 4):
        run.peers[0].log({"x": 3.0}, step)
    for step in (3, 4):
        run.peers[1].log({"x": 3.0 if step == 4 else 9.0}, step)
    for step in (2, 4):
        run.writer.log({"x": 0.0}, step)
    run.close()
    assert run.rows == [(2, {"x": 1.5}), (4, {"x": 2.0})]
    said = sorted(messages(run.writer))
    assert ["process 1 (host1): " in said[0], "row 1" in said[0]] == [True, True]
    assert ["process 2 (host2): " in said[1], "row 3" in said[1]] == [True, True]
    assert len(said) == 2


def test_other_metrics_are_left_out_and_named(tmp_path):
    run = Run(tmp_path, 3)
    run.writer.log({"a": 1.0, "b": 1.0}, 1)
    run.peers[0].log({"a": 3.0, "b": 4.0, "c": 5.0}, 1)
    run.peers[1].log({"a": 3.0}, 1)
    run.close()
    assert run.rows == [(1, {"a": 1.0, "b": 1.0})]
    said = sorted(messages(run.writer))
    assert "process 1 (host1)" in said[0] and "metrics c" in said[0]
    assert "process 2 (host2)" in said[1] and " b" in said[1]


def test_at_the_end_rows_wait_until_the_deadline_and_what_was_missing_is_named(tmp_path):
    run = Run(tmp_path)
    run.log(1, 0, 2)
    run.log(2, 0)
    run.peers[0].flush(LIMIT)
    run.writer.close(timeout=2.0)
    assert run.rows == [(1, {"x": 1.0}), (2, {"x": 0.0})]
    (said,) = messages(run.writer)
    assert "process 1 (host1)" in said and "row 2" in said and "`timeout`" in said
    run.peers[0].close(timeout=LIMIT)


def test_rows_wait_for_room_at_process_0_and_then_come_in_order(tmp_path):
    run = Run(tmp_path)
    mail = run.world.mail[1]
    mail.room.clear()
    for step in range(5):
        run.log(step, step, step)
    assert mail.asked.wait(LIMIT)
    assert mail.sent == []
    with pytest.raises(TimeoutError, match="process 0"):
        run.peers[0].flush(0.1)
    mail.room.set()
    run.close()
    assert run.rows == [(step, {"x": step}) for step in range(5)]
    assert run.peers[0].failures == ()


def test_what_process_0_does_not_take_in_time_is_sent_at_the_end_and_said(tmp_path):
    run = Run(tmp_path)
    run.world.mail[1].room.clear()
    run.log(0, 1, 3)
    run.peers[0].close(timeout=0.1, failed=True)
    run.writer.close(timeout=LIMIT)
    assert run.rows == [(0, {"x": 2.0})]
    (said,) = messages(run.peers[0])
    assert said.startswith("close: ") and "process 0" in said


def test_rows_that_could_not_be_sent_cost_none_that_come_later(tmp_path):
    """Also where the first of their names were in the message that was lost."""
    run = Run(tmp_path)
    run.world.mail[1].errors.append(RuntimeError("no network"))
    steps = [(0, "a"), (1, "b"), (2, "a"), (3, "b")]
    for step, name in steps:
        run.peers[0].log({name: 2.0}, step)
        run.peers[0].flush(LIMIT)
    for step, name in steps:
        run.writer.log({name: 0.0}, step)
    run.close()
    assert run.rows == [(0, {"a": 0.0}), (1, {"b": 1.0}), (2, {"a": 1.0}), (3, {"b": 1.0})]
    (said,) = messages(run.peers[0])
    assert "no network" in said


def test_a_close_of_a_peer_that_is_interrupted_goes_on_at_the_next(tmp_path):
    run = Run(tmp_path)
    (peer,), mail = run.peers, run.world.mail[1]
    mail.room.clear()
    run.log(0, 1, 3)

    main = threading.get_ident()

    def interrupt():
        until = time.monotonic() + LIMIT
        while time.monotonic() < until:
            try:
                peer.log_hparams({})  # nothing on a peer, but an error once it is closed
            except RuntimeError:
                signal.pthread_kill(main, signal.SIGINT)
                return
            mail.asked.wait(0.01)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        peer.close(timeout=LIMIT)
    thread.join(LIMIT)
    mail.room.set()
    peer.close(timeout=LIMIT)
    peer.close(timeout=LIMIT)
    run.writer.close(timeout=LIMIT)
    assert run.rows == [(0, {"x": 2.0})]
    assert peer.failures == run.writer.failures == ()
    # One end, after the row.
    assert len(mail.sent) == 2


def test_a_silent_process_costs_the_messages_of_another_nothing(tmp_path):
    run = Run(tmp_path, 8)
    start = time.monotonic()
    for step in range(20):
        for logger in run.loggers[:-1]:
            logger.log({"x": 1.0}, step)
        for peer in run.peers[:-1]:
            peer.flush(LIMIT)
    # All that was sent is read while the last process says nothing at all.
    while any(mail.read < len(mail.sent) for mail in run.world.mail[1:-1]):
        assert time.monotonic() - start < LIMIT
        threading.Event().wait(0.01)
    for step in range(20):
        run.peers[-1].log({"x": 1.0}, step)
    run.close()
    assert run.rows == [(step, {"x": 1.0}) for step in range(20)]


def test_ctrl_c_while_a_peer_starts_ends_its_run_as_failed(tmp_path, monkeypatch):
    start = threading.Thread.start
    interrupted = threading.local()

    def interrupt(thread):
        if getattr(interrupted, "next", False):
            interrupted.next = False
            raise KeyboardInterrupt
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", interrupt)

    def make(group):
        interrupted.next = not group.is_writer
        if group.is_writer:
            return ld.Logger(Memory(), "r", log_dir=tmp_path, group=group, scope="process")
        with pytest.raises(KeyboardInterrupt):
            ld.Logger(Memory(), "r", log_dir=tmp_path, group=group, scope="process")
        return None

    _, (writer, _) = open_together(2, make)
    assert writer is not None
    writer.log({"x": 1.0}, 0)
    writer.flush(LIMIT)
    writer.close(timeout=LIMIT)
    assert journal_rows(writer.run_dir) == [(0, {"x": 1.0})]
    (said,) = messages(writer)
    assert "ended its run as failed" in said
