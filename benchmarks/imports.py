"""What `import lerax_dist` adds to `import jax, equinox`."""

import argparse
import os
import subprocess
import sys
import tempfile

from benchmarks._result import Result, emit, over_rounds, progress

_PROGRAM = """
import gc, time, jax, equinox
collections = []
gc.callbacks.append(lambda phase, info: collections.append(time.perf_counter()))
begin = time.perf_counter()
import {module}
print(time.perf_counter() - begin, sum(collections[1::2]) - sum(collections[::2]))
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    took: dict[str, list[list[float]]] = {"lerax_dist": [], "tensorboardX": [], "wandb": []}
    with tempfile.TemporaryDirectory() as cache:
        # Compiled once, as where it is installed.
        env = os.environ | {"PYTHONPYCACHEPREFIX": cache, "PYTHONDONTWRITEBYTECODE": ""}
        for number in range(args.rounds + 1):
            for module, seconds in took.items():
                done = subprocess.run(
                    [sys.executable, "-c", _PROGRAM.format(module=module)],
                    env=env,
                    capture_output=True,
                    text=True,
                    check=True,
                    timeout=120,
                )
                if number > 0:
                    seconds.append([1000 * float(each) for each in done.stdout.split()])
    for module, seconds in took.items():
        case = {"after": "import jax, equinox"}
        found = over_rounds([both for both, _ in seconds])
        emit(Result("imports", case, f"import {module}", "takes", "ms", **found))
        # What JAX has left behind is looked through in whichever import comes next.
        collecting = over_rounds([garbage for _, garbage in seconds])
        emit(Result("imports", case, f"import {module}", "garbage collection", "ms", **collecting))
        progress(
            f"import {module}: {found['median']:.0f} ms, of which "
            f"{collecting['median']:.0f} ms of garbage collection"
        )


if __name__ == "__main__":
    main()
