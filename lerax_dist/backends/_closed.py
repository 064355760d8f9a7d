"""The one error of a backend that is used before `open` or after `close`."""


def not_open(backend: object) -> RuntimeError:
    """An error to raise: rows that come now would be lost in silence otherwise."""
    return RuntimeError(
        f"`{type(backend).__name__}` must be open to be written to, and it is not: either `open` "
        "was not called or `close` was. Log before the run is closed, or start a new run."
    )


def already_open(backend: object, name: str) -> RuntimeError:
    """An error to raise: a second run would go into the files of the first."""
    return RuntimeError(
        f"`{type(backend).__name__}` must be closed before it opens run {name!r}, and it still "
        "writes another. Give each run a backend of its own."
    )
