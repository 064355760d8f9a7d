"""Records a clip of the current policy: in the compiled step, on one device, when it is due."""

import functools as ft
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, final

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jax.custom_batching import custom_vmap
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jaxtyping import Array, ArrayLike, Int, Key

from lerax_dist.device._axes import Axes, find_axes
from lerax_dist.device._callback import send
from lerax_dist.host._clips import ClipSpec
from lerax_dist.host._run import Run
from lerax_dist.video._pytree_bits import Layout, layout_of, pack, unpack
from lerax_dist.video._render import Render, choose_renderer, draw_frames
from lerax_dist.video._rollout import (
    Act,
    GymnaxEnv,
    LeraxEnv,
    Rollout,
    play_gymnax,
    play_lerax,
)

TAG = "eval/video"
# 64 MiB, sent in about a thousand callbacks. More would take minutes to compile.
_MAX_WORDS = 16 << 20
# Folded into the key, so that a clip does not reuse random numbers of the training ("vide").
_KEY_DATA = 0x76696465
# Primitives that name an axis, but in which no other device takes part.
_LOCAL_PRIMITIVES = {"axis_index", "pvary", "pcast"}


class Settings(NamedTuple):
    """The `video_*` arguments of `LoggingCallback`."""

    interval: int
    num_steps: int
    width: int
    height: int
    fps: float


class UserHooks(NamedTuple):
    """The user's functions for playing and drawing, if any; see `LoggingCallback`."""

    render: Render | None = None
    rollout: Rollout | None = None
    act: Act | None = None


@final
class Recorder:
    """Records the clips of one logger. Equal only to itself, so it never causes a retrace."""

    def __init__(self, settings: Settings, run: Run, env: Any, hooks: UserHooks) -> None:
        """`run` receives the clips; `env` is what was given to the logger, which may be `None`."""
        self._settings, self._run, self._hooks = settings, run, hooks
        self._env, self._env_on_host = env, jax.tree.map(_on_host, env)

    def record(
        self, env: Any, policy: Any, iteration: Int[ArrayLike, ""], key: Key[Array, ""]
    ) -> None:
        """Record a clip in this iteration, if one is due. Traced; never raises.

        If the policy cannot be played or drawn there is one warning, and the step is the same as
        without video. If `env` is `None`, it is the one that was given to the logger.
        """
        axes = find_axes(None)
        try:
            program, spec = self._plan(self._env if env is None else env, policy, key, axes)
        except Exception as error:
            # A user's environment may raise anything, and a video must not end a training.
            self._run.disable_clips(error)
            return
        callback = self._run.clip_callback(spec)

        def record_one(due: Array, iteration: Array, key: Any, consts: list[Any]) -> tuple[()]:
            def fire(key: Any, iteration: Array, consts: list[Any]) -> None:
                observed = jaxpr_as_fun(ClosedJaxpr(program.jaxpr, consts))(key)
                # No axes: the condition holds on the first device only.
                send(callback, iteration[None], [pack(observed)], ())

            lax.cond(due, fire, lambda *_: None, key, iteration, consts)
            return ()

        record_one = custom_vmap(record_one)

        @record_one.def_vmap
        def _(size: int, is_mapped: list[Any], *given: Any) -> tuple[tuple[()], tuple[()]]:
            # The first member's clip, not those of all; none once it has finished, see `_members`.
            due, *rest = jax.tree.map(lambda x, mapped: x[0] if mapped else x, given, (*is_mapped,))
            record_one(due & (rest[0] == jnp.max(given[1])), *rest)
            return (), ()

        iteration = jnp.asarray(iteration, jnp.int32)
        due = iteration % self._settings.interval == 0
        if axes.manual:
            due &= lax.axis_index(axes.manual) == 0
        record_one(due, iteration, key, jax.tree.map(lax.stop_gradient, program.consts))

    def _plan(self, env: Any, policy: Any, key: Any, axes: Axes) -> tuple[ClosedJaxpr, ClipSpec]:
        """What the device computes for a clip from the key, and how the host makes frames of it.

        As a program, whose constants are all that it needs of the trace around it.
        """
        renderer = choose_renderer(env, self._env_on_host, self._hooks.render)
        rollout = self._rollout(env, policy, axes)

        def observe(key: Any) -> Any:
            return renderer.observe(rollout(jax.random.fold_in(key, _KEY_DATA)))

        program, observed = jax.make_jaxpr(observe, return_shape=True)(key)
        collective = find_collective(program.jaxpr)
        if collective is not None:
            raise ValueError(
                f"the policy or the environment uses the collective {collective!r}, but the video "
                "is recorded by one device alone, which would wait for the others forever. Pass a "
                "`rollout=` without collectives, on a policy that is not sharded."
            )
        layout = layout_of(observed)
        self._check(layout)
        # `pack` rejects some types. Here the error still becomes a warning; in `fire` it would end
        # the tracing of the user's step.
        jax.eval_shape(pack, observed)
        # Not `renderer`, whose `observe` may hold tracers: `render` outlives the trace.
        settings, draw = self._settings, renderer.draw

        def render(words: np.ndarray) -> np.ndarray:
            size = (settings.num_steps, settings.width, settings.height)
            return draw_frames(unpack(words, layout), draw, *size)

        return program, ClipSpec(TAG, settings.fps, render)

    def _rollout(self, env: Any, policy: Any, axes: Axes) -> Callable[[Any], Any]:
        num_steps = self._settings.num_steps
        if self._hooks.rollout is not None:
            return ft.partial(self._hooks.rollout, policy)
        if isinstance(env, LeraxEnv):
            return lambda key: play_lerax(env, policy, key, num_steps, axes.vary)
        if isinstance(env, GymnaxEnv):
            act = self._hooks.act
            return lambda key: play_gymnax(env, policy, act, key, num_steps, axes.vary)
        raise ValueError(
            f"an environment of type {type(env).__name__} has neither lerax's methods nor "
            "gymnax's. Pass `rollout=` to `LoggingCallback`: a function (policy, key) -> states."
        )

    def _check(self, layout: Layout) -> None:
        lengths = {shape[:1] for _, shape in layout.leaves}
        if lengths != {(self._settings.num_steps,)}:
            raise ValueError(
                "every leaf of a rollout's states must have a leading axis of `video_num_steps` "
                f"{self._settings.num_steps}, got {sorted(lengths)}. Return one state per "
                "step from `rollout=`."
            )
        if layout.words > _MAX_WORDS:
            raise ValueError(
                f"the states of one clip take {layout.words / (1 << 18):.0f} MiB; the limit is 64. "
                "Use a lower `video_num_steps`, or a `rollout=` that returns only what is drawn."
            )


