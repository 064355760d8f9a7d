"""From the devices to the host: the only host callback of the package."""

import functools as ft
from collections.abc import Callable

import jax
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Int

# Payloads of 100 KiB and more deadlock several devices of one process (measured on CPU): the
# copy to the host queues behind the threads that wait for it. 16k numbers are well below.
CHUNK = 16_384 - 8

Deliver = Callable[[int, int, Array], None]


def send(deliver: Deliver, head: Int[Array, " h"], body: Int[Array, " n"], manual: tuple[str, ...]):
    """Hand integers to the host once, from the first device of the mesh.

    One unordered callback (ordered ones are refused on several devices); a body that is too large
    for one payload leaves in several, each with the head before it.

    Args:
        deliver: called on the host as `deliver(part, parts, payload)`; it must never raise, for
            that would kill the step on every host.
        head: what tells this message from others, repeated in each part.
        body: the message.
        manual: manual axes of the mesh; without any, JAX calls the host once, in process 0. Empty
            also where a branch has left all devices but the first behind.
    """
    starts = range(0, max(body.size, 1), CHUNK)
    parts = len(starts)

    def fire(head: Array, body: Array) -> None:
        for part, start in enumerate(starts):
            payload = jnp.concatenate([head, body[start : start + CHUNK]])
            jax.debug.callback(ft.partial(deliver, part, parts), payload)

    if manual:
        lax.cond(lax.axis_index(manual) == 0, fire, lambda head, body: None, head, body)
    else:
        fire(head, body)
