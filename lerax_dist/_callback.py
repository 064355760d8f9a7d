"""`LoggingCallback`: the logger for a training that is one compiled program."""

import functools as ft
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import equinox as eqx
import jax
import numpy as np
from jax import numpy as jnp
from jaxtyping import Array, Bool, Key

from lerax_dist._config import (
    Backends,
    RunConfig,
    check_axis_name,
    check_members,
    check_positive,
)
from lerax_dist._handle import AbstractRunHandle
from lerax_dist._hparams import extract
from lerax_dist._metric_names import flatten
from lerax_dist._open import open_run
from lerax_dist._protocol import (
    AbstractCallback,
    IterationContext,
    ResetContext,
    StepContext,
    TrainingContext,
)
from lerax_dist._state import RunState
from lerax_dist.cluster import ProcessGroup
from lerax_dist.device._axes import check_scope
from lerax_dist.device._callback import wait_for_callbacks
from lerax_dist.device._sender import RowSender, State, send_start
from lerax_dist.device._step_state import LoggingCallbackStepState
from lerax_dist.host._run import Run
from lerax_dist.journal import Event
from lerax_dist.video import Act, Recorder, Render, Rollout, UserHooks, check_settings


@final
class LoggingCallback(AbstractCallback[State, LoggingCallbackStepState], AbstractRunHandle):
    """Logs a training run once, whatever the number of devices and processes.

    It works inside `jit`, inside `lax.scan` inside `jit`, inside `shard_map` and `pmap`; it must
    be constructed outside. Metrics are reduced over the devices of all processes; process 0 opens
    the backends and writes, on the others each backend is a `NoOpBackend`.

    Each logged iteration gives one row: `train/*` (every leaf of the training log, averaged over
    devices; give partials such as `Mean` or `Max` for anything else), `train/learning_rate` if the
    optimizer state has one, `episode/return`, `episode/length`, `episode/return_min`, `_max`,
    `_std` (over the environments of the whole run that have ended an episode),
    `episode/count` (how many those are), `time/steps_per_second` and `time/iteration_seconds`.
    The step of a row is the exact number of environment steps of the whole run.

    A training without environments logs by `emit`, which needs no states, on this logger or on
    `Logger`; or by `on_iteration` with `step_state=None`, where the step is the iteration.

    Under `vmap` (`jit(vmap(train))(seeds)`) it logs one row for all members: the mean over them,
    and `<metric>/member_min`, `/member_max`, `/member_std` beside it. The step of that row is the
    one of a member. See "Which axes hold what" in the docs on metrics.

    With `video_interval` the first device alone plays the policy, inside the step (under plain
    `jit` each does the same); the host draws, beside the training. What cannot be played or drawn
    gives one warning and no video.

    Rows are in `<log_dir>/<name>/journal.jsonl` before any backend gets them, videos without loss
    in `videos` beside it. A backend that raises or hangs affects neither the training nor the other
    backends.

    Attributes:
        alpha: weight of the newest episode in the averages of episode statistics.

    Example:
        ```python
        with LoggingCallback([TensorBoardBackend(), ConsoleBackend()], env=env) as logger:
            policy = algo.learn(env, policy, 2**16, key=key, callback=[logger])
        ```
    """

    alpha: float
    _run: Run = eqx.field(static=True)
    _sender: RowSender = eqx.field(static=True)
    _log_interval: int = eqx.field(static=True)
    _recorder: Recorder | None = eqx.field(static=True)

    def __init__(
        self,
        backend: Backends,
        name: str | None = None,
        env: Any = None,
        policy: Any = None,
        alpha: float = 0.9,
        hparams: object = None,
        video_interval: int = 0,
        video_num_steps: int = 128,
        video_width: int = 640,
        video_height: int = 480,
        video_fps: float = 50.0,
        *,
        axis_name: str | Sequence[str] | None = None,
        member_axes: str | Sequence[str] | None = None,
        members: str = "band",
        log_interval: int = 1,
        log_dir: str | Path | None = None,
        rows_per_transfer: int = 1,
        delay: bool = False,
        group: ProcessGroup | None = None,
        scope: str | None = None,
        resume: str = "auto",
        start_step: int | None = None,
        step_offset: int | None = None,
        state: RunState | None = None,
        handle_signals: bool = False,
        open_timeout: float = 60.0,
        render: Render | None = None,
        rollout: Rollout | None = None,
        act: Act | None = None,
    ) -> None:
        """Open a run. All processes of a launch call this, with the same arguments.

        Those that are not explained here are those of `RunConfig`.

        Args:
            backend: where to log to: a backend, or several.
            name: name of the run; `None` to generate one from policy, environment and time.
            env: environment to name the run after, and to draw if it has a `render_frame`.
            policy: policy to name the run after.
            alpha: weight of the newest episode in the averages, in (0, 1].
            hparams: hyperparameters to log beside those found in the fields of policy and
                algorithm; these here win.
            video_interval: record a video of the policy in iterations whose number is a multiple of
                this, tagged `eval/video`; 0 for none. A multiple of `log_interval`.
            video_num_steps: environment steps a video.
            video_width: width of a video in pixels.
            video_height: height of a video in pixels.
            video_fps: frames a second at which a video is played.
            axis_name: mesh axes to reduce over; `None` for all manual axes in scope. Name the axes
                that environments are split over if there are others (a model axis) and `shard_map`
                runs with `check_vma=False`: copies along the others would be counted as well. A
                vmapped axis that is named here holds data, too.
            member_axes: mesh axes along which each device has members of its own, such as seeds
                that `pmap` or `shard_map` splits over the devices. What `vmap` maps over holds
                members without being named.
            members: `"band"` for one curve, the mean over members, with lowest, highest and
                deviation beside it; `"each"` for the metrics of each, as `member_3/train/loss`.
            log_interval: log the iterations whose number is a multiple of this. The others have no
                callback, and on a CPU no collective.
            log_dir: folder in which the folder of the run is made.
            rows_per_transfer: how many rows are sent in one callback, on a CPU also in one
                collective. They are buffered on the devices, in the state of the callback; each
                keeps its own step, and their times are interpolated. `on_training_end` sends the
                rest, or `flush_state` in a loop of your own. Inside `shard_map`, call `reset`
                there, too. Some 250 metrics a row have room; with more (and more than 64 KiB in
                all) fewer rows are sent together. Under plain `jit` on sharded arrays the means are
                global already, and only callbacks are saved.
            delay: reduce each row one iteration later. On a TPU or GPU the mean then needs no
                collective of its own beside the all-reduce of gradients, even if metrics depend on
                its result, as the norm of the gradients does. The state of the callback holds the
                last row, which `on_training_end` (or `flush_state`) sends. Not together with
                `rows_per_transfer`.
            group: the processes that log together.
            scope: one program over all processes (`"global"`), or one in each (`"process"`).
            resume: what to do if there is a run of that name.
            start_step: step at which a resumed run continues.
            step_offset: added to every step, for a program that counts from 0 again.
            state: what `logger.state()` returned for the checkpoint to continue from.
            handle_signals: handle SIGTERM and SIGUSR1, see `preempted`.
            open_timeout: how long to wait for backends to open, in seconds.
            render: draws a frame: `(state, width, height)` to `uint8` pixels of shape
                `(height, width, 3)`, `state` with NumPy arrays as leaves, in a separate thread.
                `None` to use the environment's `render_frame`, or lerax's `render`.
            rollout: plays the policy: `(policy, key)` to the states of `video_num_steps` steps,
                stacked along a leading axis, in compiled code. `None` for lerax's and gymnax's way.
            act: how the policy of a gymnax environment acts: `(policy, observation, key)` to an
                action. `None` to call `policy(observation, key=key)`.

        Raises:
            ValueError: if an argument is outside its range; the message names it.
            TypeError: if something in `backend` is not a backend, or in `axis_name` not a name.
            RuntimeError: if a launcher has started several processes, but JAX has not joined them;
                or if the run or a `Required` backend cannot be opened, then on every process.
        """
        if not 0.0 < alpha <= 1.0:
            raise ValueError(f"`alpha` must be in (0, 1], got {alpha}. Use 1.0 for no smoothing.")
        log_interval = check_positive("log_interval", log_interval, "log every iteration")
        axes = check_axis_name(axis_name)
        member_axes = check_members(members, member_axes, axes)
        rows = check_positive("rows_per_transfer", rows_per_transfer, "send each row at once")
        if delay and rows > 1:
            raise ValueError(
                f"`delay=True` sends rows one by one, got `rows_per_transfer` {rows}. Use one of "
                "them."
            )
        video = check_settings(
            *(video_interval, video_num_steps, video_width, video_height, video_fps), log_interval
        )
        config = RunConfig(
            backend=backend,
            name=name,
            hparams=hparams,
            log_dir=log_dir,
            group=group,
            scope=scope,
            resume=resume,
            start_step=start_step,
            step_offset=step_offset,
            state=state,
            handle_signals=handle_signals,
            open_timeout=open_timeout,
        )
        self.alpha = alpha
        self._log_interval = log_interval
        self._run = run = open_run(
            config, named_after=(policy, env), wait_for_callbacks=wait_for_callbacks
        )
        self._sender = RowSender(
            run.row_callback,
            axis_name=axes,
            member_axes=member_axes,
            members=members,
            log_interval=log_interval,
            rows_per_transfer=rows,
            delay=delay,
            is_first=run.info.is_first,
        )
        run.unsent = self._sender.unsent
        hooks = UserHooks(render, rollout, act)
        # Process 0 keeps the clips. In a program over all processes all trace the same.
        records = video.interval > 0 and run.info.is_first
        self._recorder = Recorder(video, run, env, hooks) if records else None
        if run.info.hparams:
            # At once: a loop of the user's own may never call `on_training_start`.
            run.put(Event(time.time(), "hparams", {"hparams": run.info.hparams}))

    def reset(self, ctx: ResetContext, *, key: Key[Array, ""]) -> State:
        """The state of the callback: empty, or a buffer of rows (see `rows_per_transfer`)."""
        return self._sender.initial()

    def step_reset(self, ctx: ResetContext, *, key: Key[Array, ""]) -> LoggingCallbackStepState:
        """The step state of one environment, all zero."""
        return LoggingCallbackStepState.initial()

    def on_step(
        self, ctx: StepContext[LoggingCallbackStepState], *, key: Key[Array, ""]
    ) -> LoggingCallbackStepState:
        """Count one step of one environment."""
        return ctx.state.next(ctx.reward, ctx.done, self.alpha)

    def on_iteration(
        self, ctx: IterationContext[Any, LoggingCallbackStepState], *, key: Key[Array, ""]
    ) -> State:
        """Log a row, if this iteration is one to log.

        Raises:
            ValueError: if a metric is not a scalar, two metrics have one name, `axis_name` is not
                in scope, or `ctx.state` is not one that `reset` returned. All of this is found
                while tracing.
            TypeError: if a metric is not a number, or its name is not a string.
            RuntimeError: if called outside of `jit` in a run of several processes.
        """
        info = self._run.info
        check_scope(info.scope, info.group.process_count, "on_iteration", self._sender.members)
        state = self._sender.log(
            ctx.state,
            _learning_rates(ctx.opt_state) | flatten(ctx.training_log, "train"),
            ctx.step_state,
            jnp.asarray(ctx.iteration_count, jnp.int32),
        )
        if self._recorder is not None:
            self._recorder.record(ctx.env, ctx.policy, ctx.iteration_count, key)
        return state

    def flush_state(self, state: State) -> State:
        """Send the rows buffered on the devices, in a loop that does not call `on_training_end`.

        Call it after `on_iteration`, in the same `shard_map` and on every device: it is a
        collective. Without `rows_per_transfer` it does nothing. Call it before `state()`, too.

        Args:
            state: state of the callback.

        Returns:
            The state, with an empty buffer.

        Raises:
            ValueError: if `state` is not one that `reset` returned, or `on_iteration` was not
                traced yet.
        """
        return self._sender.flush(state)

    def on_training_start(
        self, ctx: TrainingContext[Any, LoggingCallbackStepState], *, key: Key[Array, ""]
    ) -> State:
        """Log the hyperparameters, and how long the training will be."""
        run = self._run
        # lerax 0.0.5 has no such field yet.
        algorithm: Any = getattr(ctx, "algorithm", None)
        hparams = extract(ctx.policy, "policy") | extract(algorithm, "algorithm")
        hparams |= run.info.hparams
        if hparams == run.info.hparams:
            # Logged when the logger was made.
            hparams = {}
        total = 0 if ctx.total_timesteps is None else ctx.total_timesteps
        known = int(total) if isinstance(total, (int, float, np.number)) else None
        iterations = 0
        if known is not None and callable(getattr(algorithm, "num_iterations", None)):
            iterations = int(algorithm.num_iterations(known))
        send_start(
            ft.partial(run.start_callback, self._log_interval, known, iterations, hparams),
            jnp.asarray(ctx.iteration_count, jnp.int32),
            total if known is None else 0,
            (ctx.policy, ctx.step_state),
            self._sender.axes(),
        )
        return ctx.state

    def on_training_end(
        self, ctx: TrainingContext[Any, LoggingCallbackStepState], *, key: Key[Array, ""]
    ) -> State:
        """Send the buffered rows (see `rows_per_transfer`). The run stays open until `close`."""
        return self.flush_state(ctx.state)

    def continue_training(
        self, ctx: IterationContext[Any, LoggingCallbackStepState], *, key: Key[Array, ""]
    ) -> Bool[Array, ""]:
        """Always true: logging never ends a training."""
        return jnp.asarray(True)

    def apply_curriculum(self, state: Any, callback_state: State) -> tuple[Any, State]:
        """Return the algorithm unchanged."""
        return state, callback_state


def _learning_rates(opt_state: Any) -> dict[str, Any]:
    """`train/learning_rate`, if the state of the optimizer holds one.

    `optax.inject_hyperparams` puts it there. Several (`optax.multi_transform`) are distinguished by
    their paths in the state.
    """
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(opt_state):
        last = path[-1] if path else None
        name = getattr(last, "key", getattr(last, "name", None))
        if name == "learning_rate" and getattr(leaf, "shape", None) == ():
            found[jax.tree_util.keystr(path[:-1], simple=True, separator=".")] = leaf
    if len(found) == 1:
        return {"train/learning_rate": next(iter(found.values()))}
    return {f"train/learning_rate/{path}": rate for path, rate in found.items()}
