"""Who a run is, beside its journal: it survives the job that started it."""

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lerax_dist.journal._record import Event, decode


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
    there = _read(path) or _last_opened(directory / "journal.jsonl")
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
    with fresh.open("w") as file:
        file.write(json.dumps(identity._asdict()) + "\n")
        file.flush()
        # Else a host that loses power may be left with an empty file under the name below.
        os.fsync(file.fileno())
    # At once or not at all: a process that dies here leaves the old file.
    os.replace(fresh, path)
    return identity


def _read(path: Path) -> Identity | None:
    try:
        return _identity_of(json.loads(path.read_text()))
    except (FileNotFoundError, ValueError):
        return None


def _last_opened(journal: Path) -> Identity | None:
    """Who the journal says that wrote it last, for a run whose own file is lost."""
    last = None
    with journal.open("rb") as lines:
        for line in lines:
            # Only a few of the lines are worth their checksum.
            decoded = decode(line) if b'"kind":"open"' in line else None
            if decoded is not None and isinstance(decoded[1], Event):
                last = _identity_of(decoded[1].body) or last
    return last


def _identity_of(fields: Mapping[str, Any]) -> Identity | None:
    try:
        return Identity(str(fields["run_id"]), int(fields["incarnation"]))
    except (ValueError, KeyError, TypeError):
        return None
