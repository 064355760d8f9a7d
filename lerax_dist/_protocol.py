"""The callback protocol: what a training loop tells a callback, and when.

The fields are those of lerax's contexts, so a loop written for lerax drives these callbacks and
the other way round. Nothing in this package reads `locals`.
"""

import abc
from typing import Any, Generic, TypeVar, final

import equinox as eqx
from jaxtyping import Array, Bool, Float, Int, Key


class AbstractCallbackState(eqx.Module):
    """State of a callback for the whole training, carried through compiled code."""


class AbstractCallbackStepState(eqx.Module):
    """State of a callback for each environment, carried through every environment step."""


@final
class EmptyCallbackState(AbstractCallbackState):
    """State of a callback that keeps nothing between iterations."""


StateT = TypeVar("StateT", bound=AbstractCallbackState)
StepStateT = TypeVar("StepStateT", bound=AbstractCallbackStepState)


@final
class ResetContext(eqx.Module):
    """What a callback gets when its states are made.

    Attributes:
        locals: part of lerax's protocol; not read here.
    """

    locals: dict = eqx.field(default_factory=dict)


@final
class StepContext(eqx.Module, Generic[StepStateT]):
    """What a callback gets after one step of one environment.

    Attributes:
        state: step state of this environment.
        env: the environment.
        policy: the policy that acted.
        done: whether the step ended an episode (terminated or truncated).
        reward: reward of the step.
        locals: part of lerax's protocol; not read here.
    """

    state: StepStateT
    env: Any
    policy: Any
    done: Bool[Array, ""]
    reward: Float[Array, ""]
    locals: dict = eqx.field(default_factory=dict)


@final
class IterationContext(eqx.Module, Generic[StateT, StepStateT]):
    """What a callback gets after one training iteration.

    Attributes:
        state: state of the callback.
        step_state: step states of this device's environments, with a leading axis over them
            (none for a single environment); `None` where nothing counts steps.
        env: the environment.
        policy: the policy after the update.
        iteration_count: number of this iteration, the same on every device.
        opt_state: state of the optimizer, searched for a learning rate.
        training_log: metrics of the iteration: scalars, or partials such as `Mean`.
        algorithm: the algorithm, read for hyperparameters.
        locals: part of lerax's protocol; not read here.
    """

    state: StateT
    step_state: StepStateT
    env: Any
    policy: Any
    iteration_count: Int[Array, ""]
    opt_state: Any
    training_log: dict[str, Any]
    algorithm: Any = None
    locals: dict = eqx.field(default_factory=dict)


@final
class TrainingContext(eqx.Module, Generic[StateT, StepStateT]):
    """What a callback gets when training starts and when it ends.

    Attributes:
        state: state of the callback.
        step_state: step states of this device's environments.
        env: the environment.
        policy: the policy.
        total_timesteps: environment steps that the whole training takes, over all devices.
        iteration_count: iterations done so far.
        opt_state: state of the optimizer.
        algorithm: the algorithm, read for hyperparameters.
        locals: part of lerax's protocol; not read here.
    """

    state: StateT
    step_state: StepStateT
    env: Any
    policy: Any
    total_timesteps: int
    iteration_count: Int[Array, ""]
    opt_state: Any
    algorithm: Any = None
    locals: dict = eqx.field(default_factory=dict)


class AbstractCallback(eqx.Module, Generic[StateT, StepStateT]):
    """What a training loop calls. Every method works inside compiled code.

    A loop calls `reset` and `step_reset` once, `on_training_start`, then in each iteration
    `on_step` for every step of every environment and `on_iteration`, and `on_training_end`. It
    carries both states and passes them in a context.

    Example:
        ```python
        with LoggingCallback(JSONLBackend("logs")) as logger:  # an `AbstractCallback`

            @jax.jit
            def iterate(state, step_state, iteration):
                ctx = StepContext(step_state, env, policy, done=True, reward=1.0)
                step_state = logger.on_step(ctx, key=key)
                log = {"loss": 0.5}
                ctx = IterationContext(state, step_state, env, policy, iteration, None, log)
                return logger.on_iteration(ctx, key=key), step_state

            state = logger.reset(ResetContext(), key=key)
            step_state = logger.step_reset(ResetContext(), key=key)
            for iteration in range(3):
                state, step_state = iterate(state, step_state, iteration)
        ```
    """

    @abc.abstractmethod
    def reset(self, ctx: ResetContext, *, key: Key[Array, ""]) -> StateT:
        """Make the state of the callback."""

    @abc.abstractmethod
    def step_reset(self, ctx: ResetContext, *, key: Key[Array, ""]) -> StepStateT:
        """Make the step state of one environment."""

    @abc.abstractmethod
    def on_step(self, ctx: StepContext[StepStateT], *, key: Key[Array, ""]) -> StepStateT:
        """One environment has taken one step."""

    @abc.abstractmethod
    def on_iteration(
        self, ctx: IterationContext[StateT, StepStateT], *, key: Key[Array, ""]
    ) -> StateT:
        """One training iteration is done."""

    @abc.abstractmethod
    def on_training_start(
        self, ctx: TrainingContext[StateT, StepStateT], *, key: Key[Array, ""]
    ) -> StateT:
        """Training starts."""

    @abc.abstractmethod
    def on_training_end(
        self, ctx: TrainingContext[StateT, StepStateT], *, key: Key[Array, ""]
    ) -> StateT:
        """Training has ended."""

    @abc.abstractmethod
    def continue_training(
        self, ctx: IterationContext[StateT, StepStateT], *, key: Key[Array, ""]
    ) -> Bool[Array, ""]:
        """Whether another iteration shall follow."""

    @abc.abstractmethod
    def apply_curriculum(self, state: Any, callback_state: StateT) -> tuple[Any, StateT]:
        """Change the state of the algorithm between iterations, e.g. make the task harder.

        Args:
            state: state of the algorithm.
            callback_state: state of the callback.

        Returns:
            Both, changed or not.
        """
