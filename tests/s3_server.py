"""An S3 server on loopback, in a process of its own, that can be stopped and started."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator

# A server that keeps its objects while it is stopped. It answers each line that it reads.
_PROGRAM = """
import logging, sys
logging.getLogger("werkzeug").setLevel(logging.ERROR)
from moto.server import ThreadedMotoServer

server, port = None, 0
for line in sys.stdin:
    if line == "start\\n":
        server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
        server.start()
        port = server.get_host_and_port()[1]
    else:
        server.stop()
    print(port, flush=True)
"""


class S3Server:
    """What a test does to the server; `process` is the one that serves."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.port = self.start()

    def start(self) -> int:
        """Serve again, at the same port."""
        return self._tell("start")

    def stop(self) -> int:
        """Refuse connections."""
        return self._tell("stop")

    def _tell(self, what: str) -> int:
        assert self.process.stdin is not None and self.process.stdout is not None
        print(what, file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which AWS's packages find the server."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            # Who waits for a failure need not wait long.
            "AWS_MAX_ATTEMPTS": "1",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }


@contextlib.contextmanager
def s3_server() -> Iterator[S3Server]:
    """A server, until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield S3Server(process)
    finally:
        process.kill()
        process.communicate()
