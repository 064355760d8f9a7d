"""Finding or making the directory of a run, on the process that writes it."""

import itertools
from pathlib import Path
from typing import NamedTuple

from lerax_dist._failures import Failures
from lerax_dist._run import continues
from lerax_dist.journal._identity import Identity, take_identity
from lerax_dist.journal._journal import Journal, JournalInUse
from lerax_dist.journal._record import Event


class Taken(NamedTuple):
    """A run that this process may write.

    Attributes:
        name: its name.
        journal: its journal, open and locked.
        identity: who it is, this incarnation counted.
    """

    name: str
    journal: Journal
    identity: Identity


def take_directory(base: Path, name: str, *, made: bool, resume: str, failures: Failures) -> Taken:
    """Take the run `name`, or the first of `name_2`, `name_3`, ... that may be written.

    Args:
        base: folder that the directories of runs lie in.
        name: name of the run.
        made: whether the name was made up; then a run of this name that another logger writes is
            not meant.
        resume: see `continues`.
        failures: where the journal keeps what goes wrong.

    Raises:
        JournalInUse: another logger is writing the run of that name.
        ValueError: `resume` is `"must"`, and there is nothing to continue.
        OSError: the directory or a file in it cannot be made.
    """
    if resume == "must" and not (base / name / "journal.jsonl").exists():
        raise ValueError(
            f'`resume` is "must", but there is no run {name!r} in {base}. '
            'Give the name and `log_dir` of the run to continue, or use "auto".'
        )
    for attempt in itertools.count(1):
        unique = name if attempt == 1 else f"{name}_{attempt}"
        directory = base / unique
        directory.mkdir(parents=True, exist_ok=True)
        try:
            journal = Journal(directory / "journal.jsonl", failures)
        except JournalInUse:
            if not made:
                raise
            continue
        if continues(resume, _last_state(journal)):
            try:
                identity = take_identity(directory, continues=journal.end > 0)
            except OSError:
                journal.close()
                raise
            return Taken(unique, journal, identity)
        journal.close()
    raise AssertionError


def take_known(base: Path, name: str, known: Identity, *, resume: str, failures: Failures) -> Taken:
    """Take the run that a checkpoint tells of, however it has ended.

    Args:
        base: folder that the directories of runs lie in.
        name: name of the run.
        known: who it was when the checkpoint was made.
        resume: whether it `"must"` be there; else a new folder is made for it if it is not.
        failures: where the journal keeps what goes wrong.

    Raises:
        JournalInUse: another logger is writing the run.
        ValueError: the folder holds another run, or the run is not there and must be.
        OSError: the directory or a file in it cannot be made.
    """
    directory = base / name
    if not (directory / "journal.jsonl").exists():
        lost = f"the run {name!r} of `state` is not in {base}"
        if resume == "must":
            raise ValueError(
                f'`resume` is "must", but {lost}. Give the `log_dir` it was written to.'
            )
        failures.record(
            "state", f"{lost}; it goes on in a new folder there, without its older rows"
        )
    directory.mkdir(parents=True, exist_ok=True)
    journal = Journal(directory / "journal.jsonl", failures)
    try:
        return Taken(name, journal, take_identity(directory, continues=True, known=known))
    except (OSError, ValueError):
        journal.close()
        raise


def _last_state(journal: Journal) -> str | None:
    match journal.last:
        case None:
            return None
        case Event(kind="close"):
            return str(journal.last.body.get("state"))
        case _:
            return "interrupted"
