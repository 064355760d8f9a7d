"""Videos of a run of several processes: one clip, from process 0, and nothing anywhere else."""

from pathlib import Path

import numpy as np
import pytest

from tests.multiprocess.launch import launch
from tests.multiprocess.workers.filmed import (
    ENVIRONMENTS,
    HEIGHT,
    INTERVAL,
    ITERATIONS,
    MODES,
    STEPS,
    WIDTH,
)
from tests.readers import clip_frames, event_images, journal_records, journal_rows
from tests.video.walk import expected_frames

WORKER = Path(__file__).parent / "workers" / "filmed.py"
RECORDED = range(INTERVAL, ITERATIONS + 1, INTERVAL)


@pytest.mark.parametrize("scope", ["global", "process"])
def test_two_processes_of_two_devices_record_each_clip_once_to_the_bit(tmp_path, scope):
    first, second = launch(WORKER, str(tmp_path), scope, processes=2, devices=2, timeout=200)
    # With a program each, every process has that many environments of its own.
    environments = ENVIRONMENTS * (1 if scope == "global" else 2)
    for mode in MODES:
        run_dir = tmp_path / mode
        records = journal_records(run_dir)
        bodies = [record.body for record in records if getattr(record, "kind", "") == "video"]
        assert [(body["iteration"], body["step"]) for body in bodies] == [
            (iteration, iteration * environments) for iteration in RECORDED
        ]
        steps = [step for step, _ in journal_rows(run_dir)]
        assert steps == [i * environments for i in range(1, ITERATIONS + 1)]
        images = event_images(run_dir)
        assert [(tag, step) for tag, step, _ in images] == [
            ("eval/video", body["step"]) for body in bodies
        ]
        for body, (_, _, shown) in zip(bodies, images, strict=True):
            expected = expected_frames(2.0 * body["iteration"], STEPS, WIDTH, HEIGHT)
            kept = clip_frames(run_dir / body["file"])
            np.testing.assert_array_equal(kept, expected)
            np.testing.assert_array_equal(shown, expected)
        # The policy was played by one device of process 0, on the iterations that record.
        assert first.report["modes"][mode] == {"played": len(RECORDED) * STEPS, "failures": []}
        assert second.report["modes"][mode] == {"played": 0, "failures": []}
    assert second.report["imported"] == []
    # The launch's own, which every process has.
    launchs = {"lerax_dist-heartbeat", "lerax_dist-store", "lerax_dist-callbacks"}
    assert set(second.report["threads"]) <= launchs
