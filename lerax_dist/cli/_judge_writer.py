"""What is wrong on process 0, which writes: its disk, TensorBoard, W&B. Pure."""

from collections.abc import Iterator

from lerax_dist.cli._facts import Disk, Trackers
from lerax_dist.cli._finding import Finding

_LEAST_FREE = 100 << 20
_LITTLE_FREE = 2 << 30


def judge_disk(disk: Disk) -> Iterator[Finding]:
    """What there is to say about the log folder."""
    if not disk.writable:
        yield Finding(
            "problem",
            f"process 0 cannot write to the log folder {disk.path} ({disk.error})",
            "give a --log-dir that it can write, or make this one writable",
        )
        return
    if disk.free is not None and disk.free < _LITTLE_FREE:
        yield Finding(
            "problem" if disk.free < _LEAST_FREE else "warning",
            f"{disk.free / 2**20:.0f} MiB are free in the log folder {disk.path}",
            "make room there, or give another --log-dir",
        )
    if not disk.locks:
        yield Finding(
            "warning",
            f"the file system of the log folder {disk.path} knows no locks",
            "two loggers that write one run at the same time will not be noticed; give each run "
            "its own name",
        )


def judge_trackers(trackers: Trackers) -> Iterator[Finding]:
    """What there is to say about TensorBoard and W&B."""
    if trackers.tensorboardx is None:
        yield Finding(
            "problem",
            f"process 0 cannot use TensorBoard ({trackers.tensorboardx_error})",
            "pip install tensorboardX there; without it `TensorBoardBackend` is left out of a run",
        )
    elif trackers.crc32c is None:
        yield Finding(
            "hint",
            "crc32c is missing, so each row for TensorBoard takes some 15 times longer",
            "pip install crc32c",
        )
    if trackers.wandb is None:
        yield Finding(
            "warning",
            f"process 0 cannot use W&B ({trackers.wandb_error})",
            "pip install wandb there; without it `WandbBackend` is left out of a run",
        )
    elif trackers.wandb_mode != "online":
        yield Finding(
            "warning",
            f"W&B is {trackers.wandb_mode} by its settings",
            "unset WANDB_MODE or run `wandb online` to have runs on its server",
        )
    elif not trackers.wandb_credentials:
        yield Finding(
            "warning",
            "W&B finds no API key, so its runs are offline",
            "set WANDB_API_KEY or run `wandb login` on process 0's host, or upload later with "
            "`wandb sync`",
        )
    elif trackers.wandb_reachable is False:
        yield Finding(
            "warning",
            f"W&B's server {trackers.wandb_url} does not answer process 0 "
            f"({trackers.wandb_trouble}), so its runs are offline",
            "open the network or set HTTPS_PROXY, or upload later with `wandb sync`",
        )
