"""Runs compared, laid out and described, as TensorBoard itself reads them."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard import context
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import api_pb2 as _api_pb2
from tensorboard.plugins.hparams import backend_context, list_session_groups

from lerax_dist.backends import TensorBoardBackend

# Protobuf makes its classes while it is imported, where no type checker sees them.
api_pb2: Any = _api_pb2
FACTS = {"name": "r", "time": 1000.0, "launcher": "slurm", "process_count": 2}


def provider(folder: Path) -> Any:
    multiplexer = EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    return MultiplexerDataProvider(multiplexer, str(folder))


def sessions(folder: Path) -> dict[str, Any]:
    """What the HParams tab shows: name of a run to its group of one session."""
    own = backend_context.Context(base_plugin.TBContext(data_provider=provider(folder)))
    request_context = context.RequestContext()
    experiment = own.experiment_from_metadata(
        request_context, "", True, own.hparams_metadata(request_context, ""), []
    )
    request = api_pb2.ListSessionGroupsRequest(
        start_index=0,
        slice_size=10,
        allowed_statuses=api_pb2.Status.values(),
        aggregation_type=api_pb2.AGGREGATION_AVG,
        col_params=[api_pb2.ColParams(metric=info.name) for info in experiment.metric_infos],
    )
    handler = list_session_groups.Handler(request_context, own, "", request)
    groups = handler.run().session_groups
    return {group.sessions[0].name: group for group in groups}


def scalars(row: dict[str, float]) -> dict[str, Any]:
    return {tag: np.float64(value) for tag, value in row.items()}


def values(group: Any) -> dict[str, Any]:
    return {key: getattr(v, v.WhichOneof("kind")) for key, v in group.hparams.items()}


def write(folder: Path, name: str, state: str | None, *hparams: dict[str, Any], x: float = 1.0):
    backend = TensorBoardBackend(folder)
    backend.open(name)
    backend.on_run({**FACTS, "name": name})
    for each in hparams:
        backend.log_hparams(each)
        backend.log_scalars(scalars({"train/x": x}), 1)
    if state is not None:
        backend.on_end(state)
    backend.close()


def test_runs_are_compared_by_their_last_hyperparameters_metrics_and_state(tmp_path):
    last = {"lr": 0.2, "n": 3, "nan": float("nan")}
    write(tmp_path, "a", "finished", {"lr": 0.1, "old": 3}, last, x=4.0)
    write(tmp_path, "b", "failed", {"lr": 0.3, "big": True, "sizes": [64, 64]}, x=5.0)
    write(tmp_path, "c", "preempted", {"lr": 0.4})
    write(tmp_path, "d", None, {"lr": 0.5})
    shown = sessions(tmp_path)
    assert values(shown["a"]) == {"lr": 0.2, "n": 3.0, "nan": "nan"}
    assert values(shown["b"]) == {"lr": 0.3, "big": True, "sizes": "[64, 64]"}
    metrics = {name: group.metric_values for name, group in shown.items()}
    assert [(m.name.tag, m.value, m.training_step) for m in metrics["a"]] == [("train/x", 4.0, 1)]
    assert [m.value for m in metrics["b"]] == [5.0]
    states = {name: api_pb2.Status.Name(group.sessions[0].status) for name, group in shown.items()}
    assert states == {
        "a": "STATUS_SUCCESS",
        "b": "STATUS_FAILURE",
        "c": "STATUS_UNKNOWN",
        "d": "STATUS_UNKNOWN",
    }
    assert shown["a"].sessions[0].start_time_secs == 1000.0


def test_a_run_that_goes_on_shows_the_state_and_hyperparameters_of_its_last_job(tmp_path):
    write(tmp_path, "a", "preempted", {"lr": 0.1})
    write(tmp_path, "a", "finished", {"lr": 0.2})
    (shown,) = sessions(tmp_path).values()
    assert values(shown) == {"lr": 0.2}
    assert api_pb2.Status.Name(shown.sessions[0].status) == "STATUS_SUCCESS"


def test_a_run_without_hyperparameters_is_no_session(tmp_path):
    write(tmp_path, "a", "finished")
    assert [path.name for path in (tmp_path / "a").iterdir() if "hparams" in path.name] == []


def test_everything_of_a_run_lies_in_its_folder_and_hparams_before_the_rows(tmp_path):
    write(tmp_path, "a", "finished", {"lr": 0.1})
    first, second = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert first.endswith("hparams") and "tfevents" in second
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


# TensorBoard's own copy of a library says so when it is imported.
@pytest.mark.filterwarnings("ignore:html5lib's sanitizer")
def test_metrics_with_a_minimum_and_a_maximum_get_a_band_each_once_they_come(tmp_path):
    from tensorboard.plugins.custom_scalar.custom_scalars_plugin import CustomScalarsPlugin

    band = {"episode/return": 2.0, "episode/return_min": 1.0, "episode/return_max": 3.0}
    for name in ("a", "b"):
        backend = TensorBoardBackend(tmp_path)
        backend.open(name)
        for step, row in enumerate([{"x": 1.0}, band, {"x": 1.0}, band | {"x": 1.0}]):
            backend.log_scalars(scalars(row), step)
        backend.log_scalars(scalars(dict.fromkeys(("e", "e_min", "e_max"), 1.0)), 9)
        backend.close()
    plugin = CustomScalarsPlugin(base_plugin.TBContext(data_provider=provider(tmp_path)))
    layout = json.loads(str(plugin.layout_impl(context.RequestContext(), "")))
    charts = {c["title"]: chart for c in layout["category"] for chart in c["chart"]}
    assert [len(c["chart"]) for c in layout["category"]] == [1, 1]
    assert charts["episode"]["margin"]["series"] == [
        {"value": "episode/return", "lower": "episode/return_min", "upper": "episode/return_max"}
    ]


def test_hyperparameters_that_cannot_be_replaced_leave_nothing_that_tensorboard_reads(
    tmp_path, monkeypatch
):
    backend = TensorBoardBackend(tmp_path)
    backend.open("a")
    backend.log_hparams({"lr": 0.1})
    seen = []

    def dies(source, target):
        seen.extend(path.name for path in (tmp_path / "a").iterdir())
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "replace", dies)
    with pytest.raises(OSError, match="the disk is full"):
        backend.log_hparams({"lr": 0.2})
    monkeypatch.undo()
    # While it is written, too, half a file is not one that TensorBoard looks for.
    assert len(seen) == 3 and len([name for name in seen if "tfevents" in name]) == 2
    assert len(list((tmp_path / "a").iterdir())) == 2
    backend.close()
    assert values(sessions(tmp_path)["a"]) == {"lr": 0.1}


def test_what_is_known_of_the_run_is_a_text(tmp_path):
    write(tmp_path, "a", "finished", {"lr": 0.1})
    (text,) = provider(tmp_path).read_tensors(
        context.RequestContext(), experiment_id="", plugin_name="text", downsample=10,
        run_tag_filter=None,
    )["a"]["run/text_summary"]  # fmt: skip
    assert "|launcher|slurm|\n|processes|2|" in text.numpy.item().decode()
