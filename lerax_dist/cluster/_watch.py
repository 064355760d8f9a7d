"""A thread that gives signs of life, says who is lost, and ends a process that waits in vain."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import final

from lerax_dist.cluster._pulse import (
    Beat,
    News,
    Tempo,
    decode_news,
    encode_news,
    hear,
    is_of_another,
    silent,
)
from lerax_dist.cluster._rendezvous_address import connection_refused
from lerax_dist.cluster._store import Store, joined_address, joined_client

FOLDER = "lerax_dist/together"
# How long a program may go on after another one's failure, to end by itself.
GRACE = 5.0
_GRACE_WITHOUT_SERVICE = 2.0
# How long process 0 may take to answer a question and to take a message.
_LONGEST_LOOK = 0.5
LONGEST_PUT = 3.0
_LONGEST_TALK = 300
# How long one that is done may wait for the others without a word.
SILENT_WAIT = 10.0
# Of a thousand processes that fail because of one, a few are enough.
_MOST_SAID = 3


@final
class Watch:
    """Looks at the store every so often, as long as the process lives.

    The words go to standard error, once each. JAX decides who is dead and then ends everybody;
    what this thread ends by itself is a process whose peer has said that it failed.

    Attributes:
        leaving: set by the program's end, which looks at the other two and is left alone.
        trouble: set once a process has failed or the service is gone.
        named: set once it is known which process began it, if any.
    """

    def __init__(
        self, store: Store, place: tuple[int, int], host: str, tempo: Tempo, *, shares_fate: bool
    ) -> None:
        """
        Args:
            store: JAX's store.
            place: index of this process and number of processes.
            host: name of this host.
            tempo: how often to look.
            shares_fate: whether this process has to end when another one does.
        """
        self.leaving = threading.Event()
        self.trouble = threading.Event()
        self.named = threading.Event()
        self._client = joined_client()
        self._store = store
        self._index, self._count = place
        self._host = host
        self._tempo = tempo
        self._shares_fate = shares_fate
        self._beats: dict[int, Beat] = {}
        self._number = 0
        self._hosts: dict[int, str] = {}
        self._said: set[str] = set()
        self._quiet: set[int] = set()
        self._done: dict[int, float] = {}
        self._told_done = False
        self._ends_at = float("inf")
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lerax_dist-watch", daemon=True)

    def start(self) -> None:
        """Give a first sign and start the thread."""
        if self._index == 0:
            self._publish({}, {})
        else:
            self._store.put(f"{FOLDER}/signs/{self._index}", "0")
            # From now on process 0 can be missed.
            text = self._store.get(f"{FOLDER}/news", time.monotonic() + LONGEST_PUT)
            if text is not None:
                self._read(text)
        self._thread.start()

    def stop(self) -> None:
        """End the thread: one that is in the service when Python ends would abort the process."""
        self._stop.set()
        # Longer than its longest turn, which looks and then gives a sign.
        self._thread.join(timeout=_LONGEST_LOOK + LONGEST_PUT + 1.0)

    def say(self, words: str) -> None:
        """Say something on standard error."""
        with contextlib.suppress(Exception):
            who = f"process {self._index} of {self._count} on {self._host}"
            sys.stderr.write(f"lerax_dist: {words} (this is {who})\n")
            sys.stderr.flush()

    def gone(self) -> dict[int, float]:
        """On process 0: those silent for so long that nobody waits for them any more."""
        return silent(self._beats, (), time.monotonic(), self._tempo.given_up)

    def _run(self) -> None:
        while not self._stop.wait(self._tempo.period):
            try:
                if self._look_at_all() if self._index == 0 else self._look_at_news():
                    self._tell_own_failure()
            except RuntimeError as error:
                # JAX's shutdown may be under way, and process 0 be through with it.
                if not self._stop.wait(0.2) and joined_client() is self._client:
                    self.service_is_lost(str(error))
                    if not self._stop.wait(_GRACE_WITHOUT_SERVICE) and not self._is_ending():
                        self._end()
                return
            over = self._shares_fate and time.monotonic() >= self._ends_at
            if over and not self._is_ending():
                self._end()

    def _look_at_all(self) -> bool:
        """Process 0: read the signs of the others and publish what they mean."""
        now = time.monotonic()
        signs = {int(key): sign for key, sign in self._store.list(f"{FOLDER}/signs").items()}
        self._beats = hear(self._beats, signs, now)
        ends = {int(key): why for key, why in self._store.list(f"{FOLDER}/ends").items()}
        failed = {index: why for index, why in ends.items() if why}
        quiet = silent(self._beats, failed, now, self._tempo.patience)
        if quiet or failed:
            hosts = self._store.list("lerax_dist/hosts")
            self._hosts = {int(index): host for index, host in hosts.items()}
        self._publish(quiet, failed)
        self._hear_of(quiet, failed)
        self._hear_of_done(sorted(ends.keys() - failed.keys() - {0}), now)
        return True

    def _hear_of_done(self, done: list[int], now: float) -> None:
        """Say who has left without an exception, once: this process may hang for want of it."""
        since = [now - self._done.setdefault(index, now) for index in done]
        if not since or max(since) < SILENT_WAIT or self._told_done or self.leaving.is_set():
            return
        self._told_done = True
        self.say(
            f"{named(done)} ended {max(since):.0f} s ago without an exception (by `sys.exit`?) and "
            "waits for this process to be done, too. A collective of both would never end"
        )

    def _publish(self, quiet: dict[int, float], failed: dict[int, str]) -> None:
        self._number += 1
        named = {index: self._hosts.get(index, "?") for index in (*quiet, *failed)}
        news = News(self._number, named | {0: self._host}, quiet, failed)
        self._store.put(f"{FOLDER}/news", encode_news(news))

    def _look_at_news(self) -> bool:
        """Another process: read what process 0 says, and give a sign if it can be reached."""
        text = self._store.get(f"{FOLDER}/news", time.monotonic() + _LONGEST_LOOK)
        now = time.monotonic()
        if text is None:
            if connection_refused(joined_address()):
                raise RuntimeError(f"nobody listens at {joined_address()} any more")
        else:
            news = self._read(text)
            self._number += 1
            sign = (f"{FOLDER}/signs/{self._index}", str(self._number))
            self._store.put(*sign, within=LONGEST_PUT)
            others = {index: s for index, s in news.silent.items() if index != self._index}
            self._hear_of(others, news.failed)
        if not self._quiet - {0}:  # else process 0 may have been ended by JAX for another's sake
            self._hear_of(silent(self._beats, (), now, self._tempo.patience), {})
        if silent(self._beats, (), now, self._tempo.given_up):
            self.trouble.set()
        return text is not None

    def _read(self, text: str) -> News:
        news = decode_news(text)
        self._beats = hear(self._beats, {0: str(news.beat)}, time.monotonic())
        self._hosts.update(news.hosts)
        return news

    def _hear_of(self, quiet: dict[int, float], failed: dict[int, str]) -> None:
        for index, seconds in quiet.items():
            if index not in self._quiet:
                holder = ", which holds the coordination service," if index == 0 else ""
                self.say(
                    f"process {index} (host {self._hosts.get(index, '?')}){holder} has given no "
                    f"sign of life for {seconds:.0f} s: it was killed, hangs, or cannot be "
                    f"reached{'. If that lasts, JAX ends all' if self._shares_fate else ''}"
                )
            self.named.set()
        self._quiet |= set(quiet)
        for index, why in failed.items():
            if index == self._index or why in self._said or len(self._said) > _MOST_SAID:
                continue
            self._said.add(why)
            self.say(f"process {index} (host {self._hosts.get(index, '?')}) has ended: {why}")
            self.trouble.set()
            grace = GRACE
            if is_of_another(why):
                grace += self._tempo.given_up
            else:
                self.named.set()
            self._ends_at = min(self._ends_at, time.monotonic() + grace)

    def _tell_own_failure(self) -> None:
        """At once: a logger that is closed at the exit may take its time."""
        why = why_failed()
        if why and "own" not in self._said:
            self._said.add("own")
            self._store.put(f"{FOLDER}/ends/{self._index}", why, within=LONGEST_PUT)

    def service_is_lost(self, error: str) -> None:
        """Say so, unless that is done."""
        with self._lock:
            if not self.named.is_set():
                reason = " ".join(error.split())[:_LONGEST_TALK]
                self.say(
                    f"process 0 (host {self._hosts.get(0, '?')}), which holds the coordination "
                    f"service, is lost: {reason}"
                )
            self.trouble.set()
            self.named.set()

    def _is_ending(self) -> bool:
        return self.leaving.is_set() or not threading.main_thread().is_alive()

    def _end(self) -> None:
        self.say("this process cannot go on without the others and ends now, with status 1")
        with contextlib.suppress(RuntimeError):
            why = "it could not go on, as another process had failed"
            self._store.put(f"{FOLDER}/ends/{self._index}", why, within=1.0)
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        os._exit(1)


def named(indices: Sequence[int]) -> str:
    """Processes by their numbers, the first of many."""
    return f"{'process' if len(indices) == 1 else 'processes'} {', '.join(map(str, indices[:16]))}"


def why_failed() -> str:
    """The exception that has ended the program; empty while it runs or if it ended without one."""
    # Set by the interpreter, and by interactive shells while they go on.
    value = getattr(sys, "last_value", None)
    if value is None or threading.main_thread().is_alive():
        return ""
    return " ".join(f"{type(value).__name__}: {value}".split())[:_LONGEST_TALK]
