"""Runs a program in a pseudo-terminal and shows what a user of it would see."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn, final

import pyte

# The size is that of the pseudo-terminal, not of the variables.
_ENVIRON = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
_LIMIT = 60.0


@final
class Terminal:
    """A terminal of a given size with a program in it.

    Attributes:
        screen: what can be seen; `screen.history.top` has scrolled away.
        raw: every byte that the program has written.
    """

    def __init__(
        self, command: Sequence[str], columns: int, rows: int, env: Mapping[str, str] | None = None
    ) -> None:
        self.screen = pyte.HistoryScreen(columns, rows, history=10_000)
        self.raw = b""
        self._stream = pyte.ByteStream(self.screen)
        self._fd, inner = pty.openpty()
        self._set_size(inner, columns, rows)
        # What is typed does not show, so that the screen is the program's alone.
        attributes = termios.tcgetattr(inner)
        attributes[3] &= ~termios.ECHO
        termios.tcsetattr(inner, termios.TCSANOW, attributes)
        # A shell that starts the tests in the background has them ignore Ctrl-C, and a program
        # inherits that.
        ours = signal.signal(signal.SIGINT, signal.default_int_handler)
        self._process = subprocess.Popen(
            command,
            stdin=inner,
            stdout=inner,
            stderr=inner,
            env={**_ENVIRON, "TERM": "xterm-256color", **(env or {})},
        )
        signal.signal(signal.SIGINT, ours)
        os.close(inner)

    def wait_for(self, text: str) -> None:
        """Read until the program has written `text`."""
        self.wait_until(lambda: text.encode() in self.raw)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Read until a condition is met."""
        deadline = time.monotonic() + _LIMIT
        while not condition():
            if time.monotonic() > deadline:
                self._give_up("the condition was not met in time")
            if self._read(1.0) is False:
                self._give_up("the program ended before the condition was met")

    def send(self, line: str) -> None:
        """Type a line."""
        os.write(self._fd, line.encode() + b"\n")

    def interrupt(self) -> None:
        """Send SIGINT, as Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)

    def resize(self, columns: int, rows: int) -> None:
        """Change the window's size, as the user does with the mouse."""
        self._set_size(self._fd, columns, rows)
        self.screen.resize(rows, columns)

    def finish(self) -> int:
        """Read to the end; the exit status."""
        deadline = time.monotonic() + _LIMIT
        while self._read(1.0) is not False:
            if time.monotonic() > deadline:
                self._give_up("the program did not end in time")
        os.close(self._fd)
        return self._process.wait(_LIMIT)

    def _give_up(self, why: str) -> NoReturn:
        # A program in an endless loop would slow down all tests after this one.
        self._process.kill()
        raise AssertionError(f"{why}:\n" + "\n".join(self.lines()))

    def lines(self) -> list[str]:
        """What can be seen, without blanks at the right and at the bottom."""
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip().split("\n")

    def all_lines(self) -> list[str]:
        """What can be seen after scrolling up as far as it goes."""
        old = ["".join(row[x].data for x in range(len(row))) for row in self.screen.history.top]
        return [line.rstrip() for line in old] + self.lines()

    def _read(self, timeout: float) -> bool | None:
        ready, _, _ = select.select([self._fd], [], [], timeout)
        if not ready:
            return None
        try:
            data = os.read(self._fd, 65536)
        except OSError:
            # Linux says so when the last program that had the terminal open has ended.
            return False
        if not data:
            return False
        self.raw += data
        self._stream.feed(data)
        return True

    @staticmethod
    def _set_size(descriptor: int, columns: int, rows: int) -> None:
        fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def python(program: str, warnings: str = "error") -> list[str]:
    """A command that runs a program with this interpreter."""
    return [sys.executable, "-W", warnings, "-c", program]
