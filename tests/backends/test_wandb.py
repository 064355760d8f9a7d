import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from lerax_dist.backends import WandbBackend
from lerax_dist.backends._wandb import merged, nested, summary_of, with_step
from tests.backends.console.terminal import Terminal, python
from tests.backends.read_wandb import WandbRun, read_wandb

KEY = "0123456789" * 4
PREAMBLE = """
import sys, threading
import numpy as np
from lerax_dist.backends import WandbBackend

def in_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()
"""


def isolated(folder: Path, **extra: str) -> dict[str, str]:
    """An environment with no account, whose server is a closed port of this machine."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    (folder / "home").mkdir(exist_ok=True)
    return {
        **env,
        "HOME": str(folder / "home"),
        "NETRC": str(folder / "home" / ".netrc"),
        "WANDB_DIR": str(folder),
        "WANDB_CONFIG_DIR": str(folder / "config"),
        "WANDB_CACHE_DIR": str(folder / "cache"),
        "WANDB_DATA_DIR": str(folder / "data"),
        "WANDB_BASE_URL": "http://127.0.0.1:9",
        "WANDB_INIT_TIMEOUT": "2",
        "WANDB_ERROR_REPORTING": "false",
        "PYTHONWARNINGS": "error::ResourceWarning",
        **extra,
    }


def run(program: str, env: Mapping[str, str], *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PREAMBLE + textwrap.dedent(program), *args]
    result = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    return result


def files_of_runs(folder: Path) -> list[Path]:
    return sorted((folder / "wandb").glob("offline-run-*/run-*.wandb"))


def the_run(folder: Path) -> WandbRun:
    (path,) = files_of_runs(folder)
    return read_wandb(path)


@dataclass
class Written:
    folder: Path
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Written:
    """A run as a logger makes it: in a thread, with no account and no network."""
    folder = tmp_path_factory.mktemp("wandb")
    program = """
        def log():
            config = {"seed": 1, "policy": {"kind": "mlp"}}
            backend = WandbBackend("project", config, quiet=True)
            backend.open("group/run 1")
            backend.log_hparams({"policy.width": 64, "lr": np.float64(0.5), "seed": 2})
            for step in (5, 5, 2**40 + 1):
                backend.log_scalars({"train/loss": np.float64(step / 2), "x": np.float64(1)}, step)
            row = {"a": np.float64("nan"), "b": np.float64("-inf"), "global_step": np.float64(3)}
            backend.log_scalars(row, 7)
            frames = np.zeros((4, 8, 12, 3), np.uint8)
            frames[:, 0, 0, 0] = range(0, 256, 64)
            backend.log_video("eval/video", frames, 9, 50.0)
            backend.close()
            backend.close()
            try:
                backend.log_scalars(row, 8)
            except RuntimeError as error:
                print(error)
        in_thread(log)
        import wandb
        print(wandb.run)
    """
    result = run(program, isolated(folder))
    return Written(folder, result.stdout, result.stderr)


def test_rows_come_in_order_and_a_step_that_comes_twice_is_kept(written):
    rows = [row for row in the_run(written.folder).rows if "x" in row]
    assert rows == [
        {"global_step": 5, "train/loss": 2.5, "x": 1.0},
        {"global_step": 5, "train/loss": 2.5, "x": 1.0},
        {"global_step": 2**40 + 1, "train/loss": (2**40 + 1) / 2, "x": 1.0},
    ]


def test_the_x_axis_of_every_metric_is_the_global_step(written):
    axes = the_run(written.folder).axes
    assert axes == {"*": "global_step", "train/loss": "global_step"}


def test_values_that_are_not_finite_are_written_and_the_step_keeps_its_name(written):
    (row,) = [row for row in the_run(written.folder).rows if "a" in row]
    assert np.isnan(row.pop("a"))
    assert row == {"global_step": 7, "b": -np.inf, "metrics/global_step": 3.0}


def test_hyperparameters_are_nested_and_join_the_users_config_which_stays(written):
    config = the_run(written.folder).config
    assert config == {"seed": 1, "lr": 0.5, "policy": {"width": 64, "kind": "mlp"}}


def test_name_project_and_end_are_found(written):
    found = the_run(written.folder)
    assert (found.name, found.project, found.exit_code) == ("group/run 1", "project", 0)


def test_a_video_is_a_gif_at_its_step(written):
    (row,) = [row for row in the_run(written.folder).rows if row["global_step"] == 9]
    (path,) = files_of_runs(written.folder)
    assert row["eval/video._type"] == "video-file"
    with Image.open(path.parent / "files" / row["eval/video.path"]) as image:
        assert (image.format, image.size, getattr(image, "n_frames", 1)) == ("GIF", (12, 8), 4)


def test_quiet_leaves_one_line_that_says_how_to_upload(written):
    (path,) = files_of_runs(written.folder)
    assert written.stderr == (
        f"W&B run group/run 1 is offline: no API key was found. Upload: wandb sync {path.parent}\n"
    )


def test_after_close_rows_are_refused_and_no_run_is_left_current(written):
    refused, current = written.stdout.splitlines()
    assert "must be open" in refused
    assert current == "None"


def test_two_runs_in_one_process_do_not_mix_and_leave_the_users_own_alone(tmp_path):
    program = """
        import wandb
        own = wandb.init(mode="offline", settings=wandb.Settings(silent=True, console="off"))
        backends = [WandbBackend("p", quiet=True) for _ in range(2)]
        for index, backend in enumerate(backends):
            backend.open(f"run{index}")
        for step in range(3):
            for index, backend in enumerate(backends):
                backend.log_scalars({f"m{index}": np.float64(step)}, step)
        for backend in backends:
            backend.close()
        own.log({"mine": 1})
        own.finish()
    """
    run(program, isolated(tmp_path))
    runs = {found.name: found.rows for found in map(read_wandb, files_of_runs(tmp_path))}
    expected = {
        f"run{index}": [{"global_step": step, f"m{index}": step} for step in range(3)]
        for index in range(2)
    }
    assert {name: runs.pop(name) for name in expected} == expected
    assert list(runs.values()) == [[{"mine": 1}]]


def test_a_video_may_be_an_mp4(tmp_path):
    program = """
        backend = WandbBackend("p", quiet=True, video_format="mp4")
        backend.open("run")
        backend.log_video("eval/video", np.zeros((4, 16, 16, 3), np.uint8), 9, 50.0)
        backend.close()
    """
    run(program, isolated(tmp_path))
    (row,) = the_run(tmp_path).rows
    assert (row["global_step"], row["eval/video._type"]) == (9, "video-file")
    (path,) = files_of_runs(tmp_path)
    file = path.parent / "files" / row["eval/video.path"]
    assert file.suffix == ".mp4"
    with av.open(str(file), mode="r") as container:
        assert len(list(container.decode(video=0))) == 4


def test_without_an_api_key_a_terminal_is_not_prompted(tmp_path):
    program = """
