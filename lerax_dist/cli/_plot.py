"""Curves of several runs in a picture."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lerax_dist.cli._curves import Band

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 3
_WIDTH, _HEIGHT = 5.6, 3.6
# Told apart by people who see colours differently, too (Okabe and Ito).
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444")


def draw_figure(curves: Mapping[str, Mapping[str, Band]], metrics: Sequence[str]) -> "Figure":
    """A picture with a chart for each metric, and in it a curve for each run.

    Args:
        curves: name of a run to its metrics.
        metrics: what to draw, in order.

    Raises:
        RuntimeError: matplotlib is not installed.
    """
    try:
        # Not pyplot: it would look for a display, and keep what it has drawn.
        from matplotlib.figure import Figure
    except ImportError as error:
        raise RuntimeError(
            "`--plot` needs matplotlib, which is not installed. Install it by "
            "`pip install 'lerax-dist[plot]'`, or use `--export` and draw elsewhere."
        ) from error
    wide = min(len(metrics), _COLUMNS)
    high = -(-len(metrics) // wide)
    figure = Figure(figsize=(max(7.0, _WIDTH * wide), _HEIGHT * high), layout="constrained")
    axes = figure.subplots(high, wide, squeeze=False).flat
    for chart, metric in zip(axes, metrics, strict=False):
        _draw(chart, metric, curves)
    for chart in list(axes)[len(metrics) :]:
        chart.set_axis_off()
    handles, labels = _legend(figure.axes)
    if len(curves) > 1:
        figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
    elif curves:
        figure.suptitle(next(iter(curves)), fontsize="medium")
    return figure


def curves_of(figure: "Figure") -> dict[str, dict[str, np.ndarray]]:
    """What a picture shows: metric to run to its points, of shape `(points, 2)`."""
    return {
        chart.get_title(loc="left"): {
            str(line.get_label()): np.asarray(line.get_xydata()) for line in chart.get_lines()
        }
        for chart in figure.axes
        if chart.get_lines()
    }


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a picture, in the format that the end of the name says.

    Raises:
        OSError: it cannot be written.
    """
    figure.savefig(path, dpi=150, format=path.suffix.removeprefix("."))


def _draw(chart: "Axes", metric: str, curves: Mapping[str, Mapping[str, Band]]) -> None:
    for (run, bands), colour in zip(curves.items(), itertools.cycle(_COLOURS), strict=False):
        if metric not in bands:
            continue
        band = bands[metric]
        marker = "o" if len(band.steps) == 1 else ""
        chart.plot(band.steps, band.values, color=colour, lw=1.6, marker=marker, label=run)
        if np.isfinite(band.low).any():
            chart.fill_between(band.steps, band.low, band.high, color=colour, alpha=0.18, lw=0)
    chart.set_title(metric, loc="left", fontsize="medium", fontweight="bold")
    chart.set_xlabel("step")
    chart.xaxis.set_major_formatter(_short)
    chart.grid(alpha=0.25)
    chart.spines[["top", "right"]].set_visible(False)
    chart.margins(x=0.01)


def _legend(charts: Sequence["Axes"]) -> tuple[list[Any], list[str]]:
    """One entry a run, wherever it is drawn first."""
    found: dict[str, Any] = {}
    for chart in charts:
        for handle, label in zip(*chart.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)


def _short(step: float, position: float = 0.0) -> str:
    """`2.5M` for 2,500,000."""
    for letter, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(step) >= size:
            return f"{step / size:g}{letter}"
    return f"{step:g}"
