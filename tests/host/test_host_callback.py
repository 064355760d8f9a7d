"""What reaches the host though no public call can send it: it costs itself only, and never raises.

Private by necessity: these are the rows of a schema that misbehaves, and the payloads of none.
"""

import jax
import numpy as np
import pytest

import lerax_dist as ld
from lerax_dist._schema import Finished, PartialSpec, Schema
from lerax_dist.host._clips import ClipSpec
from tests.loop import KEY, training
from tests.memory import Batches, Memory
from tests.readers import journal_rows

FLOAT32 = np.dtype(np.float32)
NUMBERS = Schema(("x",), dtype=FLOAT32)


def choke(sums, maxima, numpy):
    if 3 in sums[0]:
        raise ValueError("three")
    return Finished({"": sums[0]}, 1)


CHOKES = Schema((), (PartialSpec("x", choke, None, (None,), (), 1),), dtype=FLOAT32)
OWN_PACE = Schema(("time/iteration_seconds",), dtype=FLOAT32)


def deliver(logger, schema, *numbers):
    """A message from the devices with rows of these numbers, each with its number as value."""
    values = np.array(numbers, np.float32).view(np.int32)
    payload = np.array([numbers[0], len(numbers), *numbers, *values], np.int32)
    logger._run.row_callback(schema, 1)(0, 1, payload)


@pytest.fixture
def backend():
    return Batches()


@pytest.fixture
def logger(backend, tmp_path):
    with ld.LoggingCallback(backend, "r", log_dir=tmp_path) as logger:
        yield logger


def test_a_metric_that_cannot_be_finished_costs_itself_in_its_own_row(logger):
    with pytest.warns(ld.LoggingWarning, match="three"):
        deliver(logger, CHOKES, 1, 2, 3, 4, 5)
        logger.close()
    rows = [row for _, row in journal_rows(logger.run_dir)]
    assert [row.get("x") for row in rows] == [1.0, 2.0, None, 4.0, 5.0]


def test_a_metric_by_the_name_of_a_rate_makes_room_for_it(logger, backend):
    deliver(logger, OWN_PACE, 1)
    logger.flush()
    deliver(logger, OWN_PACE, 2)
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
        with pytest.warns(ld.LoggingWarning, match="^callback: .*no buffer"):
            logger._run.row_callback(NUMBERS, 1)(0, 1, Broken())
        with pytest.warns(ld.LoggingWarning, match="^video: .*no buffer"):
            logger._run.clip_callback(ClipSpec("v", 50.0, lambda body: body))(0, 1, Broken())


@pytest.mark.parametrize("restarts", [True, False])
def test_parts_of_a_message_that_is_cut_off_give_their_room_back(logger, restarts):
    part = np.zeros(6 << 20, np.int32)
    receive = logger._run.row_callback(NUMBERS, 1)
    for _ in range(4):
        # The other part never comes. Three of these are more than may wait.
        receive(0, 2, part)
        if restarts:
            context = training(ld.EmptyCallbackState(), 0)
            logger.on_training_start(context, key=KEY)
            jax.effects_barrier()
        logger.flush()
    assert logger.failures == ()
