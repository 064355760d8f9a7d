"""Whether TensorBoard and W&B can be used here. Never prompts."""

import importlib.metadata
import threading
import urllib.error
import urllib.request
from typing import Any

from lerax_dist.backends._wandb_setup import has_credentials
from lerax_dist.cli._facts import Trackers


def try_trackers(limit: float) -> Trackers:
    """Import what TensorBoard and W&B need, and ask W&B's server for a sign of life.

    Args:
        limit: longest wait for the server in seconds; it is asked only with credentials.
    """
    known: dict[str, Any] = {}
    try:
        import tensorboardX.event_file_writer

        known["tensorboardx"] = tensorboardX.__version__
    except Exception as error:  # an import can fail in any way, e.g. by protobuf's version check
        known["tensorboardx_error"] = _line(error)
    try:
        import crc32c  # noqa: F401 (whether it can be imported is the question)

        known["crc32c"] = importlib.metadata.version("crc32c")
    except Exception:
        known["crc32c"] = None
    return Trackers(**known, **_try_wandb(limit))


def _try_wandb(limit: float) -> dict[str, Any]:
    try:
        import wandb

        settings = wandb.setup(wandb.Settings(silent=True)).settings
        known: dict[str, Any] = {
            "wandb": wandb.__version__,
            "wandb_mode": settings.mode,
            "wandb_url": settings.base_url,
            "wandb_credentials": has_credentials(settings),
        }
    except Exception as error:
        return {"wandb_error": _line(error)}
    if known["wandb_mode"] == "online" and known["wandb_credentials"]:
        trouble = why_no_answer(known["wandb_url"], limit)
        known |= {"wandb_reachable": not trouble, "wandb_trouble": trouble}
    return known


def why_no_answer(url: str, limit: float) -> str:
    """Why a server does not answer; empty if it does, whatever it answers.

    Args:
        url: its address.
        limit: longest wait in seconds.
    """
    trouble = [f"no answer in {limit:g} s"]

    def ask() -> None:
        try:
            urllib.request.urlopen(url, timeout=limit).close()
        except urllib.error.HTTPError as answer:
            answer.close()
        except (OSError, ValueError) as error:
            trouble[:] = [_line(getattr(error, "reason", error))]
            return
        trouble.clear()

    # In a thread, since looking up a name has no time limit.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(limit)
    return "".join(trouble)


def _line(error: Any) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
