"""A program whose step takes seconds, all of them in compiled code, and which says what happens.

Arguments: log_dir, a free port, number of the signal that it has a handler for.
"""

import os
import signal
import sys
import time
import warnings

import jax
import jax.numpy as jnp

import lerax_dist as ld
from tests.memory import Memory

log_dir, port, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
(other,) = {signal.SIGTERM, signal.SIGUSR1} - {number}


def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class Says(Memory):
    """The step is under way, and the main thread in it."""

    def log_scalars(self, scalars, step):
        say("row", step)


def fsync(descriptor, real=os.fsync):
    start = time.monotonic()
    real(descriptor)
    say("synced", start)


os.fsync = fsync
# Makes a handler for SIGTERM that Python does not know of.
jax.distributed.initialize(f"127.0.0.1:{port}", 1, 0)
signal.signal(number, lambda *_: say("before"))
logger = ld.LoggingCallback(Says(), "r", log_dir=log_dir, group=ld.SoloGroup(), handle_signals=True)
# A forked process, as one that loads data, has no handler of the logger's.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that forking is not safe with JAX's threads
    here, there = os.pipe()
    child = os.fork()
if child == 0:
    os.write(there, b"x")
    while True:
        time.sleep(0.01)  # not `pause`: a signal that comes right before it would be slept through
os.read(here, 1)
os.kill(child, other)
say("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), logger.preempted)


@jax.jit
def step(value):
    states = ld.LoggingCallbackStepState.initial()

    def iterate(count, value):
        value = jax.lax.fori_loop(0, 50_000_000, lambda _, x: jnp.sin(x) + 1.0, value)
        log = {"value": value}
        context = ld.IterationContext(ld.EmptyCallbackState(), states, None, None, count, None, log)
        logger.on_iteration(context, key=jax.random.key(0))
        return value

    return jax.lax.fori_loop(0, 2, iterate, value)


with logger:
    value, steps = jnp.float32(0.0), 0
    while not logger.preempted:
        value = jax.block_until_ready(step(value))
        steps += 1
say("left", steps)
