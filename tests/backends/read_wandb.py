"""Reads the file that W&B keeps a run in: records of protobuf in blocks, as LevelDB's log has."""

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

_BLOCK = 32768
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


@dataclass
class WandbRun:
    """What a run's file says.

    Attributes:
        id: W&B's id of it.
        name: display name.
        project: name of its project.
        config: hyperparameters, after all updates.
        rows: history, without W&B's own entries.
        axes: name or glob of metrics to the metric on their x-axis.
        exit_code: `None` if the run did not end.
        notes: the text on it.
        group: name that it shares with others.
        job_type: what it does within its group.
        tags: its labels.
        summary: dotted names to values, after all updates.
        aggregates: name of a metric to what its summary shall hold.
        preempting: whether it said that it is preempted.
    """

    id: str = ""
    name: str = ""
    project: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    axes: dict[str, str] = field(default_factory=dict)
    exit_code: int | None = None
    notes: str = ""
    group: str = ""
    job_type: str = ""
    tags: list[str] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    aggregates: dict[str, list[str]] = field(default_factory=dict)
    preempting: bool = False


def read_wandb(path: Path) -> WandbRun:
    """Read a `.wandb` file to its end.

    Raises:
        ValueError: the file is not one, or is damaged.
    """
    run = WandbRun()
    for data in _records(path.read_bytes()):
        # Protobuf makes its classes while it is imported, where no type checker sees them.
        record = getattr(wandb_internal_pb2, "Record")()  # noqa: B009 (a type checker sees none)
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run.id = record.run.run_id
            run.name, run.project = record.run.display_name, record.run.project
            run.notes, run.tags = record.run.notes, list(record.run.tags)
            run.group, run.job_type = record.run.run_group, record.run.job_type
            _update(run.config, record.run.config)
        elif kind == "config":
            _update(run.config, record.config)
        elif kind == "history":
            items = {_key(item): json.loads(item.value_json) for item in record.history.item}
            run.rows.append({key: value for key, value in items.items() if key[0] != "_"})
        elif kind == "metric":
            metric = record.metric
            if metric.step_metric:
                run.axes[metric.name or metric.glob_name] = metric.step_metric
            chosen = [f.name for f, value in metric.summary.ListFields() if value]
            if chosen:
                run.aggregates[metric.name] = chosen
        elif kind == "summary":
            _update(run.summary, record.summary)
        elif kind == "preempting":
            run.preempting = True
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    return run


def _records(data: bytes) -> Iterator[bytes]:
    if data[:7] != b":W&B" + struct.pack("<HB", 0xBEE1, 0):
        raise ValueError(f"not a W&B file, it begins with {data[:7]!r}")
    offset, parts = 7, b""
    while offset < len(data):
        room = _BLOCK - offset % _BLOCK
        if room < 7:
            offset += room
            continue
        checksum, length, kind = struct.unpack_from("<IHB", data, offset)
        part = data[offset + 7 : offset + 7 + length]
        offset += 7 + length
        if zlib.crc32(bytes([kind]) + part) != checksum:
            raise ValueError(f"checksum of the record that ends at {offset} is wrong")
        parts = part if kind in (_FULL, _FIRST) else parts + part
        if kind in (_FULL, _LAST):
            yield parts


def _key(item: Any) -> str:
    return item.key or ".".join(item.nested_key)


def _update(config: dict[str, Any], record: Any) -> None:
    for item in record.update:
        if item.key != "_wandb" and "_wandb" not in item.nested_key:
            config[_key(item)] = json.loads(item.value_json)
    for item in record.remove:
        config.pop(_key(item), None)
