"""`scope="process"` on the other processes: their rows are sent to process 0, which merges them."""

import threading
import time
from typing import final

from lerax_dist._failures import Failures
from lerax_dist.cluster import Mailbox
from lerax_dist.host._peers import Encoder
from lerax_dist.host._reorder import PartialRow
from lerax_dist.host._worker import AbstractOutlet, FlushMarker, Item
from lerax_dist.journal import Event

# How long a message waits for process 0, which is behind, until that is reported, in seconds.
_SEND_TIMEOUT = 60.0
# How often a waiting message looks whether there is room, in seconds.
_ROOM_INTERVAL = 1.0


@final
class PeerOutlet(AbstractOutlet):
    """Sends the rows of this process to process 0, which writes events and clips of its own.

    Args:
        mailbox: the channel to process 0.
        failures: where to record what fails.
    """

    def __init__(self, mailbox: Mailbox, failures: Failures) -> None:
        self._mailbox = mailbox
        self._failures = failures
        self._encoder = Encoder()
        self._hurry = threading.Event()

    def start(self, open_timeout: float) -> None:
        pass

    def write(self, items: list[Item], now: float) -> int:
        rows = [item for item in items if isinstance(item, PartialRow)]
        if rows:
            self._send(rows)
        for item in items:
            if isinstance(item, FlushMarker):
                if item.last:
                    self._end(item.state)
                item.reached.set()
        return sum(row.size for row in rows)

    def timeout(self, now: float) -> float | None:
        return None

    def _send(self, rows: list[PartialRow]) -> None:
        try:
            message = self._encoder.encode(rows)
            self._wait_for_room()
            self._mailbox.send(message)
            self._encoder.sent(message)
        except Exception as error:
            self._failures.record("peer", f"rows could not be sent ({error!r})", error)

    def _wait_for_room(self) -> None:
        """Rows that process 0 cannot take yet wait here, and throttle this process as well."""
        since = time.monotonic()
        while not self._hurry.is_set() and not self._mailbox.has_room(timeout=_ROOM_INTERVAL):
            if time.monotonic() - since > _SEND_TIMEOUT:
                self._failures.record(
                    "peer",
                    f"process 0 has not consumed this process's rows for {_SEND_TIMEOUT:.0f} s; "
                    "throttling",
                )

    def _end(self, state: str) -> None:
        try:
            self._mailbox.send({"end": state})
            self._mailbox.finish(timeout=_SEND_TIMEOUT)
        except Exception as error:
            self._failures.record(
                "peer", f"could not notify process 0 of the end of the run ({error!r})", error
            )

    def flush(self, marker: FlushMarker, deadline: float) -> str | None:
        return None

    def describe_delay(self) -> str:
        return "process 0 has not consumed all rows of this process"

    def finish(self, state: str, deadline: float) -> list[Event]:
        return []

    def close(self, written: bool, deadline: float, timeout: float) -> None:
        if not written:
            # What is left is sent without waiting for room.
            self._hurry.set()
