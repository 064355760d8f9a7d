"""What `import lerax_dist` adds to `import jax, equinox`."""

import argparse
import os
import subprocess
import sys
import tempfile

from benchmarks._result import Result, emit, over_rounds, progress

_PROGRAM = """
import time, jax, equinox
begin = time.perf_counter()
import {module}
print(time.perf_counter() - begin)
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    took: dict[str, list[float]] = {"lerax_dist": [], "tensorboardX": [], "wandb": []}
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
                    seconds.append(1000 * float(done.stdout))
    for module, seconds in took.items():
        found = over_rounds(seconds)
        case = {"after": "import jax, equinox"}
        emit(Result("imports", case, f"import {module}", "takes", "ms", **found))
        progress(f"import {module}: {found['median']:.0f} ms")


if __name__ == "__main__":
    main()
