"""Weights & Biases, online or offline, without a prompt."""

import io
import logging
import math
import os
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, final

import numpy as np

from lerax_dist._hparams import check_hparams
from lerax_dist._run_name import local_folder
from lerax_dist._secrets import hides_command, mask_command
from lerax_dist.backends._base import (
    AbstractLoggingBackend,
    SetupProblem,
    already_open,
    as_utf8,
    not_open,
    one_line,
    rename_reserved,
)
from lerax_dist.backends._run_text import run_notes
from lerax_dist.backends._video import check_mp4, encode_gif, encode_mp4

# Seconds to wait for W&B's server; W&B's 90 are long for a run that waits to start.
_INIT_TIMEOUT = 30.0
# Exit code of a process that SIGTERM ended; W&B takes a run for preempted if it is not 0.
_PREEMPTED = 143
_EXIT_CODES = {"finished": 0, "failed": 1, "interrupted": 1, "preempted": _PREEMPTED}
# Names of W&B's own in a row; a metric's value would be lost, or replace W&B's.
_RESERVED = ("global_step", "_step", "_timestamp", "_runtime", "_wandb")
# Bytes that a `RunState` has for the id of a run.
_MAX_ID = 64
# Words in the last part of a metric's name, by which its summary has its best value, too.
_MORE_IS_BETTER = {"return", "returns", "reward", "rewards", "accuracy", "acc", "score"}
_LESS_IS_BETTER = {"loss", "error", "perplexity"}

_log = logging.getLogger(__name__)


