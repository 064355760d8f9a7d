"""A run in a bucket of a real S3 server, whose process is killed and whose disk is gone."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.multiprocess.launch import ROOT
from tests.s3_server import s3_server
from tests.test_bucket import accumulated

pytestmark = pytest.mark.launch

URL = "s3://bucket/logs"
_PROGRAM = """
import contextlib, io, json, os, signal, sys, time
import lerax_dist as ld
from lerax_dist import JSONLBackend, TensorBoardBackend, Logger
from lerax_dist.cli import main

def log(logger, steps):
    for step in steps:
        logger.log({"x": float(step)}, step)

def command(*arguments):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        assert main([*arguments]) == 0, out.getvalue()
    return out.getvalue()

def seconds(call):
    begin = time.monotonic()
    call()
    return time.monotonic() - begin

def wait(condition, timeout=40.0):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)

names = globals()
for line in sys.stdin:
    try:
        answer = eval(line, names) if json.loads(sys.stdin.readline()) else exec(line, names)
    except Exception as error:
        answer = repr(error)
    print("answer", json.dumps(answer), flush=True)
"""


class Training:
    """A process that runs the lines that a test tells it."""

    def __init__(self, environment: dict[str, str], disk: Path) -> None:
        environment = environment | {"XDG_CACHE_HOME": str(disk), "URL": URL}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
            cwd=ROOT,
        )
        self.run(f'url = "{URL}"')

    def run(self, statement: str) -> None:
        assert self._tell(statement, False) is None

    def ask(self, expression: str) -> Any:
        return self._tell(expression, True)

    def _tell(self, line: str, is_expression: bool) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        print(f"{line}\n{json.dumps(is_expression)}", file=self.process.stdin, flush=True)
        for answer in self.process.stdout:
            if answer.startswith("answer "):
                return json.loads(answer.removeprefix("answer "))
        raise AssertionError("the process has ended")

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


OPEN = "logger = Logger([JSONLBackend(url), TensorBoardBackend(url)], 'r'{})"


def test_a_run_outlives_its_process_its_disk_and_its_server(tmp_path, monkeypatch):
    with s3_server() as server:
        environment = {**os.environ, **server.environment}
        trainings = []

        def training(disk: str) -> Training:
            trainings.append(Training(environment, tmp_path / disk))
            return trainings[-1]

        try:
            first = training("a")
            first.run("import s3fs; s3fs.S3FileSystem().mkdir('bucket')")
            first.run(OPEN.format(", hparams={'lr': 0.1}"))
            first.run("log(logger, range(100)); logger.flush(); log(logger, range(100, 150))")
            first.run("wait(lambda: len(ld.read_run(url + '/r')) == 150)")  # a segment of its own
            first.kill()  # and its disk is not seen again

            second = training("b")
            second.run(OPEN.format(", handle_signals=True"))
            assert second.ask("ld.read_run(url + '/r').steps.tolist()") == [*range(150)]
            assert second.ask("(logger.incarnation, logger.failures)") == [2, []]
            server.stop()
            second.run("log(logger, range(150, 200))")
            assert second.ask("seconds(logger.flush) + seconds(logger.state)") < 12.0
            second.run("wait(lambda: logger.failures); time.sleep(5.0)")
            server.start()
            second.run("wait(lambda: len(ld.read_run(url + '/r')) == 200)")
            assert second.ask("ld.read_run(url + '/r').steps.tolist()") == [*range(200)]
            failures = second.ask("[f.message for f in logger.failures]")
            assert sum("failed to upload" in each for each in failures) == 1

            second.run("log(logger, range(200, 205)); os.kill(os.getpid(), signal.SIGTERM)")
            second.run("wait(lambda: len(ld.read_run(url + '/r')) == 205, 4.0)")
            assert second.ask("logger.preempted")
            server.stop()
            second.run("log(logger, range(205, 210))")
            assert second.ask("seconds(lambda: logger.close(timeout=4.0))") < 6.0
            failures = second.ask("[f.message for f in logger.failures]")
            (late,) = (each for each in failures if "The next start there" in each)
            assert URL in late and str(tmp_path / "b") in late
            second.kill()
            server.start()

            third = training("b")
            third.run(OPEN.format(""))
            third.run("log(logger, range(210, 220)); logger.close()")
            assert third.ask("logger.failures") == []
            assert third.ask("[*ld.read_run(url + '/r').steps.tolist()]") == [*range(220)]
            third.run("s3 = __import__('s3fs').S3FileSystem()")
            third.run(f"s3.get('bucket/logs/r/', '{tmp_path / 'got'}/', recursive=True)")
            (listed,) = json.loads(third.ask("command('ls', url, '--json')"))
            assert (listed["state"], listed["step"]) == ("finished", 219)
            out = tmp_path / "out"
            replay = f"command('replay', url + '/r', '--to', 'jsonl', '--log-dir', '{out}')"
            assert "220 rows, steps 0 to 219" in third.ask(replay)
            assert "finished" in third.ask("command('watch', url + '/r', '--once')")
        finally:
            for each in trainings:
                each.kill()
    assert accumulated(tmp_path / "got", "x") == [*range(220)]
