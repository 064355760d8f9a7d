"""Shapes are painted where the view puts them, and extreme numbers do no harm."""

import numpy as np
import pytest

from lerax_dist.video._paint import Picture, Shape, View, paint

WHITE, RED = (1.0, 1.0, 1.0), (1.0, 0.0, 0.0)
VIEW = View(40, 30, 10.0, (20.0, 15.0))


def drawn(*shapes, size=(40, 30), view=VIEW):
    return paint(Picture(view, WHITE, shapes), *size)


def red_at(frame):
    """Left, right, top and bottom of what is red."""
    rows, columns = np.nonzero((frame == (255, 0, 0)).all(-1))
    return columns.min(), columns.max(), rows.min(), rows.max()


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        # The view shows 4 by 3 world units around the origin, y upwards.
        (Shape("rect", RED, (np.array([1.0, 1.0]), 1.0, 0.4)), (25, 34, 3, 6)),
        (Shape("circle", RED, (np.array([0.0, 0.0]), 0.5)), (15, 24, 10, 19)),
        (Shape("ellipse", RED, (np.array([0.0, 0.0]), 2.0, 1.0)), (10, 29, 10, 19)),
        (Shape("line", RED, ((-1.0, -0.5), (1.0, -0.5), 0.4)), (10, 29, 18, 21)),
        (Shape("polygon", RED, (np.array([[0, 0], [1, 0], [1, 1], [0, 1]]),)), (20, 29, 5, 14)),
    ],
)
def test_a_shape_is_where_the_view_puts_it(shape, box):
    np.testing.assert_allclose(red_at(drawn(shape)), box, atol=1)


def test_lines_and_texts_are_visible():
    for shape in (
        Shape("polyline", RED, (np.array([[-1.0, 0.0], [1.0, 0.0]]),)),
        Shape("text", RED, (np.array([-1.0, 0.5]), 20.0), "WOW"),
    ):
        assert (drawn(shape) != 255).any()


def test_a_picture_of_another_aspect_ratio_is_centered_on_its_background():
    frame = drawn(Shape("rect", RED, (np.zeros(2), 4.0, 3.0)), size=(80, 30))
    assert frame.shape == (30, 80, 3)
    np.testing.assert_allclose(red_at(frame), (20, 59, 0, 29), atol=1)
    assert (frame[:, :18] == 255).all()


def test_a_view_may_measure_y_downwards():
    down = VIEW._replace(y_up=False)
    shape = Shape("circle", RED, (np.array([0.0, 1.0]), 0.2))
    assert red_at(drawn(shape, view=down))[2] > red_at(drawn(shape))[3]


@pytest.mark.parametrize("x", [np.nan, np.inf, 1e30])
def test_a_shape_without_a_finite_position_is_not_visible(x):
    assert (drawn(Shape("rect", RED, (np.array([x, 0.0]), 1.0, 1.0))) == 255).all()


@pytest.mark.parametrize("size", [np.nan, np.inf, 1e30, -1.0])
def test_a_text_of_any_size_raises_nothing(size):
    drawn(Shape("text", RED, (np.zeros(2), size), "WOW"))


def test_a_polygon_of_one_point_is_not_visible():
    assert (drawn(Shape("polygon", RED, (np.zeros((1, 2)),))) == 255).all()


@pytest.mark.parametrize("radius", [1e4, 1e6])
def test_a_circle_far_larger_than_the_picture_keeps_its_visible_edge(radius, monkeypatch):
    """A circle may serve as the ground; Pillow would take more than a minute for all of it."""
    from PIL import ImageDraw

    boxes = []
    ellipse = ImageDraw.ImageDraw.ellipse

    def spying(brush, box, **options):
        boxes.append(np.ptp(np.reshape(box, (2, 2)), axis=0).max())
        ellipse(brush, np.clip(box, -5000, 5000).tolist(), **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "ellipse", spying)
    frame = drawn(Shape("circle", RED, (np.array([0.0, -radius]), radius)))
    assert boxes and max(boxes) <= 5000
    np.testing.assert_allclose(red_at(frame)[2:], (15, 29), atol=1)


def test_an_unknown_shape_raises_with_its_kind():
    with pytest.raises(ValueError, match="'star' with 1 numbers"):
        drawn(Shape("star", RED, (np.zeros(2),)))
