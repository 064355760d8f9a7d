"""A training that each incarnation interrupts in another way, and that resumes from its checkpoint.

In its first two lives it has SLURM requeue its job, in the third process 0 is killed with all its
children, in the fourth it comes to its end. Arguments: as those of the PPO example, of which it
looks at the folder of checkpoints only.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import lerax_dist as ld

STEPS, CHECKPOINT_EVERY = 35, 10
group = ld.initialize(timeout=60)
file = Path(sys.argv[sys.argv.index("--checkpoint-dir") + 1], "checkpoint.eqx")
file.parent.mkdir(parents=True, exist_ok=True)


def save(step: int, run: ld.RunState) -> None:
    if group.is_writer:
        fresh = file.with_suffix(".new")
        eqx.tree_serialise_leaves(fresh, (np.array(step), run))
        fresh.replace(file)


def interrupt(life: int) -> None:
    if life <= 2:
        subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True)
    elif life == 3:
        children = " ".join(f.read_text() for f in Path("/proc/self/task").glob("*/children"))
        for pid in [*map(int, children.split()), os.getpid()]:
            os.kill(pid, signal.SIGKILL)


mesh = jax.sharding.Mesh(jax.devices(), ("process",))
place = jax.sharding.PartitionSpec("process")
number = jnp.array([jax.process_index()], jnp.float32)
numbers = jax.make_array_from_process_local_data(jax.sharding.NamedSharding(mesh, place), number)
mean = jax.jit(lambda numbers, step: numbers.mean() + step)

first, run = np.array(0), ld.RunState.empty()
if file.exists():
    first, run = eqx.tree_deserialise_leaves(file, (first, run))
with ld.Logger(
    ld.TensorBoardBackend("logs"), log_dir="logs", state=run, handle_signals=True
) as logger:
    step = int(first)
    while not logger.preempted and (logger.incarnation < 4 or step < first + STEPS):
        logger.log({"x": mean(numbers, step)}, step)
        step += 1
        if step % CHECKPOINT_EVERY == 0:
            save(step, logger.state())
        if step == first + STEPS and group.is_writer:
            interrupt(logger.incarnation)
