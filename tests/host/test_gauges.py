"""What the logger says about itself."""

from types import SimpleNamespace

import numpy as np
import pytest

from lerax_dist._failures import Failures
from lerax_dist.host import _queue
from lerax_dist.host._gauges import Gauges
from lerax_dist.host._queue import RowQueue


def test_once_in_a_while_a_row_says_what_logging_costs(monkeypatch):
    now = [0.0]
    # It stands still, so a row costs nothing beside what it says.
    monkeypatch.setattr(_queue, "time", SimpleNamespace(perf_counter=lambda: 0.0))
    queue = RowQueue(Failures())
    gauges = Gauges(queue, lambda: {"Slow": 7}, clock=lambda: now[0])

    def row(seconds):
        queue.put_row("row", 8, -seconds)

    row(8.0)
    now[0] = 100.0
    assert gauges.of() == {}
    for _ in range(4):
        row(0.5)
    now[0] = 109.0
    assert gauges.of() == {}
    now[0] = 110.0
    found = gauges.of()
    assert found.pop("lerax_dist/share_of_step") == pytest.approx(4 * 0.5 / 10)
    assert found.pop("lerax_dist/callback_ms") == pytest.approx(500.0)
    assert found == {"lerax_dist/queue_rows": 5.0, "lerax_dist/lag/Slow": 7.0}
    now[0] = 119.0
    assert gauges.of() == {}
    now[0] = 130.0
    found = gauges.of()
    # No row since: what one costs is not known.
    assert "lerax_dist/callback_ms" not in found
    assert found["lerax_dist/share_of_step"] == 0.0
    assert all(isinstance(value, np.float64) for value in found.values())
