"""`lerax-dist watch --plot` and `--export`: files made of journals."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from lerax_dist.cli._curves import choose, names_in, read_bands
from lerax_dist.cli._export import export, replaced, survey
from lerax_dist.cli._plot import draw_figure, save_figure
from lerax_dist.cli._reader import JOURNAL
from lerax_dist.cli._watch import journal_of, labels_of

_PICTURES = (".png", ".svg", ".pdf")
_TABLES = (".csv", ".parquet")


def write_files(run_dirs: Sequence[str], plot: Sequence[str], table: str | None) -> int:
    """Write what was asked for.

    Args:
        run_dirs: folders of the runs, or their journals.
        plot: picture to draw, then metrics; empty for no picture.
        table: file to export to; `None` for none.

    Returns:
        Exit status.
    """
    try:
        if plot:
            _check_suffix("--plot", plot[0], _PICTURES)
        if table is not None:
            _check_suffix("--export", table, _TABLES)
        runs = _journals(run_dirs)
        if plot:
            _plot(runs, Path(plot[0]), plot[1:])
        if table is not None:
            _export(runs, Path(table))
    except (OSError, ValueError, RuntimeError) as error:
        print(f"lerax-dist watch: {error}", file=sys.stderr)
        return 1
    return 0


def _journals(run_dirs: Sequence[str]) -> dict[str, Path]:
    for run_dir in run_dirs:
        if not journal_of(run_dir).is_file():
            raise ValueError(
                f"there is no {JOURNAL} in {run_dir}. Give the folder of a run; "
                "`lerax-dist ls` lists them."
            )
    return dict(zip(labels_of(run_dirs), map(journal_of, run_dirs), strict=True))


def _plot(runs: Mapping[str, Path], path: Path, patterns: Sequence[str]) -> None:
    names = list(dict.fromkeys(name for journal in runs.values() for name in names_in(journal)))
    metrics = choose(names, patterns)
    if not metrics:
        raise ValueError("there is nothing to draw: no run has a row yet.")
    curves = {label: read_bands(journal, metrics) for label, journal in runs.items()}
    figure = draw_figure(curves, metrics)
    with replaced(path) as fresh:
        save_figure(figure, fresh)
    _say(f"{', '.join(metrics)} of {_number(len(runs), 'run')} in {path}")


def _export(runs: Mapping[str, Path], path: Path) -> None:
    sources, names = survey(runs)
    with replaced(path) as fresh:
        rows = export(sources, names, fresh)
    _say(f"{rows:,} rows with {len(names):,} metrics of {_number(len(runs), 'run')} in {path}")


def _check_suffix(option: str, path: str, known: Sequence[str]) -> None:
    if Path(path).suffix not in known:
        raise ValueError(
            f"`{option}` {path!r} must end in {', '.join(known)}, which says the format. "
            f"Use e.g. {Path(path).stem + known[0]}."
        )


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _say(line: str) -> None:
    print(line, file=sys.stderr)
