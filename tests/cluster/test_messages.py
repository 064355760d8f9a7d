"""Messages and bytes of each process through JAX's service, exact: those of process 0 grow with
the number of processes, and not with its square; those of another do not grow."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from jaxlib import _jax  # pyright: ignore[reportAttributeAccessIssue]

from benchmarks import processes
from lerax_dist.cluster import JaxGroup, _jax_group
from tests.multiprocess.launch import free_port

COUNTS = (3, 6, 9)  # an index has one digit
LIMIT = 60.0
# What a process sends: its calls by name, and its bytes.
Sent = tuple[dict[str, int], int]


class Job:
    """Processes that have joined a service, in one process, and what each has sent by now."""

    def __init__(self, clients: Sequence[Any]) -> None:
        self.count = len(clients)
        self._seen = [Counter[str]() for _ in clients]
        self.groups, self.monitors = [], []
        for index, client in enumerate(clients):
            counted = processes.Counted(client, self._seen[index])
            processes.act_as(counted, index, self.count)
            self.groups.append(JaxGroup("simulated"))
            self.monitors.append(processes.monitor_of(index, self.count))

    def one_by_one(self, part: Callable[[int], Any], order: Sequence[int] = ()) -> list[Sent]:
        """What each process sends while all do their part, in an order."""
        return self._sent(lambda: [part(index) for index in order or range(self.count)])

    def at_once(self, part: Callable[[int], Any]) -> list[Sent]:
        """The same, in a thread each."""
        with ThreadPoolExecutor(self.count) as pool:
            return self._sent(lambda: list(pool.map(part, range(self.count), timeout=LIMIT)))

    def calls(self, index: int, name: str) -> int:
        return self._seen[index][name]

    def _sent(self, act: Callable[[], Any]) -> list[Sent]:
        before = [seen.copy() for seen in self._seen]
        act()
        new = [dict(now - old) for now, old in zip(self._seen, before, strict=True)]
        return [(calls, calls.pop("bytes", 0)) for calls in new]


@contextmanager
def job(count: int) -> Iterator[Job]:
    address = f"127.0.0.1:{free_port()}"
    service = _jax.get_distributed_runtime_service(
        address, count, heartbeat_timeout=60, shutdown_timeout=60, recoverable=False
    )
    with ThreadPoolExecutor(count) as pool:
        clients = list(pool.map(lambda index: processes.connect(address, index), range(count)))
        try:
            yield Job(clients)
        finally:  # else the service would end this process
            list(pool.map(lambda client: client.shutdown(), clients))
            service.shutdown()


@pytest.fixture(autouse=True)
def simulated(monkeypatch: pytest.MonkeyPatch):
    processes.simulate(monkeypatch.setattr)


def check_growth(sent: list[list[Sent]], process_0: dict[str, int], another: dict[str, int]):
    """The calls of each process, for every number of processes; and that bytes grow in a line."""
    for each in sent:
        assert [calls for calls, _ in each] == [process_0] + [another] * (len(each) - 1)
    assert len({size for each in sent for _, size in each[1:]}) == 1
    first, second, third = (each[0][1] for each in sent)
    assert third - second == second - first


def for_each_count(act: Callable[[Job], list[Sent]]) -> list[list[Sent]]:
    sent = []
    for count in COUNTS:
        with job(count) as run:
            sent.append(act(run))
    return sent


def test_a_heartbeat_is_two_messages_and_process_0_reads_all_by_two():
    def beat(run: Job) -> list[Sent]:
        for _ in range(2):  # host names are read until all are known
            run.one_by_one(lambda i: run.monitors[i].turn())
        return run.one_by_one(lambda i: run.monitors[i].turn())

    check_growth(
        for_each_count(beat),
        {"key_value_dir_get": 2, "key_value_set": 1},
        {"blocking_key_value_get": 1, "key_value_set": 1},
    )


def test_to_agree_takes_as_many_messages_of_a_process_however_many_there_are():
    def gather(run: Job) -> list[Sent]:
        order = [*range(1, run.count), 0]
        return run.one_by_one(lambda i: run.groups[i].gather(7, timeout=LIMIT, what="x"), order)

    def broadcast(run: Job) -> list[Sent]:
        def part(i: int) -> None:
            run.groups[i].broadcast(7, timeout=LIMIT, what="x")

        run.one_by_one(part)  # reads the host name of process 0, once
        sent = run.one_by_one(part)
        # The last one that reads deletes what was published.
        assert sent[-1][0] == {**sent[1][0], "key_value_delete": 1}
        return sent[:-1]

    check_growth(
        for_each_count(gather),
        {"key_value_dir_get": 1, "key_value_delete": 1},
        {"key_value_set": 1},
    )
    check_growth(
        for_each_count(broadcast),
        {"key_value_set": 1},
        {"blocking_key_value_get": 1, "key_value_increment": 1},
    )


def test_a_message_of_rows_is_one_of_a_process_and_two_of_process_0():
    def exchange(run: Job) -> list[Sent]:
        boxes = [group.mailbox(timeout=LIMIT) for group in run.groups]

        def part(i: int) -> None:
            for number in range(5):
                if i:
                    boxes[i].send(number)
                    continue
                senders = boxes[0].senders(timeout=LIMIT)
                assert list(senders) == [*range(1, run.count)]
                assert {boxes[0].receive(each, timeout=LIMIT) for each in senders} == {number}

        return run.one_by_one(part, [*range(1, run.count), 0])

    sent = for_each_count(exchange)
    # Five, and two to be known as a sender.
    assert all(
        each[1:] == [({"key_value_set": 7}, sent[0][1][1])] * (len(each) - 1) for each in sent
    )
    for count, each in zip(COUNTS, sent, strict=True):
        # Beside one look for senders a round; the first one of a process is marked as read.
        messages = 5 * (count - 1)
        assert each[0][0] == {
            **{"blocking_key_value_get": 5 + messages, "key_value_dir_get": 5},
            **{"key_value_delete": messages, "key_value_set": count - 1},
        }
    first, second, third = (each[0][1] for each in sent)
    assert third - second == second - first


def test_process_0_does_not_read_all_values_again_for_each_that_arrives(monkeypatch):
    with job(9) as run, ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(_jax_group, "_MAX_READS", 9.0)  # all of them once a second
        options: Any = {"timeout": LIMIT, "what": "a value"}
        before = run.calls(0, "key_value_dir_get")
        gathered = pool.submit(run.groups[0].gather, 0, **options)
        deadline = time.monotonic() + LIMIT
        while run.calls(0, "key_value_dir_get") == before and time.monotonic() < deadline:
            pass
        for index in range(1, 9):
            run.groups[index].gather(index, **options)
        assert gathered.result(LIMIT) == [*range(9)]
        # Each arrival would be another one.
        assert run.calls(0, "key_value_dir_get") - before <= 4


def test_leaving_together_costs_another_process_the_same_however_many_there_are():
    def look(run: Job) -> list[Sent]:
        made = [group.departure("run/1") for group in run.groups]
        for departure in made[1:]:
            # What a run that has closed has said is not read by those that go on.
            departure.close("finished")
        return run.one_by_one(lambda i: made[i]._is_due())

    def decide(run: Job) -> list[Sent]:
        made = [group.departure("run/1") for group in run.groups]
        for departure in made[1:]:
            departure._publish("leaving", LIMIT)
        return run.one_by_one(lambda i: None if i else made[0]._agree())

    def agree(run: Job) -> list[Sent]:
        made = [group.departure("run/1") for group in run.groups]
        for index, departure in enumerate(made):
            departure._answered = 3 + index
            departure._pause = LIMIT
        sent = run.at_once(lambda i: made[i]._agree())
        assert {departure._last for departure in made} == {2 + run.count}
        assert all(departure._is_due() for departure in made)
        return sent

    check_growth(
        for_each_count(look),
        {"key_value_dir_get": 1, "key_value_try_get": 1},
        {"key_value_dir_get": 1},
    )
    # Only process 0 reads what all say, once if all have said it.
    assert [sent[0][0]["key_value_dir_get"] for sent in for_each_count(decide)] == [1] * 3
    for sent in for_each_count(agree):
        assert all("key_value_dir_get" not in calls for calls, _ in sent[1:])


def test_the_others_agree_where_process_0_has_closed():
    with job(3) as run:
        made = [group.departure("run/1") for group in run.groups]
        made[0]._answered = 5
        assert made[0].close("finished") == "finished"
        assert not made[1]._is_due()
        run.at_once(lambda i: made[i]._agree() if i else None)
        assert [departure._last for departure in made] == [None, 5, 5]
