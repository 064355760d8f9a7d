"""Who a run is, in `run.json` beside its journal: it survives the job that started it."""

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from lerax_dist.journal._files import replace_file
from lerax_dist.journal._heartbeat import RUN_FILE
from lerax_dist.journal._reader import JOURNAL, find_events


class Identity(NamedTuple):
    """A run, and which incarnation of it this is.

    Attributes:
        run_id: stays the same for as long as the run is continued; fit for W&B.
        incarnation: 1 for the first process that writes the run, then one more each time.
    """

    run_id: str
    incarnation: int


def take_identity(directory: Path, *, continues: bool, known: Identity | None = None) -> Identity:
    """The identity of a run that this process is about to write; `run.json` holds it from now on.

    Args:
        directory: directory of the run.
        continues: whether its journal holds records already.
        known: who it was when a checkpoint was made, if there is one.

    Raises:
        OSError: the file cannot be written.
        ValueError: the directory holds another run than the one known.
    """
    found = _read(directory / RUN_FILE) or _last_opened(directory / JOURNAL)
    if known is not None and found is not None and found.run_id != known.run_id:
        raise ValueError(
            f"`state` is of a run with the id {known.run_id}, but {directory} holds one with the "
            f"id {found.run_id}. Give the `log_dir` of that run, or no `state` to start a new one."
        )
    last = found or known
    if last is not None:
        identity = Identity(last.run_id, last.incarnation + 1)
    else:
        identity = Identity(uuid.uuid4().hex[:12], 2 if continues else 1)
    text = json.dumps(identity._asdict()) + "\n"

    def write(file: BinaryIO) -> None:
        file.write(text.encode())

    replace_file(directory / RUN_FILE, write)
    return identity


def _read(path: Path) -> Identity | None:
    try:
        return _identity_of(json.loads(path.read_text()))
    except (FileNotFoundError, ValueError):
        return None


def _last_opened(journal: Path) -> Identity | None:
    """The identity of which the journal's last `open` record speaks, for a run without the file."""
    last = None
    for _, opened in find_events(journal, "open"):
        last = _identity_of(opened.body) or last
    return last


def _identity_of(fields: Mapping[str, Any]) -> Identity | None:
    try:
        return Identity(str(fields["run_id"]), int(fields["incarnation"]))
    except (ValueError, KeyError, TypeError):
        return None
