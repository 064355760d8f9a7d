"""What processes write to each other, and how a wait that found nobody is reported. Pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

_MOST_NAMED = 16


@final
@dataclass(frozen=True)
class Message:
    """One process's part in one operation of a group.

    Attributes:
        operation: how many operations the sender had begun in this group before.
        kind: "broadcast", "gather" or "barrier".
        what: what the sender said the operation is for.
        value: a JSON value.
    """

    operation: int
    kind: str
    what: str
    value: Any


def encode(message: Message) -> str:
    """A message as text.

    Raises:
        TypeError: its value is no JSON value.
    """
    try:
        return json.dumps([message.operation, message.kind, message.what, message.value])
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"`value` of the {message.kind} of {message.what} must be JSON (numbers, strings, "
            f"lists, dictionaries), got {message.value!r}: {error}. Convert arrays by `.tolist()`."
        ) from error


def decode(text: str) -> Message:
    """The message that `encode` made."""
    return Message(*json.loads(text))


def check_same(mine: Message, theirs: Message, their_index: int, my_index: int) -> None:
    """Check that two processes are in the same operation.

    Raises:
        RuntimeError: they are not; from here on every answer would be the wrong one.
    """
    same = (mine.operation, mine.kind, mine.what) == (theirs.operation, theirs.kind, theirs.what)
    if not same:
        raise RuntimeError(
            f"Processes of one group disagree: operation {mine.operation} is the {mine.kind} of "
            f"{mine.what} on process {my_index}, operation {theirs.operation} is the {theirs.kind} "
            f"of {theirs.what} on process {their_index}. Make the same calls in the same order on "
            "every process; no call may depend on the process or on its data."
        )


def missing_error(
    mine: Message,
    timeout: float,
    missing: Sequence[int],
    place: tuple[int, int],
    hosts: Mapping[int, str],
    note: str = "",
) -> TimeoutError:
    """The error of a wait that ended before everybody was there.

    Args:
        mine: operation that waited.
        timeout: how long it waited, in seconds.
        missing: process indices that did not arrive.
        place: index of this process and number of processes.
        hosts: process index to host name, as far as known.
        note: a sentence about how this process knows, if not from its own wait.
    """
    index, count = place
    named = [f"{i} (host {hosts[i]})" if i in hosts else str(i) for i in missing[:_MOST_NAMED]]
    more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
    return TimeoutError(
        f"The {mine.kind} of {mine.what} ended after `timeout` = {timeout:g} s: "
        f"{'process' if len(missing) == 1 else 'processes'} {', '.join(named)}{more} did not "
        f"arrive. {note}This is process {index} of {count}"
        f"{f' (host {hosts[index]})' if index in hosts else ''}. Read the output of what did not "
        "arrive: it died, hangs or makes other calls; if it is only slow, raise `timeout`."
    )


def check_timeout(timeout: float) -> float:
    """`timeout` if it is a time that can be waited.

    Raises:
        ValueError: it is not more than 0 seconds, or has no end.
    """
    if not 0 < timeout < float("inf"):
        raise ValueError(
            f"`timeout` must be a finite number of seconds above 0, got {timeout!r}. "
            "Every wait for another process ends; give it a long limit if need be."
        )
    return timeout
