"""Finding the learning rate in the state of an optimiser. Pure."""

from typing import Any

import jax
from jax.tree_util import keystr


def learning_rates(opt_state: Any) -> dict[str, Any]:
    """`train/learning_rate`, if the state of the optimiser holds one.

    `optax.inject_hyperparams` puts it there. Several (`optax.multi_transform`) are told apart by
    their places in the state.

    Args:
        opt_state: state of any optimiser, a pytree.
    """
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(opt_state):
        last = path[-1] if path else None
        name = getattr(last, "key", getattr(last, "name", None))
        if name == "learning_rate" and getattr(leaf, "shape", None) == ():
            found[keystr(path[:-1], simple=True, separator=".")] = leaf
    if len(found) == 1:
        return {"train/learning_rate": next(iter(found.values()))}
    return {f"train/learning_rate/{place}": rate for place, rate in found.items()}
