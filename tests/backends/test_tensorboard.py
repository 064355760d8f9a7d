import contextlib
import io
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lerax_dist.backends import TensorBoardBackend
from lerax_dist.backends._run_text import markdown_table
from tests.readers import event_rows


def read(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    accumulator.Reload()
    return accumulator


def rows(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in read(folder).Scalars(tag)]


def scalars(**values: float) -> dict[str, Any]:
    return {name.replace("__", "/"): np.float64(value) for name, value in values.items()}


@pytest.fixture
def backend(tmp_path):
    backend = TensorBoardBackend(tmp_path)
    backend.open("group/run")
    yield backend
    backend.close()


def run(program: str, *args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


# A limit on the size of files replaces the disk: writing fails in the middle of a record.
_DISK = """
import os, resource, signal, sys
import numpy as np
from lerax_dist.backends import TensorBoardBackend
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
_, whole = resource.getrlimit(resource.RLIMIT_FSIZE)
def room(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, whole))
backend = TensorBoardBackend(sys.argv[1])
backend.open("run")
"""


def run_on_a_disk(program: str, *args: object) -> subprocess.CompletedProcess[str]:
    """Run a program that has a `backend`, and `room(size)` for the disk: bytes, or `whole`."""
    return run(_DISK + textwrap.dedent(program), *args)


def test_rows_reach_the_event_file_in_the_folder_of_the_run(backend, tmp_path):
    backend.log_scalars(scalars(train__loss=0.5, episode__return=10.0), step=1)
    backend.log_scalars(scalars(train__loss=0.25, episode__return=20.0), step=3)
    assert rows(tmp_path / "group" / "run", "train/loss") == [(1, 0.5), (3, 0.25)]
    assert rows(tmp_path / "group" / "run", "episode/return") == [(1, 10.0), (3, 20.0)]


def test_rows_with_other_metrics_do_not_mix(backend, tmp_path):
    backend.log_scalars(scalars(a=1.0, b=2.0), step=1)
    backend.log_scalars(scalars(b=3.0), step=2)
    backend.log_scalars(scalars(b=4.0, a=5.0), step=3)
    folder = tmp_path / "group" / "run"
    assert rows(folder, "a") == [(1, 1.0), (3, 5.0)]
    assert rows(folder, "b") == [(1, 2.0), (2, 3.0), (3, 4.0)]


def test_a_row_is_one_event(backend, tmp_path):
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    backend.log_scalars(scalars(a=1.0, b=2.0, c=3.0), step=7)
    (file,) = (tmp_path / "group" / "run").iterdir()
    events = [event for event in EventFileLoader(str(file)).Load() if event.step == 7]
    assert [len(event.summary.value) for event in events] == [3]


@pytest.mark.parametrize("step", [2**24 + 1, 2**31, 2**53 + 1, 2**62 + 1])
def test_steps_are_exact(backend, tmp_path, step):
    backend.log_scalars(scalars(a=1.0), step=step)
    assert rows(tmp_path / "group" / "run", "a") == [(step, 1.0)]


def test_values_that_are_not_finite_are_written_as_they_are(backend, tmp_path):
    inf = float("inf")
    for step, value in enumerate([float("nan"), inf, -inf]):
        backend.log_scalars(scalars(a=value), step=step)
    (_, nan), *others = rows(tmp_path / "group" / "run", "a")
    assert np.isnan(nan)
    assert others == [(1, inf), (2, -inf)]


def test_hyperparameters_are_a_table_under_text(backend, tmp_path):
    backend.log_hparams({"policy.width": 64, "loss": "a|b", "note": "two\nlines"})
    (event,) = read(tmp_path / "group" / "run").Tensors("hparams/text_summary")
    assert event.step == 0
    assert event.tensor_proto.string_val[0].decode() == (
        "|name|value|\n|-|-|\n|policy.width|64|\n|loss|a\\|b|\n|note|two<br>lines|"
    )


def test_no_hyperparameters_are_an_empty_table():
    assert markdown_table({}) == "|name|value|\n|-|-|"


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_video_is_an_animated_image_at_its_step(backend, tmp_path, channels):
    frames = np.random.default_rng(0).integers(0, 256, (6, 24, 32, channels), dtype=np.uint8)
    backend.log_video("eval/video", frames, step=12, fps=50.0)
    (event,) = read(tmp_path / "group" / "run").Images("eval/video")
    assert (event.step, event.width, event.height) == (12, 32, 24)
    with Image.open(io.BytesIO(event.encoded_image_string)) as image:
        assert (image.format, image.size, getattr(image, "n_frames", 1)) == ("GIF", (32, 24), 6)


def test_frames_of_another_type_are_refused(backend):
    with pytest.raises(ValueError, match="`frames` must be uint8"):
        backend.log_video("eval/video", np.zeros((2, 8, 8, 3)), step=0, fps=50.0)


def test_two_writers_in_one_folder_in_one_second_keep_their_rows(tmp_path):
    backends = [TensorBoardBackend(tmp_path) for _ in range(5)]
    for index, backend in enumerate(backends):
        backend.open("run")
        backend.log_scalars(scalars(a=float(index)), step=index)
    for backend in backends:
        backend.close()
    assert rows(tmp_path / "run", "a") == [(index, float(index)) for index in range(5)]


def test_a_backend_that_is_opened_again_adds_to_its_rows(tmp_path):
    backend = TensorBoardBackend(tmp_path)
    for step in range(3):
        backend.open("run")
        backend.log_scalars(scalars(a=1.0), step=step)
        backend.close()
    assert rows(tmp_path / "run", "a") == [(0, 1.0), (1, 1.0), (2, 1.0)]


def test_rows_outlive_a_killed_process(tmp_path):
    program = """
        import os, signal, sys
        import numpy as np
        from lerax_dist.backends import TensorBoardBackend
        backend = TensorBoardBackend(sys.argv[1])
        backend.open("run")
        for step in range(100):
            backend.log_scalars({"a": np.float64(step)}, step)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert run(program, tmp_path).returncode == -signal.SIGKILL
    assert rows(tmp_path / "run", "a") == [(step, float(step)) for step in range(100)]


def test_a_full_disk_loses_no_row_that_is_tried_again(tmp_path):
    program = """
        room(5000)
        failures = 0
        for step in range(200):
            row = {f"m{i}": np.float64(step) for i in range(8)}
            try:
                backend.log_scalars(row, step)
            except OSError:
                failures += 1
                room(whole)
                backend.log_scalars(row, step)
        backend.close()
        print(failures)
    """
    result = run_on_a_disk(program, tmp_path)
    assert (result.stdout, result.stderr) == ("1\n", "")
    assert rows(tmp_path / "run", "m7") == [(step, float(step)) for step in range(200)]


def test_rows_that_come_again_after_a_full_disk_are_there_once(tmp_path):
    program = """
        room(2000)
        values, steps = np.arange(60.0).reshape(60, 1), list(range(60))
        backend.log_rows(("m",), values[:20], steps[:20], [1.5e9] * 20)
        try:
            backend.log_rows(("m",), values[20:], steps[20:], [1.5e9] * 40)
        except OSError:
            print("full")
        room(whole)
        backend.log_rows(("m",), values[20:], steps[20:], [1.5e9] * 40)
        backend.close()
    """
    result = run_on_a_disk(program, tmp_path)
    assert (result.stdout, result.stderr) == ("full\n", "")
    assert rows(tmp_path / "run", "m") == [(step, float(step)) for step in range(60)]


@pytest.mark.parametrize("room", [0, 60], ids=["for no byte", "for less than a row"])
def test_a_full_disk_is_left_no_file_for_each_row_that_is_tried(tmp_path, room):
    program = """
        backend.log_rows(("a",), np.zeros((1, 1)), [0], [0.0])
        room(int(sys.argv[2]))
        failures = 0
        for step in range(1, 6):
            try:
                backend.log_rows(("a",), np.full((1, 1), step), [step], [float(step)])
            except OSError:
                failures += 1
        room(whole)
        print(failures, len(os.listdir(sys.argv[1] + "/run")))
        backend.log_rows(("a",), np.full((1, 1), step), [step], [float(step)])
        backend.close()
    """
    result = run_on_a_disk(program, tmp_path, room)
    assert (result.stdout, result.stderr) == ("5 1\n", "")
    events = [(event.wall_time, event.step) for event in read(tmp_path / "run").Scalars("a")]
    assert events == [(0.0, 0), (5.0, 5)]


def test_rows_that_come_together_keep_their_own_steps_and_times(backend, tmp_path):
    steps, times = [1, 126, 127, 128, 129], [1.5e9, 1.5e9 + 2, 1.5e9 + 4, 1.5e9 + 6, 1.5e9 + 8]
    values = np.arange(10.0).reshape(5, 2)
    backend.log_rows(("a", "b"), values, steps, times)
    accumulator = read(tmp_path / "group" / "run")
    for column, tag in enumerate(("a", "b")):
        events = [(event.step, event.value, event.wall_time) for event in accumulator.Scalars(tag)]
        assert events == list(zip(steps, values[:, column], times, strict=True))


def incarnation(folder: Path, start_step: int, *, resumed: bool) -> None:
    """Five rows from a step on, with what stands at step 0, part of it before the marker."""
    backend = TensorBoardBackend(folder)
    backend.open("run")
    backend.on_run({"name": "run"})
    backend.log_hparams({"start": start_step})
    if resumed:
        backend.on_resume(start_step)
    for step in range(start_step, start_step + 5):
        backend.log_scalars(scalars(a=step, a_min=0.0, a_max=9.0), step)
    backend.close()


def shown(folder: Path) -> dict[str, list[int]]:
    """Steps of each tag as TensorBoard itself shows them, which reads scalars as tensors."""
    accumulator = plugin_event_accumulator.EventAccumulator(str(folder))
    accumulator.Reload()
    tags = accumulator.Tags()["tensors"]
    return {tag: [event.step for event in accumulator.Tensors(tag)] for tag in tags}


def test_a_run_that_goes_on_is_one_curve_from_the_first_time(tmp_path):
    incarnation(tmp_path, 0, resumed=False)
    incarnation(tmp_path, 3, resumed=True)
    assert shown(tmp_path / "run")["a"] == list(range(8))
    assert [step for step, _ in rows(tmp_path / "run", "a")] == list(range(8))
    incarnation(tmp_path, 4, resumed=True)
    found = shown(tmp_path / "run")
    assert found["a"] == list(range(9))
    # Texts tell of every incarnation.
    assert found["run/text_summary"] == found["hparams/text_summary"] == [0, 0, 0]


def test_a_run_that_begins_again_keeps_what_stands_at_step_0(tmp_path):
    incarnation(tmp_path, 0, resumed=False)
    incarnation(tmp_path, 0, resumed=True)
    found = shown(tmp_path / "run")
    assert found["a"] == list(range(5))
    for tag in ("run/text_summary", "hparams/text_summary", "custom_scalars__config__"):
        assert found[tag] == [0], tag


def test_bands_that_were_laid_out_before_a_run_goes_on_stay(tmp_path):
    backend = TensorBoardBackend(tmp_path)
    backend.open("run")
    row = scalars(a=1.0, a_min=0.0, a_max=2.0)
    backend.log_scalars(row, 0)
    backend.on_resume(0)
    backend.log_scalars(row, 0)
    backend.close()
    assert shown(tmp_path / "run")["custom_scalars__config__"] == [0]


def test_a_band_that_a_full_disk_does_not_take_is_laid_out_with_the_next_row(tmp_path):
    program = """
        room(0)
        row = {"a": np.float64(1), "a_min": np.float64(0), "a_max": np.float64(2)}
        try:
            backend.log_scalars(row, 1)
        except OSError:
            print("full")
        room(whole)
        backend.log_scalars(row, 1)
        backend.close()
    """
    result = run_on_a_disk(program, tmp_path)
    assert (result.stdout, result.stderr) == ("full\n", "")
    found = shown(tmp_path / "run")
    assert (found["custom_scalars__config__"], found["a"]) == ([0], [1])


def test_what_is_not_open_refuses_rows(tmp_path):
    backend = TensorBoardBackend(tmp_path)
    with pytest.raises(RuntimeError, match="must be open"):
        backend.log_scalars(scalars(a=1.0), step=0)
    backend.open("run")
    backend.close()
    backend.close()
    with pytest.raises(RuntimeError, match="must be open"):
        backend.log_scalars(scalars(a=1.0), step=0)
    with pytest.raises(RuntimeError, match="must be open"):
        backend.log_video("v", np.zeros((1, 2, 2, 3), np.uint8), 0, 50.0)
    with pytest.raises(RuntimeError, match="must be open"):
        backend.log_hparams({})


def test_a_second_run_is_refused_while_the_first_is_open(backend):
    with pytest.raises(RuntimeError, match="other"):
        backend.open("other")


def test_log_dir_can_be_read_and_not_set(tmp_path):
    backend = TensorBoardBackend(str(tmp_path))
    assert backend.log_dir == tmp_path
    with pytest.raises(AttributeError):
        backend.log_dir = Path("elsewhere")  # pyright: ignore[reportAttributeAccessIssue]
    assert TensorBoardBackend().log_dir == Path("logs")


def test_making_a_backend_makes_no_file(tmp_path):
    TensorBoardBackend(tmp_path / "logs")
    assert os.listdir(tmp_path) == []


def test_every_row_comes_back_with_its_step_and_float32_values(tmp_path):
    """Rows of two kinds that take turns, over steps that take one to four bytes."""
    backend = TensorBoardBackend(tmp_path)
    generator = np.random.default_rng(0)
    written = []
    with contextlib.closing(backend):
        backend.open("run")
        for index in range(300):
            step = index**3
            tags = [f"train/m{i}" for i in range(64)] if index % 2 else ["eval/a", "eval/b"]
            row: dict[str, Any] = {tag: np.float64(generator.normal()) for tag in tags}
            backend.log_scalars(row, step)
            written.append((step, {tag: float(np.float32(row[tag])) for tag in tags}))
        backend.log_hparams({"seed": 1})
    assert event_rows(tmp_path / "run") == written


def test_many_sets_of_metrics_are_written(backend, tmp_path):
    for round_ in range(2):
        for index in range(40):
            backend.log_scalars(scalars(**{f"m{index}": round_}), step=round_)
    for index in range(40):
        assert rows(tmp_path / "group" / "run", f"m{index}") == [(0, 0.0), (1, 1.0)]


@pytest.mark.parametrize("package", ["tensorboardX", "crc32c"])
def test_the_doctor_says_which_package_is_missing(monkeypatch, package):
    assert TensorBoardBackend.check_setup(1.0) == []
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    (found,) = TensorBoardBackend.check_setup(1.0)
    assert (found.level, package in found.what) == ("problem", True)
    assert "pip install tensorboardX crc32c" in found.fix


def test_a_replay_writes_to_the_folder(tmp_path):
    assert TensorBoardBackend.replay_name == "tensorboard"
    assert TensorBoardBackend.for_replay(tmp_path, project=None).log_dir == tmp_path
