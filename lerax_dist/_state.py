"""The position of a run, as a small pytree for a checkpoint."""

from typing import Any, NamedTuple, Self, final

import equinox as eqx
import numpy as np
from jaxtyping import UInt8, UInt32

from lerax_dist.journal import Identity

_NAME_BYTES = 512
_ID_BYTES = 64
# What a name may take. The number of records is behind it, where older checkpoints have 0.
_NAME_ROOM = 503
_UNKNOWN = 2**64 - 1


@final
class RunState(eqx.Module):
    """The position of a run: what `logger.state()` returns and `state=` takes.

    Save it beside the state of the training. It is a pytree of NumPy arrays of fixed shapes, the
    same on every process: save it with Orbax, `eqx.tree_serialise_leaves`, or a pickle.

    Attributes:
        name: name of the run in UTF-8, padded with zeros; its last 8 bytes are how many records its
            journal had, 0 if that is unknown. What comes behind them is superseded.
        run_id: id of the run in UTF-8, padded with zeros; all zeros for no run.
        start_step: where the run continues: the step after that of the last row (its upper and
            lower 32 bits); all ones if it is unknown, then the first new rows decide.
        incarnation: which start of the run has made this.

    Example:
        ```python
        state, path = RunState.empty(), Path("checkpoint.eqx")
        if path.exists():
            state = eqx.tree_deserialise_leaves(path, like=state)
        with Logger(JSONLBackend("logs"), state=state) as logger:
            logger.log({"loss": 0.5}, step=0)
            eqx.tree_serialise_leaves(path, logger.state())
        ```
    """

    name: UInt8[np.ndarray, " 512"]
    run_id: UInt8[np.ndarray, " 64"]
    start_step: UInt32[np.ndarray, " 2"]
    incarnation: UInt32[np.ndarray, ""]

    @classmethod
    def empty(cls) -> Self:
        """The state of no run: the `like` of a restore; as `state=` it equals `None`."""
        return cls(
            name=np.zeros(_NAME_BYTES, np.uint8),
            run_id=np.zeros(_ID_BYTES, np.uint8),
            start_step=np.zeros(2, np.uint32),
            incarnation=np.zeros((), np.uint32),
        )

    @property
    def last_step(self) -> int | None:
        """Step of the last row, 0 before the first, `None` if it is unknown.

        A program that counts from 0 again passes it as `step_offset`.
        """
        step = _start_step(self)
        return None if step is None else max(step - 1, 0)


class RestoredRun(NamedTuple):
    """The content of a `RunState`; `start_step` is `None` if it is unknown, `records` is 0."""

    name: str
    identity: Identity
    start_step: int | None
    records: int


def write_state(run: RestoredRun) -> RunState:
    """The pytree of a restored run; raises if the name is too long for it."""
    step = _UNKNOWN if run.start_step is None else run.start_step
    behind = run.records.to_bytes(_NAME_BYTES - _NAME_ROOM)
    return RunState(
        name=np.append(_bytes_of(run.name, _NAME_ROOM, "name"), np.frombuffer(behind, np.uint8)),
        run_id=_bytes_of(run.identity.run_id, _ID_BYTES, "run_id"),
        start_step=np.array(divmod(step, 2**32), np.uint32),
        incarnation=np.array(run.identity.incarnation, np.uint32),
    )


def read_state(state: Any) -> RestoredRun | None:
    """The run of a `RunState`, of NumPy arrays or of JAX's; `None` for no run."""
    if state is None:
        return None
    if not isinstance(state, RunState):
        raise TypeError(
            f"`state` must be a `RunState`, got a {type(state).__name__}. Restore the checkpoint "
            "with `RunState.empty()` as its target."
        )
    run_id = _text_of(state.run_id, "run_id")
    if not run_id:
        return None
    identity = Identity(run_id, int(state.incarnation))
    name = np.asarray(state.name).astype(np.uint8)
    # A name in an older state may take all of it.
    records = 0 if name[_NAME_ROOM] else int.from_bytes(name[_NAME_ROOM:].tobytes())
    name = name[:_NAME_ROOM] if records else name
    return RestoredRun(_text_of(name, "name"), identity, _start_step(state), records)


def _start_step(state: RunState) -> int | None:
    upper, lower = (int(half) for half in np.asarray(state.start_step))
    step = (upper << 32) + lower
    return None if step == _UNKNOWN else step


def _bytes_of(text: str, size: int, field: str) -> np.ndarray:
    data = text.encode()
    if len(data) > size:
        raise ValueError(
            f"`{field}` has {len(data)} bytes in UTF-8, but a `RunState` has room for {size}: "
            f"{text!r}. Give the run a shorter name."
        )
    return np.frombuffer(data.ljust(size, b"\0"), np.uint8).copy()


def _text_of(data: Any, field: str) -> str:
    raw = np.asarray(data).astype(np.uint8).tobytes().rstrip(b"\0")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"`state.{field}` is not UTF-8: {raw!r}. Save and restore the state as it is, "
            "without casting its arrays."
        ) from error
