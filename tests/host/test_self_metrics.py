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
from lerax_dist.host._queue import RowQueue
from lerax_dist.host._self_metrics import SelfMetrics
from tests.memory import Memory, Raises
from tests.readers import journal_rows


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
    assert metrics.take() == {}
    for _ in range(4):
        row(0.5)
    now[0] = 109.0
    assert metrics.take() == {}
    now[0] = 110.0
    found = metrics.take()
    assert found.pop("lerax_dist/share_of_step") == pytest.approx(4 * 0.5 / 10)
    assert found.pop("lerax_dist/callback_ms") == pytest.approx(500.0)
    assert found == {"lerax_dist/queue_rows": 5.0, "lerax_dist/lag/Slow": 7.0}
    now[0] = 119.0
    assert metrics.take() == {}
    now[0] = 130.0
    found = metrics.take()
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


def test_metrics_that_cannot_be_had_cost_no_row(tmp_path, monkeypatch):
    def fail(self):
        raise ValueError("no queue")

    monkeypatch.setattr(SelfMetrics, "take", fail)
    with pytest.warns(ld.LoggingWarning, match="`lerax_dist/\\*` metrics failed.*no queue"):
        with ld.Logger(Memory(), "r", log_dir=tmp_path) as logger:
            for step in range(3):
                logger.log({"x": float(step)}, step)
    assert journal_rows(tmp_path / "r") == [(step, {"x": float(step)}) for step in range(3)]
