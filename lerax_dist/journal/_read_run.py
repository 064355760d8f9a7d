"""The rows of a run as NumPy arrays: what a user reads a journal with."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, final

import numpy as np

from lerax_dist.journal._bucket import local_copy
from lerax_dist.journal._reader import JOURNAL, Damage, JournalReader, read_ends, state_of
from lerax_dist.journal._record import Event, Rows
from lerax_dist.journal._run_file import Liveness

if TYPE_CHECKING:
    import pandas


class Curve(NamedTuple):
    """One metric of a run, at the rows that have it.

    Attributes:
        steps: `(points,)` global steps.
        values: `(points,)` float64, of a vector metric `(points, size)`.
    """

    steps: np.ndarray
    values: np.ndarray


class Incarnation(NamedTuple):
    """One start of a run, up to its end or the next start.

    Attributes:
        number: 1 for the first.
        time: when it started, in seconds since the epoch.
        start_step: from which step on it supersedes rows before it (of the metrics that came
            first, if it continued them from several steps); `None` if it supersedes none.
        state: how it ended: `"finished"`, `"failed"`, `"preempted"`; `None` without a close record.
        facts: host, process, versions, ... of it.
    """

    number: int
    time: float
    start_step: int | None
    state: str | None
    facts: Mapping[str, Any]


@final
@dataclass(frozen=True, eq=False)
class RunData:
    """A run as its journal has it, made by `read_run`.

    Rows are in the order in which they were written. `run["train/loss"]` are the steps and values
    of one metric, `run.columns` all metrics side by side.

    Attributes:
        path: the journal; of a URL a copy, which is removed when the process ends.
        name: name of the run.
        run_id: its id, the same in every incarnation; `None` if the journal has lost it.
        state: `"running"`, `"finished"`, `"failed"`, `"preempted"`, `"interrupted"` (killed, or
            its machine is gone), `"empty"`, or `"damaged"` if no record could be read. A run that
            was killed counts as running for up to a minute.
        steps: `(rows,)` int64 global steps.
        times: `(rows,)` float64, when each row reached the host, in seconds since the epoch.
        iterations: `(rows,)` int64 numbers of iterations, -1 where a row has none.
        hparams: hyperparameters, as they were logged last.
        facts: host, process, versions, ... of the last incarnation.
        incarnations: the starts of the run.
        events: all that is in the journal besides rows, e.g. videos.
        superseded: number of rows that were left out, as a later incarnation logged them again.
        damage: what is wrong with the journal: `lines` damaged, records `missing`, end `torn`.
        columns: all metrics, in order of first appearance: name to `(rows,)` float64, of a vector
            metric `(rows, size)`. NaN where a row has none.
        present: name of each metric to `(rows,)` bool, whether the row has it.

    Example:
        ```python
        with Logger(NoOpBackend(), "read", log_dir="logs", hparams={"lr": 0.1}) as logger:
            for step in range(100):
                logger.log({"train": {"loss": 1 / (step + 1)}}, step)

        run = read_run("logs/read")
        steps, losses = run["train/loss"]
        print(run.state, run.hparams, steps[-1], losses[-1])  # finished {'lr': 0.1} 99 0.01
        ```
    """

    path: Path
    name: str
    run_id: str | None
    state: str
    steps: np.ndarray
    times: np.ndarray
    iterations: np.ndarray
    hparams: Mapping[str, Any]
    facts: Mapping[str, Any]
    incarnations: tuple[Incarnation, ...]
    events: tuple[Event, ...]
    superseded: int
    damage: Damage
    columns: Mapping[str, np.ndarray]
    present: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.steps)

    def __contains__(self, name: object) -> bool:
        """Whether any row has a metric."""
        return name in self.columns

    def __getitem__(self, name: str) -> Curve:
        """Steps and values of a metric, at the rows that have it.

        Raises:
            KeyError: no row has it.
        """
        if name not in self.columns:
            names = ", ".join(self.columns) or "none"
            raise KeyError(f"{name!r} is not a metric of this run. Its metrics: {names}")
        return Curve(self.steps[self.present[name]], self.columns[name][self.present[name]])

    def to_pandas(self) -> "pandas.DataFrame":
        """The rows as a `pandas.DataFrame`: `step`, `time`, `iteration`, and a column a metric.

        A vector metric is a column of arrays, `None` where a row has none.

        Raises:
            ModuleNotFoundError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ModuleNotFoundError(
                "`to_pandas` needs pandas, which is not installed. Run `pip install "
                "pandas`, or use `run.columns`, which needs only NumPy."
            ) from error
        iterations = pandas.array(self.iterations, dtype="Int64")
        iterations[self.iterations < 0] = pandas.NA
        frame: dict[str, Any] = {"step": self.steps, "time": self.times, "iteration": iterations}
        for name, column in self.columns.items():
            pairs = zip(column, self.present[name], strict=True)
            frame[name] = column if column.ndim == 1 else [v if has else None for v, has in pairs]
        return pandas.DataFrame(frame)


