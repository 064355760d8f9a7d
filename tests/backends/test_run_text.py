from lerax_dist.backends._run_text import run_markdown, run_notes

FACTS = {
    "name": "r",
    "run_id": "abc",
    "incarnation": 2,
    "time": 1000.0,
    "launcher": "slurm",
    "slurm_job_id": "77",
    "process_count": 4,
    "hosts": ["n1", "n1", "n2", None],
    "platform": "gpu",
    "device_kind": "H100",
    "devices_per_process": [2, 2, 2, 1],
    "device_count": 7,
    "git": {"commit": "0123456789abcdef", "branch": "trunk", "dirty": True},
    "versions": {"python": "3.11.7", "jax": "0.10.2"},
    "command": "python train.py\n --name 'a|b'",
}


def test_the_facts_are_a_table_with_the_command_below():
    assert run_markdown(FACTS).splitlines() == [
        "|name|value|",
        "|-|-|",
        "|run|r|",
        "|id|abc, incarnation 2|",
        "|started|1970-01-01 00:16:40 UTC|",
        "|launcher|slurm, job 77|",
        "|processes|4|",
        "|hosts|n1 (2), n2|",
        "|devices|7 x H100 (1 to 2 a process)|",
        "|git|0123456789ab (trunk), with changes not committed|",
        "|versions|python 3.11.7, jax 0.10.2|",
        "",
        "    python train.py --name 'a|b'",
    ]


def test_a_line_tells_processes_and_devices():
    assert run_notes(FACTS) == (
        "slurm, job 77: 4 processes on n1 (2), n2; 7 x H100 (1 to 2 a process); "
        "0123456789ab (trunk), with changes not committed"
    )
    assert run_notes({"launcher": "pals", "pbs_job_id": "7.pbs"}) == "pals, job 7.pbs: 1 process"
    assert run_notes({}) == "solo: 1 process"


def test_a_count_that_is_not_known_is_not_made_up():
    facts = {"device_kind": "cpu", "devices_per_process": [2, None], "device_count": None}
    assert run_notes(facts) == "solo: 1 process; cpu (2 a process)"


def test_many_hosts_are_counted():
    hosts = [f"n{index}" for index in range(40)]
    assert "n0, n1, n2, n3, n4, n5, n6, n7 and 32 more" in run_notes({"hosts": hosts})
