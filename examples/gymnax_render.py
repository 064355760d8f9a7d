"""Draws gymnax's classic control tasks: a `render=` for `LoggingCallback`, with Pillow alone.

gymnax's own drawings need gymnasium, pygame and matplotlib, and gymnax environments have no
`render_frame`. For another environment write a function like these: a state with NumPy arrays as
leaves and a size in pixels in, `uint8` pixels of shape `(height, width, 3)` out.

    import gymnax
    from gymnax_render import make_render

    env, _ = gymnax.make("CartPole-v1")
    logger = LoggingCallback(..., env=env, video_interval=10, render=make_render(env))
"""

from collections.abc import Callable
from typing import Any, final

import numpy as np
from PIL import Image, ImageDraw

Color = tuple[int, int, int]
BLACK, GRAY, BROWN, RED = (0, 0, 0), (127, 127, 127), (204, 153, 102), (204, 76, 76)
TEAL, YELLOW = (0, 178, 178), (204, 204, 0)
# Drawn at twice the size and averaged down, which smooths the edges.
SUPERSAMPLING = 2


def make_render(env: Any) -> Callable[[Any, int, int], np.ndarray]:
    """The function `(state, width, height)` to pixels for one of the tasks in `TASKS`.

    Args:
        env: gymnax environment; its name and its default parameters are used.

    Raises:
        KeyError: if the environment is not in `TASKS`.
    """
    draw, params = TASKS[env.name], env.default_params

    def render(state: Any, width: int, height: int) -> np.ndarray:
        canvas = Canvas(width, height)
        draw(canvas, state, params)
        return canvas.pixels()

    return render


@final
class Canvas:
    """A white image with a view of the world, as large as fits at 4:3 and centered."""

    def __init__(self, width: int, height: int) -> None:
        self._size = np.array([width, height]) * SUPERSAMPLING
        self._image = Image.new("RGB", tuple(self._size.tolist()), (255, 255, 255))
        self._draw = ImageDraw.Draw(self._image)

    def view(self, span: float, center: tuple[float, float] = (0.0, 0.0)) -> None:
        """Show `span` world units from left to right, around `center`; y points up."""
        width, height = self._size
        self._scale = min(width, height * 4 / 3) / span
        self._center = np.array(center)

    def _px(self, points: Any) -> list[tuple[float, float]]:
        moved = (np.atleast_2d(points) - self._center) * (self._scale, -self._scale)
        return [tuple(point) for point in (moved + self._size / 2).tolist()]

    def polygon(self, points: Any, color: Color) -> None:
        self._draw.polygon(self._px(points), fill=color)

    def curve(self, points: Any, color: Color) -> None:
        self._draw.line(self._px(points), fill=color, width=SUPERSAMPLING)

    def rect(self, center: Any, width: float, height: float, color: Color) -> None:
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (width / 2, height / 2)
        self.polygon(np.array(center) + corners, color)

    def line(self, start: Any, end: Any, width: float, color: Color) -> None:
        start, end = np.array(start), np.array(end)
        x, y = end - start
        side = np.array([-y, x]) / np.hypot(x, y) * (width / 2)
        self.polygon([start + side, start - side, end - side, end + side], color)

    def circle(self, center: Any, radius: float, color: Color) -> None:
        ((x, y),), r = self._px(center), radius * self._scale
        self._draw.ellipse([x - r, y - r, x + r, y + r], fill=color)

    def pixels(self) -> np.ndarray:
        return np.asarray(self._image.reduce(SUPERSAMPLING))


def cartpole(canvas: Canvas, state: Any, params: Any) -> None:
    """A cart on its rail, as wide as the episode allows, and the pole on it."""
    x, angle = float(state.x), float(state.theta)
    canvas.view(2.0 * params.x_threshold, center=(0.0, 0.9))
    top = np.array([x, 0.12])
    tip = top + 2.0 * params.length * np.array([np.sin(angle), np.cos(angle)])
    canvas.line((-9.0, 0.0), (9.0, 0.0), 0.02, BLACK)
    canvas.rect((x, 0.0), 0.5, 0.3, BLACK)
    canvas.line(top, tip, 0.1, BROWN)
    canvas.circle(top, 0.05, GRAY)


def pendulum(canvas: Canvas, state: Any, params: Any) -> None:
    """A rod on an axle; upright, at angle 0, is the goal."""
    angle, rod = float(state.theta), float(params.l)
    canvas.view(3.6 * rod)
    tip = rod * np.array([-np.sin(angle), np.cos(angle)])
    canvas.line((0.0, 0.0), tip, 0.2 * rod, RED)
    canvas.circle((0.0, 0.0), 0.1 * rod, RED)
    canvas.circle(tip, 0.1 * rod, RED)
    canvas.circle((0.0, 0.0), 0.05 * rod, BLACK)


def mountain_car(canvas: Canvas, state: Any, params: Any) -> None:
    """A car in a valley, and the flag that it is to reach."""
    x, goal = float(state.position), float(params.goal_position)
    low, high = float(params.min_position), float(params.max_position)
    canvas.view(high - low, center=((low + high) / 2, 0.15))
    track = np.linspace(low - 0.2, high + 0.2, 96)
    canvas.curve(np.stack([track, _ground(track)], axis=1), BLACK)
    foot = np.array([goal, _ground(goal)])
    flag = foot + (0.0, 0.2)
    canvas.line(foot, flag, 0.008, BLACK)
    canvas.polygon(flag + np.array([[0.0, 0.0], [0.1, -0.03], [0.0, -0.06]]), RED)
    # Axes of the car: along the ground, whose slope is the derivative of `_ground`, and up from it.
    slope = np.arctan(1.35 * np.cos(3.0 * x))
    along, up = np.array([np.cos(slope), np.sin(slope)]), np.array([-np.sin(slope), np.cos(slope)])
    place = np.array([x, _ground(x)])
    corners = [(-1, 0.025), (1, 0.025), (1, 0.07), (-1, 0.07)]
    canvas.polygon([place + 0.06 * side * along + level * up for side, level in corners], BLACK)
    for side in (-0.03, 0.03):
        canvas.circle(place + side * along + 0.02 * up, 0.02, GRAY)


def _ground(x: Any) -> Any:
    return 0.45 * np.sin(3.0 * x)


def acrobot(canvas: Canvas, state: Any, params: Any) -> None:
    """Two links that hang from a joint, and the height that the tip is to reach."""
    first, second = float(state.joint_angle1), float(state.joint_angle2)
    upper, lower = float(params.link_length_1), float(params.link_length_2)
    # The frame is 4:3, and the links reach up and down by their lengths.
    canvas.view(4 / 3 * 2.2 * (upper + lower))
    elbow = upper * np.array([np.sin(first), -np.cos(first)])
    tip = elbow + lower * np.array([np.sin(first + second), -np.cos(first + second)])
    canvas.line((-9.0, upper), (9.0, upper), 0.02, BLACK)
    canvas.line((0.0, 0.0), elbow, 0.2, TEAL)
    canvas.line(elbow, tip, 0.2, TEAL)
    canvas.circle((0.0, 0.0), 0.1, YELLOW)
    canvas.circle(elbow, 0.1, YELLOW)


# By the name of the environment.
TASKS: dict[str, Callable[[Canvas, Any, Any], None]] = {
    "CartPole-v1": cartpole,
    "Pendulum-v1": pendulum,
    "MountainCar-v0": mountain_car,
    "MountainCarContinuous-v0": mountain_car,
    "Acrobot-v1": acrobot,
}
