"""Runs whose `log_dir` is a bucket: nothing is lost with the disk, nothing waits for a bucket."""

import json
import os
import shutil
import signal
import sys
import time
import uuid
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import lerax_dist as ld
from lerax_dist.cli import main
from lerax_dist.cli._followed import FollowedRun
from lerax_dist.cli.doctor._log_folder import LogFolderCheck
from lerax_dist.journal import JournalInUse, _mirror
from lerax_dist.journal._bucket import Bucket, folder_of, local_copy, mirrored_url, url_of
from tests.memory import Memory
from tests.readers import journal_steps


class Shaky(MemoryFileSystem):
    """Objects in memory of this process; `broken` makes every call fail, as of a server."""

    protocol = "shaky"
    store: dict[str, Any] = {}
    pseudo_dirs = [""]
    cachable = False
    broken = False
    is_mute = False  # whether writes arrive, and their answers do not
    writes: list[tuple[str, bytes]] = []

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(path.replace("shaky://", "memory://"))

    def find(self, path, maxdepth=None, withdirs=False, detail=False, **kwargs):
        self._check()
        return super().find(path, maxdepth, withdirs, detail, **kwargs)

    def cat_file(self, path, start=None, end=None, **kwargs):
        self._check()
        return super().cat_file(path, start, end, **kwargs)

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        self._check()
        self.writes.append((path, value))
        super().pipe_file(path, value, mode, **kwargs)
        if Shaky.is_mute:
            raise RuntimeError("no answer")

    def _check(self):
        if Shaky.broken:
            raise RuntimeError("the server is gone")


fsspec.register_implementation("shaky", Shaky, clobber=True)


@pytest.fixture(autouse=True)
def bucket(tmp_path, monkeypatch):
    """The URL of an empty folder; the local folders are on a disk of their own."""
    monkeypatch.chdir(tmp_path)
    use_disk(monkeypatch, tmp_path / "disk")
    monkeypatch.setattr(_mirror, "_LEASE_LOOK", 0.01)
    monkeypatch.setattr(Shaky, "broken", False)
    monkeypatch.setattr(Shaky, "is_mute", False)
    monkeypatch.setattr(Shaky, "writes", [])
    return f"shaky://{uuid.uuid4().hex}/logs"


