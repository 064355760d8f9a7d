"""What a compiled program does between devices and to the host, counted in its text."""

import re

import jax


def compiled_text(function, *args) -> str:
    """The optimised program of a jitted function."""
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
