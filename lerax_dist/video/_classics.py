"""What the classic control tasks of gymnax look like. Pure: numbers to shapes.

gymnax's own pictures need gymnasium, pygame and matplotlib; these need none of them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from lerax_dist.video._paint import Picture, Shape, View

_WHITE, _BLACK, _GREY = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.5, 0.5, 0.5)
_WOOD, _RED, _TEAL, _YELLOW = (0.8, 0.6, 0.4), (0.8, 0.3, 0.3), (0.0, 0.7, 0.7), (0.8, 0.8, 0.0)
_TALL = 4.0 / 3.0


def cartpole(state: Any, params: Any) -> Picture:
    """A cart on its rail, as wide as the episode allows, and the pole on it."""
    x, angle = float(state.x), float(state.theta)
    reach, pole = 2.0 * float(params.x_threshold), 2.0 * float(params.length)
    view = _view(reach, centre=(0.0, 0.9))
    top = np.array([x, 0.12])
    tip = top + pole * np.array([np.sin(angle), np.cos(angle)])
    return Picture(
        view,
        _WHITE,
        (
            Shape("line", _BLACK, ((-9.0, 0.0), (9.0, 0.0), 0.02)),
            Shape("rect", _BLACK, (np.array([x, 0.0]), 0.5, 0.3)),
            Shape("line", _WOOD, (top, tip, 0.1)),
            Shape("circle", _GREY, (top, 0.05)),
        ),
    )


def pendulum(state: Any, params: Any) -> Picture:
    """A rod that hangs from an axle; upright is the goal."""
    angle, rod = float(state.theta), float(params.l)
    tip = rod * np.array([-np.sin(angle), np.cos(angle)])
    middle = np.zeros(2)
    return Picture(
        _view(3.6 * rod),
        _WHITE,
        (
            Shape("line", _RED, (middle, tip, 0.2 * rod)),
            Shape("circle", _RED, (middle, 0.1 * rod)),
            Shape("circle", _RED, (tip, 0.1 * rod)),
            Shape("circle", _BLACK, (middle, 0.05 * rod)),
        ),
    )


def mountain_car(state: Any, params: Any) -> Picture:
    """A car in a valley, and the flag that it is to reach."""
    x, goal = float(state.position), float(params.goal_position)
    low, high = float(params.min_position), float(params.max_position)
    track = np.linspace(low - 0.2, high + 0.2, 96)
    foot = np.array([goal, _ground(goal)])
    flag = foot + np.array([0.0, 0.2])
    slope = np.arctan(1.35 * np.cos(3.0 * x))
    along, up = np.array([np.cos(slope), np.sin(slope)]), np.array([-np.sin(slope), np.cos(slope)])
    place = np.array([x, _ground(x)])
    corners = [place + 0.06 * side * along + level * up for side, level in _BODY]
    return Picture(
        _view(high - low, centre=((low + high) / 2, 0.15)),
        _WHITE,
        (
            Shape("polyline", _BLACK, (np.stack([track, _ground(track)], axis=1),)),
            Shape("line", _BLACK, (foot, flag, 0.008)),
            Shape("polygon", _RED, (flag + np.array([[0.0, 0.0], [0.1, -0.03], [0.0, -0.06]]),)),
            Shape("polygon", _BLACK, (np.stack(corners),)),
            Shape("circle", _GREY, (place - 0.03 * along + 0.02 * up, 0.02)),
            Shape("circle", _GREY, (place + 0.03 * along + 0.02 * up, 0.02)),
        ),
    )


_BODY = ((-1, 0.025), (1, 0.025), (1, 0.07), (-1, 0.07))


def acrobot(state: Any, params: Any) -> Picture:
    """Two links that hang from a joint, and the height that the tip is to reach."""
    first, second = float(state.joint_angle1), float(state.joint_angle2)
    length, other = float(params.link_length_1), float(params.link_length_2)
    middle = np.zeros(2)
    elbow = length * np.array([np.sin(first), -np.cos(first)])
    tip = elbow + other * np.array([np.sin(first + second), -np.cos(first + second)])
    return Picture(
        _view(2.4 * (length + other) * _TALL / 2 + 0.6),
        _WHITE,
        (
            Shape("line", _BLACK, ((-9.0, length), (9.0, length), 0.02)),
            Shape("line", _TEAL, (middle, elbow, 0.2)),
            Shape("line", _TEAL, (elbow, tip, 0.2)),
            Shape("circle", _YELLOW, (middle, 0.1)),
            Shape("circle", _YELLOW, (elbow, 0.1)),
        ),
    )


CLASSICS: dict[str, Callable[[Any, Any], Picture]] = {
    "CartPole-v1": cartpole,
    "Pendulum-v1": pendulum,
    "MountainCar-v0": mountain_car,
    "MountainCarContinuous-v0": mountain_car,
    "Acrobot-v1": acrobot,
}
"""By the name of the environment."""


def _ground(x: Any) -> Any:
    return 0.45 * np.sin(3.0 * x)


def _view(reach: float, centre: tuple[float, float] = (0.0, 0.0)) -> View:
    """A canvas of 4 by 3, `reach` world units wide."""
    width, height = 640.0, 480.0
    scale = width / reach
    offset = (width / 2 - centre[0] * scale, height / 2 - centre[1] * scale)
    return View(width, height, scale, offset)