def use_disk(monkeypatch, path):
    """Be on a host with another disk from now on."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(path))


def log(logger, steps):
    for step in steps:
        logger.log({"x": float(step)}, step)


def flush(logger):
    """Wait until a bucket that answers again has everything."""
    deadline = time.monotonic() + 30.0
    mirror = logger._run._outlet._journal.mirror
    logger.flush()
    while not mirror.upload(deadline):
        assert time.monotonic() < deadline


def lease_of(url):
    return json.loads(Bucket(url).read(["lease.json"])[0])


def write_lease(url, **changes):
    Bucket(url).write("lease.json", json.dumps(lease_of(url) | changes).encode())


def steps_at(url):
    run = ld.read_run(url)
    assert run.damage.lines == run.damage.missing == 0
    return run.steps.tolist()


@pytest.mark.parametrize(
    ("log_dir", "url"),
    [
        ("gs://bucket/logs/", "gs://bucket/logs"),
        ("s3://bucket", "s3://bucket"),
        (Path("gs://bucket/a b%2F"), "gs://bucket/a b%2F"),
        ("hdfs://x:80/y", "hdfs://x:80/y"),
        ("a:b/c", None),
        ("c:x", None),
        ("/tmp/gs:/x", None),
    ],
)
def test_a_url_has_a_local_folder_of_its_own(log_dir, url):
    assert url_of(log_dir) == url
    if url is not None:
        assert ld.TensorBoardBackend(log_dir).log_dir == folder_of(url)
        assert mirrored_url(folder_of(url)) == url
        assert mirrored_url(folder_of(url) / "a" / "run") == f"{url}/a/run"


def test_a_run_is_in_its_bucket_and_is_continued_from_there_on_another_disk(
    bucket, tmp_path, monkeypatch, capsys
):
    frames = np.arange(5 * 4 * 4 * 3, dtype=np.uint8).reshape(5, 4, 4, 3)
    backends = ld.JSONLBackend(bucket), ld.TensorBoardBackend(bucket)
    first = ld.Logger(backends, "r", hparams={"lr": 0.1})
    log(first, range(10))
    first.log_video("eval", frames, 5)
    first.flush()
    assert steps_at(f"{bucket}/r") == [*range(10)]
    state = first.state()
    first.close(failed=True)
    assert first.failures == ()

    use_disk(monkeypatch, tmp_path / "other")
    backends = ld.JSONLBackend(bucket), ld.TensorBoardBackend(bucket)
    with ld.Logger(backends, state=state) as second:
        assert (second.run_id, second.incarnation) == (first.run_id, 2)
        log(second, range(10, 20))
    assert second.failures == ()
    assert journal_steps(second.run_dir) == [*range(20)] == steps_at(f"{bucket}/r")
    # One is the mark of the resume.
    assert len((second.run_dir / "metrics.jsonl").read_text().splitlines()) == 20 + 1

    assert accumulated(f"{bucket}/r", "x") == [*range(20)]
    # Segments are written once each.
    segments = [path for path, _ in Shaky.writes if path[-17] == "."]
    assert len(segments) == len(set(segments)) > 6

    assert main(["ls", bucket, "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert (listed["name"], listed["state"], listed["rows"]) == ("r", "finished", 20)
    assert main(["watch", f"{bucket}/r", "--once"]) == 0
    shown = capsys.readouterr().out
    assert "finished" in shown
    assert main(["watch", f"{bucket}/r", "--export", "t.csv"]) == 0
    assert len(Path("t.csv").read_text().splitlines()) == 21
    assert main(["replay", f"{bucket}/r", "--to", "jsonl", "--log-dir", "out"]) == 0
    assert Path("out/r/videos/eval/000000000005.gif").exists()
    assert "20 rows, steps 0 to 19" in capsys.readouterr().err
    for arguments in (["--log-dir", bucket], []):
        assert main(["replay", f"{bucket}/r", "--to", "jsonl", *arguments]) == 1
        assert "--log-dir" in capsys.readouterr().err
    assert main(["watch", f"{bucket}/none", "--once"]) == 1
    assert f"in {bucket}/none" in capsys.readouterr().err


def accumulated(folder, tag):
    """The steps that TensorBoard shows of a metric."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return [event.step for event in events.Scalars(tag)]


def test_a_run_is_followed_in_its_bucket(bucket):
    now = [0.0]
    folder, update = local_copy(f"{bucket}/r")
    journal = folder / "journal.jsonl"
    run = FollowedRun(journal, None, "x", monotonic=lambda: now[0], refresh=update)
    run.poll()
    assert run.view.state == "waiting"
    logger = ld.Logger(Memory(), "r", log_dir=bucket)
    for count in (3, 7):
        log(logger, range(count))
        logger.flush()
        now[0] += 10.0
        run.poll()
        assert (run.view.progress.step, run.view.state) == (count - 1, "running")
    Shaky.broken = True
    now[0] += 10.0
    run.poll()
    assert any("the server is gone" in note for note in run.view.notes)
    Shaky.broken = False
    logger.close()
    now[0] += 10.0
    run.poll()
    assert run.ended


def test_a_bucket_that_is_gone_for_a_while_costs_nothing_and_is_reported_once(bucket, tmp_path):
    logger = ld.Logger(ld.JSONLBackend(bucket), "r")
    log(logger, range(5))
    logger.flush()
    Shaky.broken = True
    log(logger, range(5, 10))
    with pytest.warns(ld.LoggingWarning, match="bucket: failed to upload .*the server is gone"):
        with pytest.warns(ld.LoggingWarning, match=r"bucket: \d+ files are not all in shaky"):
            logger.flush()
    begin = time.monotonic()
    logger.state()
    assert time.monotonic() - begin < 1.0
    Shaky.is_mute, Shaky.broken = True, False
    logger.flush()
    log(logger, range(10, 15))
    Shaky.is_mute = False
    flush(logger)
    assert steps_at(f"{bucket}/r") == [*range(15)]
    assert [failure.where for failure in logger.failures] == ["bucket", "bucket"]
    assert "the server is gone" in logger.failures[0].message
    logger.close()


