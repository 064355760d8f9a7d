"""The drawings of gymnax's classic control tasks move the way their states say."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import gymnax
import jax
import numpy as np
import pytest

from lerax_dist.video._render import choose_renderer, draw_frames

PATH = Path(__file__).parents[2] / "examples" / "gymnax_render.py"


def load_example():
    spec = importlib.util.spec_from_file_location("gymnax_render", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


EXAMPLE = load_example()


def draw(name, **state):
    env, _ = gymnax.make(name)
    return EXAMPLE.make_render(env)(SimpleNamespace(**state), 160, 120)


def center_of_color(frame):
    """Mean column and row of the pixels that are not gray."""
    rows, columns = np.nonzero(np.ptp(frame.astype(int), axis=-1) > 20)
    return columns.mean(), rows.mean()


def test_the_pole_follows_the_cart_and_leans_by_its_angle():
    assert center_of_color(draw("CartPole-v1", x=1.0, theta=0.0))[0] > 110
    upright = center_of_color(draw("CartPole-v1", x=0.0, theta=0.0))
    leaning = center_of_color(draw("CartPole-v1", x=0.0, theta=0.3))
    assert leaning[0] > upright[0] + 2


def test_the_pendulum_is_upright_at_0_and_turns_counterclockwise():
    assert center_of_color(draw("Pendulum-v1", theta=0.0))[1] < 50
    assert center_of_color(draw("Pendulum-v1", theta=np.pi / 2))[0] < 70


def test_the_acrobot_hangs_at_0_and_fits_into_the_frame():
    hanging = draw("Acrobot-v1", joint_angle1=0.0, joint_angle2=0.0)
    assert center_of_color(hanging)[1] > 70
    assert (hanging[-1] == 255).all()


@pytest.mark.parametrize("name", ["MountainCar-v0", "MountainCarContinuous-v0"])
def test_the_mountain_car_is_where_its_position_says(name):
    left, right = (draw(name, position=x) for x in (-1.0, 0.4))
    dark = [(frame < 60).all(-1) for frame in (left, right)]
    # What only one of the two frames has is the car, without the track and the flag.
    columns = [np.nonzero(dark[i] & ~dark[1 - i])[1].mean() for i in (0, 1)]
    np.testing.assert_allclose(columns, [160 * (x + 1.2) / 1.8 for x in (-1.0, 0.4)], atol=8)


@pytest.mark.parametrize("name", EXAMPLE.TASKS)
def test_real_states_are_drawn_by_the_function_that_the_example_gives_to_the_logger(name):
    env, params = gymnax.make(name)
    _, state = env.reset(jax.random.key(5), params)
    states = jax.tree.map(lambda leaf: np.stack([np.asarray(leaf)] * 2), state)
    renderer = choose_renderer(env, env, EXAMPLE.make_render(env))
    frames = draw_frames(renderer.observe(states), renderer.draw, 2, 64, 48)
    assert len(np.unique(frames)) > 3
    np.testing.assert_array_equal(frames[0], frames[1])


def test_the_view_is_centered_in_a_frame_of_another_shape():
    env, _ = gymnax.make("CartPole-v1")
    wide = EXAMPLE.make_render(env)(SimpleNamespace(x=0.0, theta=0.0), 320, 120)
    assert wide.shape == (120, 320, 3)
    np.testing.assert_allclose(center_of_color(wide)[0], 160, atol=2)
