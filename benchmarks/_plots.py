"""The plots: what logging adds to a step, and what a call takes on the training thread."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks._result import Result


def plot(results: Sequence[Result], folder: Path) -> list[Path]:
    """Draw what there is to draw.

    Returns:
        The files.
    """
    import matplotlib

    matplotlib.use("Agg")
    made = []
    shares = [r for r in results if r.suite == "loops" and r.quantity == "share of step"]
    if shares:
        made.append(_shares(shares, folder / "share_of_step.png"))
    calls = [r for r in results if r.suite == "rivals" and r.unit == "us a call"]
    if calls:
        made.append(_calls(calls, folder / "training_thread.png"))
    return made


def _shares(results: list[Result], path: Path) -> Path:
    from matplotlib import pyplot

    counts = {result.case["metrics"] for result in results}
    results = [r for r in results if r.case["metrics"] == (64 if 64 in counts else min(counts))]
    kinds = list(dict.fromkeys(_kind(result) for result in results))
    names = list(dict.fromkeys(result.variant for result in results))
    figure, grid = pyplot.subplots(
        1, len(kinds), figsize=(3.2 * len(kinds), 4), sharey=True, squeeze=False
    )
    for axes, kind in zip(grid[0], kinds, strict=True):
        mine = [result for result in results if _kind(result) == kind]
        for variant in dict.fromkeys(result.variant for result in mine):
            points = sorted((r.case["step_ms"], r) for r in mine if r.variant == variant)
            steps = [step for step, _ in points]
            middle = [result.median for _, result in points]
            below = [max(r.median - (r.low or 0), 0) for _, r in points]
            above = [max((r.high or 0) - r.median, 0) for _, r in points]
            color = f"C{names.index(variant)}"
            axes.errorbar(
                steps, middle, [below, above], marker="o", capsize=3, label=variant, color=color
            )
        axes.axhline(0, color="grey", linewidth=0.5)
        axes.set(title=kind, xlim=(0.7, 140), xscale="log", yscale="symlog", xlabel="step (ms)")
    grid[0][0].set_ylabel("added to the step (%)")
    handles = {
        label: handle
        for axes in grid[0]
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="lower center", ncols=4, frameon=False)
    figure.subplots_adjust(bottom=0.22)
    figure.savefig(path, bbox_inches="tight", dpi=120)
    pyplot.close(figure)
    return path


def _calls(results: list[Result], path: Path) -> Path:
    from matplotlib import pyplot

    results = sorted(results, key=lambda result: result.median)
    figure, axes = pyplot.subplots(figsize=(7, 3))
    axes.barh([result.variant for result in results], [result.median for result in results])
    axes.set(xscale="log", xlabel="time on the training thread (us a call, 64 metrics)")
    figure.savefig(path, bbox_inches="tight", dpi=120)
    pyplot.close(figure)
    return path


def _kind(result: Result) -> str:
    case = result.case
    return f"{case['loop']}, {case['processes']} x {case['devices'] // case['processes']} devices"