@final
class WandbBackend(AbstractLoggingBackend):
    """Logging backend that writes to Weights & Biases.

    `wandb.init` is called in `open` and `run.finish` in `close`. It never prompts. With
    `mode=None` a run is online if W&B finds an API key (`WANDB_API_KEY`, `.netrc`, settings) and
    offline otherwise; `WANDB_MODE` and `wandb offline` are respected. If the server does not answer
    within 30 seconds (`WANDB_INIT_TIMEOUT`), the run is offline, too. An offline run is kept in
    files, and a warning in the log has the command that uploads them.

    The x-axis is a separate metric, `global_step`: W&B's step would drop a step that is
    logged twice, e.g. after a resume. A metric that is itself called `global_step`, or like one of
    W&B's own (`_step`), is written as `metrics/global_step`. A run's summary has the last value of
    each metric, and of some the best beside it: the highest of returns, rewards, accuracies and
    scores, the lowest of losses and errors (`episode/return.max`, `train/loss.min`).

    The run ends at W&B with the state that it has here: finished, failed, or preempted (then W&B
    requeues a run of a sweep). Its notes name its processes, its devices and its commit.

    W&B's variables are honored where no argument says otherwise: `WANDB_NAME` (at W&B alone),
    `WANDB_RUN_GROUP`, `WANDB_TAGS`, `WANDB_NOTES`, `WANDB_RESUME` and those of a sweep, whose
    hyperparameters win. `WANDB_RUN_ID` becomes the id of a new run; one that is resumed keeps the
    id of its journal. A warning in the log names what cannot be honored.

    If the command line has secrets, or `LERAX_DIST_HIDE_COMMAND` is set, W&B collects no metadata
    of the program: they include the command line as it is.

    Example:
        ```python
        backend = WandbBackend("my-project", quiet=True, mode="offline")
        with Logger(backend, hparams={"learning_rate": 3e-4}, log_dir="logs") as logger:
            logger.log({"train": {"loss": 0.5}}, step=0)
        ```

    Args:
        project: W&B project name.
        config: hyperparameters passed to `wandb.init`, in any form that `hparams=` takes. Those of
            the run are added to them; where both have a value, the one in `config` is kept.
        quiet: suppress W&B's console output, for the whole process. Useful with `ConsoleBackend`.
        mode: `"online"`, `"offline"` or `"disabled"`; `None` for the rule above.
        entity: W&B user or team; the account's default if `None`.
        group: name shared by several runs.
        job_type: what the run does within its group, e.g. `"train"`.
        tags: labels of the run.
        notes: a text on the run; by default where it runs, on what devices, and from what commit.
        id: W&B's id of the run; one that exists is resumed. By default it is the id of the
            logger's run, so that a run that is resumed is one run at W&B, too.
        resume: W&B's `resume` for an id that exists online: `"allow"`, `"must"`, `"never"` or
            `"auto"`; `None` for `"allow"`. Offline runs with one id are merged by `wandb sync`.
        dir: folder for W&B's files; `WANDB_DIR` or the working directory if `None`.
        video_format: `"gif"`, or `"mp4"`, which needs PyAV (`pip install av`).

    Raises:
        ValueError: `mode` or `video_format` is not one of these, or mp4 needs a missing package.
    """

    replay_name = "wandb"
    _used_ids: ClassVar[set[str]] = set()

    def __init__(
        self,
        project: str | None = None,
        config: object = None,
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
            "config": nested(check_hparams(config)),
            "entity": entity,
            "group": group,
            "job_type": job_type,
            "notes": notes,
            "tags": list(tags) or None,
            "id": id,
            "dir": None if dir is None else str(local_folder(dir)),
        }
        self._resume = resume
        self._run_id: str | None = None
        self._incarnation = 1
        self._run: Any = None

    @classmethod
    def for_replay(cls, log_dir: Path | None, *, project: str | None) -> Self:
        if log_dir is not None:
            # W&B would use a temporary folder if it did not exist.
            log_dir.mkdir(parents=True, exist_ok=True)
        return cls(project, quiet=True, dir=log_dir)

    @classmethod
    def check_setup(cls, timeout: float) -> list[SetupProblem]:
        """Why runs could not be logged, or would be offline.

        Args:
            timeout: longest wait for W&B's server, which is contacted only with credentials.
        """
        try:
            import wandb

            settings = wandb.setup(wandb.Settings(silent=True)).settings
            mode, url, login = settings.mode, settings.base_url, has_credentials(settings)
        except Exception as error:
            what = f"process 0 cannot use W&B ({one_line(error)})"
            fix = "run `pip install wandb` there; without it `WandbBackend` is disabled in a run"
            return [SetupProblem("warning", what, fix)]
        if mode != "online":
            what = f"W&B is {mode} by its settings"
            fix = "unset WANDB_MODE or run `wandb online` to have runs on its server"
        elif not login:
            what = "W&B finds no API key, so its runs are offline"
            fix = (
                "set WANDB_API_KEY or run `wandb login` on process 0's host, or upload later with "
                "`wandb sync`"
            )
        elif reason := why_no_answer(url, timeout):
            what = f"W&B's server {url} does not answer process 0 ({reason}); runs are offline"
            fix = "allow connections to it, or set HTTPS_PROXY, or upload later with `wandb sync`"
        else:
            return []
        return [SetupProblem("warning", what, fix)]

    def new_run_id(self) -> str | None:
        """`WANDB_RUN_ID`, for the first run of this process that is new."""
        wanted = os.environ.get("WANDB_RUN_ID", "")
        # A second run with this id would be mixed into the first.
        good = wanted not in self._used_ids and len(wanted.encode()) <= _MAX_ID
        return wanted if good and self._init["id"] is None else None

    def on_identity(self, run_id: str, incarnation: int) -> None:
        """Make a resumed run one run at W&B, too, unless the user chose an id."""
        self._run_id, self._incarnation = run_id, incarnation
        self._used_ids.add(run_id)
        wanted = os.environ.get("WANDB_RUN_ID") or run_id
        if wanted != run_id and self._init["id"] is None:
            used = "W&B's sweep uses it all the same" if _is_sweep() else "it is not used"
            _log.warning(f"WANDB_RUN_ID is {wanted}, but this run has the id {run_id}: {used}")

    def open(self, name: str) -> None:
        if self._run is not None:
            raise already_open(self, name)
        # Inside: a process that does not write must not load wandb.
        import wandb

        quiet = {"silent": True, "console": "off"} if self._quiet else {}
        # Some lines are printed before a run has settings; only those of the process suppress them.
        settings = wandb.setup(wandb.Settings(**quiet)).settings
        mode, why, sync = self._mode or settings.mode, "", "wandb sync"
        run_id = self._init["id"] or self._run_id
        if mode == "online" and not has_credentials(settings):
            mode, why = "offline", "no API key was found"
        if mode == "online":
            try:
                self._run = self._start(wandb, name, mode, quiet, settings.resume, run_id)
            except (wandb.Error, OSError) as error:
                mode, why = "offline", f"W&B could not be reached ({one_line(error)})"
                if run_id is not None:
                    # W&B's process keeps the id of the run that did not start, and refuses it.
                    sync, run_id = f"wandb sync --id {run_id}", f"{run_id}-offline"
        if self._run is None:
            self._run = self._start(wandb, name, mode, quiet, None, run_id)
        self._known: set[str] = set()
        self._exit_code = 0
        self._run.define_metric("global_step")
        self._run.define_metric("*", step_metric="global_step")
        if why:
            folder = Path(self._run.dir).parent
            _log.warning("W&B run %s is offline: %s. Upload: %s %s", name, why, sync, folder)

    def on_run(self, facts: dict[str, Any]) -> None:
        """Write the facts of the run as its notes, unless it has some."""
        run = self._opened()
        # A run that is resumed may have notes that a person wrote on W&B's page.
        if not run.notes:
            run.notes = run_notes(facts)
        # In a replay a later incarnation follows the end of an earlier one.
        self._exit_code = 0

    def on_end(self, state: str) -> None:
        """End the run at W&B with the state that it has here."""
        self._exit_code = _EXIT_CODES.get(state, 1)

    def log_hparams(self, hparams: dict[str, Any]) -> None:
        # W&B updates the top level only: the rest of a dictionary in `config` would be lost.
        config = merged(nested(hparams), self._init["config"])
        shown = self._opened().config
        shown.update(config, allow_val_change=True)
        if _is_sweep():
            others = [name for name in config if shown.get(name) != config[name]]
            if others:
                _log.warning(f"W&B's sweep sets {', '.join(others)}, not the hyperparameters")

    def log_scalars(self, scalars: dict[str, np.ndarray], step: int) -> None:
        run = self._opened()
        for tag in scalars.keys() - self._known:
            self._known.add(tag)
            summary = summary_of(tag)
            # A name with an asterisk would be a pattern, and cannot be escaped.
            if summary and "*" not in tag:
                escaped = as_utf8(tag).replace(".", "\\.")
                run.define_metric(escaped, step_metric="global_step", summary=summary)
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
                "`WandbBackend` must be closed before W&B's exit handler ends W&B's service, and "
                "was closed after it. Close the logger before the program ends. If an exit handler "
                "closes it, register that handler after the logger has been constructed."
            ) from error

    def _opened(self) -> Any:
        if self._run is None:
            raise not_open(self)
        return self._run

    def _start(
        self,
        wandb: Any,
        name: str,
        mode: str,
        quiet: dict[str, Any],
        resume: str | None,
        run_id: str | None,
    ) -> Any:
        settings = dict(quiet)
        if hides_command() or mask_command(sys.orig_argv) != sys.orig_argv:
            settings["x_disable_meta"] = True
        if "WANDB_INIT_TIMEOUT" not in os.environ:
            settings["init_timeout"] = _INIT_TIMEOUT
        # Offline it is not known whether the run exists; `wandb sync` merges by id.
        resume = self._resume or resume or "allow"
        if resume == "never" and self._incarnation > 1:
            _log.warning('W&B\'s `resume` is "never", but this run is resumed: it is "allow"')
            resume = "allow"
        if _is_sweep():
            run_id = None  # W&B would not take it.
        # Never the module's current run: two runs in a process must not mix.
        return wandb.init(
            **{**self._init, "id": run_id},
            name=os.environ.get("WANDB_NAME") or as_utf8(name),
            mode=mode,
            resume=resume if run_id is not None and mode == "online" else None,
            reinit="create_new",
            settings=wandb.Settings(**settings),
        )


