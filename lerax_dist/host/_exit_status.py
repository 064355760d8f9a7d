"""How this program ends, for a run that is closed when the interpreter exits.

By then no exception is under way any more. An uncaught one is left in `sys.last_value`, but
`SystemExit` leaves no trace: no hook is called for it, and `sys.exit` is not the only one to raise
it. The interpreter reads its attribute `code`, though, and from no frame of Python. So `code`
becomes a property that records such a read; for everyone else it is what it was.
"""

import ctypes
import gc
import sys
from typing import Any, NoReturn

# What the program has passed to `SystemExit`, once that ends it.
_codes: list[Any] = []
_is_watched = False


def watch_exit_status() -> None:
    """Learn from now on how the program ends. A second call does nothing.

    Where `SystemExit` cannot be watched (checked on CPython 3.11 to 3.13), an exit by it counts as
    one with status 0.
    """
    global _is_watched
    if _is_watched:
        return
    _is_watched = True
    try:
        (table,) = gc.get_referents(SystemExit.__dict__)
        code = table["code"]
        modified = ctypes.pythonapi.PyType_Modified
    except (AttributeError, KeyError, ValueError):
        return

    def read(error: SystemExit) -> Any:
        value = code.__get__(error)
        try:
            sys._getframe(1)
        except ValueError:  # read by the interpreter itself
            _codes.append(value)
        return value

    table["code"] = property(read, code.__set__, code.__delete__)
    modified(ctypes.py_object(SystemExit))
    if sys.version_info < (3, 12):
        # Its own `sys.exit` makes an object that has the attribute only once it is caught.
        before = sys.exit

        def exit(status: Any = None, /) -> NoReturn:
            try:
                before(status)
            except SystemExit:
                raise

        sys.exit = exit


def is_error(code: Any) -> bool:
    """Whether `SystemExit(code)` ends a program with another status than 0."""
    return not (code is None or isinstance(code, int) and code == 0)


def has_failed() -> bool:
    """Whether an uncaught exception has ended the program; in a shell none ends it."""
    return getattr(sys, "last_value", None) is not None and not hasattr(sys, "ps1")


def has_error_status() -> bool:
    """Whether `SystemExit` has ended the program, with another status than 0."""
    return any(map(is_error, _codes))
