"""Videos by `LoggingCallback`: the compiled step, and the files that users open."""

import re

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import lerax_dist as ld
from lerax_dist.host._clip_file import load_clip
from lerax_dist.video._render import draw_frames
from tests.loop import step_states
from tests.memory import Memory
from tests.program import callbacks, collective_operands, compiled_text
from tests.readers import journal_records, journal_rows
from tests.video.walk import Walk, act, expected_frames

KEY = jax.random.key(0)
RESET = ld.ResetContext()
ITERATIONS, STEPS = 9, 12
SIZE = {"video_num_steps": STEPS, "video_width": 24, "video_height": 10}
RECORDED = {**SIZE, "video_interval": 4, "act": act}


class Frames(Memory):
    """Keeps the clips as well."""

    def __init__(self):
        super().__init__()
        self.clips = []

    def log_video(self, tag, frames, step, fps):
        self.clips.append((tag, frames, step, fps))


def train(logger, env, x):
    """`ITERATIONS` iterations; number `i` has the policy "walk 2 `i` per step"."""

    def step(states, count):
        each = jax.vmap(
            lambda s, r: logger.on_step(ld.StepContext(s, env, None, r < 0, r), key=KEY)
        )
        states = each(states, x)
        policy = jnp.float32(2) * count.astype(jnp.float32)
        context = ld.IterationContext(
            ld.EmptyCallbackState(), states, env, policy, count, None, {"loss": x.mean()}
        )
        logger.on_iteration(context, key=jax.random.fold_in(KEY, count))
        return states, None

    fresh = jax.vmap(lambda _: logger.step_reset(RESET, key=KEY))(x)
    fresh = jax.tree.map(lambda zero: zero + jnp.zeros_like(x).astype(zero.dtype), fresh)
    counts = jnp.arange(1, ITERATIONS + 1, dtype=jnp.int32)
    return jax.lax.scan(step, fresh, counts)[0].average_return


