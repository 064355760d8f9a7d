"""Whether W&B can be used in this process. Never prompts, as `wandb.init` would."""

import contextlib
import netrc
import os
import threading
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from lerax_dist.backends._base import SetupProblem, one_line


def find_problems(timeout: float) -> list[SetupProblem]:
    """Why runs could not be logged, or would be offline. Never raises.

    Args:
        timeout: longest wait for W&B's server in seconds; it is contacted only with credentials.
    """
    try:
        import wandb

        settings = wandb.setup(wandb.Settings(silent=True)).settings
        mode, url, login = settings.mode, settings.base_url, has_credentials(settings)
    except Exception as error:
        what = f"process 0 cannot use W&B ({one_line(error)})"
        fix = "pip install wandb there; without it `WandbBackend` is disabled in a run"
        return [SetupProblem("warning", what, fix)]
    if mode != "online":
        what = f"W&B is {mode} by its settings"
        fix = "unset WANDB_MODE or run `wandb online` to have runs on its server"
        return [SetupProblem("warning", what, fix)]
    if not login:
        what = "W&B finds no API key, so its runs are offline"
        fix = (
            "set WANDB_API_KEY or run `wandb login` on process 0's host, or upload later with "
            "`wandb sync`"
        )
        return [SetupProblem("warning", what, fix)]
    reason = why_no_answer(url, timeout)
    if reason:
        what = f"W&B's server {url} does not answer process 0 ({reason}), so its runs are offline"
        fix = "open the network or set HTTPS_PROXY, or upload later with `wandb sync`"
        return [SetupProblem("warning", what, fix)]
    return []


def why_no_answer(url: str, timeout: float) -> str:
    """Why a server does not answer; empty if it does, with any answer.

    Args:
        url: its address.
        timeout: longest wait in seconds.
    """
    reason = [f"no answer in {timeout:g} s"]

    def request() -> None:
        try:
            urllib.request.urlopen(url, timeout=timeout).close()
        except urllib.error.HTTPError as answer:
            answer.close()
        except (OSError, ValueError) as error:
            inner = getattr(error, "reason", error)
            reason[:] = [one_line(inner if isinstance(inner, Exception) else error)]
            return
        reason.clear()

    # In a thread, since resolving a name has no timeout.
    thread = threading.Thread(target=request, daemon=True)
    thread.start()
    thread.join(timeout)
    return "".join(reason)


def has_credentials(settings: Any) -> bool:
    """Whether `wandb.init` can go online without a prompt.

    Args:
        settings: W&B's settings for this process.
    """
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    return bool(settings.api_key) or _in_netrc(settings.base_url)


def _in_netrc(base_url: str) -> bool:
    # W&B knows which of its hosts are equivalent, so its own look-up comes first. It is private
    # (checked with wandb 0.31): without it, only the host itself counts.
    try:
        from wandb.sdk.lib.wbauth import read_netrc_auth
    except ImportError:
        return _in_plain_netrc(base_url)
    return read_netrc_auth(host=base_url) is not None


def _in_plain_netrc(base_url: str) -> bool:
    for path in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        if path and os.path.exists(os.path.expanduser(path)):
            with contextlib.suppress(netrc.NetrcParseError, OSError):
                found = netrc.netrc(os.path.expanduser(path))
                return found.authenticators(urlsplit(base_url).netloc) is not None
    return False