backend = WandbBackend("p", mode="online")
backend.open("run")
backend.log_scalars({"a": np.float64(1.0)}, 1)
backend.close()
"""
    terminal = Terminal(python(PREAMBLE + program, warnings="default"), 120, 40, isolated(tmp_path))
    assert terminal.finish() == 0
    assert b"no API key was found" in terminal.raw
    assert the_run(tmp_path).rows == [{"global_step": 1, "a": 1.0}]


@pytest.mark.parametrize("place", ["variable", "netrc"])
def test_a_server_that_does_not_answer_makes_the_run_offline(tmp_path, place):
    env = isolated(tmp_path)
    if place == "variable":
        env["WANDB_API_KEY"] = KEY
    else:
        netrc = tmp_path / "home" / ".netrc"
        netrc.write_text(f"machine 127.0.0.1:9\n  login user\n  password {KEY}\n")
        netrc.chmod(0o600)
    program = """
        def log():
            backend = WandbBackend("p", quiet=True)
            backend.on_identity("abc", 1)  # as a logger does
            backend.open("run")
            backend.log_scalars({"a": np.float64(1.0)}, 1)
            backend.close()
        in_thread(log)
    """
    result = run(program, env)
    assert "W&B run run is offline: W&B could not be reached (" in result.stderr
    assert f"Upload: wandb sync --id abc {tmp_path}" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    found = the_run(tmp_path)
    assert (found.id, found.rows) == ("abc-offline", [{"global_step": 1, "a": 1.0}])


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_the_mode_in_the_environment_is_respected_without_a_word(tmp_path, mode):
    program = """
        backend = WandbBackend("p", quiet=True)
        backend.open("run")
        backend.on_run({})
        backend.log_hparams({"lr": 0.1})
        backend.log_scalars({"a": np.float64(1.0)}, 1)
        backend.log_video("v", np.zeros((2, 4, 4, 3), np.uint8), 1, 50.0)
        backend.on_end("preempted")
        backend.close()
    """
    result = run(program, isolated(tmp_path, WANDB_MODE=mode, WANDB_API_KEY=KEY))
    assert result.stderr == ""
    assert len(files_of_runs(tmp_path)) == (mode == "offline")


def test_a_home_that_cannot_be_written_is_no_obstacle(tmp_path):
    nowhere = {
        name: "/proc/nowhere" for name in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "NETRC")
    }
    program = """
        def log():
            backend = WandbBackend("p", quiet=True)
            backend.open("run")
            backend.log_scalars({"a": np.float64(1.0)}, 1)
            backend.close()
        in_thread(log)
    """
    run(program, {**isolated(tmp_path), **nowhere})
    assert the_run(tmp_path).rows == [{"global_step": 1, "a": 1.0}]


EXIT = """
import atexit
backend = WandbBackend("p", quiet=True, id="abc", dir=sys.argv[1])

