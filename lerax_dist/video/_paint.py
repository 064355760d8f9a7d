"""A few flat shapes to pixels, by Pillow. Pure: no JAX, no window."""

from typing import Any, NamedTuple

import numpy as np

# Drawn so many times larger and averaged, which smooths the edges.
_FINER = 2


class View(NamedTuple):
    """How a point of the world becomes one of a canvas: `point * scale + offset`.

    Attributes:
        width: width of the canvas.
        height: height of the canvas.
        scale: canvas units a world unit.
        offset: where the world's origin lies, shape `(2,)`, from the corner that `y_up` says.
        y_up: whether heights are counted from the bottom.
    """

    width: Any
    height: Any
    scale: Any
    offset: Any
    y_up: bool = True


class Shape(NamedTuple):
    """Something flat.

    Attributes:
        kind: `"circle"` (centre, radius), `"line"` (start, end, width), `"rect"` (centre, width,
            height), `"ellipse"` (likewise), `"polygon"` (points), `"polyline"` (points) or
            `"text"` (place, size in canvas units).
        color: red, green and blue, each from 0 to 1.
        numbers: what the kind asks for, in world units.
        text: the text, if it is one.
    """

    kind: str
    color: Any
    numbers: tuple[Any, ...]
    text: str = ""


class Picture(NamedTuple):
    """What is on one frame, the later shapes over the earlier ones."""

    view: View
    background: Any
    shapes: tuple[Shape, ...]


def paint(picture: Picture, width: int, height: int) -> np.ndarray:
    """The pixels of a picture, as large as fits, in the middle.

    Args:
        picture: numbers and NumPy arrays.
        width: width of the frame in pixels.
        height: height of the frame in pixels.

    Returns:
        `uint8` array of shape `(height, width, 3)`.
    """
    # Only a process that writes videos pays for Pillow.
    from PIL import Image, ImageDraw

    size = (width * _FINER, height * _FINER)
    image = Image.new("RGB", size, _rgb(picture.background))
    brush = ImageDraw.Draw(image)
    canvas = _Canvas(picture.view, size)
    for shape in picture.shapes:
        _draw(brush, shape, canvas)
    return np.asarray(image.reduce(_FINER))


class _Canvas(NamedTuple):
    """Where the view lies on an image of a size in pixels."""

    view: View
    size: tuple[int, int]

    @property
    def zoom(self) -> float:
        """Pixels a canvas unit."""
        width, height = self.size
        return min(width / float(self.view.width), height / float(self.view.height))

    def length(self, length: Any) -> float:
        """A length of the world, in pixels."""
        return float(length) * float(self.view.scale) * self.zoom

    def points(self, points: Any, away: Any = 0.0) -> list[tuple[float, float]]:
        """Points of the world, of shape `(2,)` or `(n, 2)`, in pixels, and so many `away`."""
        view = self.view
        x, y = (np.atleast_2d(points) * float(view.scale) + np.asarray(view.offset)).T
        if view.y_up:
            y = float(view.height) - y
        width, height = self.size
        left = (width - float(view.width) * self.zoom) / 2
        top = (height - float(view.height) * self.zoom) / 2
        pixels = np.stack([left + x * self.zoom, top + y * self.zoom], axis=1) + away
        # What is far outside stays outside; Pillow refuses numbers beyond 32 bits and NaN, and
        # takes a minute for a circle of a million pixels.
        limit = 16.0 * max(self.size)
        return [tuple(p) for p in np.nan_to_num(pixels, nan=-limit).clip(-limit, limit).tolist()]


def _draw(brush: Any, shape: Shape, canvas: _Canvas) -> None:
    color = _rgb(shape.color)
    match shape.kind, shape.numbers:
        case "circle", (center, radius):
            _ellipse(brush, canvas, center, radius, radius, color)
        case "ellipse", (center, width, height):
            _ellipse(brush, canvas, center, width / 2, height / 2, color)
        case "rect", (center, width, height):
            signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
            corners = np.asarray(center) + signs * np.array([width, height]) / 2
            brush.polygon(canvas.points(corners), fill=color)
        case "line", (start, end, width):
            brush.polygon(canvas.points(_bar(start, end, width)), fill=color)
        case "polygon", (points,):
            # Pillow refuses a polygon of one point.
            if len(corners := canvas.points(points)) > 1:
                brush.polygon(corners, fill=color)
        case "polyline", (points,):
            brush.line(canvas.points(points), fill=color, width=_FINER)
        case "text", (place, size):
            from PIL import ImageFont

            pixels = float(np.nan_to_num(float(size) * canvas.zoom))
            font = ImageFont.load_default(min(max(pixels, 1.0), float(max(canvas.size))))
            brush.text(canvas.points(place)[0], shape.text, fill=color, font=font)
        case kind, numbers:
            raise ValueError(f"a shape of kind {kind!r} with {len(numbers)} numbers is unknown")


def _ellipse(brush: Any, canvas: _Canvas, center: Any, rx: Any, ry: Any, color: Any) -> None:
    radii = np.abs([canvas.length(rx), canvas.length(ry)])
    # Of one that is cut the edges stay where they are, not its middle.
    brush.ellipse([*canvas.points(center, -radii), *canvas.points(center, radii)], fill=color)


def _bar(start: Any, end: Any, width: Any) -> np.ndarray:
    """Corners of a line that has a width."""
    start, end = np.asarray(start, np.float64), np.asarray(end, np.float64)
    x, y = end - start
    length = float(np.hypot(x, y)) or 1.0
    side = np.array([-y, x]) / length * (float(width) / 2)
    return np.stack([start + side, start - side, end - side, end + side])


def _rgb(color: Any) -> tuple[int, int, int]:
    red, green, blue = (np.nan_to_num(np.asarray(color, np.float64)).clip(0, 1) * 255).astype(int)
    return int(red), int(green), int(blue)
