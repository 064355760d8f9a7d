"""Rows in order again: the runtime promises none for callbacks, so their numbers do. Pure."""

from typing import Any, NamedTuple

# How many rows may wait for one that is late. None was ever seen out of order with one callback an
# iteration; what is released early is written all the same, only not in its place.
MOST_HELD = 64


class Order(NamedTuple):
    """Rows that came too early, and which one is due.

    Attributes:
        due: number of the next row; `None` before the first.
        stride: what the numbers grow by.
        held: number to row.
    """

    due: int | None = None
    stride: int = 1
    held: dict[int, Any] = {}


def are_due(order: Order, numbers: list[int]) -> Order | None:
    """The state after rows with these numbers, if they are just the next ones; else `None`."""
    if order.held or (order.due is not None and order.due != numbers[0]):
        return None
    after = numbers[0] + len(numbers) * order.stride
    if list(range(numbers[0], after, order.stride)) != numbers:
        return None
    return Order(after, order.stride)


def arrive(order: Order, number: int, row: Any) -> tuple[Order, list[Any]]:
    """A row arrives: the new state, and the rows that can be written now, in order."""
    if order.due is None or number == order.due:
        ready = [row]
        due, held = number + order.stride, order.held
        if due in held:
            held = dict(held)
            while due in held:
                ready.append(held.pop(due))
                due += order.stride
        return order._replace(due=due, held=held), ready
    if number < order.due:
        # Late after all, or a loop that counts from the start again. Either way it is written.
        return order, [row]
    order = order._replace(held={**order.held, number: row})
    return release(order) if len(order.held) > MOST_HELD else (order, [])


def release(order: Order) -> tuple[Order, list[Any]]:
    """Wait no longer: all rows held, in order. Their distance is the stride from now on."""
    if not order.held:
        return order, []
    assert order.due is not None
    numbers = sorted(order.held)
    before = numbers[-2] if len(numbers) > 1 else order.due - order.stride
    stride = max(numbers[-1] - before, 1)
    ready = [order.held[number] for number in numbers]
    return Order(due=numbers[-1] + stride, stride=stride), ready


def restart(order: Order, stride: int) -> tuple[Order, list[Any]]:
    """Another training starts: all rows held, and numbers that may begin anywhere."""
    return Order(stride=stride), release(order)[1]
