import numpy as np
import pytest

import lerax_dist as ld

FRAMES = np.arange(24, dtype=np.uint8).reshape(1, 2, 4, 3)


def test_a_users_test_reads_what_a_run_logged(tmp_path):
    memory = ld.MemoryBackend()
    with ld.Logger(memory, "r", log_dir=tmp_path, hparams={"lr": 0.1}, total_steps=20) as logger:
        logger.log({"train": {"loss": 0.5}}, step=0)
        logger.log({"train": {"loss": 0.25}}, step=10)
        logger.log_video("eval/video", FRAMES, step=10, fps=10.0)
    assert memory.name == "r"
    assert memory.rows == [(0, {"train/loss": 0.5}), (10, {"train/loss": 0.25})]
    assert all(type(value) is float for _, row in memory.rows for value in row.values())
    assert memory.hparams == {"lr": 0.1}
    assert memory.facts["run_id"] == logger.run_id
    assert memory.state == "finished"
    ((tag, frames, step, fps),) = memory.videos
    assert (tag, step, fps) == ("eval/video", 10, 10.0)
    np.testing.assert_array_equal(frames, FRAMES)
    assert memory.calls == [
        ("on_identity", logger.run_id, 1),
        ("open", "r"),
        ("on_run", memory.facts),
        ("log_hparams", {"lr": 0.1}),
        ("on_training_start", 20, 0),
        ("log_video", "eval/video", FRAMES.shape, 10, 10.0),
        ("on_end", "finished"),
        ("close",),
    ]


def test_a_run_that_fails_says_so(tmp_path):
    memory = ld.MemoryBackend()
    with pytest.raises(ZeroDivisionError), ld.Logger(memory, "r", log_dir=tmp_path):
        raise ZeroDivisionError
    assert memory.state == "failed"


def test_a_run_that_resumes_may_go_to_the_same_backend(tmp_path):
    memory = ld.MemoryBackend()
    first = ld.Logger(memory, "r", log_dir=tmp_path)
    first.log({"x": 0.0}, 0)
    first.log({"x": 1.0}, 1)
    first.close(failed=True)
    with ld.Logger(memory, "r", log_dir=tmp_path) as second:
        second.log({"x": 5.0}, 1)
    assert memory.rows == [(0, {"x": 0.0}), (1, {"x": 1.0}), (1, {"x": 5.0})]
    assert ("on_resume", 1) in memory.calls


def test_vectors_are_kept_beside_the_rows():
    memory = ld.MemoryBackend()
    memory.open("r")
    memory.log_vectors({"h": np.arange(3.0)}, 7)
    memory.close()
    ((step, vectors),) = memory.vectors
    assert (step, list(vectors), vectors["h"].tolist()) == (7, ["h"], [0.0, 1.0, 2.0])


def test_a_backend_writes_one_run_at_a_time():
    memory = ld.MemoryBackend()
    with pytest.raises(RuntimeError, match="`MemoryBackend` must be open"):
        memory.log_scalars({"x": np.array(1.0)}, 0)
    memory.open("a")
    with pytest.raises(RuntimeError, match="must be closed before it opens run 'b'"):
        memory.open("b")
