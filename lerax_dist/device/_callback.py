"""From the devices to the host: the only host callback of the package, and waiting for it."""

import functools as ft
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jax.core import Tracer
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Int

from lerax_dist._schema import HostCallback
from lerax_dist._timed_call import TimedCaller
from lerax_dist.device._axes import platform_of

# Payloads of 100 KiB and more deadlock several devices of one process (measured on CPU): the
# copy to the host queues behind the threads that wait for it. 16k numbers are well below.
CHUNK = 16_384 - 8

_caller = TimedCaller("lerax_dist-callbacks")


def send(
    deliver: HostCallback,
    head: Int[Array, " h"],
    body: Sequence[Int[Array, " n"]],
    manual: tuple[str, ...],
    when: Bool[Array, ""] | None = None,
) -> None:
    """Hand integers to the host once, from the first device of the mesh.

    One unordered callback (JAX refuses ordered ones on several devices); a body that is too large
    for one payload is sent in several, each with the head before it. Outside of compiled code the
    integers are there, and no callback is needed.

    Args:
        deliver: called on the host; it must never raise, since that would kill the step on every
            host.
        head: what distinguishes this message from others.
        body: the parts of the message.
        manual: manual axes of the mesh; without any, JAX calls the host once, in process 0. Empty
            also in a branch that only the first device enters.
        when: whether to send it; `None` for always.
    """
    starts = range(0, max(sum(part.size for part in body), 1), CHUNK)
    if not any(isinstance(part, Tracer) for part in body):
        whole = np.concatenate(body)
        for part, start in enumerate(starts if when is None or bool(when) else ()):
            deliver(part, len(starts), np.concatenate([head, whole[start : start + CHUNK]]))
        return
    _check_cpu_backend()
    _fire(deliver, head, [*body], manual, when, starts)


def _fire(
    deliver: HostCallback,
    head: Array,
    body: list[Array],
    manual: tuple[str, ...],
    when: Array | None,
    starts: range,
) -> None:
    mesh = jax.sharding.get_abstract_mesh()
    rest = tuple(name for name in mesh.axis_names if name not in mesh.manual_axes)
    if mesh.manual_axes and rest:
        # XLA fails on a callback that it would have to split over them.
        def everywhere(head: Array, body: list[Array], when: Array | None) -> tuple[()]:
            _fire(deliver, head, body, (*manual, *rest), when, starts)
            return ()

        specs = {"in_specs": PartitionSpec(), "out_specs": (), "axis_names": {*rest}}
        jax.shard_map(everywhere, **specs)(head, body, when)
        return

    # All that is only for the host is in one branch: other devices do nothing, and a GPU waits for
    # the condition of each branch.
    def fire(head: Array, body: list[Array]) -> None:
        whole = jnp.concatenate(body)
        for part, start in enumerate(starts):
            payload = jnp.concatenate([head, whole[start : start + CHUNK]])
            _call_host(ft.partial(deliver, part, len(starts)), payload)

    if manual:
        is_first = lax.axis_index(manual) == 0
        when = is_first if when is None else is_first & when
    if when is None:
        fire(head, body)
    else:
        lax.cond(when, fire, lambda head, body: None, head, body)


def _call_host(take: Callable[[Any], None], payload: Int[Array, " n"]) -> None:
    """Call the host, without a copy of the payload where that is possible.

    `jax.debug.callback` puts its operands on a CPU device, which takes 0.2 ms for a short vector
    (0.4 ms within a step of 10 ms) and more than all that happens here. On a CPU the buffer is in
    the host's memory already. But a buffer callback has no sharding: where XLA splits the program
    over devices, each of them would make the call.
    """

    def debug(payload: Array) -> tuple[()]:
        jax.debug.callback(take, payload)
        return ()

    def direct(payload: Array) -> tuple[()]:
        buffer_callback = _find_buffer_callback()
        if buffer_callback is None:
            return debug(payload)
        callback = buffer_callback(
            lambda context, results, buffer: take(buffer),
            (),
            has_side_effect=True,
            vmap_method="sequential",
        )
        callback(payload)
        return ()

    # By XLA, rather than by `shard_map`.
    may_be_split = not jax.sharding.get_abstract_mesh().manual_axes and jax.device_count() > 1
    if may_be_split or platform_of((), default="cpu") != "cpu":
        debug(payload)
    else:
        lax.platform_dependent(payload, cpu=direct, default=debug)


def _find_buffer_callback() -> Callable[..., Any] | None:
    """JAX's `buffer_callback`, allowed where `debug.callback` is: in `checkpoint` and `custom_vjp`.

    `None` if this JAX lacks it, as it is experimental, or keeps what it allows elsewhere. Checked
    on jax 0.10.2 and 0.12.0.
    """
    # Imported here, so that importing this package loads no further part of JAX.
    try:
        from jax._src import effects
        from jax._src.buffer_callback import BufferCallbackEffect
        from jax.experimental.buffer_callback import buffer_callback

        effects.remat_allowed_effects.add_type(BufferCallbackEffect)
        effects.custom_derivatives_allowed_effects.add_type(BufferCallbackEffect)
    except (ImportError, AttributeError):
        return None
    return buffer_callback


def _check_cpu_backend() -> None:
    if jax.default_backend() == "cpu":
        return
    try:
        jax.local_devices(backend="cpu")
    except RuntimeError as error:
        raise ValueError(
            "host callbacks need JAX's CPU backend, which `JAX_PLATFORMS` disables: it names "
            f"{jax.default_backend()!r} without `cpu`. Append it, as in `JAX_PLATFORMS=cuda,cpu`."
        ) from error


def is_called_by_jax() -> bool:
    """Whether this runs in a host callback, also in one that runs on the main thread."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith("jax."):
            return True
        frame = frame.f_back
    return False


def wait_for_callbacks(timeout: float, *, reports_errors: bool = True) -> str | None:
    """Wait until the callbacks of all programs that this thread has started are delivered.

    `jax.effects_barrier()` is the public way, but it has no time limit, and it knows only what the
    calling thread has dispatched, so another thread cannot wait in it. A step whose peer has died
    never ends, so this waits for the same tokens one level below, at most `timeout` seconds, and
    returns what is missing, or `None`; steps that have failed only if `reports_errors`.
    """
    _caller.start()
    tokens = _runtime_tokens()
    if tokens is None:
        try:
            jax.effects_barrier()
        except Exception as error:
            return _step_failed(error) if reports_errors else None
        return None

    def wait() -> list[Exception]:
        errors: list[Exception] = []
        for token in tokens:
            try:
                token.block_until_ready()
            except Exception as error:
                errors.append(error)
        return errors

    if not tokens:
        return None
    try:
        errors = _caller.call(wait, timeout)
    except TimeoutError:
        return "the devices have not finished the steps that were started"
    return _step_failed(errors[0]) if errors and reports_errors else None


def _step_failed(error: Exception) -> str:
    return f"a step has failed, so its rows may be missing ({error!r})"


def _runtime_tokens() -> list[Any] | None:
    """What `jax.effects_barrier` waits for; `None` if this JAX keeps it elsewhere.

    Checked on jax 0.10.2 and 0.12.0.
    """
    try:
        from jax._src.dispatch import runtime_tokens

        return [
            *runtime_tokens.current_tokens.values(),
            *runtime_tokens.output_runtime_tokens.values(),
        ]
    except (ImportError, AttributeError):
        return None
