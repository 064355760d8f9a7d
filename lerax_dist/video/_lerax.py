"""lerax environments: how they are stepped, and what they draw."""

import importlib
import types
from collections.abc import Callable
from typing import Any, Protocol, final, runtime_checkable

import equinox as eqx
import jax
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Key

from lerax_dist.video._paint import Picture, Shape, View
from lerax_dist.video._play import Vary, play


@runtime_checkable
class LeraxEnv(Protocol):
    """What of a lerax environment (or a wrapper around one) is needed to play it."""

    def initial(self, *, key: Any) -> Any: ...
    def transition(self, state: Any, action: Any, *, key: Any) -> Any: ...
    def observation(self, state: Any, *, key: Any) -> Any: ...
    def terminal(self, state: Any, *, key: Any) -> Any: ...
    def truncate(self, state: Any) -> Any: ...
    def action_mask(self, state: Any, *, key: Any) -> Any: ...


def play_lerax(env: Any, policy: Any, key: Key[Array, ""], num_steps: int, vary: Vary) -> Any:
    """The environment's states under a policy, which is asked without a key: it takes no chances.

    Args:
        env: environment.
        policy: lerax policy.
        key: key of all randomness.
        num_steps: how many steps.
        vary: marks an array as one that may differ from device to device.

    Returns:
        States with a leading axis of `num_steps`.
    """

    def start(key: Key[Array, ""]) -> tuple[Any, Any]:
        env_key, policy_key = jax.random.split(key)
        return env.initial(key=env_key), policy.reset(key=policy_key)

    def step(now: tuple[Any, Any], key: Key[Array, ""]) -> tuple[Any, Any]:
        env_state, policy_state = now
        see_key, move_key, end_key, start_key = jax.random.split(key, 4)
        observation = env.observation(env_state, key=see_key)
        mask = env.action_mask(env_state, key=see_key)
        policy_state, action = policy(policy_state, observation, action_mask=mask)
        low, high = (getattr(env.action_space, name, None) for name in ("low", "high"))
        if low is not None and high is not None:
            action = jnp.clip(action, low, high)
        after = env.transition(env_state, action, key=move_key)
        done = env.terminal(after, key=end_key) | env.truncate(after)
        return _either(done, start(start_key), (after, policy_state))

    return play(start, step, lambda now: now[0], key, num_steps, vary)


def _either(done: Array, fresh: Any, after: Any) -> Any:
    fresh, _ = eqx.partition(fresh, eqx.is_array)
    after, still = eqx.partition(after, eqx.is_array)
    chosen = jax.tree.map(lambda a, b: lax.select(done, a.astype(b.dtype), b), fresh, after)
    return eqx.combine(chosen, still)


def picture_of(env: Any) -> Callable[[Any], Picture]:
    """What `env.render` draws, as numbers that compiled code can compute.

    The environment draws on a renderer that only notes what it is told. So no window opens, no
    pygame is needed, and the host draws without JAX. The view is that of `env.default_renderer`.

    Raises:
        ValueError: the environment has no renderer for two dimensions.
    """
    scene = env.unwrapped
    notebook = _notebook_class()
    make = getattr(type(scene), "default_renderer", None)
    if not isinstance(make, types.FunctionType) or "PygameRenderer" not in make.__globals__:
        raise ValueError(
            f"`default_renderer` of {type(scene).__name__} is no `PygameRenderer`, the one kind "
            "that can be drawn without a window. Give `render=` to `LoggingCallback`."
        )
    # The same method, in which one name means another class.
    open_notebook = types.FunctionType(
        make.__code__,
        {**make.__globals__, "PygameRenderer": notebook},
        make.__name__,
        make.__defaults__,
        make.__closure__,
    )

    def picture(state: Any) -> Picture:
        renderer = open_notebook(scene)
        scene.render(getattr(state, "unwrapped", state), renderer)
        there = renderer.transform
        view = View(there.width, there.height, there.scale, there.offset, bool(there.y_up))
        return Picture(view, _rgb(renderer.background_color), tuple(renderer.shapes))

    return picture


def _rgb(color: Any) -> Array:
    return jnp.stack([jnp.asarray(part, jnp.float32) for part in (color.r, color.g, color.b)])


def _notebook_class() -> Any:
    """A renderer of lerax's own kind that notes shapes; made here, for lerax may not be there."""
    render = importlib.import_module("lerax.render")

    @final
    class Notebook(render.Abstract2DRenderer):
        """Notes what is drawn since `clear`."""

        transform: Any
        background_color: Any
        shapes: list[Any]

        def __init__(
            self, width: Any, height: Any, background_color: Any = None, transform: Any = None
        ) -> None:
            whole = render.Transform(width=width, height=height, scale=1.0, offset=jnp.zeros(2))
            self.transform = whole if transform is None else transform
            self.background_color = render.WHITE if background_color is None else background_color
            self.shapes = []

        def _note(self, kind: str, color: Any, *numbers: Any, text: str = "") -> None:
            arrays = tuple(jnp.asarray(number, jnp.float32) for number in numbers)
            self.shapes.append(Shape(kind, _rgb(color), arrays, text))

        def open(self) -> None:
            pass

        def close(self) -> None:
            pass

        def draw(self) -> None:
            pass

        def clear(self) -> None:
            self.shapes.clear()

        def as_array(self) -> Any:
            raise TypeError("there are no pixels while the environment is traced")

        def draw_circle(self, center: Any, radius: Any, color: Any) -> None:
            self._note("circle", color, center, radius)

        def draw_line(self, start: Any, end: Any, color: Any, width: Any = 1) -> None:
            self._note("line", color, start, end, width)

        def draw_rect(self, center: Any, w: Any, h: Any, color: Any) -> None:
            self._note("rect", color, center, w, h)

        def draw_polygon(self, points: Any, color: Any) -> None:
            self._note("polygon", color, points)

        def draw_text(self, center: Any, text: str, color: Any, size: Any = 12) -> None:
            self._note("text", color, center, size, text=text)

        def draw_polyline(self, points: Any, color: Any) -> None:
            self._note("polyline", color, points)

        def draw_ellipse(self, center: Any, w: Any, h: Any, color: Any) -> None:
            self._note("ellipse", color, center, w, h)

    return Notebook
