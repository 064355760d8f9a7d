"""What a check of the doctor is, and how checks name processes."""

import abc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, Literal, TypeVar, final

from lerax_dist.cli.doctor._context import Context

F = TypeVar("F")
T = TypeVar("T")

Level = Literal["problem", "warning", "hint"]
# A line of the report (name and value), or a column of its table (head and a cell a process).
Shown = tuple[str, str | list[str]]

# Processes that a finding names; it counts the others.
_MAX_NAMED = 8
# Characters.
_MAX_ERROR_LENGTH = 500


@final
@dataclass(frozen=True)
class Finding:
    """What a check found.

    A "problem" is that a run would not log correctly; a "warning" that it would, but something is
    not as most would want it; a "hint" that something could be better.
    """

    level: Level
    what: str
    fix: str  # what to do; empty if `what` says it

    def __str__(self) -> str:
        return f"{self.what}; fix: {self.fix}" if self.fix else self.what


class AbstractCheck(abc.ABC, Generic[F]):
    """One thing that the doctor looks at. To add a check, see `_checks.py`.

    Attributes:
        key: name of its facts in the JSON report, under "facts".
        fact: type of the facts of one process: a dataclass of JSON values, or `dict`.
    """

    key: ClassVar[str]
    fact: type[F]

    @abc.abstractmethod
    def collect(self, context: Context) -> F | None:
        """Collect the facts of this process. Every process calls it, and may wait for the others.

        Returns:
            Facts. None if they cannot be had, in all processes alike, or if they are of process 0
            alone, in the others.
        """

    @abc.abstractmethod
    def judge(self, facts: Sequence[F], hosts: Sequence[str]) -> Iterator[Finding]:
        """Say what is wrong.

        Args:
            facts: those of each process, or of process 0 alone; never empty.
            hosts: host name of each process.
        """

    @abc.abstractmethod
    def show(self, facts: Sequence[F]) -> Iterator[Shown]:
        """Say what was found. A cell of what is wrong is in capitals.

        Args:
            facts: see `judge`.
        """


def named(indices: Sequence[int], hosts: Sequence[str]) -> str:
    """Processes with their hosts, e.g. "processes 1 (host a), 2 (host b)"."""
    names = [f"{index} (host {hosts[index]})" for index in indices[:_MAX_NAMED]]
    more = f" and {len(indices) - _MAX_NAMED} more" if len(indices) > _MAX_NAMED else ""
    return f"{'process' if len(indices) == 1 else 'processes'} {', '.join(names)}{more}"


def group_by_value(values: Sequence[T]) -> dict[T, list[int]]:
    """Each value with the indices of the processes that have it."""
    groups: dict[T, list[int]] = {}
    for index, value in enumerate(values):
        groups.setdefault(value, []).append(index)
    return groups


def format_groups(groups: Mapping[T, Sequence[int]], hosts: Sequence[str]) -> str:
    """Each value with the processes that have it; the most frequent value comes first."""
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    return ", ".join(f"{value} on {named(indices, hosts)}" for value, indices in ordered)


def one_line(error: BaseException) -> str:
    """Message of an error on one line."""
    return " ".join(str(error).split())[:_MAX_ERROR_LENGTH] or repr(error)
