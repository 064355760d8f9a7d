"""Writes journals as a logger does, record by record."""

import os
import time
from pathlib import Path

import numpy as np

from lerax_dist.journal import Event, Record, Row, encode


def opened(name: str = "r", **facts) -> Event:
    place = {"host": "h", "pid": 7, "launcher": "slurm", "process_count": 4, "device_count": 32}
    body = {"name": name, "run_id": "x", "incarnation": 1, **place, **facts}
    return Event(time.time(), "open", body)


def started(total: int) -> Event:
    body = {"iteration": 0, "total_timesteps": total, "total_iterations": 0}
    return Event(time.time(), "start", body)


def resumed(start_step: int) -> Event:
    return Event(time.time(), "resume", {"start_step": start_step})


def closed(state: str = "finished", failures: tuple[str, ...] = ()) -> Event:
    return Event(time.time(), "close", {"state": state, "failures": list(failures)})


def row(step: int, **metrics: float) -> Row:
    values = {name.replace("__", "/"): np.float64(value) for name, value in metrics.items()}
    return Row.of(time.time(), step, None, values)


def lines(records: list[Record], first: int = 0) -> bytes:
    return b"".join(encode(record, first + place) for place, record in enumerate(records))


def write(run_dir: Path, records: list[Record]) -> Path:
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / "journal.jsonl"
    path.write_bytes(lines(records))
    return path


def extend(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def age(run_dir: Path, seconds: float = 100.0) -> None:
    """Make a run look as if its writer had sent no heartbeat for a while."""
    for path in (run_dir / "journal.jsonl", run_dir / "run.json"):
        if path.exists():
            os.utime(path, (time.time() - seconds, time.time() - seconds))
