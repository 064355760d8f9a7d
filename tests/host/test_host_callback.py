"""What reaches the host though no public call can send it: it costs itself only, and never raises.

Private by necessity: these are the rows of a schema that misbehaves, and the payloads of none.
"""

from typing import Any

import numpy as np
import pytest
from lerax_dist.host._film import Film

import lerax_dist as ld
from tests.memory import Batches, Memory
from tests.readers import journal_rows, journal_steps


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


class Chokes(Numbers):
    """Cannot finish the row of number 3."""

    def finish(self, rows):
        if 3 in rows:
            raise ValueError("three")
        return super().finish(rows)


class OwnRate(Numbers):
    names = ("time/iteration_seconds",)


def deliver(logger, schema, *numbers):
    """A message from the devices with rows of these numbers."""
    run: Any = logger._session.run
    run.sink.rows(schema, 1)(0, 1, np.array([numbers[0], *numbers], np.int32))


@pytest.fixture
def backend():
    return Batches()


@pytest.fixture
def logger(backend, tmp_path):
    with ld.LoggingCallback(backend, "r", log_dir=tmp_path) as logger:
        yield logger


def test_a_row_that_cannot_be_finished_costs_none_of_those_beside_it(logger):
    with pytest.warns(ld.LoggingWarning, match="three"):
        deliver(logger, Chokes(), 1, 2, 3, 4, 5)
        logger.close()
    assert journal_steps(logger.run_dir) == [1, 2, 4, 5]


def test_a_metric_by_the_name_of_a_rate_makes_room_for_it(logger, backend):
    schema = OwnRate()
    deliver(logger, schema, 1)
    logger.flush()
    deliver(logger, schema, 2)
    logger.close()
    (_, first), (_, second) = journal_rows(logger.run_dir)
    assert first["time/iteration_seconds"] == 1.0  # nothing to compare with yet
    assert 0 < second["time/iteration_seconds"] != 2.0
    assert "time/steps_per_second" in second
    # A journal's line has a name once in any case, what a backend gets has not.
    assert all(len(names) == len(set(names)) for names, *_ in backend.batches)


def test_a_payload_that_cannot_be_read_is_reported_and_does_not_raise(tmp_path):
    class Broken:
        def __array__(self, dtype=None, copy=None):
            raise ValueError("no buffer")

    with ld.LoggingCallback(Memory(), "r", log_dir=tmp_path) as logger:
        run: Any = logger._session.run
        with pytest.warns(ld.LoggingWarning, match="^callback: .*no buffer"):
            run.sink.rows(Numbers(), 1)(0, 1, Broken())
        with pytest.warns(ld.LoggingWarning, match="^video: .*no buffer"):
            run.studio.clips(Film("v", 50.0, lambda body: body))(0, 1, Broken())