def read_run(path: str | os.PathLike[str]) -> RunData:
    """Read a run from its journal: finished, running, killed, damaged or resumed.

    The journal is only read. Rows that a later incarnation has superseded are left out: those of
    earlier incarnations, with the same metrics, at or after the step at which it resumed them. Rows
    of one incarnation that share a step are all kept. Damaged lines are counted in `damage` and
    left out.

    Args:
        path: folder of the run, or its `journal.jsonl`; it may be a URL such as `gs://bucket/run`.

    Returns:
        The run as it is now.

    Raises:
        FileNotFoundError: there is no journal.
        OSError: it cannot be read, also since a bucket does not answer.
        JournalFormatError: it was written by a newer version of this package.

    Example:
        ```python
        with Logger(NoOpBackend(), "curve", log_dir="logs") as logger:
            logger.log({"train": {"loss": 0.5}}, step=0)

        table = read_run("logs/curve").to_pandas()
        print(table[["step", "train/loss"]])
        ```
    """
    journal = journal_of(path)
    rows: list[Rows] = []
    events: list[tuple[int, Event]] = []
    reader = JournalReader(journal)
    for piece in reader.pieces():
        for batch in piece:
            if isinstance(batch, Rows):
                rows.append(batch)
            else:
                events.append(batch)
    events.sort(key=lambda pair: pair[0])
    incarnations = _incarnations([event for _, event in events])
    facts = incarnations[-1].facts if incarnations else {}
    hparams = [event.body.get("hparams") for _, event in events if event.kind == "hparams"]
    places, heads = _heads(rows)
    columns, present = _columns(rows, places)
    return RunData(
        journal,
        str(facts.get("name", journal.resolve().parent.name)),
        str(facts["run_id"]) if "run_id" in facts else None,
        state_of(read_ends(journal), Liveness(journal).is_alive()),
        *heads,
        hparams=hparams[-1] if hparams and isinstance(hparams[-1], dict) else {},
        facts=facts,
        incarnations=incarnations,
        events=tuple(event for _, event in events),
        superseded=reader.superseded,
        damage=reader.damage,
        columns=columns,
        present=present,
    )


def journal_of(run_dir: str | os.PathLike[str], *, clips: bool = False) -> Path:
    """The journal of a run, given by its folder or by itself; of a URL a copy as it is now.

    Raises:
        FileNotFoundError: it does not exist.
    """
    path, update = local_copy(run_dir, clips=clips)
    update()
    journal = path if path.is_file() else path / JOURNAL
    if not journal.is_file():
        raise FileNotFoundError(
            f"there is no {JOURNAL} in {run_dir}. Pass the folder of a run; "
            "`lerax-dist ls LOG_DIR` lists the runs in a folder."
        )
    return journal


def _incarnations(events: Sequence[Event]) -> tuple[Incarnation, ...]:
    found: list[Incarnation] = []
    for event in events:
        if event.kind == "open":
            number = event.body.get("incarnation", len(found) + 1)
            found.append(Incarnation(number, event.time, None, None, event.body))
        elif found and event.kind == "resume" and found[-1].start_step is None:
            found[-1] = found[-1]._replace(start_step=event.body.get("start_step"))
        elif found and event.kind == "close":
            found[-1] = found[-1]._replace(state=str(event.body.get("state", "finished")))
    return tuple(found)


def _heads(rows: Sequence[Rows]) -> tuple[np.ndarray, list[np.ndarray]]:
    """The place of each row by its number; steps, times and iterations by place."""
    numbers = np.array([number for batch in rows for number in batch.numbers], np.float64)
    order = np.argsort(numbers, kind="stable")
    steps = [step for batch in rows for step in batch.steps]
    times = [time for batch in rows for time in batch.times]
    iterations = [n if isinstance(n, int) else -1 for batch in rows for n in batch.iterations]
    heads = [_integers(steps), np.array(times, np.float64), _integers(iterations)]
    return np.argsort(order), [head[order] for head in heads]


def _integers(values: Sequence[int]) -> np.ndarray:
    try:
        return np.array(values, np.int64)
    except OverflowError:
        # A step of more than 64 bits stays what it is.
        return np.array(values, object)


def _columns(
    rows: Sequence[Rows], places: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Each metric as a column with a value for each row, and which rows have it."""
    columns: dict[str, np.ndarray] = {}
    present: dict[str, np.ndarray] = {}
    start = 0
    for batch in rows:
        here = places[start : start + len(batch.numbers)]
        start += len(here)
        scalars = dict(zip(batch.names, batch.values.T, strict=True))
        for name, values in (scalars | dict(batch.vectors)).items():
            if name not in columns:
                columns[name] = np.full((len(places), *values.shape[1:]), np.nan)
                present[name] = np.zeros(len(places), bool)
            if columns[name].shape[1:] != values.shape[1:]:
                columns[name], values = _widened(columns[name], values)
            columns[name][here] = values
            present[name][here] = True
    return columns, present


def _widened(*arrays: np.ndarray) -> list[np.ndarray]:
    """Vectors of several sizes as wide as the widest, filled up with NaN."""
    wide = [array.reshape(len(array), -1) for array in arrays]
    size = max(array.shape[1] for array in wide)
    missing = [((0, 0), (0, size - array.shape[1])) for array in wide]
    return [np.pad(w, m, constant_values=np.nan) for w, m in zip(wide, missing, strict=True)]
