"""What other processes send comes in: from each in its turn, and only as there is room.

A test of what the package keeps to itself, by a clock of its own; through the door see
`test_peers.py`.
"""

import threading
import time
from collections import deque

import numpy as np
from lerax_dist.host._assemble import PlainFormat, PlainTotals, Share
from lerax_dist.host._parcel import Packer
from lerax_dist.host._post import Post

from lerax_dist._failures import Failures
from lerax_dist.host._queue import RowQueue

LIMIT = 20.0


class Box:
    """A mailbox in memory, whose waits pass on a clock of its own, a thousand times as fast."""

    def __init__(self, messages):
        self.messages = {process: deque(some) for process, some in messages.items()}
        self.clock = self.read_at = 0.0
        self.nothing = threading.Event()

    def receive(self, process, *, timeout):
        if self.messages.get(process):
            self.read_at = self.clock
            return self.messages[process].popleft()
        self.clock += timeout
        self.nothing.wait(timeout / 1000)
        return None


def messages(count):
    """As many messages, each with a row, and the end."""
    packer = Packer()
    for number in range(count):
        totals = PlainTotals(number, np.zeros(1))
        share = Share(PlainFormat(("x",)), totals, number, 0.0, None, number, 8)
        message = packer.pack([share])
        packer.sent(message)
        yield message
    yield {"end": "finished"}


def numbers(queue, process, until):
    """Rows that came from a process, up to its end, while `until` says nothing else."""
    found = []
    limit = time.monotonic() + LIMIT
    while time.monotonic() < limit and not until(found):
        for arrival, _ in queue.take(0.05):
            if arrival.process == process:
                found += [share.number for share in arrival.shares]
                found += [arrival.state] if arrival.state else []
    return found


def test_processes_that_are_silent_cost_the_others_nothing():
    box = Box({5: messages(200)})
    queue = RowQueue(Failures(), pause=0.0)
    post = Post(box, 6, queue, lambda process: False, Failures())
    post.start()
    found = numbers(queue, 5, lambda found: "finished" in found)
    post.stop()
    assert found == [*range(200), "finished"]
    # Eight messages a round, of a second in all.
    assert box.read_at <= 1 + 201 / 8


def test_a_process_that_is_ahead_is_not_read_until_there_is_room():
    room = threading.Event()
    asked = threading.Semaphore(0)

    def is_ahead(process):
        asked.release()
        return process == 1 and not room.is_set()

    box = Box({1: messages(10), 2: messages(10)})
    queue = RowQueue(Failures(), pause=0.0)
    post = Post(box, 3, queue, is_ahead, Failures())
    post.start()
    assert numbers(queue, 2, lambda found: "finished" in found) == [*range(10), "finished"]
    for _ in range(3):
        assert asked.acquire(timeout=LIMIT)
    assert len(box.messages[1]) == 11
    room.set()
    assert numbers(queue, 1, lambda found: "finished" in found) == [*range(10), "finished"]
    post.stop()