def program(mode, devices, logger, env):
    """The training as a function of one array, run on several devices in one of four ways."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:devices]), ("d",), axis_types=(AxisType.Auto,))

    def body(x):
        return train(logger, env, x)

    if mode == "pmap":
        mapped = jax.pmap(body, axis_name="i", devices=jax.devices()[:devices])
        return lambda x: mapped(x.reshape(devices, -1))
    if mode == "jit":
        compiled = jax.jit(body)
        return lambda x: compiled(jax.device_put(x, NamedSharding(mesh, P("d"))))
    specs = {"in_specs": P("d"), "out_specs": P("d"), "check_vma": mode == "shard_map"}
    return jax.jit(jax.shard_map(body, mesh=mesh, **specs))


X = jnp.zeros(8)
EXPECTED = {iteration: expected_frames(2 * iteration, STEPS, 24, 10) for iteration in (4, 8)}


def check_clips(clips):
    assert [(tag, step, fps) for tag, _, step, fps in clips] == [
        ("eval/video", 8 * iteration, 50.0) for iteration in EXPECTED
    ]
    for (_, frames, _, _), expected in zip(clips, EXPECTED.values(), strict=True):
        assert frames.dtype == np.uint8
        np.testing.assert_array_equal(frames, expected)


@pytest.mark.parametrize(
    ("mode", "devices"),
    [("jit", 1), ("jit", 4), ("shard_map", 1), ("shard_map", 4), ("unchecked", 4), ("pmap", 4)],
)
def test_clips_are_those_of_numpy_at_the_steps_of_their_rows(tmp_path, mode, devices):
    played = []
    env = Walk(lambda: played.append(1))
    backend = Frames()
    with ld.LoggingCallback(backend, "run", env=env, log_dir=tmp_path, **RECORDED) as logger:
        jax.block_until_ready(program(mode, devices, logger, env)(X))
    assert logger.failures == ()
    check_clips(backend.clips)
    # One device plays, in two iterations of nine.
    assert len(played) == 2 * STEPS
    # The journal has the clips and all rows, and its last record is the end of the run.
    records = journal_records(tmp_path / "run")
    bodies = [record.body for record in records if getattr(record, "kind", "") == "video"]
    assert [(body["iteration"], body["step"]) for body in bodies] == [(4, 32), (8, 64)]
    for body, expected in zip(bodies, EXPECTED.values(), strict=True):
        back = load_clip(tmp_path / "run" / body["file"], body["shape"][0], body["fps"])
        np.testing.assert_array_equal(back, expected)
    assert [step for step, _ in journal_rows(tmp_path / "run")] == [8 * i for i in range(1, 10)]
    assert records[-1].kind == "close"


def test_video_adds_one_branch_and_no_collective_to_the_step(tmp_path):
    def compiled(**video):
        with ld.LoggingCallback(Memory(), env=Walk(), log_dir=tmp_path, **video) as logger:
            return compiled_text(program("shard_map", 4, logger, Walk()), X)

    without, with_video = compiled(), compiled(**RECORDED)
    assert collective_operands(with_video) == collective_operands(without)
    assert (callbacks(without), callbacks(with_video)) == (1, 2)
    # The rollout, a loop of its own, is inside a branch.
    assert with_video.count(" conditional(") == without.count(" conditional(") + 1


def run_once(tmp_path, in_step=None, mode="jit", devices=1, **arguments):
    """Trains, checks that all rows are there, and returns the clips and the failures."""
    backend = Frames()
    given = {"log_dir": tmp_path, "video_interval": 4, **SIZE, **arguments}
    with ld.LoggingCallback(backend, **given) as logger:
        jax.block_until_ready(program(mode, devices, logger, in_step)(X))
    assert [step for step, _ in backend.rows] == [8 * i for i in range(1, 10)]
    return backend.clips, logger.failures


def test_the_users_own_functions_play_and_draw_anything(tmp_path):
    def rollout(policy, key):
        def step(x, _):
            return x + policy, {"x": x, "odd": x.astype(jnp.int8) % 2 == 1}

        return jax.lax.scan(step, jnp.float32(0), length=STEPS)[1]

    def render(state, width, height):
        assert state["odd"].dtype == bool
        # JAX may be used here too; it runs on the CPU.
        value = jnp.asarray(state["x"]) % 251
        return np.full((height, width, 3), np.uint8(value))

    clips, failures = run_once(tmp_path, rollout=rollout, render=render)
    assert failures == ()
    (_, frames, step, _), _ = clips
    assert step == 32
    expected = (8 * np.arange(STEPS)) % 251
    np.testing.assert_array_equal(frames[:, 3, 5, 1], expected)


def test_states_larger_than_one_payload_arrive_complete(tmp_path):
    """One payload of 128 KiB would deadlock several devices; see `device/_transfer.py`."""

    def rollout(policy, key):
        return jnp.arange(STEPS * 5000, dtype=jnp.int32).reshape(STEPS, 5000) % 256

    def render(state, width, height):
        return np.resize(state.astype(np.uint8), (height, width, 3))

    clips, failures = run_once(
        tmp_path, mode="shard_map", devices=4, rollout=rollout, render=render, video_interval=8
    )
    assert failures == ()
    ((_, frames, _, _),) = clips
    numbers = (np.arange(STEPS * 5000).reshape(STEPS, 5000) % 256).astype(np.uint8)
    np.testing.assert_array_equal(frames, [np.resize(each, (10, 24, 3)) for each in numbers])


def fails(*args):
    raise ZeroDivisionError("on purpose")


def reduces(policy, key):
    return jax.lax.psum(jnp.zeros((STEPS, 2)), "d")


def short(policy, key):
    return jnp.zeros((STEPS - 1, 2))


def huge(policy, key):
    return jnp.zeros((STEPS, 1 << 21))


def complex_numbers(policy, key):
    return jnp.zeros((STEPS, 2), jnp.complex64)


def half_bytes(policy, key):
    return jnp.zeros((STEPS, 2), jnp.int4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"env": object()}, "object has no `render_frame.* Pass `render="),
        (
            {"env": object(), "render": fails},
            "neither lerax's methods nor gymnax's.* Pass `rollout=",
        ),
        ({"env": Walk()}, "is not callable. Pass `act="),
        ({"env": Walk(), "act": fails}, "on purpose"),
        ({"rollout": fails, "render": fails}, "on purpose"),
        ({"rollout": reduces, "render": fails}, "the collective 'psum"),
        ({"rollout": short, "render": fails}, "leading axis of `video_num_steps` 12"),
        ({"rollout": huge, "render": fails}, "take 96 MiB"),
        ({"rollout": complex_numbers, "render": fails}, "complex64"),
        ({"rollout": half_bytes, "render": fails}, "int4"),
    ],
)
@pytest.mark.filterwarnings("ignore::lerax_dist.LoggingWarning")
def test_a_failing_setup_gives_one_warning_and_the_step_of_a_run_without_video(
    tmp_path, arguments, message
):
    arguments = {**SIZE, "video_interval": 4, **arguments}
    with ld.LoggingCallback(Memory(), log_dir=tmp_path, **arguments) as logger:
        step = program("shard_map", 2, logger, arguments.get("env"))
        text = str(jax.make_jaxpr(step)(X))
    assert text.count("debug_callback[") == 1
    (failure,) = logger.failures
    assert failure.where == "video"
    assert re.search(message, failure.message)


@pytest.mark.filterwarnings("ignore::lerax_dist.LoggingWarning")
def test_render_frame_of_an_environment_that_only_the_step_has_gives_a_warning(tmp_path):
    clips, (failure,) = run_once(tmp_path, Walk(), act=act)
    assert clips == []
    assert "Pass it to `LoggingCallback` as well: `env=env`" in failure.message


@pytest.mark.filterwarnings("ignore::lerax_dist.LoggingWarning")
def test_a_render_function_that_raises_gives_one_warning_and_all_rows(tmp_path):
    clips, (failure,) = run_once(tmp_path, Walk(), act=act, render=fails)
    assert clips == []
    assert failure.message == "failed to render the clip at step 32: on purpose"


@pytest.mark.parametrize(
    "frame", [np.zeros((10, 24, 3)), np.zeros((24, 10, 3), np.uint8), np.zeros((10, 24), np.uint8)]
)
def test_a_frame_of_another_shape_or_type_raises(frame):
    with pytest.raises(ValueError, match=r"must return uint8 of shape \(10, 24, 3\).*, got"):
        draw_frames(np.zeros((2, 1)), lambda state, width, height: frame, 2, 24, 10)


@pytest.mark.parametrize("ends", [ITERATIONS, 5])
def test_of_several_members_there_is_the_clip_of_the_first(tmp_path, ends):
    """Under `vmap`, in a loop whose members end at different iterations; none after its end."""
    env, backend = Walk(), Frames()
    with ld.LoggingCallback(backend, "run", env=env, log_dir=tmp_path, **RECORDED) as logger:

        def member(speed, end):
            def step(count):
                context = ld.IterationContext(
                    ld.EmptyCallbackState(), step_states(count[None]), env,
                    speed * count.astype(jnp.float32), count, None, {},
                )  # fmt: skip
                logger.on_iteration(context, key=KEY)
                return count + 1

            return jax.lax.while_loop(lambda count: count <= end, step, jnp.int32(1))

        speeds, last = jnp.asarray([2.0, 3.0, 5.0]), jnp.asarray([ends, ITERATIONS, 1])
        jax.block_until_ready(jax.jit(jax.vmap(member))(speeds, last))
    assert logger.failures == ()
    assert [step for _, _, step, _ in backend.clips] == [4, 8][: 1 if ends < 8 else 2]
    for (_, frames, _, _), expected in zip(backend.clips, EXPECTED.values(), strict=False):
        np.testing.assert_array_equal(frames, expected)


def test_members_in_a_scan_need_one_rollout(tmp_path):
    played = []
    env, backend = Walk(lambda: played.append(1)), Frames()
    with ld.LoggingCallback(backend, "run", env=env, log_dir=tmp_path, **RECORDED) as logger:
        jax.block_until_ready(jax.jit(jax.vmap(lambda x: train(logger, env, x)))(jnp.zeros((3, 8))))
    check_clips(backend.clips)
    assert len(played) == 2 * STEPS