def _is_sweep() -> bool:
    return bool(os.environ.get("WANDB_SWEEP_ID"))


def nested(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names as nested dictionaries: `policy.width` becomes `{"policy": {"width": ...}}`.

    Where a name is a value and a prefix too (`policy` and `policy.width`), the longer one keeps
    its dots, so that both are kept.
    """
    tree: dict[str, Any] = {}
    hparams = rename_reserved(["_wandb"], {as_utf8(name): hparams[name] for name in hparams})
    # Shorter names first: whether `policy` is a value must be known before `policy.width` comes.
    for name in sorted(hparams, key=lambda name: name.count(".")):
        parts = name.split(".")
        *parents, leaf = parts if all(parts) else [name]
        level: Any = tree
        for parent in parents:
            level = level.setdefault(parent, {}) if isinstance(level, dict) else None
        if isinstance(level, dict):
            level[leaf] = _plain(hparams[name])
        else:
            tree[name] = _plain(hparams[name])
    return tree


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Both, level by level; where both have a value, that of `over`."""
    result = dict(under)
    for name, value in over.items():
        below = result.get(name)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            value = merged(below, value)
        result[name] = value
    return result


def with_step(metrics: Mapping[str, Any], step: int) -> dict[str, Any]:
    """A row with its global step; a metric with a name of W&B's own is renamed."""
    renamed = rename_reserved(_RESERVED, {as_utf8(name): metrics[name] for name in metrics})
    return {"global_step": step, **renamed}


def summary_of(tag: str) -> str | None:
    """W&B's names of what a run's summary keeps: last and best; None for the last value alone.

    The last part of a metric's name says whether more is better.
    """
    words = set(tag.rpartition("/")[2].lower().split("_"))
    # The best value over a run of e.g. the worst environment means little.
    if words & {"min", "max", "std"}:
        return None
    if words & _MORE_IS_BETTER:
        return "last,max"
    return "last,min" if words & _LESS_IS_BETTER else None


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, list):
        return [_plain(member) for member in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # W&B would write null.
    return as_utf8(value) if isinstance(value, str) else value


def why_no_answer(url: str, timeout: float) -> str:
    """Why a server does not answer within `timeout` seconds; empty if it does, with any answer."""
    reasons: list[str] = []

    def request() -> None:
        reason = ""
        try:
            urllib.request.urlopen(url, timeout=timeout).close()
        except urllib.error.HTTPError as answer:
            answer.close()
        except (OSError, ValueError) as error:
            inner = getattr(error, "reason", error)
            reason = one_line(inner if isinstance(inner, Exception) else error)
        reasons.append(reason)

    # In a thread, since resolving a name has no timeout.
    thread = threading.Thread(target=request, daemon=True)
    thread.start()
    thread.join(timeout)
    return reasons[0] if reasons else f"no answer in {timeout:g} s"


def has_credentials(settings: Any) -> bool:
    """Whether `wandb.init` can go online without a prompt, by W&B's settings."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    if settings.api_key:
        return True
    # W&B knows which of its hosts are equivalent. Its look-up is private (checked with wandb 0.31);
    # versions without it use that of requests.
    try:
        from wandb.sdk.lib.wbauth import read_netrc_auth
    except ImportError:
        from requests.utils import get_netrc_auth

        return get_netrc_auth(settings.base_url) is not None
    return read_netrc_auth(host=settings.base_url) is not None
