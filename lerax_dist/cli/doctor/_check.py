"""What a check of the doctor is, what it works with, and how checks name processes."""

import abc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Generic, TypeVar, final

from lerax_dist.backends import SetupProblem as Finding
from lerax_dist.cli.doctor._join import Joined
from lerax_dist.cluster import Launch

F = TypeVar("F")
T = TypeVar("T")

# A line of the report (name and value), or a column of its table (head and a cell a process).
Shown = tuple[str, str | list[str]]

# Seconds. The processes end work on devices up to a timeout apart, so messages wait for longer.
_GRACE = 15.0
# Processes that a finding names; it counts the others.
_MAX_NAMED = 8
# Characters.
_MAX_ERROR_LENGTH = 500


@final
class Context:
    """What a check may use to collect its facts.

    Attributes:
        launch: launch of this process, by its environment.
        joined: the result of joining.
        group: all processes.
        log_dir: folder of the runs, as it was given.
        timeout: longest wait for devices or for other processes, in seconds.
        devices_failed: whether some work on devices raised or timed out.
        devices_hang: whether some work on devices timed out; no more is started.
    """

    def __init__(self, launch: Launch, joined: Joined, log_dir: str, timeout: float) -> None:
        self.launch = launch
        self.joined = joined
        self.group = joined.group
        self.log_dir = log_dir
        self.timeout = timeout
        self.devices_failed = False
        self.devices_hang = False
        # One thread does all work on devices: it may hang, and this thread still reports that.
        self._devices = ThreadPoolExecutor(1, "lerax_dist-doctor-devices")

    def on_devices(self, work: Callable[[], T]) -> T:
        """Run work on devices under the timeout, and return or raise what it does.

        Raises:
            TimeoutError: it is still running, or earlier work is.
        """
        if self.devices_hang:
            raise TimeoutError("earlier work on the devices is still running")
        future = self._devices.submit(work)
        try:
            return future.result(self.timeout)
        except BaseException as error:
            self.devices_failed = True
            self.devices_hang = not future.done()
            if self.devices_hang and isinstance(error, TimeoutError):
                raise TimeoutError(f"timed out after {self.timeout:g} s") from None
            raise

    def gather(self, value: Any, what: str) -> list[Any] | None:
        """Bring a JSON value of each process to process 0; `None` elsewhere."""
        return self.group.gather(value, timeout=self.timeout + _GRACE, what=what)

    def broadcast(self, value: Any, what: str) -> Any:
        """Send process 0's JSON value to every process."""
        return self.group.broadcast(value, timeout=self.timeout + _GRACE, what=what)

    def all_agree(self, yes: bool, what: str) -> bool:
        """Whether `yes` holds on every process; the same answer on every process."""
        answers = self.gather(yes, what)
        return self.broadcast(None if answers is None else all(answers), what)


class AbstractCheck(abc.ABC, Generic[F]):
    """A check of the doctor. To add one, see `CHECKS`.

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
            Facts. `None` if they cannot be collected, in all processes alike, or if only process 0
            has facts, in the others.
        """

    @abc.abstractmethod
    def judge(self, facts: Sequence[F], hosts: Sequence[str]) -> Iterator[Finding]:
        """Find what is wrong.

        Args:
            facts: those of each process, or of process 0 alone; never empty.
            hosts: host name of each process.
        """

    @abc.abstractmethod
    def show(self, facts: Sequence[F]) -> Iterator[Shown]:
        """Show the facts, which are those of `judge`. A cell of what is wrong is in capitals."""


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


def format_differing(values: Sequence[T], hosts: Sequence[str]) -> str:
    """Each value with its processes, the most frequent first; empty if all values are equal."""
    groups = sorted(group_by_value(values).items(), key=lambda item: -len(item[1]))
    if len(groups) == 1:
        return ""
    return ", ".join(f"{value} on {named(indices, hosts)}" for value, indices in groups)


def one_line(error: BaseException) -> str:
    """Message of an error on one line."""
    return " ".join(str(error).split())[:_MAX_ERROR_LENGTH] or repr(error)
