"""TensorBoard's Custom Scalars tab: means in the band between their minima and maxima."""

from collections.abc import Iterable, Sequence
from typing import Any


def find_bands(tags: Iterable[str]) -> list[str]:
    """Metrics that have a minimum and a maximum beside them, e.g. `episode/return`.

    Args:
        tags: metric names; those with `_min` and `_max` after a name that is there are its band.
    """
    there = dict.fromkeys(tags)
    return [tag for tag in there if f"{tag}_min" in there and f"{tag}_max" in there]


def layout_event(bands: Sequence[str], now: float) -> Any:
    """The event that lays out a chart for each band; the newest of a run counts.

    Args:
        bands: metrics, see `find_bands`.
        now: wall time in seconds.
    """
    # Protobuf makes its classes while it is imported, where no type checker sees them.
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
    from tensorboardX.summary import custom_scalars

    layout: dict[str, dict[str, Any]] = {}
    for tag in bands:
        prefix, slash, _ = tag.partition("/")
        title = f"{tag}: mean, minimum, maximum"
        charts = layout.setdefault(prefix if slash else "metrics", {})
        charts[title] = ["Margin", [tag, f"{tag}_min", f"{tag}_max"]]
    return Event(wall_time=now, step=0, summary=custom_scalars(layout))
