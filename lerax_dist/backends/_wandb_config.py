"""Hyperparameters, rows and summaries in the shape that W&B expects."""

from collections.abc import Mapping
from typing import Any

import numpy as np

_MORE_IS_BETTER = {"return", "returns", "reward", "rewards", "accuracy", "acc", "score"}
_LESS_IS_BETTER = {"loss", "error", "perplexity"}


def nested(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names as nested dictionaries: `policy.width` becomes `{"policy": {"width": ...}}`.

    Where a name is a value and a prefix too (`policy` and `policy.width`), the longer one keeps
    its dots, so that neither is lost.
    """
    tree: dict[str, Any] = {}
    # Shorter names first: whether `policy` is a value must be known before `policy.width` comes.
    for name in sorted(hparams, key=lambda name: name.count(".")):
        parts = name.split(".")
        *parents, leaf = parts if all(parts) else [name]
        level: Any = tree
        for parent in parents:
            level = level.setdefault(parent, {}) if isinstance(level, dict) else None
        if isinstance(level, dict):
            level[leaf] = _plain(hparams[name])
        else:
            tree[name] = _plain(hparams[name])
    return tree


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Both, level by level; where both have a value, that of `over`."""
    result = dict(under)
    for name, value in over.items():
        below = result.get(name)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            value = merged(below, value)
        result[name] = value
    return result


def with_step(metrics: Mapping[str, Any], step: int) -> dict[str, Any]:
    """A row with its global step, and a metric that is called `global_step` out of its way."""
    row: dict[str, Any] = {"global_step": step}
    for name, value in metrics.items():
        if name == "global_step":
            name = "metrics/global_step"
            while name in metrics:
                name += "_"
        row[name] = value
    return row


def summary_of(tag: str) -> str | None:
    """What W&B shall keep of a metric beside its curve: its last value, and its best.

    Args:
        tag: metric name; its last part says whether more is better.

    Returns:
        W&B's names of aggregates; None for the last value alone.
    """
    words = set(tag.rpartition("/")[2].lower().split("_"))
    # The lowest loss of all environments is none that anyone waits for.
    if words & {"min", "max", "std"}:
        return None
    if words & _MORE_IS_BETTER:
        return "last,max"
    return "last,min" if words & _LESS_IS_BETTER else None


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
