"""Several hosts with names and addresses of their own, in network namespaces of this machine."""

import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import final

_SCRIPT = Path(__file__).parent / "netns-hosts.sh"
_NETWORK = "10.231.77"
_PROGRAMS = ("ip", "nsenter", "unshare")


@final
@dataclass(frozen=True)
class Hosts:
    """Hosts that reach each other and nothing else.

    Attributes:
        prefix: what their names begin with; a number follows, from 1.
        folder: where their list is kept.
    """

    prefix: str
    folder: Path

    @property
    def variables(self) -> dict[str, str]:
        """Settings of the script."""
        return {
            "NETNS_PREFIX": self.prefix,
            "NETNS_NET": _NETWORK,
            "NETNS_DIR": str(self.folder),
        }

    def name(self, host: int) -> str:
        """Name of a host."""
        return f"{self.prefix}{host}"

    def address(self, host: int) -> str:
        """Address of a host."""
        return f"{_NETWORK}.{host}"

    def on(self, host: int, *command: str) -> list[str]:
        """A command that runs another one on a host; `variables` must be set for it."""
        return [str(_SCRIPT), "exec", str(host), *command]

    def cut(self, host: int) -> None:
        """Take the link of a host down."""
        _call(self, "cut", str(host), "link")


def obstacle() -> str:
    """Why there can be no such hosts here; empty if there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return (
            "hosts in network namespaces are made by root on Linux, "
            f"this is user {os.geteuid()} on {sys.platform}"
        )
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} missing (packages iproute2, util-linux)"
    probe = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True, timeout=30)
    return probe.stderr.strip()


@contextmanager
def made_hosts(count: int) -> Iterator[Hosts]:
    """Hosts while the block runs; what still runs on them at its end is killed."""
    with tempfile.TemporaryDirectory() as folder:
        # Names are seen by the whole machine, so another test run needs others.
        hosts = Hosts(f"h{uuid.uuid4().hex[:6]}n", Path(folder) / "hosts")
        try:
            _call(hosts, "up", str(count))
            yield hosts
        finally:
            _call(hosts, "down")


def _call(hosts: Hosts, *arguments: str) -> None:
    done = subprocess.run(
        [str(_SCRIPT), *arguments],
        env=os.environ | hosts.variables,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, f"{arguments}: {done.stderr}"
