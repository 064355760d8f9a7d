"""Runs programs, each with a run of its own, on all devices of the launch.

Arguments: log_dir, the platform for whose order of operations to trace ("here" for that of the
devices), and names of programs (none: all).
"""

import sys
import traceback

import jax

import lerax_dist as ld
from lerax_dist.device import _sender
from tests.multiprocess.launch import report


def main() -> None:
    log_dir, platform, *names = sys.argv[1:]
    group = ld.initialize()
    if platform != "here":
        _sender.platform_of = lambda *_, **__: platform
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
