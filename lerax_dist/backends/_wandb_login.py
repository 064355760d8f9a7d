"""Whether W&B would find credentials: asked here first, as `wandb.init` would prompt for them."""

import contextlib
import netrc
import os
from typing import Any
from urllib.parse import urlsplit


def has_credentials(settings: Any) -> bool:
    """Whether `wandb.init` can go online without a prompt.

    Args:
        settings: W&B's settings for this process.
    """
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    return bool(settings.api_key) or _in_netrc(settings.base_url)


def _in_netrc(base_url: str) -> bool:
    # W&B knows which of its hosts stand for one another, so its own look-up comes first. It is
    # private (checked with wandb 0.31): without it, only the host itself counts.
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
