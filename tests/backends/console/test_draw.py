import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from lerax_dist.backends.console._draw import screen
from lerax_dist.backends.console._live import plain_lines
from lerax_dist.backends.console._view import RunView, describe_launch


def drawn(view: RunView, now: float, width: int, height: int | None) -> list[str]:
    return plain_lines(screen(view, now, width, height), width, height)


def view(metrics: int, rows: int = 20, total: int = 1000, name: str = "run") -> RunView:
    made = RunView(name, "episode/return", now=0.0)
    made.progress.begin(total, now=0.0)
    for row in range(1, rows + 1):
        scalars = {f"g{i // 7}/metric_{i}": np.array(i + row / 8) for i in range(metrics)}
        made.add({**scalars, "episode/return": np.array(row)}, step=10 * row, now=2.0 * row)
    return made


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 200])
@pytest.mark.parametrize("height", [1, 5, 10, 24, 60])
@pytest.mark.parametrize("metrics", [1, 8, 64])
def test_it_fits_the_window(width, height, metrics):
    lines = drawn(view(metrics), now=50.0, width=width, height=height)
    assert max(map(cell_len, lines)) <= width
    assert len(lines) <= height


@pytest.mark.parametrize("width", [40, 60, 100, 200])
def test_without_a_limit_every_metric_is_shown_once(width):
    words = " ".join(drawn(view(64), now=50.0, width=width, height=None)).split()
    assert [words.count(f"metric_{i}") for i in range(64)] == [1] * 64


def test_what_is_left_out_is_counted():
    lines = drawn(view(64), now=50.0, width=60, height=24)
    shown = sum(word.startswith("metric_") for line in lines for word in line.split())
    returns = sum(word == "return" for line in lines for word in line.split())
    assert 0 < shown < 64
    assert lines[-1] == f"{65 - shown - returns} more in a larger window"


def test_beside_from_90_columns_on_and_below_before():
    wide = drawn(view(8), now=50.0, width=99, height=30)
    narrow = drawn(view(8), now=50.0, width=59, height=30)
    assert any("metric_0" in line and "┤" in line for line in wide)
    assert not any("metric_0" in line and "┤" in line for line in narrow)
    assert any("┤" in line for line in narrow)


def test_a_run_of_unknown_length_has_a_count_and_no_percentage():
    lines = drawn(view(1, total=0), now=50.0, width=80, height=30)
    assert not any("%" in line or "ETA" in line for line in lines)
    assert any(line.startswith("200 steps") for line in lines)


@pytest.mark.parametrize(("total", "shown"), [(200, "100.0%"), (201, "99.5%"), (2001, "9.9%")])
def test_percentages_are_rounded_down_so_that_only_the_end_is_100(total, shown):
    assert drawn(view(1, total=total), 50.0, 80, 30)[1].endswith(shown)


def test_before_the_first_row_it_says_that_it_waits():
    lines = drawn(RunView("run", "episode/return", now=0.0), 12.0, 80, 24)
    assert lines[1:] == ["waiting for the first row   elapsed 12s"]


def test_without_a_return_the_first_loss_is_drawn_until_one_comes():
    made = RunView("run", "episode/return", now=0.0)
    made.add(
        {"train/lr": np.array(1), "train/value_loss": np.array(2), "a/loss": np.array(1)}, 1, 1.0
    )
    assert made.charted == "train/value_loss"
    made.add({"episode/return": np.array(3)}, 2, 2.0)
    assert made.charted == "episode/return"


def test_a_metric_that_is_absent_from_a_row_keeps_its_value():
    made = view(1, rows=2)
    made.add({"eval/score": np.array(0.25)}, 30, 5.0)
    made.add({"episode/return": np.array(7)}, 40, 6.0)
    shown = " ".join(drawn(made, 6.0, 80, 40)).split()
    assert shown[shown.index("score") + 1] == "0.25"


def test_each_metric_has_its_value_its_change_and_its_course():
    lines = drawn(view(2, rows=12), now=50.0, width=99, height=30)
    (line,) = [line for line in lines if "metric_1" in line]
    assert line.split()[:4] == ["metric_1", "2.5", "+0.125", "▁▂▂▃▄▄▅▅▆▇▇█"]


