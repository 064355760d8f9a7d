"""Both loggers in runs of several real processes: misuse, failures, plain loops."""

import socket
from pathlib import Path

import pytest

from lerax_dist.cluster.liveness._heartbeat import choose_timing
from tests.multiprocess.launch import launch
from tests.readers import event_rows, journal_records, journal_rows

WORKER = Path(__file__).parent / "workers" / "loggers.py"


def start(scenario, tmp_path, devices=1, processes=2):
    results = launch(
        WORKER, scenario, str(tmp_path), processes=processes, devices=devices, timeout=120
    )
    return [result.report for result in results]


def test_a_process_that_has_not_joined_the_others_cannot_make_a_logger(tmp_path):
    for process, said in enumerate(start("unjoined", tmp_path)):
        for kind, text in (said["callback"], said["logger"]):
            assert kind == "RuntimeError"
            assert f"process {process} of 2 (openmpi: OMPI_COMM_WORLD_RANK={process}" in text
            assert "Call `lerax_dist.initialize()`" in text
        assert said["alone"] is None
    assert [path.name for path in tmp_path.iterdir()] == ["alone"]


@pytest.mark.parametrize("devices", [1, 2])
def test_a_plain_loop_writes_replicated_values_once_and_refuses_sharded_ones(tmp_path, devices):
    for said in start("plain_loop", tmp_path, devices):
        kind, text = said["refused"]
        assert kind == "ValueError"
        assert "'train/x' is sharded over processes: shape (8,)" in text
        assert "Reduce it in the compiled step" in text
    expected = [(step, {"sum": 28.0 + step, "mine": 0.0}) for step in range(5)]
    assert journal_rows(tmp_path / "r") == expected
    assert event_rows(tmp_path / "r") == expected
    opened = journal_records(tmp_path / "r")[0].body
    assert (opened["launcher"], opened["hosts"]) == ("openmpi", 2 * [socket.gethostname()])
    assert opened["devices_per_process"] == [devices, devices]


@pytest.mark.parametrize("devices", [1, 2])
def test_a_value_that_process_0_does_not_hold_is_refused_on_every_process(tmp_path, devices):
    said = [each["refused"] for each in start("elsewhere", tmp_path, devices, processes=3)]
    for refused in said:
        for name in ("later", "reduced"):
            kind, text = refused[name]
            assert kind == "ValueError"
            assert "'x' is addressable only on processes [1, 2], not on the process" in text
            assert "Replicate it on all processes first" in text
    # To process 1 it is a value of its own, as the others have theirs.
    assert [refused["one"] is None for refused in said] == [False, True, False]
    assert "only on processes [1]" in said[0]["one"][1] and said[0]["one"] == said[2]["one"]
    assert journal_rows(tmp_path / "r") == [(step, {"x": 0.0}) for step in range(4)]


def test_a_process_that_does_not_write_has_no_thread_but_that_which_gives_signs_of_life(tmp_path):
    writer, other = (said["threads"] for said in start("threads", tmp_path))
    life = ["lerax_dist-heartbeat", "lerax_dist-store"]
    assert writer == ["lerax_dist-Memory", "lerax_dist-callbacks", *life, "lerax_dist-writer"]
    # It looks once a second; the other one sends its heartbeats.
    assert other == life
    assert min(choose_timing(60.0, count).interval for count in range(2, 5000)) == 1.0
    assert [step for step, _ in journal_rows(tmp_path / "r")] == [0] * 10


def test_a_folder_that_process_0_cannot_write_is_an_error_on_every_process_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    for said in start("bad_folder", tmp_path):
        kind, text = said["error"]
        assert kind == "RuntimeError"
        assert "process 0 cannot open the run" in text
        assert said["seconds"] < 30


def test_a_bad_argument_on_process_0_alone_blocks_no_process(tmp_path):
    writer, other = start("bad_argument", tmp_path)
    assert writer["error"][0] == "ValueError"
    assert "`backend` must contain at least one" in writer["error"][1]
    assert other["error"][0] == "RuntimeError"
    assert "`backend` must contain at least one" in other["error"][1]
    assert other["seconds"] < 30


def test_names_that_differ_are_told(tmp_path):
    writer, other = start("other_name", tmp_path)
    assert (writer["name"], other["name"]) == ("mine-0", "mine-0")
    assert writer["failures"] == []
    assert "process 1 passed name 'mine-1' but process 0 passed 'mine-0'" in other["failures"][0]


def test_a_call_outside_of_jit_is_refused_on_every_process(tmp_path):
    for said in start("outside_jit", tmp_path):
        kind, text = said["error"]
        assert kind == "RuntimeError"
        assert "`on_iteration` was called outside of `jit` in a run of 2 processes" in text


def test_a_step_that_runs_as_a_program_of_each_process_is_told_so(tmp_path):
    writer, other = start("program_of_its_own", tmp_path)
    assert (writer["rows"], writer["warnings"]) == (1, [])
    assert other["rows"] == 0
    (text,) = other["warnings"]
    assert "process 1 received a row but only process 0 writes" in text
    assert "build it from `jax.devices()`" in text and 'scope="process"' in text


def test_a_mesh_that_starts_on_another_process_is_said_there_and_in_the_journal(tmp_path):
    writer, other = start("other_mesh", tmp_path)
    (there,) = other["failures"]
    assert "process 1 received a row but only process 0 writes" in there
    (here,) = writer["failures"]
    assert "nothing of it has reached process 0" in here
    assert "the mesh does not start with a device of process 0" in here
    assert "nothing of it has reached process 0" in (tmp_path / "r" / "journal.jsonl").read_text()


def test_backends_that_raise_or_hang_cost_the_training_nothing(tmp_path):
    writer, other = start("bad_backends", tmp_path, devices=2)
    assert writer["out"] == [10.0, 11.0]
    assert other["out"] == [14.0, 15.0]
    assert writer["rows"] == [3.5 + step for step in range(10)]
    assert writer["seconds"] < 30
    assert other["seconds"] < 5
    told = "\n".join(writer["failures"])
    assert "Broken: `log_scalars` raised ConnectionError('no network')" in told
    assert "Hangs: did not end in 14 s: `log_scalars` has been running" in told
    assert other["failures"] == []
    assert [row["train/x"] for _, row in journal_rows(tmp_path / "r")] == writer["rows"]


def test_a_backend_that_opens_slowly_blocks_no_process_and_loses_nothing(tmp_path):
    writer, other = start("slow_open", tmp_path)
    assert writer["rows"] == [3.5 + step for step in range(10)]
    assert writer["seconds"] < 30 and other["seconds"] < 30


def test_without_a_required_backend_the_run_starts_on_no_process(tmp_path):
    for said in start("required", tmp_path):
        kind, text = said["error"]
        assert kind == "RuntimeError"
        assert "Shut: PermissionError('no key')" in text and "drop `Required`" in text
        assert said["failures"] == []
    assert journal_records(tmp_path / "r")[-1].body["state"] == "failed"
    assert journal_rows(tmp_path / "good") == [(1, {"x": 1.0})]


def test_what_process_0_meets_while_it_opens_a_required_backend_blocks_no_process(tmp_path):
    writer, other = start("required_and_lost", tmp_path)
    assert writer["error"] == ["ConnectionError", "the service is gone"]
    assert other["error"][0] == "RuntimeError"
    assert "process 0 failed: ConnectionError('the service is gone')" in other["error"][1]
    assert (writer["name"], other["name"]) == ("r", "r")
