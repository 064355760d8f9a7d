"""Paints flat shapes into pixels, with Pillow. Pure: no JAX, no window."""

from typing import Any, NamedTuple

import numpy as np

# Each frame is painted this many times larger and averaged down, which smooths the edges.
_SUPERSAMPLING = 2


class View(NamedTuple):
    """Maps a point of the world to a point of the canvas: `point * scale + offset`.

    Attributes:
        width, height: size of the canvas.
        scale: canvas units per world unit.
        offset: the world's origin on the canvas, shape `(2,)`, from the corner that `y_up` selects.
        y_up: whether y is measured upwards from the bottom, or downwards from the top.
    """

    width: Any
    height: Any
    scale: Any
    offset: Any
    y_up: bool = True


class Shape(NamedTuple):
    """A shape to paint.

    Attributes:
        kind: `"circle"` (center, radius), `"line"` (start, end, width), `"rect"` and `"ellipse"`
            (center, width, height), `"polygon"` and `"polyline"` (points) or `"text"` (position,
            size in canvas units).
        color: red, green and blue, each from 0 to 1.
        numbers: the parameters of the kind, in world units.
        text: the text, if the kind is `"text"`.
    """

    kind: str
    color: Any
    numbers: tuple[Any, ...]
    text: str = ""


class Picture(NamedTuple):
    """The contents of one frame; later shapes cover earlier ones."""

    view: View
    background: Any
    shapes: tuple[Shape, ...]


def paint(picture: Picture, width: int, height: int) -> np.ndarray:
    """The `uint8` pixels `(height, width, 3)` of a picture, scaled to fit and centered."""
    # Imported here: only a process that writes videos pays for Pillow.
    from PIL import Image, ImageDraw

    size = (width * _SUPERSAMPLING, height * _SUPERSAMPLING)
    image = Image.new("RGB", size, _rgb(picture.background))
    brush = ImageDraw.Draw(image)
    canvas = _Canvas(picture.view, size)
    for shape in picture.shapes:
        _paint_shape(brush, shape, canvas)
    return np.asarray(image.reduce(_SUPERSAMPLING))


class _Canvas(NamedTuple):
    """A view on an image of a given size in pixels."""

    view: View
    size: tuple[int, int]

    @property
    def zoom(self) -> float:
        """Pixels per canvas unit."""
        width, height = self.size
        return min(width / float(self.view.width), height / float(self.view.height))

    def length(self, length: Any) -> float:
        """A length in the world, in pixels."""
        return float(length) * float(self.view.scale) * self.zoom

    def points(self, points: Any, shift: Any = 0.0) -> list[tuple[float, float]]:
        """Points in the world, of shape `(2,)` or `(n, 2)`, in pixels, moved by `shift` pixels."""
        view = self.view
        x, y = (np.atleast_2d(points) * float(view.scale) + np.asarray(view.offset)).T
        if view.y_up:
            y = float(view.height) - y
        width, height = self.size
        left = (width - float(view.width) * self.zoom) / 2
        top = (height - float(view.height) * self.zoom) / 2
        pixels = np.stack([left + x * self.zoom, top + y * self.zoom], axis=1) + shift
        # Points far outside the frame move to a limit outside it: Pillow rejects NaN and numbers
        # beyond 32 bits, and takes a minute for a circle with a radius of a million pixels.
        limit = 16.0 * max(self.size)
        return [tuple(p) for p in np.nan_to_num(pixels, nan=-limit).clip(-limit, limit).tolist()]


def _paint_shape(brush: Any, shape: Shape, canvas: _Canvas) -> None:
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
            # Pillow raises for a polygon of one point.
            if len(corners := canvas.points(points)) > 1:
                brush.polygon(corners, fill=color)
        case "polyline", (points,):
            brush.line(canvas.points(points), fill=color, width=_SUPERSAMPLING)
        case "text", (position, size):
            from PIL import ImageFont

            pixels = float(np.nan_to_num(float(size) * canvas.zoom))
            font = ImageFont.load_default(min(max(pixels, 1.0), float(max(canvas.size))))
            brush.text(canvas.points(position)[0], shape.text, fill=color, font=font)
        case kind, numbers:
            raise ValueError(f"unknown shape: kind {kind!r} with {len(numbers)} numbers")


def _ellipse(brush: Any, canvas: _Canvas, center: Any, rx: Any, ry: Any, color: Any) -> None:
    radii = np.abs([canvas.length(rx), canvas.length(ry)])
    # Shifting before the points are limited keeps the visible edge of a huge circle in place.
    brush.ellipse([*canvas.points(center, -radii), *canvas.points(center, radii)], fill=color)


def _bar(start: Any, end: Any, width: Any) -> np.ndarray:
    """The corners of a line with a width."""
    start, end = np.asarray(start, np.float64), np.asarray(end, np.float64)
    x, y = end - start
    length = float(np.hypot(x, y)) or 1.0
    side = np.array([-y, x]) / length * (float(width) / 2)
    return np.stack([start + side, start - side, end - side, end + side])


def _rgb(color: Any) -> tuple[int, int, int]:
    red, green, blue = (np.nan_to_num(np.asarray(color, np.float64)).clip(0, 1) * 255).astype(int)
    return int(red), int(green), int(blue)