@pytest.mark.parametrize(("width", "kept"), [(60, 3), (35, 2), (24, 1)])
def test_a_narrow_window_leaves_out_courses_and_then_changes(width, kept):
    lines = drawn(view(2, rows=12), now=50.0, width=width, height=40)
    (line,) = [line for line in lines if "metric_1" in line]
    assert line.split()[1:] == ["2.5", "+0.125", "▁▂▂▃▄▄▅▅▆▇▇█"][:kept]


def test_the_name_of_the_run_stays_where_its_state_has_no_room():
    made = view(2)
    made.state = "finished"
    assert drawn(made, now=50.0, width=12, height=40)[0] == "run ────────"
    assert drawn(made, now=50.0, width=20, height=40)[0] == "run ─────── finished"


def test_a_window_that_is_too_narrow_does_not_promise_more_in_a_larger_one():
    assert not [each for each in drawn(view(2), 50.0, width=10, height=None) if "more" in each]


def test_the_header_says_where_it_runs_and_how_logging_fares():
    made = view(1)
    made.facts = {
        **{"launcher": "slurm", "process_count": 32, "device_count": 256},
        **{"host": "node-1", "incarnation": 2},
    }
    own = {
        **{"lerax_dist/share_of_step": 0.0012, "lerax_dist/callback_ms": 0.08},
        **{"lerax_dist/lag/TensorBoardBackend": 3.0, "lerax_dist/lag/WandbBackend": 54_321.0},
        "lerax_dist/lag/Mine": float("inf"),
    }
    made.add({name: np.array(value) for name, value in own.items()}, 210, 42.0)
    lines = drawn(made, now=50.0, width=199, height=40)
    assert lines[1] == (
        "slurm   32 processes × 8 devices   on node-1   incarnation 2   "
        "logging 0.12% of the time, 0.08 ms a row   ✓ TensorBoard   ! Wandb 54,321 behind   ✗ Mine"
    )
    assert not any("share_of_step" in line or "lag" in line for line in lines)
    assert max(map(cell_len, drawn(made, now=50.0, width=30, height=40))) <= 30


def test_devices_that_differ_between_processes_are_counted_together():
    facts = {"process_count": 3, "device_count": 8}
    assert describe_launch(facts) == ["3 processes, 8 devices"]
    assert describe_launch({"process_count": 1, "device_count": None}) == ["1 process"]
    assert describe_launch({}) == []


def test_a_state_is_beside_the_name():
    made = view(1)
    made.state, made.notes = "crashed", ["no new row for 3h00m"]
    lines = drawn(made, now=50.0, width=60, height=40)
    assert lines[0].startswith("run ───") and lines[0].endswith("── crashed")
    assert cell_len(lines[0]) == 60
    assert lines[1] == "no new row for 3h00m"


@given(st.text(max_size=30), st.text(max_size=30), st.integers(1, 120), st.integers(1, 30))
def test_any_names_are_drawn_in_the_window_without_control_characters(run, metric, width, height):
    made = RunView(run, metric, now=0.0)
    made.state, made.notes = metric, [run]
    made.facts = {"launcher": run, "host": metric}
    made.add({metric: np.array(1.0), "other": np.array(2.0)}, 1, 1.0)
    lines = drawn(made, 2.0, width, height)
    assert len(lines) <= height
    assert max(map(cell_len, lines)) <= width
    assert all(line.isprintable() for line in lines)


def test_lines_have_no_blanks_at_their_ends():
    assert not any(line != line.rstrip() for line in drawn(view(64), 50.0, 160, 50))


def test_a_finished_run_shows_its_state_and_no_remaining_time():
    made = view(1, rows=20, total=210)
    made.state = "finished"
    lines = drawn(made, 50.0, 80, 30)
    assert lines[0].endswith("── finished") and lines[1].endswith("100.0%")
    assert lines[2] == "200 / 210 steps   5 steps/s   elapsed 50s"


def test_a_metric_of_members_is_one_line_and_its_range_is_in_the_chart():
    made = RunView("run", "train/loss", now=0.0)
    for step in range(20):
        row = {"": 1.0 + step, "/member_min": 0.5, "/member_max": 40.0, "/member_std": 0.4}
        made.add({f"train/loss{end}": np.array(value) for end, value in row.items()}, step, 1.0)
    lines = drawn(made, 50.0, 120, 30)
    assert not [line for line in lines if "member_" in line]
    assert any("loss" in line and "20 [0.5, 40]" in line for line in lines)
    # The scale is that of the range.
    assert any(" 40┤" in line for line in lines) and any(" 0.5┤" in line for line in lines)