def test_close_ends_in_time_and_the_next_start_uploads_the_rest(bucket):
    logger = ld.Logger(ld.JSONLBackend(bucket), "r")
    log(logger, range(5))
    logger.flush()
    Shaky.broken = True
    log(logger, range(5, 10))
    begin = time.monotonic()
    with pytest.warns(ld.LoggingWarning):
        logger.close(timeout=1.5, failed=True)
    assert time.monotonic() - begin < 2.5
    (late,) = (f.message for f in logger.failures if "The next start there" in f.message)
    assert str(logger.run_dir) in late and "2 files" in late
    with pytest.raises(RuntimeError, match=f"cannot open the run in `log_dir` '{bucket}'"):
        ld.Logger(Memory(), "r", log_dir=bucket)
    Shaky.broken = False
    assert steps_at(f"{bucket}/r") == [*range(5)]
    with ld.Logger(ld.JSONLBackend(bucket), "r") as logger:
        log(logger, range(10, 12))
    assert logger.failures == ()
    assert steps_at(f"{bucket}/r") == [*range(12)]


def test_another_host_is_refused_while_its_lease_changes(bucket, monkeypatch):
    url = f"{bucket}/r"
    ld.Logger(Memory(), "r", log_dir=bucket).close(failed=True)
    write_lease(url, host="elsewhere", pid=7, token="theirs", open=True, time=time.time())
    real = Bucket.read

    def read(self, names, size=0):
        if names == ["lease.json"]:
            write = json.dumps({**json.loads(real(self, names)[0]), "time": time.time()})
            self.write("lease.json", write.encode())
        return real(self, names, size)

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "read", read)
        with pytest.raises(RuntimeError, match="process 7 on host elsewhere writes shaky") as info:
            ld.Logger(Memory(), "r", log_dir=bucket)
    assert isinstance(info.value.__cause__, JournalInUse)
    # It was killed: the lease does not change any more.
    monkeypatch.setattr(_mirror, "_LEASE_TIMEOUT", 0.2)
    with ld.Logger(Memory(), "r", log_dir=bucket) as logger:
        log(logger, range(3))
    assert lease_of(url)["open"] is False and steps_at(url) == [0, 1, 2]


def test_the_loser_of_a_lease_uploads_no_more_and_says_where_its_rows_are(
    bucket, tmp_path, monkeypatch
):
    loser = ld.Logger(Memory(), "r", log_dir=bucket)
    log(loser, range(3))
    loser.flush()
    write_lease(f"{bucket}/r", host="elsewhere", pid=7, token="theirs")
    monkeypatch.setattr(_mirror, "_LEASE_INTERVAL", 0.0)
    log(loser, range(3, 6))
    taken = "process 7 on host elsewhere has taken over"
    with pytest.warns(ld.LoggingWarning, match="not all"), pytest.warns(match=taken):
        loser.flush()
        loser.close(failed=True)
    assert steps_at(f"{bucket}/r") == [0, 1, 2]

    monkeypatch.undo()
    use_disk(monkeypatch, tmp_path / "other")
    write_lease(f"{bucket}/r", open=False)
    other = ld.Logger(Memory(), "r", log_dir=bucket)
    log(other, range(3, 5))
    other.close(failed=True)
    use_disk(monkeypatch, tmp_path / "disk")
    with pytest.warns(ld.LoggingWarning, match="another host has continued the run"):
        with ld.Logger(Memory(), "r", log_dir=bucket) as logger:
            log(logger, range(5, 7))
    assert steps_at(f"{bucket}/r") == [*range(7)]
    assert (other.incarnation, logger.incarnation) == (2, 3)
    (aside,) = loser.run_dir.parent.glob("r.*.unsent")
    assert journal_steps(aside) == [*range(6)] and str(aside) in logger.failures[0].message


def test_two_loggers_of_one_name_on_one_disk(bucket, monkeypatch):
    with ld.Logger(Memory(), "r", log_dir=bucket) as logger:
        with pytest.raises(RuntimeError, match="still open"):
            ld.Logger(Memory(), "r", log_dir=bucket)
        log(logger, range(2))
    with ld.Logger(Memory(), "r", log_dir=bucket) as second:
        assert second.name == "r_2"
    with pytest.raises(ValueError, match=f"there is no run 'q' in {bucket}"):
        ld.Logger(Memory(), "q", log_dir=bucket, resume="must")
    shutil.rmtree(os.environ["XDG_CACHE_HOME"])
    with ld.Logger(Memory(), "r", log_dir=bucket, resume="must") as third:
        assert third.incarnation == 2


