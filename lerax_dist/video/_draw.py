"""Who draws an environment: frames from what the step has sent. Host code, but for `see`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from lerax_dist.video._classics import CLASSICS
from lerax_dist.video._lerax import LeraxEnv, picture_of
from lerax_dist.video._paint import Picture, Shape, View, paint

Render = Callable[[Any, int, int], Any]


class Drawing(NamedTuple):
    """How one environment is drawn.

    Attributes:
        see: makes, in the compiled step, of all states what the host needs to draw them.
        frame: `(what one state gave, width, height)` to pixels, with NumPy arrays as leaves.
    """

    see: Callable[[Any], Any]
    frame: Render


def choose_drawing(env: Any, kept: Any, render: Render | None) -> Drawing:
    """The way to draw an environment.

    Args:
        env: environment as the step sees it.
        kept: the same, or `None`, without values that only the step knows.
        render: the user's function, which comes before all others.

    Raises:
        ValueError: there is none.
    """
    own = render or getattr(kept, "render_frame", None)
    if callable(own):
        return Drawing(lambda states: states, _under_cpu(own))
    if callable(getattr(env, "render_frame", None)):
        raise ValueError(
            f"`render_frame` of {_name(env)} belongs to an environment that only the compiled step "
            "knows. Give the environment to `LoggingCallback` as well: `env=env`."
        )
    if isinstance(env, LeraxEnv) and hasattr(env, "default_renderer"):
        return _noted(picture_of(env))
    classic = CLASSICS.get(str(getattr(env, "name", "")))
    if classic is None:
        raise ValueError(
            f"{_name(env)} cannot be drawn: it has no `render_frame(state, width, height)`. Give "
            "`render=` to `LoggingCallback`, a function of these that returns uint8 (H, W, 3)."
        )
    # What the drawings read are Python's numbers.
    params: Any = getattr(env, "default_params", None)
    return Drawing(lambda states: states, lambda s, w, h: paint(classic(s, params), w, h))


def _noted(picture: Callable[[Any], Picture]) -> Drawing:
    """For an environment whose shapes the step computes: only their numbers leave it."""
    still: list[Any] = []

    def see(states: Any) -> Any:
        def numbers(state: Any) -> Any:
            view, background, shapes = picture(state)
            still[:] = [(view.y_up, [(shape.kind, shape.text) for shape in shapes])]
            where = (view.width, view.height, view.scale, view.offset)
            return where, background, [(shape.color, shape.numbers) for shape in shapes]

        return jax.vmap(numbers)(states)

    def frame(seen: Any, width: int, height: int) -> np.ndarray:
        (y_up, kinds), (view, background, parts) = still[0], seen
        shapes = [
            Shape(kind, color, numbers, text)
            for (kind, text), (color, numbers) in zip(kinds, parts, strict=True)
        ]
        whole = Picture(View(*view, y_up=y_up), background, tuple(shapes))
        return paint(whole, width, height)

    return Drawing(see, frame)


def _under_cpu(render: Render) -> Render:
    """`render`, whose JAX code, if it has any, keeps away from the accelerator."""
    try:
        (cpu, *_) = jax.local_devices(backend="cpu")
    except RuntimeError:
        # JAX_PLATFORMS leaves the CPU out. A function that only uses NumPy does not care.
        return render

    def frame(state: Any, width: int, height: int) -> Any:
        with jax.default_device(cpu):
            return render(state, width, height)

    return frame


def _name(env: Any) -> str:
    return str(getattr(env, "name", "") or type(env).__name__)


def make_frames(seen: Any, frame: Render, num_steps: int, width: int, height: int) -> np.ndarray:
    """All frames of a clip.

    Args:
        seen: pytree of NumPy arrays with a leading axis of `num_steps`.
        frame: draws one.
        num_steps: how many there are.
        width: width in pixels.
        height: height in pixels.

    Returns:
        `uint8` array of shape `(num_steps, height, width, 3)`.

    Raises:
        ValueError: a frame is something else.
    """
    frames = np.empty((num_steps, height, width, 3), np.uint8)
    leaves, tree = jax.tree.flatten(seen)
    for place in range(num_steps):
        state = jax.tree.unflatten(tree, [leaf[place] for leaf in leaves])
        pixels = np.asarray(frame(state, width, height))
        if pixels.dtype != np.uint8 or pixels.shape != (height, width, 3):
            raise ValueError(
                f"a frame must be uint8 of shape {(height, width, 3)}, got {pixels.dtype} of shape "
                f"{pixels.shape}; `render` is asked for (H, W, 3)"
            )
        frames[place] = pixels
    return frames
