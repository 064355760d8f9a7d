"""Watches that are removed in any order and in any thread leave the signals as they were."""

import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from lerax_dist.host._signals import SignalWatch

PREAMBLE = """
import os, signal, threading
from lerax_dist.host._signals import SignalWatch

signal.signal(signal.SIGTERM, signal.SIG_DFL)
a, b = SignalWatch(lambda: None), SignalWatch(lambda: None)
"""


@pytest.fixture
def heard():
    """Signals that reached the handler from before; what was there stands again afterwards."""
    numbers: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, frame: numbers.append(number))
        for number in (signal.SIGTERM, signal.SIGUSR1)
    }
    yield numbers
    for number, handler in handlers.items():
        signal.signal(number, handler)


def watches(count):
    made = [SignalWatch(lambda: None) for _ in range(count)]
    for watch in made:
        watch.install()
    return made


def in_another_thread(call):
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


def status_of(program):
    command = [sys.executable, "-c", PREAMBLE + textwrap.dedent(program)]
    return subprocess.run(command, timeout=60).returncode


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 1, 0)])
def test_whatever_the_order_of_their_removal_the_handler_from_before_stands_again(heard, order):
    before = signal.getsignal(signal.SIGTERM)
    made = watches(3)
    for place in order:
        made[place].remove()
    assert signal.getsignal(signal.SIGTERM) is before


def test_one_that_is_removed_below_another_sees_nothing_more(heard):
    first, second = watches(2)
    first.remove()
    os.kill(os.getpid(), signal.SIGTERM)
    assert (first.seen, second.seen, heard) == (False, True, [signal.SIGTERM])
    second.remove()


def test_one_that_is_removed_in_another_thread_passes_on_what_comes(heard):
    (watch,) = watches(1)
    in_another_thread(watch.remove)
    os.kill(os.getpid(), signal.SIGUSR1)
    assert (watch.seen, heard) == (False, [signal.SIGUSR1])
    watch.remove()


@pytest.mark.parametrize("first, second", [("a", "b"), ("b", "a")])
def test_the_default_action_is_back_after_two(first, second):
    program = f"""
        a.install(), b.install()
        {first}.remove(), {second}.remove()
        os.kill(os.getpid(), signal.SIGTERM)
    """
    assert status_of(program) == -signal.SIGTERM


def test_the_default_action_is_back_after_a_removal_in_another_thread():
    program = """
        a.install()
        thread = threading.Thread(target=a.remove)
        thread.start(), thread.join()
        os.kill(os.getpid(), signal.SIGTERM)
    """
    assert status_of(program) == -signal.SIGTERM


def test_one_that_still_watches_holds_the_default_action_up():
    program = """
        a.install(), b.install()
        a.remove()
        os.kill(os.getpid(), signal.SIGTERM)
        assert b.seen
        raise SystemExit(3)
    """
    assert status_of(program) == 3


def test_what_was_ignored_is_ignored_again():
    program = """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        a.install()
        thread = threading.Thread(target=a.remove)
        thread.start(), thread.join()
        os.kill(os.getpid(), signal.SIGTERM)
        raise SystemExit(3)
    """
    assert status_of(program) == 3
