"""Time for last words when JAX aborts the process."""

import ctypes
import signal


def hold_aborts() -> None:
    """Have SIGABRT wait for 6 s (its number) before it ends the process.

    When the coordination service dies JAX aborts the process from a thread of C++ within
    milliseconds, and says neither which process was lost nor on which host. No Python can run in
    that thread, so its handler is the C library's own `sleep`, which a handler may call; meanwhile
    the other threads write down what they have, say what they know, and end the process. A handler
    that is there already (`faulthandler`) stays.
    """
    library = ctypes.CDLL(None)
    library.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    library.signal.restype = ctypes.c_void_p
    pause = ctypes.cast(library.sleep, ctypes.c_void_p)
    before = library.signal(signal.SIGABRT, pause)
    if before is not None:  # the default action is a null pointer
        library.signal(signal.SIGABRT, before)
