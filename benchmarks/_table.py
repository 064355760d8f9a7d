"""The table in Markdown: one section a suite, one row a case and variant. Pure."""

from collections.abc import Sequence
from typing import Any

from benchmarks._result import Result


def table(results: Sequence[Result], machine: dict[str, Any]) -> str:
    """All results as Markdown.

    Args:
        results: what was measured.
        machine: where: name to value.
    """
    lines = ["# Results", ""]
    lines += [f"- {name}: {value}" for name, value in machine.items()]
    for suite in dict.fromkeys(result.suite for result in results):
        lines += ["", f"## {suite}", "", *_section([r for r in results if r.suite == suite])]
    return "\n".join(lines) + "\n"


def _section(results: list[Result]) -> list[str]:
    keys = list(dict.fromkeys(key for result in results for key in result.case))
    quantities = list(dict.fromkeys((r.quantity, r.unit) for r in results))
    heads = [*keys, "variant", *(f"{name} ({unit})" if unit else name for name, unit in quantities)]
    rows: dict[tuple[Any, ...], dict[tuple[str, str], str]] = {}
    for result in results:
        row = (*(result.case.get(key, "") for key in keys), result.variant)
        rows.setdefault(row, {})[result.quantity, result.unit] = _cell(result)
    lines = [_line(heads), _line(["---"] * len(heads))]
    for row, cells in rows.items():
        lines.append(_line([*map(str, row), *(cells.get(quantity, "") for quantity in quantities)]))
    return lines


def _cell(result: Result) -> str:
    if result.low is None or result.high is None:
        return _number(result.median)
    return f"{_number(result.median)} [{_number(result.low)}, {_number(result.high)}]"


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 1000 else _whole(value)


def _whole(value: Any) -> str:
    return f"{value:.0f}" if isinstance(value, float) else str(value)


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