def test_a_local_folder_that_is_removed_costs_the_bucket_nothing(bucket, tmp_path, monkeypatch):
    logger = ld.Logger(ld.JSONLBackend(bucket), "r")
    log(logger, range(20))
    logger.flush()
    shutil.rmtree(logger.run_dir)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ld.LoggingWarning)
        deadline = time.monotonic() + 20.0
        while not (logger.run_dir / "journal.jsonl").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        log(logger, range(20, 25))
        flush(logger)
        logger.close()
    assert steps_at(f"{bucket}/r") == [*range(25)]
    use_disk(monkeypatch, tmp_path / "other")
    with ld.Logger(Memory(), "r", log_dir=bucket, resume="allow") as again:
        lines = (again.run_dir / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["x"] for line in lines] == [*range(25)]


def test_a_signal_uploads_at_once(bucket, monkeypatch):
    monkeypatch.setattr(_mirror, "_INTERVAL", 1000.0)
    monkeypatch.setattr(_mirror, "_MAX_INTERVAL", 1000.0)
    with ld.Logger(Memory(), "r", log_dir=bucket, handle_signals=True) as logger:
        logger.flush()
        log(logger, range(5))
        os.kill(os.getpid(), signal.SIGTERM)
        deadline = time.monotonic() + 15.0
        while steps_at(f"{bucket}/r") != [*range(5)]:
            assert time.monotonic() < deadline
    assert lease_of(f"{bucket}/r")["open"] is False


def test_a_segment_ends_with_a_whole_record(bucket, monkeypatch):
    monkeypatch.setattr(_mirror, "_MAX_SEGMENT", 3000)
    with ld.Logger([ld.TensorBoardBackend(bucket)], "r") as logger:
        log(logger, range(100))
        logger.log({"long" * 500: 1.0}, 100)
    assert steps_at(f"{bucket}/r") == [*range(101)]
    journal = b"".join(data for path, data in Shaky.writes if "journal.jsonl" in path)
    assert journal == (logger.run_dir / "journal.jsonl").read_bytes()
    sizes = [len(data) for path, data in Shaky.writes if "journal" in path]
    assert len(sizes) >= 3 and all(
        data.endswith(b"\n") for path, data in Shaky.writes if "jsonl" in path
    )
    for path, data in Shaky.writes:
        if "tfevents" in path and not path.endswith("hparams"):
            assert _mirror._whole_records("tfevents", data) == len(data) > 0
            assert _mirror._whole_records("tfevents", data[:-1]) < len(data)


def test_what_cannot_be_a_bucket_is_an_error_by_name(bucket, monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ValueError, match=r"pip install 'lerax-dist\[gcs\]'"):
        ld.Logger(Memory(), "r", log_dir="gs://bucket/logs")
    with pytest.raises(ValueError, match="gs://bucket/logs/r cannot be opened by fsspec"):
        ld.read_run("gs://bucket/logs/r")
    with pytest.raises(ValueError, match="nothing://x/r cannot be opened by fsspec"):
        ld.Logger(Memory(), "r", log_dir="nothing://x")
    with pytest.raises(ValueError, match="Pass the URL as `log_dir` of the logger"):
        ld.Logger([ld.JSONLBackend("logs"), ld.TensorBoardBackend(bucket)], "r")
    with pytest.raises(ValueError, match="must be a folder of this machine"):
        ld.WandbBackend(dir="gs://bucket")


def test_the_doctor_tries_a_bucket(bucket, tmp_path, monkeypatch):
    def judge(log_dir):
        group = SimpleNamespace(is_writer=True)
        context = cast(Any, SimpleNamespace(log_dir=log_dir, group=group))
        mine = LogFolderCheck().collect(context)
        group.is_writer = False
        return mine, [*LogFolderCheck().judge([mine, LogFolderCheck().collect(context)], "ab")]

    mine, findings = judge(bucket)
    assert (mine.path, mine.seen, findings) == (bucket, True, [])
    assert Bucket(bucket).sizes() == {} and len(Shaky.writes) == 1
    Shaky.broken = True
    _, (finding,) = judge(bucket)
    assert f"cannot write to the log folder {bucket} (the server is gone)" in finding.what
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    assert "'lerax-dist[gcs]'" in judge("gs://bucket")[0].why
    assert list(tmp_path.rglob("*")) == []