def end():
    try:
        backend.log_scalars({"a": np.float64(2.0)}, 2)
        backend.close()
    except Exception as error:
        print(type(error).__name__)
    try:
        backend.close()
    except Exception as error:
        print(error)

if sys.argv[2] == "before":
    atexit.register(end)
backend.open("run")
backend.log_scalars({"a": np.float64(1.0)}, 1)
if sys.argv[2] == "after":
    atexit.register(end)
"""


def test_rows_and_close_at_exit_are_in_time_if_registered_once_open(tmp_path):
    env = isolated(tmp_path)
    del env["WANDB_DIR"]
    result = run(EXIT, env, str(tmp_path), "after")
    assert result.stdout == ""
    found = the_run(tmp_path)
    assert [row["a"] for row in found.rows] == [1.0, 2.0]
    assert (found.id, found.exit_code) == ("abc", 0)


def test_a_close_that_comes_too_late_says_so_and_what_was_written_stays(tmp_path):
    result = run(EXIT, isolated(tmp_path), str(tmp_path), "before")
    refused, why = result.stdout.splitlines()
    assert refused == "ConnectionResetError"
    assert "closed before W&B's exit handler" in why
    assert [row["a"] for row in the_run(tmp_path).rows] == [1.0]


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match='`mode` must be "online"'):
        WandbBackend(mode="dryrun")


def test_what_is_not_open_refuses_rows():
    with pytest.raises(RuntimeError, match="must be open"):
        WandbBackend().log_scalars({}, 0)
    WandbBackend().close()


def test_a_backend_that_is_used_again_takes_the_id_of_its_new_run(tmp_path):
    program = """
        backend = WandbBackend("p", quiet=True)
        for run_id in ("aaaa", "bbbb"):
            backend.on_identity(run_id, 1)
            backend.open(run_id)
            backend.log_scalars({"x": np.float64(1)}, 0)
            backend.close()
        backend = WandbBackend("p", quiet=True, id="mine")
        backend.on_identity("cccc", 1)
        backend.open("c")
        backend.close()
    """
    run(program, isolated(tmp_path))
    found = [read_wandb(path) for path in files_of_runs(tmp_path)]
    assert {each.name: each.id for each in found} == {"aaaa": "aaaa", "bbbb": "bbbb", "c": "mine"}


def test_the_end_the_notes_and_the_best_values_are_found(tmp_path):
    program = """
        facts = {"launcher": "slurm", "process_count": 2, "hosts": ["n1", "n2"]}
        for state in ("finished", "failed", "preempted"):
            mine = {"notes": "my own"} if state == "failed" else {}
            backend = WandbBackend("p", quiet=True, group="g", job_type="train", tags="ab", **mine)
            backend.open(state)
            backend.on_run(facts)
            for step in range(5):
                row = {"train/loss": (step - 2) ** 2, "episode/return": -((step - 3) ** 2)}
                row |= {"episode/return_min": -step, "x": step}
                backend.log_scalars({tag: np.float64(x) for tag, x in row.items()}, step)
            backend.on_end(state)
            backend.close()
        # As a replay tells of a run that went on after it was preempted.
        backend = WandbBackend("p", quiet=True)
        backend.open("two jobs")
        for state in ("preempted", "finished"):
            backend.on_run(facts)
            backend.on_end(state)
        backend.close()
    """
    run(program, isolated(tmp_path))
    found = {each.name: each for each in map(read_wandb, files_of_runs(tmp_path))}
    ends = {name: (each.exit_code, each.preempting) for name, each in found.items()}
    assert ends == {
        "finished": (0, False),
        "failed": (1, False),
        "preempted": (143, True),
        "two jobs": (0, False),
    }
    one = found["finished"]
    assert (one.notes, found["failed"].notes) == ("slurm: 2 processes on n1, n2", "my own")
    assert (one.group, one.job_type, one.tags) == ("g", "train", ["a", "b"])
    assert one.summary["train/loss"] == {"last": 4, "min": 0}
    assert one.summary["episode/return"] == {"last": -1, "max": 0}
    assert (one.summary["episode/return_min"], one.summary["x"]) == (-4, 4)


ENVIRONMENT = """
    import os
    import lerax_dist as ld

    def log(name):
        backend = WandbBackend("p", quiet=True)
        with ld.Logger(backend, name, hparams={"lr": 0.5, "w": 3}, log_dir=sys.argv[1]) as logger:
            logger.log({"x": 1.0}, 0)
            print(logger.run_id, flush=True)
            if name == "r":
                raise KeyError

    for name, wanted in [("r", "mine"), ("r", "other"), ("new", "mine")]:
        os.environ["WANDB_RUN_ID"] = wanted
        try:
            log(name)
        except KeyError:
            pass
