"""Keeps the standard output for the report: libraries below Python chat there, e.g. Gloo."""

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def kept_for_report() -> Iterator[None]:
    """While the block runs, `sys.stdout` is the output, and what writes past it is not seen.

    Errors are unaffected: they go to the error output.
    """
    try:
        chatty = sys.stdout.fileno()
    except (OSError, ValueError, AttributeError):
        yield  # something in place of a file, which nobody writes past
        return
    sys.stdout.flush()
    before = sys.stdout
    kept = os.dup(chatty)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, chatty)
    os.close(nowhere)
    try:
        with os.fdopen(kept, "w", encoding=before.encoding, closefd=False) as sys.stdout:
            yield
    finally:
        sys.stdout = before
        os.dup2(kept, chatty)
        os.close(kept)
