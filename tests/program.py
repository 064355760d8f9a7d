"""What a compiled program does between devices and to the host: in its text, and as it runs."""

import gc
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
import pytest
from jax.experimental import buffer_callback


def compiled_text(function, *args) -> str:
    """The optimized program of a jitted function."""
    return jax.jit(function).lower(*args).compile().as_text() or ""


def collective_operands(text: str) -> dict[str, int]:
    """Kind of collective to the number of its operands: XLA folds many collectives into one
    instruction, but each operand still costs a rendezvous of its own."""
    found: dict[str, int] = {}
    kinds = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
    pattern = rf"= .*? ({kinds})(?:-start)?\((.*?)\), "
    for kind, operands in re.findall(pattern, text):
        found[kind] = found.get(kind, 0) + len(operands.split(","))
    return found


def callbacks(text: str) -> int:
    """How many host callbacks the program holds."""
    return len(re.findall(r"custom_call_target=\"[^\"]*callback[^\"]*\"", text))


def payloads(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """What host callbacks bring while they run, of steps that are traced from now on."""
    found: list[np.ndarray] = []

    def buffer(call: Any, *args: Any, real: Any = buffer_callback.buffer_callback, **options: Any):
        def spy(context: Any, results: Any, payload: Any) -> Any:
            found.append(np.asarray(payload).copy())
            return call(context, results, payload)

        return real(spy, *args, **options)

    def debug(call: Any, *args: Any, real: Any = jax.debug.callback, **options: Any):
        def spy(payload: Any) -> None:
            found.append(np.asarray(payload).copy())
            call(payload)

        return real(spy, *args, **options)

    monkeypatch.setattr(buffer_callback, "buffer_callback", buffer)
    monkeypatch.setattr(jax.debug, "callback", debug)
    return found


def compiled_ahead(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Programs that are compiled ahead of their call, as those that copy a row are."""
    found: list[Any] = []

    def count(lowered: Any, *args: Any, real: Any = jax.stages.Lowered.compile, **options: Any):
        found.append(lowered)
        return real(lowered, *args, **options)

    monkeypatch.setattr(jax.stages.Lowered, "compile", count)
    return found


@contextmanager
def compilations() -> Iterator[list[str]]:
    """Programs that JAX compiles meanwhile, in any thread, by its own account."""
    found: list[str] = []

    def count(event: str, duration_secs: float, **_: Any) -> None:
        if event.endswith("backend_compile_duration"):
            found.append(event)

    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(count)


def python_lines(call: Callable[..., Any], *args: Any, within: str = "") -> int:
    """How many lines of Python a call runs in this thread, in files `within` a folder."""
    lines = 0

    def trace(frame: Any, event: str, arg: Any) -> Any:
        nonlocal lines
        lines += event == "line" and within in frame.f_code.co_filename
        return trace

    before = sys.gettrace()
    # JAX has a callback for garbage collection, whose lines would count now and then.
    gc.disable()
    sys.settrace(trace)
    try:
        call(*args)
    finally:
        sys.settrace(before)
        gc.enable()
    return lines
