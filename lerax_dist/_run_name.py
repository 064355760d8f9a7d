"""What a run is called and which folder it has: decisions, no effects."""

import unicodedata
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from lerax_dist.journal._bucket import folder_of, mirrored_url, url_of


def make_name(named_after: Sequence[Any], when: datetime | str) -> str:
    """A run name from policy, environment and time, e.g. `MLPPolicy_CartPole_20260131_120000`.

    Objects count by their `name` if they have one, else by their class; `None` does not. In place
    of the time there may be the id of a batch job, which stays when the job is requeued.
    """
    parts = [_name_of(thing) for thing in named_after if thing is not None]
    stamp = when if isinstance(when, str) else when.strftime("%Y%m%d_%H%M%S")
    return "_".join([*parts, stamp])


def _name_of(thing: Any) -> str:
    name = getattr(thing, "name", None)
    kind = thing if isinstance(thing, type) else type(thing)
    text = name if isinstance(name, str) and name else kind.__name__
    kept = ("-" if char in "/\\" or _is_control(char) else char for char in text)
    return "".join(kept).strip(". ") or kind.__name__


def _is_control(char: str) -> bool:
    return unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"}


def check_name(name: Any) -> str:
    """Check the name of a run, and normalize it: a relative path that stays inside `log_dir`.

    Raises:
        TypeError: if it is not a string.
        ValueError: if it is empty or absolute, or contains `..` or a control character.
    """
    rule = "a run name is a relative path inside `log_dir`"
    if not isinstance(name, str):
        raise TypeError(f"`name` must be a string or None, got {name!r}; {rule}. Use str(name).")
    if not name.strip() or not PurePosixPath(name).parts:
        raise ValueError(f"`name` is empty: {name!r}; {rule}. Use None to have one generated.")
    if any(_is_control(char) for char in name):
        raise ValueError(
            f"`name` contains a control character or half of one: {name!r}; {rule}. Leave it out."
        )
    if PurePosixPath(name).is_absolute() or "\\" in name:
        raise ValueError(
            f"`name` must not be absolute or contain a backslash, got {name!r}; {rule}. "
            "Give the folder as `log_dir`."
        )
    if ".." in PurePosixPath(name).parts:
        raise ValueError(
            f"`name` must not leave `log_dir`, got {name!r}; {rule}. Give the folder as `log_dir`."
        )
    return str(PurePosixPath(name))


def choose_log_dir(log_dir: str | Path | None, backends: Sequence[Any]) -> Path:
    """The folder in which that of the run is made: that of the first backend that has one unless it
    is given (so that everything of a run is in one folder), else `logs`.

    `ValueError` if a backend writes to another bucket, to which nothing would be uploaded."""
    own = (getattr(backend, "log_dir", None) for backend in backends)
    given = [Path(each) for each in own if isinstance(each, (str, Path))]
    chosen = folder_of(log_dir) if log_dir is not None else [*given, Path("logs")][0]
    for each in given:
        if each != chosen and (url := mirrored_url(each)):
            raise ValueError(
                f"a backend has `log_dir` {url!r}, but the run is in {chosen}: only the folder of "
                "the run is uploaded. Pass the URL as `log_dir` of the logger."
            )
    return chosen


def local_folder(log_dir: str | Path, argument: str = "`log_dir`") -> Path:
    """A folder of this machine, with `~` expanded.

    Raises:
        ValueError: if it is an address such as `gs://bucket`, which would become a local folder.
    """
    if url_of(log_dir) is not None:
        raise ValueError(
            f"{argument} must be a folder of this machine, got {str(log_dir)!r}: only the run of a "
            "logger is uploaded."
        )
    return folder_of(log_dir)


def check_tag(tag: Any) -> str:
    """Check the name of a clip: a relative path, since it names a file as well."""
    if isinstance(tag, str) and tag.strip() and not any(_is_control(char) for char in tag):
        path = PurePosixPath(tag)
        if path.parts and not path.is_absolute() and ".." not in path.parts and "\\" not in tag:
            return tag
    raise ValueError(
        f"`tag` must be a name without a leading slash, `..`, backslashes and control characters, "
        f"got {tag!r}. Use a name such as 'eval/video'."
    )
