"""Records a clip of the current policy: in the compiled step, on one device, when it is due."""

import functools as ft
from collections.abc import Callable
from typing import Any, NamedTuple, final

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, ArrayLike, Int, Key

from lerax_dist.device._axes import Axes, find_axes
from lerax_dist.device._callback import send
from lerax_dist.host._clips import ClipSpec
from lerax_dist.video._bits import Layout, layout_of, pack, unpack
from lerax_dist.video._collectives import find_collective
from lerax_dist.video._draw import Render, choose_drawing, make_frames
from lerax_dist.video._gymnax import Act, GymnaxEnv, play_gymnax
from lerax_dist.video._lerax import LeraxEnv, play_lerax
from lerax_dist.video._settings import Settings

Rollout = Callable[[Any, Key[Array, ""]], Any]

TAG = "eval/video"
# 64 MiB, which leave in a thousand callbacks. More would take minutes to compile.
_MOST_WORDS = 16 << 20
# So that a clip does not repeat random numbers of the training.
_OWN_KEY = 0x76696465


class Own(NamedTuple):
    """How a user plays and draws, where they have a way of their own; see `LoggingCallback`."""

    render: Render | None = None
    rollout: Rollout | None = None
    act: Act | None = None


class _Plan(NamedTuple):
    """What is to be done on the device, and with what comes from it."""

    shoot: Callable[[Any], Any]
    layout: Layout
    frame: Render


@final
class Recorder:
    """Records the clips of one logger. Equal only to itself, so it never causes a retrace."""

    def __init__(
        self,
        settings: Settings,
        studio: Any,
        env: Any,
        own: Own,
    ) -> None:
        """
        Args:
            settings: how often, how long and how large.
            studio: takes the clips of this process, and why there are none.
            env: the environment that the logger was given, if it was.
            own: how the user plays and draws.
        """
        self._settings = settings
        self._studio = studio
        self._env = env
        self._env_on_host = jax.tree.map(_on_host, env)
        self._own = own

    def record(
        self, env: Any, policy: Any, iteration: Int[ArrayLike, ""], key: Key[Array, ""]
    ) -> None:
        """Put a clip on its way to the host, if this iteration is one to record.

        What cannot be played or drawn gives a warning, and a step that is as if there was no video.

        Args:
            env: environment; `None` for the one that the logger was given.
            policy: the policy as it is now.
            iteration: number of the iteration.
            key: key of the iteration.
        """
        axes = find_axes(None)
        try:
            plan = self._plan(self._env if env is None else env, policy, key, axes)
        except Exception as error:
            # A user's environment may raise anything, and a video is not worth a training.
            self._studio.disable(error)
            return
        deliver = self._studio.callback(self._film(plan))

        def fire(key: Any, iteration: Array) -> None:
            # On the first device already, hence no axes.
            send(deliver, iteration[None], pack(plan.shoot(key)), ())

        iteration = jnp.asarray(iteration, jnp.int32)
        due = iteration % self._settings.interval == 0
        if axes.manual:
            due &= lax.axis_index(axes.manual) == 0
        lax.cond(due, fire, lambda *_: None, key, iteration)

    def _plan(self, env: Any, policy: Any, key: Any, axes: Axes) -> _Plan:
        drawing = choose_drawing(env, self._env_on_host, self._own.render)
        play = self._player(env, policy, axes)

        def shoot(key: Any) -> Any:
            return drawing.see(play(jax.random.fold_in(key, _OWN_KEY)))

        program, seen = jax.make_jaxpr(shoot, return_shape=True)(key)
        collective = find_collective(program.jaxpr)
        if collective is not None:
            raise ValueError(
                f"the policy or the environment uses the collective {collective!r}, which one "
                "device alone would wait in for ever. Videos need a policy that is whole on a "
                "device."
            )
        layout = layout_of(seen)
        self._check(layout)
        # Where the program is built nobody could go on without what `pack` refuses.
        jax.eval_shape(pack, seen)
        return _Plan(shoot, layout, drawing.frame)

    def _player(self, env: Any, policy: Any, axes: Axes) -> Callable[[Any], Any]:
        steps = self._settings.num_steps
        vary = axes.vary
        if self._own.rollout is not None:
            return ft.partial(self._own.rollout, policy)
        if isinstance(env, LeraxEnv):
            return lambda key: play_lerax(env, policy, key, steps, vary)
        if isinstance(env, GymnaxEnv):
            return lambda key: play_gymnax(env, policy, self._own.act, key, steps, vary)
        raise ValueError(
            f"an environment of type {type(env).__name__} is neither lerax's nor gymnax's. Give "
            "`rollout=` to `LoggingCallback`, a function (policy, key) -> states."
        )

    def _check(self, layout: Layout) -> None:
        lengths = {shape[:1] for _, shape in layout.leaves}
        if lengths != {(self._settings.num_steps,)}:
            raise ValueError(
                f"the states of a rollout need a leading axis of `video_num_steps` "
                f"{self._settings.num_steps} in every leaf, got {sorted(lengths)}"
            )
        if layout.words > _MOST_WORDS:
            raise ValueError(
                f"the states of one clip take {layout.words / (1 << 18):.0f} MiB, 64 at most. "
                "Use a lower `video_num_steps`, or a `rollout=` that returns only what is drawn."
            )

    def _film(self, plan: _Plan) -> ClipSpec:
        settings = self._settings

        def develop(words: np.ndarray) -> np.ndarray:
            seen = unpack(words, plan.layout)
            return make_frames(
                seen, plan.frame, settings.num_steps, settings.width, settings.height
            )

        return ClipSpec(TAG, settings.fps, develop)


def _on_host(leaf: Any) -> Any:
    """A copy that needs no device, for a drawing that runs beside the training."""
    if isinstance(leaf, jax.Array) and not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return np.asarray(leaf)
    return leaf
