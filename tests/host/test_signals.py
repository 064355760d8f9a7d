"""Loggers that watch for signals leave them as they were, whatever the order of their close."""

import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

import lerax_dist as ld
from tests.memory import Memory

PREAMBLE = """
import os, signal, sys, threading
import lerax_dist as ld
from tests.memory import Memory

def logger(name):
    return ld.Logger(Memory(), name, log_dir=sys.argv[1], handle_signals=True)

signal.signal(signal.SIGTERM, signal.SIG_DFL)
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


@pytest.fixture
def watching(tmp_path):
    """Makes loggers that watch for signals."""

    def make(count):
        return [
            ld.Logger(Memory(), str(number), log_dir=tmp_path, handle_signals=True)
            for number in range(count)
        ]

    return make


def in_another_thread(call):
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


def status_of(program, log_dir):
    command = [sys.executable, "-c", PREAMBLE + textwrap.dedent(program), str(log_dir)]
    return subprocess.run(command, timeout=60).returncode


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 1, 0)])
def test_whatever_the_order_of_their_close_the_handler_from_before_stands_again(
    heard, watching, order
):
    before = signal.getsignal(signal.SIGTERM)
    made = watching(3)
    for place in order:
        made[place].close()
    assert signal.getsignal(signal.SIGTERM) is before


def test_one_that_is_closed_below_another_sees_nothing_more(heard, watching):
    first, second = watching(2)
    first.close()
    os.kill(os.getpid(), signal.SIGTERM)
    assert (first.preempted, second.preempted, heard) == (False, True, [signal.SIGTERM])
    second.close()


def test_one_that_is_closed_in_another_thread_passes_on_what_comes(heard, watching):
    (logger,) = watching(1)
    in_another_thread(logger.close)
    os.kill(os.getpid(), signal.SIGUSR1)
    assert (logger.preempted, heard) == (False, [signal.SIGUSR1])
    logger.close()


@pytest.mark.parametrize("first, second", [("a", "b"), ("b", "a")])
def test_the_default_action_is_back_after_two(tmp_path, first, second):
    program = f"""
        a, b = logger("a"), logger("b")
        {first}.close(), {second}.close()
        os.kill(os.getpid(), signal.SIGTERM)
    """
    assert status_of(program, tmp_path) == -signal.SIGTERM


def test_the_default_action_is_back_after_a_close_in_another_thread(tmp_path):
    program = """
        a = logger("a")
        thread = threading.Thread(target=a.close)
        thread.start(), thread.join()
        os.kill(os.getpid(), signal.SIGTERM)
    """
    assert status_of(program, tmp_path) == -signal.SIGTERM


def test_one_that_still_watches_holds_the_default_action_up(tmp_path):
    program = """
        a, b = logger("a"), logger("b")
        a.close()
        os.kill(os.getpid(), signal.SIGTERM)
        assert b.preempted
        raise SystemExit(3)
    """
    assert status_of(program, tmp_path) == 3


def test_what_was_ignored_is_ignored_again(tmp_path):
    program = """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        a = logger("a")
        thread = threading.Thread(target=a.close)
        thread.start(), thread.join()
        os.kill(os.getpid(), signal.SIGTERM)
        raise SystemExit(3)
    """
    assert status_of(program, tmp_path) == 3