"""


def test_the_variables_that_users_of_wandb_set_are_honored(tmp_path):
    variables = {
        "WANDB_NAME": "shown",
        "WANDB_RUN_GROUP": "group",
        "WANDB_TAGS": "a,b",
        "WANDB_NOTES": "my own",
        "WANDB_JOB_TYPE": "eval",
    }
    arguments = (str(tmp_path / "logs"), "--api-key", "s3cr3t")
    result = run(ENVIRONMENT, isolated(tmp_path, **variables), *arguments)
    first, second, third = result.stdout.split()
    # The variable rules for a new run, then its journal does; no other run of a process gets it.
    assert (first, second) == ("mine", "mine") and third not in ("mine", "other")
    assert "WANDB_RUN_ID is other, but this run has the id mine" in result.stderr
    assert "WANDB_RUN_ID is mine, but this run has the id " + third in result.stderr
    paths = files_of_runs(tmp_path)
    found = [read_wandb(path) for path in paths]
    assert sorted(each.id for each in found) == sorted([first, second, third])
    for each in found:
        shown = (each.name, each.group, each.tags, each.notes, each.job_type)
        assert shown == ("shown", "group", ["a", "b"], "my own", "eval")
    assert not any(b"s3cr3t" in path.read_bytes() for path in paths)


def test_a_sweep_keeps_its_run_and_its_hyperparameters(tmp_path):
    (tmp_path / "sweep.yaml").write_text("wandb_version: 1\nlr:\n  value: 0.1\n")
    variables = {"WANDB_SWEEP_ID": "s", "WANDB_SWEEP_PARAM_PATH": str(tmp_path / "sweep.yaml")}
    result = run(ENVIRONMENT, isolated(tmp_path, **variables), str(tmp_path / "logs"))
    assert {read_wandb(path).id for path in files_of_runs(tmp_path)} == {"mine"}
    assert "but this run has the id mine: W&B's sweep uses it all the same" in result.stderr
    assert "W&B's sweep sets lr, not the hyperparameters" in result.stderr
    assert read_wandb(files_of_runs(tmp_path)[0]).config == {"lr": 0.1, "w": 3}


def test_an_id_that_no_checkpoint_could_hold_is_not_taken(monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "x" * 65)
    assert WandbBackend().new_run_id() is None
    monkeypatch.setenv("WANDB_RUN_ID", "x" * 64)
    assert WandbBackend().new_run_id() == "x" * 64
    assert WandbBackend(id="chosen").new_run_id() is None


def test_dotted_names_are_nested():
    assert nested({"policy.net.width": 64, "policy.depth": 2, "lr": 0.1}) == {
        "policy": {"net": {"width": 64}, "depth": 2},
        "lr": 0.1,
    }


@pytest.mark.parametrize("names", [["policy", "policy.width"], ["policy.width", "policy"]])
def test_a_name_that_is_a_value_and_a_prefix_loses_neither(names):
    values = {"policy": "mlp", "policy.width": 64}
    assert nested({name: values[name] for name in names}) == values


@pytest.mark.parametrize("name", [".", "a..b", ".a", "a.", ""])
def test_dots_that_separate_nothing_stay(name):
    assert nested({name: 1, "a.b": 2}) == {name: 1, "a": {"b": 2}}


def test_numpy_numbers_become_pythons():
    (value,) = nested({"x": np.int64(3)}).values()
    assert type(value) is int


def test_merging_keeps_both_and_prefers_the_second():
    under = {"a": {"x": 1, "y": 2}, "b": 1, "c": {"z": 1}}
    over = {"a": {"y": 3}, "b": {"q": 1}, "c": 5}
    assert merged(under, over) == {"a": {"x": 1, "y": 3}, "b": {"q": 1}, "c": 5}


def test_a_metric_called_like_the_step_steps_aside():
    assert with_step({"global_step": 0.5, "a": 1.0}, 7) == {
        "global_step": 7,
        "metrics/global_step": 0.5,
        "a": 1.0,
    }


def test_the_best_of_a_metric_is_its_highest_or_lowest_by_its_name():
    assert summary_of("episode/return") == summary_of("eval/accuracy") == "last,max"
    assert summary_of("train/value_loss") == "last,min"
    assert summary_of("train/lossless") is None
    assert summary_of("loss/entropy") is None
    assert summary_of("episode/return_min") is None


def test_a_replay_writes_beside_the_folder_that_was_given(tmp_path):
    assert WandbBackend.replay_name == "wandb"
    WandbBackend.for_replay(tmp_path / "new", project="p")
    assert (tmp_path / "new").is_dir()
    WandbBackend.for_replay(None, project=None)


RESUMED = """
    import wandb
    import lerax_dist as ld

    def refuse(real=wandb.init, **options):
        if options["mode"] == "online":
            print(options["id"], options["resume"], flush=True)
            raise wandb.Error("not there")
        return real(**options)

    wandb.init = refuse
    for mode in ("online", "online", "offline", "offline"):
        backend = WandbBackend("p", quiet=True, mode=mode)
        with ld.Logger(backend, mode, log_dir=sys.argv[1], resume="allow") as logger:
            logger.log({"x": float(logger.incarnation)}, logger.incarnation)
            print(logger.run_id, flush=True)
"""


@pytest.mark.parametrize(("wanted", "again"), [("must", "must"), ("never", "allow")])
def test_how_to_resume_is_asked_of_the_server_and_changes_no_offline_run(tmp_path, wanted, again):
    env = isolated(tmp_path, WANDB_RESUME=wanted, WANDB_API_KEY=KEY)
    result = run(RESUMED, env, str(tmp_path / "logs"))
    words = result.stdout.split()
    online, offline = words[0], words[-1]
    assert words == [online, wanted, online, online, again, online, offline, offline]
    assert ("this run is resumed" in result.stderr) == (wanted == "never")
    # Offline it cannot be known whether the run exists: `wandb sync` merges both by the id.
    found = [read_wandb(path) for path in files_of_runs(tmp_path)]
    assert sorted(each.id for each in found) == sorted([f"{online}-offline", offline] * 2)
    assert [each.rows for each in found if each.id == offline] == [
        [{"global_step": 1, "x": 1.0}],
        [{"global_step": 2, "x": 2.0}],
    ]
