"""What a run is called and where it lives: decisions, no effects."""

import threading
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import datetime
from numbers import Real
from pathlib import Path, PurePosixPath
from typing import Any


def make_name(env: Any, policy: Any, when: datetime | str) -> str:
    """A run name from policy, environment and time, e.g. `MLPPolicy_CartPole_20260131_120000`.

    Args:
        env: environment, or `None`; its `name` if it has one, else the name of its class.
        policy: policy, or `None`; likewise.
        when: the time; or the id of a batch job, which stays when the job is requeued.
    """
    parts = [_name_of(thing) for thing in (policy, env) if thing is not None]
    stamp = when if isinstance(when, str) else when.strftime("%Y%m%d_%H%M%S")
    return "_".join([*parts, stamp])


def _name_of(thing: Any) -> str:
    name = getattr(thing, "name", None)
    kind = thing if isinstance(thing, type) else type(thing)
    text = name if isinstance(name, str) and name else kind.__name__
    kept = ("-" if char in "/\\" or _is_control(char) else char for char in text)
    return "".join(kept).strip(". ") or kind.__name__


def _is_control(char: str) -> bool:
    return unicodedata.category(char) in {"Cc", "Zl", "Zp"}


def check_name(name: Any) -> str:
    """The name of a run, if it is a good one: a relative path that stays below `log_dir`.

    Returns:
        The name in one way of writing it: without a slash at the end, for instance.

    Raises:
        TypeError: it is not a string.
        ValueError: it is empty, absolute, holds `..` or a control character.
    """
    rule = "a run name is a relative path inside `log_dir`"
    if not isinstance(name, str):
        raise TypeError(f"`name` must be a string or None, got {name!r}; {rule}. Use str(name).")
    if not name.strip() or not PurePosixPath(name).parts:
        raise ValueError(f"`name` is empty: {name!r}; {rule}. Use None to have one made.")
    if any(_is_control(char) for char in name):
        raise ValueError(
            f"`name` holds a control character: {name!r}; {rule}. Leave the character out."
        )
    if PurePosixPath(name).is_absolute() or "\\" in name:
        raise ValueError(
            f"`name` must not be absolute or hold a backslash, got {name!r}; {rule}. "
            "Give the folder as `log_dir`."
        )
    if ".." in PurePosixPath(name).parts:
        raise ValueError(
            f"`name` must not leave `log_dir`, got {name!r}; {rule}. Give the folder as `log_dir`."
        )
    return str(PurePosixPath(name))


def choose_log_dir(log_dir: str | Path | None, backends: Sequence[Any]) -> Path:
    """The folder that the run's own folder lies in.

    Args:
        log_dir: given by the user; `None` for that of the first backend that has one (so that
            everything of a run lies in one folder), else `logs`.
        backends: the backends.
    """
    if log_dir is not None:
        return Path(log_dir)
    for backend in backends:
        own = getattr(backend, "log_dir", None)
        if isinstance(own, (str, Path)):
            return Path(own)
    return Path("logs")


def check_step(step: Any, argument: str = "step") -> int:
    """A global step, if it is one.

    Args:
        step: what was given.
        argument: name of the argument, for errors.

    Raises:
        TypeError: it is not an integer.
        ValueError: it is negative.
    """
    try:
        # A bool is an integer to Python, but nobody means one here.
        number = None if isinstance(step, bool) else step.__index__()
    except (AttributeError, TypeError):
        number = None
    if number is None:
        raise TypeError(
            f"`{argument}` must be an integer, got {step!r} of type {type(step).__name__}. "
            f"Use int({argument})."
        )
    if number < 0:
        raise ValueError(f"`{argument}` must be 0 or more, got {number}. Count steps from 0.")
    return number


def check_tag(tag: Any) -> str:
    """The name of a clip, if it is a good one: a relative path, for it names a file, too.

    Raises:
        ValueError: it is not.
    """
    if isinstance(tag, str) and tag.strip() and not any(_is_control(char) for char in tag):
        path = PurePosixPath(tag)
        if path.parts and not path.is_absolute() and ".." not in path.parts and "\\" not in tag:
            return tag
    raise ValueError(
        f"`tag` must be a name without a leading slash, `..`, backslashes and control characters, "
        f"got {tag!r}. Use a name such as 'eval/video'."
    )


def check_positive(argument: str, value: Any, purpose: str) -> int:
    """An integer of 1 or more.

    Args:
        argument: name of the argument, for errors.
        value: what was given.
        purpose: what 1 does, for errors.

    Raises:
        ValueError: it is none.
    """
    whole = hasattr(value, "__index__") and not isinstance(value, bool)
    if not whole or value < 1:
        raise ValueError(
            f"`{argument}` must be an integer of 1 or more, got {value!r}. Use 1 to {purpose}."
        )
    return value.__index__()


def check_seconds(argument: str, value: Any) -> float:
    """A time that can be waited.

    Args:
        argument: name of the argument, for errors.
        value: what was given.

    Raises:
        ValueError: it is none.
    """
    seconds = float(value) if isinstance(value, Real) else -1.0
    if not 0 <= seconds <= threading.TIMEOUT_MAX:
        raise ValueError(
            f"`{argument}` must be a finite number of seconds, 0 or more, got {value!r}. "
            "Use e.g. 60.0."
        )
    return seconds


def check_axis_name(axis_name: Any) -> str | tuple[str, ...] | None:
    """The axes to reduce over, if they are names.

    Raises:
        TypeError: they are not.
    """
    if axis_name is None or isinstance(axis_name, str):
        return axis_name
    if isinstance(axis_name, Sequence) and all(isinstance(name, str) for name in axis_name):
        return tuple(axis_name)
    raise TypeError(
        f"`axis_name` must be the name of a mesh axis, a sequence of names, or None, got "
        f"{axis_name!r}. Leave it None to reduce over all manual axes."
    )


def check_hparams(hparams: Any) -> dict[str, Any]:
    """Hyperparameters, flat and with string names.

    Raises:
        TypeError: they are no mapping, or a name is no string.
    """
    if hparams is None:
        return {}
    if not isinstance(hparams, Mapping):
        raise TypeError(
            f"`hparams` must be a mapping of names to values, got {hparams!r}. Use e.g. vars(args)."
        )
    flat: dict[str, Any] = {}
    for key, value in hparams.items():
        if not isinstance(key, str):
            raise TypeError(f"`hparams` has the name {key!r}; names are strings. Use {str(key)!r}.")
        if isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": v for inner, v in check_hparams(value).items()}
        else:
            flat[key] = _plain(value)
    return flat


def _plain(value: Any) -> Any:
    """A number, string or boolean (or a list of them) as it is, an array as its numbers, anything
    else as its text: backends and the journal get no live object."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(member) for member in value]
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def continues(resume: str, last_state: str | None) -> bool:
    """Whether a run that is there already is the one to write.

    Args:
        resume: `"auto"`, `"must"` or `"never"`.
        last_state: how it ended: `"finished"` if all of it was done, anything else if not; `None`
            if it holds nothing yet.
    """
    if last_state is None:
        return True
    if resume == "auto":
        return last_state != "finished"
    return resume == "must"


def check_resume(resume: Any) -> str:
    """A way to treat a run that is there already.

    Raises:
        ValueError: it is none.
    """
    if resume not in ("auto", "must", "never"):
        raise ValueError(
            f'`resume` must be "auto", "must" or "never", got {resume!r}. "auto" continues a run '
            "that has not finished."
        )
    return resume
