import pytest

from lerax_dist.backends._format import format_percent
from lerax_dist.backends.console._view import Progress


def after(*rows: tuple[int, float], total: int = 1000, start: float = 100.0) -> Progress:
    progress = Progress(now=start - 50.0)
    progress.begin(total, now=start)
    for step, now in rows:
        progress.advance(step, now)
    return progress


def test_share_and_elapsed_time():
    progress = after((250, 110.0))
    assert progress.share() == 0.25
    assert progress.elapsed(112.0) == 12.0


def test_the_estimate_is_that_of_the_rows_so_far_and_counts_down_between_them():
    progress = after((100, 110.0), (200, 120.0))
    assert progress.rate == 10.0
    assert progress.remaining(120.0) == 80.0
    assert progress.remaining(125.0) == 75.0
    assert progress.remaining(999.0) == 0.0


def test_a_resumed_run_does_not_claim_the_steps_before_it():
    progress = after((500, 110.0), (510, 120.0))
    assert progress.rate == 1.0
    assert progress.remaining(120.0) == 490.0


def test_before_there_is_a_second_of_rows_there_is_no_speed():
    assert after((100, 110.0)).rate is None
    assert after((100, 110.0), (200, 110.001)).rate is None
    assert after((100, 110.0), (200, 110.001)).remaining(111.0) is None


@pytest.mark.parametrize("total", [0, -1])
def test_without_a_length_there_is_no_share_and_no_estimate(total):
    progress = after((100, 110.0), (200, 120.0), total=total)
    assert progress.rate == 10.0
    assert progress.share() is None
    assert progress.remaining(120.0) is None


def test_a_step_beyond_the_end_is_the_end():
    progress = after((900, 110.0), (1024, 120.0))
    assert progress.share() == 1.0
    assert progress.remaining(120.0) == 0.0


def test_a_second_training_has_a_speed_of_its_own():
    progress = after((0, 100.0), (900, 109.0))
    assert progress.rate == 100.0
    progress.begin(1000, now=500.0)
    assert progress.rate is None
    progress.advance(900, now=510.0)
    progress.advance(950, now=520.0)
    assert progress.rate == 5.0


def finished(*steps: int, total: int = 200) -> float | None:
    rows = [(step, 100.0 + index) for index, step in enumerate(steps)]
    return after(*rows, total=total).share(finished=True)


def test_a_finished_loop_from_0_to_the_step_before_the_last_is_complete():
    assert finished(*range(200)) == 1.0
    assert finished(*range(0, 200, 10)) == 1.0
    assert finished(0, total=1) == 1.0


def test_a_finished_run_that_stopped_early_is_not_complete():
    assert finished(*range(150)) == 149 / 200
    assert finished(*range(0, 200, 10)[:-1]) == 180 / 200
    assert finished() == 0.0


def test_train_and_eval_rows_of_one_step_count_as_one():
    assert finished(0, 0, 10, 10, 190, 190, total=1000) == 190 / 1000
    assert finished(*(step for step in range(0, 200, 10) for _ in "te")) == 1.0


def test_until_it_is_finished_a_run_has_done_the_steps_it_logged():
    assert after((198, 110.0), (199, 111.0), total=200).share() == 199 / 200


@pytest.mark.parametrize(
    ("share", "shown"), [(0.0, "0.0%"), (0.9999, "99.9%"), (1.0, "100.0%"), (0.12345, "12.3%")]
)
def test_percentages_are_rounded_down(share, shown):
    assert format_percent(share) == shown
