"""The checks of `lerax-dist doctor`. A new one is a file and a line here."""

from typing import Any

from lerax_dist.cli.doctor._backends import BackendsCheck
from lerax_dist.cli.doctor._check import AbstractCheck
from lerax_dist.cli.doctor._clocks import ClocksCheck
from lerax_dist.cli.doctor._collective import CollectiveCheck
from lerax_dist.cli.doctor._devices import DevicesCheck
from lerax_dist.cli.doctor._launch import LaunchCheck
from lerax_dist.cli.doctor._log_folder import LogFolderCheck
from lerax_dist.cli.doctor._versions import VersionsCheck

# In the order in which facts are collected and shown. What may hang is near the end.
CHECKS: tuple[AbstractCheck[Any], ...] = (
    LaunchCheck(),
    VersionsCheck(),
    ClocksCheck(),
    LogFolderCheck(),
    DevicesCheck(),
    CollectiveCheck(),
    BackendsCheck(),
)
