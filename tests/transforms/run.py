"""Runs programs, each with a run of its own, on all devices of the launch.

Arguments: log_dir, and names of programs (none: all).
"""

import sys
import traceback

import jax

import lerax_dist as ld
from tests.multiprocess.launch import report


def main() -> None:
    log_dir, *names = sys.argv[1:]
    group = ld.initialize()
    # It starts the devices.
    from tests.transforms.programs import PROGRAMS, log_to

    errors = {}
    for name in names or PROGRAMS:
        program = PROGRAMS[name]
        if not program.can_run(jax.device_count(), group.process_count):
            continue
        backend = ld.TensorBoardBackend(log_dir)
        try:
            with ld.LoggingCallback(
                backend, program.folder, axis_name=program.axis_name, **program.options
            ) as logger:
                program.run(log_to(logger, program.axis_name))
        except Exception:
            errors[name] = traceback.format_exc()
    report({"process": group.process_index, "devices": jax.device_count(), "errors": errors})


if __name__ == "__main__":
    main()