def _on_host(leaf: Any) -> Any:
    """A copy in host memory, so that drawing never waits for the devices."""
    if isinstance(leaf, jax.Array) and not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return np.asarray(leaf)
    return leaf


def find_collective(jaxpr: Any) -> str | None:
    """Name of the first collective over named axes in a traced program, at any depth."""
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name not in _LOCAL_PRIMITIVES and any(_axis_names(equation.params)):
            return name
        for inner in _inner_jaxprs(equation.params):
            if found := find_collective(inner):
                return found
    return None


def _axis_names(params: dict[str, Any]) -> Iterator[str]:
    for key in ("axes", "axis_name"):
        names = params.get(key, ())
        # `axes` of a reduction within one device are integers.
        for name in names if isinstance(names, (tuple, list, frozenset)) else (names,):
            if isinstance(name, str):
                yield name


def _inner_jaxprs(params: dict[str, Any]) -> Iterator[Any]:
    for value in params.values():
        for one in value if isinstance(value, (tuple, list)) else (value,):
            one = getattr(one, "jaxpr", one)
            if hasattr(one, "eqns"):
                yield one


def check_settings(
    interval: Any, num_steps: Any, width: Any, height: Any, fps: Any, log_interval: int
) -> Settings:
    """The settings, or `ValueError` if one is outside its range.

    A clip takes its step from the row of its iteration, so `interval` must be a multiple of
    `log_interval`, the number of iterations between rows.
    """
    _check_integer("video_interval", interval, 0, "Use 0 for no video.")
    _check_integer("video_num_steps", num_steps, 1, "128 is usual.")
    _check_integer("video_width", width, 1, "640 is usual.")
    _check_integer("video_height", height, 1, "480 is usual.")
    number = isinstance(fps, (int, float)) and not isinstance(fps, bool)
    if not number or not 0 < fps < math.inf:
        raise ValueError(f"`video_fps` must be positive and finite, got {fps!r}. 50.0 is usual.")
    if interval % log_interval:
        nearest = max(round(interval / log_interval), 1) * log_interval
        raise ValueError(
            f"`video_interval` must be a multiple of `log_interval` {log_interval}, because a clip "
            f"takes its step from the row of its iteration; got {interval}. Use {nearest}."
        )
    return Settings(int(interval), int(num_steps), int(width), int(height), float(fps))


def _check_integer(name: str, value: Any, least: int, fix: str) -> None:
    integer = hasattr(value, "__index__") and not isinstance(value, bool)
    if not integer or value < least:
        raise ValueError(f"`{name}` must be an integer of {least} or more, got {value!r}. {fix}")
