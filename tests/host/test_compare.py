"""The sample of plain values that processes compare. Pure; real processes are in
`tests/multiprocess/test_local.py`."""

import warnings
from collections import deque

import numpy as np
import pytest

from lerax_dist._failures import Failures, LoggingWarning
from lerax_dist.host._compare import Comparer, Sample, Sampler, rank

NAMES = tuple(f"m{i}" for i in range(10))
ZEROS = [0.0] * 10


@pytest.fixture
def failures():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LoggingWarning)
        yield Failures()


@pytest.fixture
def comparer(failures):
    return Comparer(lambda process: f"process {process} (h{process})", failures)


def sample(step, process=1, **values):
    found = [((name,), value) for name, value in values.items()]
    return Sample(process, step, tuple(values), found)


def test_half_of_all_steps_have_rank_0_a_quarter_rank_1_whatever_their_distance():
    for stride in (1, 10, 1000, 4096, 2**20):
        ranks = np.array([rank(step * stride) for step in range(1, 4097)])
        for each in range(5):
            assert np.mean(ranks == each) == pytest.approx(2.0 ** -(each + 1), rel=0.15)


def test_a_metric_that_differs_is_said_once_with_both_values(comparer, failures):
    comparer.put(7, ("a", "b"), [1.0, 10.0])
    comparer.receive(sample(7, a=1.0, b=20.0))
    comparer.receive(sample(7, process=2, b=30.0))
    (failure,) = failures.all()
    assert failure.message.startswith(
        "'b' differs between processes: 10 on process 0 (h0), 20 on process 1 (h1), at step 7;"
    )


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("mine", "theirs", "differs"),
    [
        (1.0, 1.0, False),
        (np.nan, np.nan, False),
        (np.nan, 1.0, True),
        (np.inf, np.inf, False),
        (np.inf, -np.inf, True),
        (0.0, -0.0, False),
        (0.0, 1e-9, True),
        (1.0, 1.0 + 1e-7, False),
        (1.0, 1.0 + 1e-5, True),
    ],
)
def test_what_differs(comparer, failures, mine, theirs, differs, first):
    if first:
        comparer.receive(sample(3, x=theirs))
    comparer.put(3, ("x",), [mine])
    if not first:
        comparer.receive(sample(3, x=theirs))
    assert len(failures.all()) == differs


def test_only_what_both_have_logged_at_a_step_is_compared(comparer, failures):
    comparer.put(1, ("a",), [1.0])
    comparer.receive(sample(1, b=2.0))
    comparer.receive(sample(2, a=2.0))
    comparer.put(3, ("a",), [3.0])
    assert not failures.all()
    # Another row of the same step.
    comparer.put(1, ("b",), [1.0])
    assert "'b'" in failures.all()[0].message


@pytest.mark.parametrize("rate", [0.02, 3, 100, 10_000])
def test_samples_are_few_and_process_0_still_has_their_rows(failures, rate):
    """Process 0 gets a sample a second after it was taken, and logs twice as many rows."""
    compared = []
    comparer = Comparer(lambda process: compared.append(process) or "", failures)
    sampler, taken = Sampler(), []
    arriving, arrived = deque(), 0
    for row in range(int(max(8 * rate, 10))):
        step, now = 10 * row, row / rate
        comparer.put(step, NAMES, ZEROS)
        comparer.put(step + 5, NAMES, ZEROS)
        if names := sampler.choose(NAMES, step, now):
            taken.append(now)
            arriving.append((now + 1.0, Sample(1, step, names, [(names, np.full(10, 1.0))])))
        while arriving and arriving[0][0] <= now:
            compared.clear()
            comparer.receive(arriving.popleft()[1])
            # Each is described as its values are found to differ.
            assert compared == [0, 1] * 10
            arrived += 1
    assert arrived >= 3
    assert np.diff(taken).min() >= 1.0
    assert len(taken) <= 7 + taken[-1] / 64


def test_many_rows_with_names_of_their_own_send_four_samples_a_second():
    sampler = Sampler()
    taken = [sampler.choose((f"m{step}",), step, step / 100) for step in range(1000)]
    assert 40 <= sum(map(bool, taken)) <= 40 + 8
    assert taken[0] == ("m0",)


def test_rows_of_many_metrics_are_sampled_in_parts_and_their_rows_kept_in_part(comparer, failures):
    names = tuple(f"m{i}" for i in range(10_000))
    sampler = Sampler()
    seen = set()
    for step in range(200):
        comparer.put(step, names, [0.0] * 10_000)
        chosen = sampler.choose(names, step, 64.0 * step)
        assert len(chosen) == 64
        seen |= {*chosen}
        comparer.receive(Sample(1, step, chosen, [(chosen, np.ones(64))]))
    assert len(seen) > 5000
    assert len(failures.all()) == len(seen)
