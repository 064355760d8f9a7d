"""Maximum and minimum over the devices. Pure."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any, final

from jaxtyping import Array, ArrayLike, Bool, Float

from lerax_dist.device._partials import AbstractPartial, Finish, Finished
from lerax_dist.device._scalar import as_scalar


@final
class Max(AbstractPartial):
    """Maximum over the devices.

    Attributes:
        value: this device's maximum.

    Args:
        value: this device's maximum, a scalar.

    Raises:
        ValueError: it is no scalar.
        TypeError: it is no real number.

    Example:
        ```python
        losses = jnp.asarray([2.0, 4.0, 9.0])
        metrics = reduce({"worst": Max(losses.max())})
        ```
    """

    value: Float[Array, ""]

    def __init__(self, value: ArrayLike) -> None:
        self.value = as_scalar("`value`", value)

    def maxima(self) -> tuple[Array, ...]:
        return (self.value,)

    def sums(self, maxima: Sequence[Array], first: Bool[Array, ""]) -> tuple[Array, ...]:
        return ()

    def shift(self) -> None:
        return None

    def finish(self) -> Finish:
        return _finish_max


def _finish_max(sums: Sequence[Any], maxima: Sequence[Any], numpy: ModuleType) -> Finished:
    return Finished({"": maxima[0]}, 1)


@final
class Min(AbstractPartial):
    """Minimum over the devices.

    Attributes:
        value: this device's minimum.

    Args:
        value: this device's minimum, a scalar.

    Raises:
        ValueError: it is no scalar.
        TypeError: it is no real number.

    Example:
        ```python
        losses = jnp.asarray([2.0, 4.0, 9.0])
        metrics = reduce({"best": Min(losses.min())})
        ```
    """

    value: Float[Array, ""]

    def __init__(self, value: ArrayLike) -> None:
        self.value = as_scalar("`value`", value)

    def maxima(self) -> tuple[Array, ...]:
        return (-self.value,)

    def sums(self, maxima: Sequence[Array], first: Bool[Array, ""]) -> tuple[Array, ...]:
        return ()

    def shift(self) -> None:
        return None

    def finish(self) -> Finish:
        return _finish_min


def _finish_min(sums: Sequence[Any], maxima: Sequence[Any], numpy: ModuleType) -> Finished:
    return Finished({"": -maxima[0]}, 1)
