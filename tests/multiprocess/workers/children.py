"""A joined process and its children: each reports what `initialize` and a logger do there.

The first argument is what to do: "train" joins and starts the others.
"""

import os
import subprocess
import sys

import lerax_dist as ld
from tests.multiprocess.launch import report


def own_run(name: str) -> None:
    logs = os.path.join(sys.argv[2], "logs")
    with ld.Logger(ld.NoOpBackend(), name, log_dir=logs, group=ld.SoloGroup()) as logger:
        logger.log({"loss": 1.0}, 0)


def errors(name: str) -> dict[str, str]:
    """What `initialize` and loggers raise in this process; the last is to log a run of its own."""
    found: dict[str, str] = {}
    for what, call in (
        ("initialize", lambda: ld.initialize(timeout=20)),
        ("logger", lambda: ld.Logger(ld.NoOpBackend(), "child", log_dir=sys.argv[2])),
        ("alone", lambda: own_run(name)),
    ):
        try:
            call()
            found[what] = ""
        except Exception as error:
            found[what] = f"{type(error).__name__}: {error}"
    return found


def doctor(**variables: str) -> str:
    """What the doctor prints in a child of this process, whose environment has these, too."""
    done = subprocess.run(
        [sys.executable, "-m", "lerax_dist.cli", "doctor", "--json", "--timeout", "3"],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 1, done.stderr
    return done.stdout + done.stderr


def train() -> None:
    group = ld.initialize(timeout=60)
    if group.is_writer:
        doctors = [doctor()]
        if group.launcher == "explicit":
            # Without the mark it is as one that somebody starts in another terminal.
            places = ({"LERAX_DIST_JOINED": "", "LERAX_DIST_PROCESS_ID": i} for i in "01")
            doctors += [doctor(**place) for place in places]
        done = subprocess.run(
            # Through a shell, as an evaluation program may be started.
            ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, __file__, "child", sys.argv[2]],
            capture_output=True,
            text=True,
            timeout=90,
        )
        read, write = os.pipe()
        if os.fork() == 0:
            os.write(write, str(errors("forked")).encode())
            os._exit(0)
        os.close(write)
        os.wait()
        with open(read) as file:
            forked = file.read()
        found = {"child": done.stdout, "forked": forked, "doctors": doctors}
        report({"process": 0, "pid": os.getpid(), **found})
        assert done.returncode == 0, done.stderr
    group.barrier(timeout=120, what="the children")
    if not group.is_writer:
        report({"process": group.process_index})


if sys.argv[1] == "child":
    print(errors("own"))
else:
    train()
