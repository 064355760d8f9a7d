"""Forks under the live display while the thread that draws is inside it. Argument: log_dir."""

import os
import sys
import threading

from rich import get_console

import lerax_dist as ld

console = get_console()
with ld.Logger(ld.ConsoleBackend(), "shown", log_dir=sys.argv[1]) as logger:
    logger.log({"loss": 1.0}, 0)
    logger.flush()
    held, done = threading.Event(), threading.Event()

    def draw() -> None:
        """Stands in for a thread that waits for a terminal that is paused."""
        with console._lock:
            held.set()
            done.wait()

    for thread in (None, threading.Thread(target=draw)):
        if thread is not None:
            thread.start()
            held.wait()
        pid = os.fork()
        if pid == 0:
            print("said by a fork", type(sys.stdout).__name__, flush=True)
            console.print("drawn by a fork")
            os._exit(0)
        print(os.waitpid(pid, 0)[1]) if thread is None else os.waitpid(pid, 0)
    done.set()
    print("the parent goes on")
