"""What the logger says about itself.

A pure test of what the package keeps to itself: at the door it takes ten seconds to see it.
"""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import lerax_dist as ld
from lerax_dist._failures import Failures
from lerax_dist.host import _queue
from lerax_dist.host._journal_outlet import SelfMetrics
from lerax_dist.host._queue import RowQueue
from lerax_dist.host._rows import Pace
from tests.memory import Memory, Raises


def test_once_in_a_while_a_row_says_what_logging_costs(monkeypatch):
    now = [0.0]
    # It stands still, so a row costs nothing beside what it says.
    monkeypatch.setattr(_queue, "time", SimpleNamespace(perf_counter=lambda: 0.0))
    queue = RowQueue(Failures())
    metrics = SelfMetrics(queue, lambda: {"Slow": 7}, clock=lambda: now[0])

    def row(seconds):
        queue.put_row("row", 8, -seconds)

    row(8.0)
    now[0] = 100.0
    assert metrics.due() == {}
    for _ in range(4):
        row(0.5)
    now[0] = 109.0
    assert metrics.due() == {}
    now[0] = 110.0
    found = metrics.due()
    assert found.pop("lerax_dist/share_of_step") == pytest.approx(4 * 0.5 / 10)
    assert found.pop("lerax_dist/callback_ms") == pytest.approx(500.0)
    assert found == {"lerax_dist/queue_rows": 5.0, "lerax_dist/lag/Slow": 7.0}
    now[0] = 119.0
    assert metrics.due() == {}
    now[0] = 130.0
    found = metrics.due()
    # No row since: what one costs is not known.
    assert "lerax_dist/callback_ms" not in found
    assert found["lerax_dist/share_of_step"] == 0.0
    assert all(isinstance(value, np.float64) for value in found.values())


def test_a_backend_that_never_opens_lags_behind_for_ever_and_its_namesake_does_not(tmp_path):
    with pytest.warns(ld.LoggingWarning, match="^Raises"):
        backends = [Memory(), Raises("open", OSError("disk")), Raises("close", OSError("disk"))]
        with ld.Logger(backends, "r", log_dir=tmp_path) as logger:
            logger.log({"x": 1.0}, 0)
            logger.flush()
            run: Any = logger._run
            lags = run._outlet._lags()
    assert lags == {"Memory": 0.0, "Raises": math.inf, "Raises_2": 0.0}


def test_the_pace_is_of_the_time_since_the_row_before():
    pace, *_ = Pace().advance(10.0, 1000, 5, 5)
    assert pace.advance(12.0, 5000, 9, 9)[1:] == (2000.0, 0.5)


def test_the_first_row_has_none_without_a_start():
    assert all(map(math.isnan, Pace().advance(10.0, 1000, 5, 5)[1:]))


def test_a_fresh_training_starts_at_step_0():
    assert Pace.start(10.0, 0).advance(12.0, 1000, 1, 1)[1:] == (500.0, 2.0)


def test_a_resumed_training_does_not_count_the_steps_before_it():
    _, steps, seconds = Pace.start(10.0, 7).advance(12.0, 8000, 8, 8)
    assert math.isnan(steps) and seconds == 2.0


def test_a_clock_that_stands_still_gives_no_pace():
    pace, *_ = Pace().advance(10.0, 1000, 5, 5)
    assert all(map(math.isnan, pace.advance(10.0, 2000, 6, 6)[1:]))
