"""All that may end this process, or keep it from ending, because of another process.

    JAX's client loses the service, or JAX declares a process dead
        -> SIGABRT from a thread of C++ -> `delay_abort`: 6 s, then it ends
    another process failed, or the service is lost, and this program runs until its deadline
        -> `State.ended`, decided by `step` -> `end_process`: status 1
    this program ends and another one has failed, or is lost
        -> the shutdown hook -> `skip_shutdown_barrier`: its own exit status

A program that ends by itself, while all others do, passes JAX's barrier and needs none of these.
"""

import contextlib
import ctypes
import os
import signal
import sys
from typing import NoReturn

from lerax_dist.cluster._store import service_state


def delay_abort() -> None:
    """Let SIGABRT end the process only after 6 s, so that it can still report what it knows.

    JAX aborts within milliseconds and names neither the lost process nor its host. No Python can
    run in that thread of C++, so the handler is the C library's `sleep`, which a handler may
    call: it gets the signal's number, 6, as its argument. Meanwhile the other threads go on. A
    handler that is there already (`faulthandler`) stays.
    """
    library = ctypes.CDLL(None)
    library.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    library.signal.restype = ctypes.c_void_p
    handler = ctypes.cast(library.sleep, ctypes.c_void_p)
    before = library.signal(signal.SIGABRT, handler)
    if before is not None:  # the default action is a null pointer
        library.signal(signal.SIGABRT, before)


def end_process() -> NoReturn:
    """End this process with status 1, from any thread and whatever the main thread waits for."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    os._exit(1)


def skip_shutdown_barrier() -> None:
    """Let this process exit without JAX's shutdown, which waits for processes that are lost.

    JAX's hook would wait at a barrier, also for processes that are dead or stuck, and then
    abort. Its client is never freed: the destructor would go to that barrier, too.
    """
    state = service_state()
    for name in ("preemption_sync_manager", "client", "service"):
        owned = getattr(state, name, None)
        if owned is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(owned))
            setattr(state, name, None)
