"""`LoggingCallback`: the callback protocol wired to the device half and the host half."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import equinox as eqx
from jax import numpy as jnp
from jaxtyping import Array, Bool, Key

from lerax_dist._announce import announce
from lerax_dist._handle import AbstractRunHandle
from lerax_dist._metrics import flatten
from lerax_dist._open import open_session
from lerax_dist._protocol import (
    AbstractCallback,
    EmptyCallbackState,
    IterationContext,
    ResetContext,
    StepContext,
    TrainingContext,
)
from lerax_dist._run import check_axis_name, check_positive
from lerax_dist._session import Session
from lerax_dist._state import RunState
from lerax_dist.backends import AbstractLoggingBackend, Required
from lerax_dist.cluster import ProcessGroup
from lerax_dist.device._buffer import Buffer
from lerax_dist.device._learning_rate import learning_rates
from lerax_dist.device._message import Transfers
from lerax_dist.device._program import check_program
from lerax_dist.device._settle import settle
from lerax_dist.device._step_state import LoggingCallbackStepState
from lerax_dist.journal._record import Event
from lerax_dist.video import Act, Recorder, Render, Rollout, UserHooks, check_settings

# Of the callback: nothing, or rows that wait (see `rows_per_transfer`).
State = EmptyCallbackState | Buffer


@final
class LoggingCallback(AbstractCallback[State, LoggingCallbackStepState], AbstractRunHandle):
    """Logs a training run once, whatever the number of devices and processes.

    It works inside `jit`, inside `lax.scan` inside `jit`, inside `shard_map` and `pmap`; it must
    be constructed outside. Metrics are reduced over the devices of all processes; process 0 opens
    the backends and writes, on the others each backend is a `NoOpBackend`.

    Each logged iteration gives one row: `train/*` (every leaf of the training log, averaged over
    devices; give partials such as `Mean` or `Max` for anything else), `train/learning_rate` if the
    optimiser state has one, `episode/return`, `episode/length`, `episode/return_min`, `_max`,
    `_std` (over the environments of the whole run that have ended an episode),
    `episode/count` (how many those are), `time/steps_per_second` and `time/iteration_seconds`.
    The step of a row is the exact number of environment steps of the whole run.

    `on_iteration` must not be called under `vmap`: its rows could not be told apart. Reduce over
    the mapped axis by `lerax_dist.reduce(..., axis_name=...)` first.

    With `video_interval` the first device alone plays the policy, inside the step (under plain
    `jit` each does the same); the host draws, beside the training. What cannot be played or drawn
    gives one warning and no video.

    Rows are in `<log_dir>/<name>/journal.jsonl` before any backend sees them, videos without loss
    in `videos` beside it. A backend that raises or hangs costs nobody else anything.

    Attributes:
        alpha: weight of the newest episode in the averages of episode statistics.

    Example:
        ```python
        with LoggingCallback([TensorBoardBackend(), ConsoleBackend()], env=env) as logger:
            policy = algo.learn(env, policy, 2**16, key=key, callback=[logger])
        ```
    """

    alpha: float
    _session: Session = eqx.field(static=True)
    _transfers: Transfers = eqx.field(static=True)
    _log_interval: int = eqx.field(static=True)
    _recorder: Recorder | None = eqx.field(static=True)

    def __init__(
        self,
        backend: AbstractLoggingBackend | Required | Sequence[AbstractLoggingBackend | Required],
        name: str | None = None,
        env: Any = None,
        policy: Any = None,
        alpha: float = 0.9,
        hparams: dict[str, Any] | None = None,
        video_interval: int = 0,
        video_num_steps: int = 128,
        video_width: int = 640,
        video_height: int = 480,
        video_fps: float = 50.0,
        *,
        axis_name: str | Sequence[str] | None = None,
        log_interval: int = 1,
        log_dir: str | Path | None = None,
        rows_per_transfer: int = 1,
        group: ProcessGroup | None = None,
        scope: str | None = None,
        resume: str = "auto",
        start_step: int | None = None,
        state: RunState | None = None,
        handle_signals: bool = False,
        open_timeout: float = 60.0,
        render: Render | None = None,
        rollout: Rollout | None = None,
        act: Act | None = None,
    ) -> None:
        """Open a run. All processes of a launch call this, with the same arguments.

        Args:
            backend: where to log to: a backend, or several. One that cannot be opened is left out
                with a warning; one in `Required(...)` is an error then.
            name: name of the run, a relative path inside `log_dir`; `None` to make one from
                policy, environment and time. Process 0 decides, all agree.
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
                runs with `check_vma=False`: copies along the others would be counted as well.
            log_interval: log the iterations whose number is a multiple of this.
            log_dir: folder that the run's own folder lies in; `None` for that of the first
                backend that has one, else `logs`.
            rows_per_transfer: how many rows ride together: they wait on the devices and leave in
                one collective and one callback, each with its own step (their times are spread
                evenly). The state of the callback then holds them; what waits at the end leaves by
                `on_training_end`, or by `flush_state` in a loop of your own. Inside `shard_map`,
                call `reset` there, too. Some 250 metrics a row have room; with more (and more than
                64 KiB in all) fewer rows ride together. Under plain `jit` on sharded arrays the
                means are global already, and only callbacks are saved.
            group: the processes that log together; `None` for those that JAX has joined.
            scope: `"global"` for one program over the devices of all processes; `"process"` for one
                program in each process (independent learners, a population), whose rows process 0
                merges: the same numbers as one program would give. `None` for `"global"` if JAX
                has joined the processes and `"process"` if not. To log each process on its own pass
                `group=SoloGroup()`.
            resume: what to do with a run of that name that is there already: `"auto"` continues one
                that has not finished, and else takes `name_2` and so on; `"must"` continues it in
                any case, and is an error if there is none; `"never"` takes a new name.
            start_step: where a continued run goes on, e.g. the step of a checkpoint. Rows of
                earlier incarnations at this step or after it are superseded: kept, marked in the
                journal, hidden by backends that can. `None` for where `state` says, else for the
                step of the first row.
            state: what `logger.state()` gave for the checkpoint that the training goes on from,
                to continue that run, also a finished one, under its name and id. It goes before
                `name`. The number of processes may be another. If the run is not in `log_dir`,
                it goes on in a new folder there, with a warning; with `resume="must"` that is
                an error. `None` or `RunState.empty()` for no checkpoint.
            handle_signals: notice SIGTERM and SIGUSR1 (a handler that is there already still runs):
                all rows are on the disk at once, `preempted` tells, and the run ends as
                `"preempted"`. The signals do not end the process then: look at `preempted`.
                JAX's own notice, `reached_preemption_sync_point`, hears of no SIGTERM then.
            open_timeout: how long to wait for backends to open, in seconds. One that takes longer
                gets its rows later.
            render: draws a frame: `(state, width, height)` to `uint8` pixels of shape
                `(height, width, 3)`, `state` with NumPy arrays as leaves, in a thread of its own.
                `None` to use the environment's `render_frame`, or lerax's `render`.
            rollout: plays the policy: `(policy, key)` to the states of `video_num_steps` steps,
                stacked along a leading axis, in compiled code. `None` for lerax's and gymnax's way.
            act: how the policy of a gymnax environment acts: `(policy, observation, key)` to an
                action. `None` to call `policy(observation, key=key)`.

        Raises:
            ValueError: an argument is outside its range; the message names it.
            TypeError: something in `backend` is not a backend, or in `axis_name` not a name.
            RuntimeError: a launcher has started several processes, but JAX has not been joined;
                or the run or a `Required` backend cannot be opened, then on every process alike.
        """
        if not 0.0 < alpha <= 1.0:
            raise ValueError(f"`alpha` must be in (0, 1], got {alpha}. Use 1.0 for no smoothing.")
        log_interval = check_positive("log_interval", log_interval, "log every iteration")
        axes = check_axis_name(axis_name)
        together = check_positive("rows_per_transfer", rows_per_transfer, "send each row at once")
        video = check_settings(
            *(video_interval, video_num_steps, video_width, video_height, video_fps), log_interval
        )
        self.alpha = alpha
        self._session = session = open_session(
            backend,
            name,
            env=env,
            policy=policy,
            hparams=hparams,
            log_dir=log_dir,
            group=group,
            scope=scope,
            resume=resume,
            start_step=start_step,
            state=state,
            handle_signals=handle_signals,
            open_timeout=open_timeout,
            settle=settle,
        )
        self._log_interval = log_interval
        self._transfers = Transfers(
            lambda row_format, stride: session.run.sink.rows(row_format, stride),
            axis_name=axes,
            log_interval=log_interval,
            rows_per_transfer=together,
            leads=session.scope == "global" or session.group.is_writer,
        )
        session.unsent = self._transfers.unsent
        clips = getattr(session.run, "clips", None) if video.interval else None
        hooks = UserHooks(render, rollout, act)
        self._recorder = None if clips is None else Recorder(video, clips, env, hooks)
        if session.hparams:
            # At once: a loop of the user's own may never call `on_training_start`.
            session.run.put(Event(time.time(), "hparams", {"hparams": session.hparams}))

    def reset(self, ctx: ResetContext, *, key: Key[Array, ""]) -> State:
        """The state of the callback: empty, or the rows that wait (see `rows_per_transfer`)."""
        return self._transfers.initial() or EmptyCallbackState()

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
            ValueError: a metric is not a scalar, two metrics have one name, `axis_name` is not in
                scope, or `ctx.state` is not one that `reset` gave. All of this is found while
                tracing.
            TypeError: a metric is not a number, or its name not a string.
            RuntimeError: called outside of `jit` in a run of several processes.
        """
        check_program(self._session.scope, self._session.group.process_count)
        buffer = self._transfers.row(
            self._transfers.check(ctx.state),
            learning_rates(ctx.opt_state) | flatten(ctx.training_log, "train"),
            ctx.step_state,
            jnp.asarray(ctx.iteration_count, jnp.int32),
        )
        if self._recorder is not None:
            self._recorder.record(ctx.env, ctx.policy, ctx.iteration_count, key)
        return ctx.state if buffer is None else buffer

    def flush_state(self, state: State) -> State:
        """Send the rows that wait on the devices, in a loop that does not call `on_training_end`.

        Call it behind `on_iteration`, in the same `shard_map` and on every device: it is a
        collective. Without `rows_per_transfer` it does nothing. Call it before `state()`, too.

        Args:
            state: state of the callback.

        Returns:
            The state, with no row waiting.

        Raises:
            ValueError: `state` is not one that `reset` gave, or `on_iteration` was not traced yet.
        """
        buffer = self._transfers.flush(self._transfers.check(state))
        return state if buffer is None else buffer

    def on_training_start(
        self, ctx: TrainingContext[Any, LoggingCallbackStepState], *, key: Key[Array, ""]
    ) -> State:
        """Log the hyperparameters, and tell backends how long the training will be."""
        announce(self._session, ctx, self._log_interval)
        return ctx.state

    def on_training_end(
        self, ctx: TrainingContext[Any, LoggingCallbackStepState], *, key: Key[Array, ""]
    ) -> State:
        """Send the rows that wait (see `rows_per_transfer`). The run stays open until `close`."""
        return self.flush_state(ctx.state)

    def continue_training(
        self, ctx: IterationContext[Any, LoggingCallbackStepState], *, key: Key[Array, ""]
    ) -> Bool[Array, ""]:
        """Always: logging never ends a training."""
        return jnp.asarray(True)

    def apply_curriculum(self, state: Any, callback_state: State) -> tuple[Any, State]:
        """Leaves the algorithm as it is."""
        return state, callback_state
