"""Staying together while the run goes on, and leaving so that nobody is hurt by it."""

import atexit
import contextlib
import os
import socket
import time
from typing import Any, final

import jax

from lerax_dist.cluster._abort import hold_aborts
from lerax_dist.cluster._pulse import Tempo, choose_tempo, is_of_another
from lerax_dist.cluster._rendezvous_address import connection_refused
from lerax_dist.cluster._store import (
    Store,
    Unanswered,
    forget_service,
    joined_address,
    joined_client,
    joined_place,
)
from lerax_dist.cluster._watch import (
    FOLDER,
    GRACE,
    LONGEST_PUT,
    SILENT_WAIT,
    Watch,
    named,
    why_failed,
)

_PAUSE = 0.05
# Between a process's last word and its real end, in which it still needs the service.
_LINGER = 2.0


def stay_together(heartbeat: float, shutdown: float) -> None:
    """Watch over the processes that have joined, and leave in good order at exit.

    Args:
        heartbeat: JAX's limit for a sign of life, in seconds.
        shutdown: longest wait of a process that is done for those that are not, in seconds.
    """
    hold_aborts()
    place = joined_place()
    client = joined_client()
    tempo = choose_tempo(heartbeat, place[1])
    store = Store(client)
    # Who has switched this on wants the others to go on, as far as JAX lets them.
    shares_fate = not getattr(jax.config, "jax_enable_recoverability", False)
    watch = Watch(store, place, socket.gethostname(), tempo, shares_fate=shares_fate)
    watch.start()
    atexit.register(Leave(client, store, watch, place, tempo, shutdown))


@final
class Leave:
    """Runs when the interpreter exits, before JAX's own hook and after the loggers' close.

    If every program has ended without an exception JAX's shutdown follows, whose barrier all pass
    at once. Else this process skips it, so that a failure keeps nobody waiting; process 0, which
    holds the service that the others need, waits until they have gone. The exit status is never
    touched.
    """

    def __init__(
        self,
        client: Any,
        store: Store,
        watch: Watch,
        place: tuple[int, int],
        tempo: Tempo,
        shutdown: float,
    ) -> None:
        self._pid = os.getpid()
        self._client = client
        self._store = store
        self._watch = watch
        self._index, self._count = place
        self._tempo = tempo
        self._shutdown = shutdown
        self._speak_at = float("inf")

    def __call__(self) -> None:
        """Leave."""
        if os.getpid() != self._pid:  # a fork, which has joined nobody and has no threads
            forget_service()
            return
        if joined_client() is not self._client:  # the program has called JAX's shutdown itself
            self._watch.stop()
            return
        self._watch.leaving.set()
        self._speak_at = time.monotonic() + SILENT_WAIT
        try:
            well = self._leave_first() if self._index == 0 else self._leave(why_failed())
        except RuntimeError as error:
            self._watch.service_is_lost(str(error))
            well = False
        self._watch.stop()
        if not well:
            forget_service()

    def _leave(self, why: str) -> bool:
        """Another process than the first. Whether all have ended well."""
        self._say_goodbye(why)
        if why:
            if is_of_another(why):
                self._wait_for_a_name()
            return False
        deadline = time.monotonic() + self._shutdown
        while time.monotonic() < deadline and not self._watch.trouble.is_set():
            soon = min(deadline, time.monotonic() + 1.0)
            if self._store.get(f"{FOLDER}/over", soon) is not None:
                return True
            if time.monotonic() > self._speak_at:
                with contextlib.suppress(Unanswered):  # it may only stand still for a while
                    self._speak(self._missing(LONGEST_PUT))
        if not self._watch.trouble.is_set():
            self._give_up(self._missing(LONGEST_PUT))
            return False
        self._wait_for_a_name()
        return False

    def _leave_first(self) -> bool:
        """Process 0. Whether all have ended well."""
        why = why_failed()
        self._say_goodbye(why)
        deadline = time.monotonic() + self._shutdown
        while not (why or self._watch.trouble.is_set() or self._watch.gone()):
            missing = self._missing()
            if not missing:
                self._store.put(f"{FOLDER}/over", "")
                return True
            self._speak(missing)
            if time.monotonic() > deadline:
                why = self._give_up(missing)
                break
            time.sleep(_PAUSE)
        if not why or is_of_another(why):
            self._wait_for_a_name()
        limit = 2 * self._tempo.period + self._tempo.given_up + 2 * GRACE
        self._outlast(time.monotonic() + limit)
        return False

    def _outlast(self, deadline: float) -> None:
        """Wait until the others are gone or past hope."""
        while time.monotonic() < deadline and set(self._missing()) - set(self._watch.gone()):
            time.sleep(_PAUSE)
        time.sleep(_LINGER)

    def _wait_for_a_name(self) -> None:
        """Who was lost is not known yet when the first error comes of it."""
        self._watch.named.wait(self._tempo.patience + 4 * self._tempo.period)

    def _missing(self, within: float | None = None) -> list[int]:
        ends = self._store.list(f"{FOLDER}/ends", within=within)
        return [index for index in range(self._count) if str(index) not in ends]

    def _say_goodbye(self, why: str) -> None:
        # Known at once, while a message would wait for an answer; JAX leaves 6 s in this case.
        if self._index and connection_refused(joined_address()):
            raise RuntimeError(f"nobody listens at {joined_address()} any more")
        self._store.put(f"{FOLDER}/ends/{self._index}", why, within=LONGEST_PUT)

    def _speak(self, missing: list[int]) -> None:
        """Say for whom this process waits, once and not at once."""
        if missing and time.monotonic() > self._speak_at:
            self._speak_at = float("inf")
            self._watch.say(
                f"this process is done and waits for {named(missing)}, at most "
                f"`shutdown_timeout_seconds` = {self._shutdown:g} s in all"
            )

    def _give_up(self, missing: list[int]) -> str:
        """Tell everybody for whom this process has waited in vain."""
        words = (
            f"it was done and has waited `shutdown_timeout_seconds` = {self._shutdown:g} s for "
            f"{named(missing)}"
        )
        self._watch.say(f"{words}; it leaves now".replace("it was", "this process was", 1))
        self._say_goodbye(words)
        return words
