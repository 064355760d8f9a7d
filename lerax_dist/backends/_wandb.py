"""Weights & Biases, online or offline, without ever asking anything."""

import io
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, final

import numpy as np

from lerax_dist.backends._base import AbstractLoggingBackend, already_open, not_open
from lerax_dist.backends._gif import encode_gif
from lerax_dist.backends._mp4 import check_mp4, encode_mp4
from lerax_dist.backends._run_text import run_notes
from lerax_dist.backends._wandb_config import merged, nested, summary_of, with_step
from lerax_dist.backends._wandb_login import has_credentials

_INIT_TIMEOUT = 30.0
"""Seconds to wait for W&B's server; W&B's own 90 are long for a run that waits to start."""

_PREEMPTED = 143
"""Exit code of a process that SIGTERM ended; W&B takes a run for preempted if it is not 0."""
_EXIT_CODES = {"finished": 0, "failed": 1, "interrupted": 1, "preempted": _PREEMPTED}

_log = logging.getLogger(__name__)


@final
class WandbBackend(AbstractLoggingBackend):
    """Logging backend that writes to Weights & Biases.

    `wandb.init` is called in `open` and `run.finish` in `close`. It never prompts. With neither
    account nor network the run is kept in files, and one line says how to upload them: with
    `mode=None` a run is online if W&B finds an API key (`WANDB_API_KEY`, `.netrc`, settings) and
    offline otherwise; `WANDB_MODE` and `wandb offline` are respected; a server that does not
    answer within 30 seconds (`WANDB_INIT_TIMEOUT`) makes it offline too.

    The x-axis is a metric of its own, `global_step`, so that a step that comes twice (after a
    resume) is kept, which W&B's own step would drop. A metric that is itself called `global_step`
    goes by `metrics/global_step`. A run's summary holds the last value of each metric, and of some
    the best beside it: the highest of returns, rewards, accuracies and scores, the lowest of losses
    and errors (`episode/return.max`, `train/loss.min`).

    The run ends at W&B as it did here: finished, failed, or preempted (W&B requeues a sweep's run).
    What is known of its processes, devices and code stands in its notes.

    Example:
        ```python
        backend = WandbBackend("my-project", quiet=True, mode="offline")
        with Logger(backend, hparams={"learning_rate": 3e-4}, log_dir="logs") as logger:
            logger.log({"train": {"loss": 0.5}}, step=0)
        ```

    Args:
        project: W&B project name.
        config: hyperparameters passed to `wandb.init`. Those of the run are added to them, and
            where both have a value this one stays.
        quiet: suppress W&B's console output, for the whole process. Useful with `ConsoleBackend`.
        mode: `"online"`, `"offline"` or `"disabled"`; `None` decides as told above.
        entity: W&B user or team; the account's default if `None`.
        group: name that several runs share.
        job_type: what the run does within its group, e.g. `"train"`.
        tags: labels of the run.
        notes: a text on the run; by default where it runs, on what devices, and from what commit.
        id: W&B's id of the run; one that exists is continued. By default a logger gives the id of
            its own run, so that a run that is resumed stays one run.
        resume: `"allow"`, `"must"`, `"never"` or `"auto"`, as W&B has it, for an id that exists
            online; `None` for `"allow"`. Offline there is nobody to ask: syncing merges by id.
        dir: folder for W&B's files; `WANDB_DIR` or the working directory if `None`.
        video_format: `"gif"`, or `"mp4"`, which needs `pip install "lerax-dist[mp4]"`.

    Raises:
        ValueError: `mode` or `video_format` is something else, or mp4s cannot be made here.
    """

    def __init__(
        self,
        project: str | None = None,
        config: dict[str, Any] | None = None,
        quiet: bool = False,
        *,
        mode: str | None = None,
        entity: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        tags: Sequence[str] = (),
        notes: str | None = None,
        id: str | None = None,
        resume: str | None = None,
        dir: str | Path | None = None,
        video_format: Literal["gif", "mp4"] = "gif",
    ) -> None:
        if video_format not in ("gif", "mp4"):
            raise ValueError(f'`video_format` must be "gif" or "mp4", got {video_format!r}.')
        if video_format == "mp4":
            check_mp4()
        self._video_format: Literal["gif", "mp4"] = video_format
        if mode not in (None, "online", "offline", "disabled"):
            raise ValueError(
                f'`mode` must be "online", "offline", "disabled" or None, got {mode!r}. '
                "None is online if there is an API key, and offline otherwise."
            )
        self._quiet = quiet
        self._mode = mode
        self._init: dict[str, Any] = {
            "project": project,
            "config": dict(config or {}),
            "entity": entity,
            "group": group,
            "job_type": job_type,
            "notes": notes,
            "tags": list(tags) or None,
            "id": id,
            "dir": None if dir is None else str(dir),
        }
        self._resume = resume
        self._run_id: str | None = None
        self._run: Any = None
        self._known: set[str] = set()
        self._exit_code = 0

    def on_identity(self, run_id: str, incarnation: int) -> None:
        """Make a run that is continued one run at W&B, too, unless the user chose an id.

        Args:
            run_id: id of the run.
            incarnation: not needed: W&B knows whether it has seen the id.
        """
        self._run_id = run_id

    def open(self, name: str) -> None:
        if self._run is not None:
            raise already_open(self, name)
        # Inside: a process that does not write must not load wandb.
        import wandb

        quiet = {"silent": True, "console": "off"} if self._quiet else {}
        # Some lines are printed before a run has settings; only the process's own silence those.
        settings = wandb.setup(wandb.Settings(**quiet)).settings
        mode = self._mode or settings.mode
        if mode == "online" and not has_credentials(settings):
            mode, why = "offline", "no API key was found"
        else:
            why = ""
        if mode == "online":
            try:
                self._run = self._start(wandb, name, mode, quiet)
            except (wandb.Error, OSError) as error:
                mode, why = "offline", f"W&B could not be reached ({_first_line(error)})"
        if self._run is None:
            self._run = self._start(wandb, name, mode, quiet)
        self._known, self._exit_code = set(), 0
        self._run.define_metric("global_step")
        self._run.define_metric("*", step_metric="global_step")
        if why:
            folder = Path(self._run.dir).parent
            _log.warning("W&B run %s is offline: %s. Upload: wandb sync %s", name, why, folder)

    def on_run(self, facts: dict[str, Any]) -> None:
        """Make what is known of the run its notes, unless it has some.

        Args:
            facts: see `SupportsRunFacts`.
        """
        run = self._opened()
        # A run that is continued may have notes that somebody wrote on W&B's page.
        if not run.notes:
            run.notes = run_notes(facts)
        # In a replay a later incarnation goes on where an earlier one ended.
        self._exit_code = 0

    def on_end(self, state: str) -> None:
        """Have the run end at W&B as it did here, see `SupportsRunEnd`."""
        self._exit_code = _EXIT_CODES.get(state, 1)

    def log_hparams(self, hparams: dict[str, Any]) -> None:
        # W&B updates the top level only, which would drop the rest of a dictionary in `config`.
        config = merged(nested(hparams), self._init["config"])
        self._opened().config.update(config, allow_val_change=True)

    def log_scalars(self, scalars: dict[str, np.ndarray], step: int) -> None:
        run = self._opened()
        for tag in scalars.keys() - self._known:
            self._known.add(tag)
            summary = summary_of(tag)
            if summary is not None:
                run.define_metric(tag, step_metric="global_step", summary=summary)
        run.log(with_step({tag: float(x) for tag, x in scalars.items()}, step))

    def log_video(self, tag: str, frames: np.ndarray, step: int, fps: float) -> None:
        run = self._opened()
        import wandb

        # Encoded here: given frames, wandb needs moviepy.
        encode = encode_mp4 if self._video_format == "mp4" else encode_gif
        video = wandb.Video(io.BytesIO(encode(frames, fps)), format=self._video_format)
        run.log(with_step({tag: video}, step))

    def close(self) -> None:
        run, self._run = self._run, None
        if run is None:
            return
        try:
            if self._exit_code == _PREEMPTED:
                run.mark_preempting()
            run.finish(exit_code=self._exit_code)
        except ConnectionError as error:
            raise RuntimeError(
                "`WandbBackend` must be closed before W&B's own exit handler ends its service, and "
                "was closed after it. Close the logger before the program ends, or register what "
                "closes it at exit once the run is open."
            ) from error

    def _opened(self) -> Any:
        if self._run is None:
            raise not_open(self)
        return self._run

    def _start(self, wandb: Any, name: str, mode: str, quiet: dict[str, Any]) -> Any:
        settings = dict(quiet)
        if "WANDB_INIT_TIMEOUT" not in os.environ:
            settings["init_timeout"] = _INIT_TIMEOUT
        # Offline there is nothing to ask whether the run exists; syncing merges by id.
        run_id = self._init["id"] or self._run_id
        resume = (self._resume or "allow") if run_id is not None and mode == "online" else None
        # A run of its own, never the module's current one: two runs in a process must not mix.
        return wandb.init(
            **{**self._init, "id": run_id},
            name=name,
            mode=mode,
            resume=resume,
            reinit="create_new",
            settings=wandb.Settings(**settings),
        )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
