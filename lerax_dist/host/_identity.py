"""Who a run is, beside its journal: it survives the job that started it."""

import json
import os
import uuid
from pathlib import Path
from typing import NamedTuple


class Identity(NamedTuple):
    """A run, and which of its lives this is.

    Attributes:
        run_id: stays the same for as long as the run is continued; fit for W&B.
        incarnation: 1 for the first process that writes the run, then one more each time.
    """

    run_id: str
    incarnation: int


def take_identity(directory: Path, *, continues: bool, known: Identity | None = None) -> Identity:
    """The identity of a run that this process is about to write; the file says so from now on.

    Args:
        directory: directory of the run.
        continues: whether its journal holds records already.
        known: who it was when a checkpoint was made, if there is one.

    Raises:
        OSError: the file cannot be written.
        ValueError: the directory holds another run than the one known.
    """
    path = directory / "run.json"
    there = _read(path)
    if known is not None and there is not None and there.run_id != known.run_id:
        raise ValueError(
            f"`state` is of a run with the id {known.run_id}, but {directory} holds one with the "
            f"id {there.run_id}. Give the `log_dir` of that run, or no `state` to start a new one."
        )
    last = there or known
    if last is not None:
        identity = Identity(last.run_id, last.incarnation + 1)
    else:
        identity = Identity(uuid.uuid4().hex[:12], 2 if continues else 1)
    fresh = path.with_suffix(".json.new")
    fresh.write_text(json.dumps(identity._asdict()) + "\n")
    # At once or not at all: a process that dies here leaves the old file.
    os.replace(fresh, path)
    return identity


def _read(path: Path) -> Identity | None:
    try:
        fields = json.loads(path.read_text())
        return Identity(str(fields["run_id"]), int(fields["incarnation"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
