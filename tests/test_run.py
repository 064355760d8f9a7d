"""The arguments that both loggers share: names, folders, steps."""

import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import lerax_dist as ld
from lerax_dist._run_name import check_name, check_tag, make_name
from lerax_dist.backends._jsonl import video_path
from tests.memory import Memory

TIME = r"20\d{6}_\d{6}"


def name_of(tmp_path, env: Any = None, policy: Any = None):
    with ld.LoggingCallback(Memory(), env=env, policy=policy, log_dir=tmp_path) as logger:
        assert logger.run_dir.parent == tmp_path.resolve()
        return logger.name


@pytest.mark.parametrize(
    ("env", "policy", "pattern"),
    [
        (SimpleNamespace(name="CartPole"), SimpleNamespace(name="MLP"), f"MLP_CartPole_{TIME}"),
        (SimpleNamespace(name="CartPole"), None, f"CartPole_{TIME}"),
        (None, None, TIME),
        # What has no name goes by its class.
        (3, None, f"int_{TIME}"),
        (int, None, f"int_{TIME}"),
    ],
)
def test_a_name_is_made_of_policy_environment_and_time(tmp_path, env, policy, pattern):
    assert re.fullmatch(pattern, name_of(tmp_path, env, policy))


@pytest.mark.parametrize("name", ["../../etc", "a/b", "a\nb", "..", "ALE/Pong-v5"])
def test_a_made_name_never_leaves_its_folder(tmp_path, name):
    made = name_of(tmp_path, SimpleNamespace(name=name))
    assert "/" not in made
    # And it may be given, too.
    with ld.Logger(Memory(), made, log_dir=tmp_path, resume="must") as logger:
        assert logger.name == made


# Texts of what names of paths are made of, and any other.
_TEXTS = st.one_of(
    st.text(max_size=40),
    st.lists(st.sampled_from(["..", ".", "/", "//", "\\", "~", "a", " ", "\0", "\n", "%2e"])).map(
        "".join
    ),
)


@hypothesis.given(_TEXTS)
def test_no_name_leads_out_of_the_folder(name):
    """A name is refused, or names a folder below `log_dir`."""
    base = Path("/logs/base")
    try:
        checked = check_name(name)
    except ValueError:
        pass
    else:
        folder = Path(os.path.normpath(base / checked))
        assert folder != base and folder.is_relative_to(base)
        assert check_name(checked) == checked
    made = make_name([SimpleNamespace(name=name)], "1")
    folder = Path(os.path.normpath(base / check_name(made)))
    assert folder.parent == base


@hypothesis.given(_TEXTS)
def test_no_tag_of_a_clip_leads_out_of_the_folder(tag):
    folder = Path("/logs/base/run/videos")
    path = Path(os.path.normpath(video_path(folder, tag, 1)))
    assert path != folder and path.is_relative_to(folder)
    try:
        checked = check_tag(tag)
    except ValueError:
        return
    assert Path(os.path.normpath(folder / checked)).is_relative_to(folder)


def given(tmp_path, name: Any):
    with ld.Logger(Memory(), name, log_dir=tmp_path) as logger:
        assert logger.run_dir == tmp_path.resolve() / logger.name
        return logger.name


@pytest.mark.parametrize("name", ["run", "group/run 1", "ppo-α", ".hidden", "a..b"])
def test_a_relative_path_is_a_good_name(tmp_path, name):
    assert given(tmp_path, name) == name


@pytest.mark.parametrize("name", ["a/b/", "a//b", "./a/b", "a/./b"])
def test_a_name_is_written_in_one_way(tmp_path, name):
    assert given(tmp_path, name) == "a/b"


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "/x", "", "  ", ".", "a\nb", "a\x00", "a\\b"]
)
def test_a_name_that_leaves_the_folder_or_is_empty_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="`name`.*relative path inside `log_dir`"):
        given(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_no_string_is_refused(tmp_path):
    with pytest.raises(TypeError, match="`name` must be a string or None, got 3"):
        given(tmp_path, 3)


def test_the_folder_is_the_given_one_else_the_backends_else_logs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    class Placed(Memory):
        log_dir = Path("scratch/a")

    for log_dir, backends, folder in (
        ("x", [Memory(), Placed()], "x"),
        (None, [Memory(), Placed()], "scratch/a"),
        (None, [Memory()], "logs"),
    ):
        with ld.Logger(backends, "r", log_dir=log_dir) as logger:
            assert logger.run_dir == tmp_path.resolve() / folder / "r"


@pytest.mark.parametrize("step", [1.0, "1", None, True, [1]])
def test_a_step_that_is_no_integer_is_refused(tmp_path, step):
    with ld.Logger(Memory(), log_dir=tmp_path) as logger:
        with pytest.raises(TypeError, match="`step` must be an integer, got"):
            logger.log({"x": 1.0}, step)


def test_a_step_is_an_integer_of_any_size_and_kind_but_not_negative(tmp_path):
    memory = Memory()
    with ld.Logger(memory, log_dir=tmp_path) as logger:
        step: Any = np.int64(10**12)
        logger.log({"x": 1.0}, step)
        with pytest.raises(ValueError, match="`step` must be 0 or more, got -1"):
            logger.log({"x": 1.0}, -1)
    assert memory.rows == [(10**12, {"x": 1.0})]
