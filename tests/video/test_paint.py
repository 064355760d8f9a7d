"""Shapes to pixels, looked at where they must be."""

from types import SimpleNamespace

import numpy as np
import pytest

from lerax_dist.video._classics import CLASSICS
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
        # In the world the picture is 4 by 3, its middle the origin, and up is up.
        (Shape("rect", RED, (np.array([1.0, 1.0]), 1.0, 0.4)), (25, 34, 3, 6)),
        (Shape("circle", RED, (np.array([0.0, 0.0]), 0.5)), (15, 24, 10, 19)),
        (Shape("ellipse", RED, (np.array([0.0, 0.0]), 2.0, 1.0)), (10, 29, 10, 19)),
        (Shape("line", RED, ((-1.0, -0.5), (1.0, -0.5), 0.4)), (10, 29, 18, 21)),
        (Shape("polygon", RED, (np.array([[0, 0], [1, 0], [1, 1], [0, 1]]),)), (20, 29, 5, 14)),
    ],
)
def test_a_shape_is_where_the_view_puts_it(shape, box):
    np.testing.assert_allclose(red_at(drawn(shape)), box, atol=1)


def test_lines_and_texts_leave_a_mark():
    for shape in (
        Shape("polyline", RED, (np.array([[-1.0, 0.0], [1.0, 0.0]]),)),
        Shape("text", RED, (np.array([-1.0, 0.5]), 20.0), "WOW"),
    ):
        assert (drawn(shape) != 255).any()


def test_a_picture_of_another_form_is_in_the_middle_with_its_background_around():
    frame = drawn(Shape("rect", RED, (np.zeros(2), 4.0, 3.0)), size=(80, 30))
    assert frame.shape == (30, 80, 3)
    np.testing.assert_allclose(red_at(frame), (20, 59, 0, 29), atol=1)
    assert (frame[:, :18] == 255).all()


def test_a_view_may_count_down():
    down = VIEW._replace(y_up=False)
    shape = Shape("circle", RED, (np.array([0.0, 1.0]), 0.2))
    assert red_at(drawn(shape, view=down))[2] > red_at(drawn(shape))[3]


@pytest.mark.parametrize("place", [np.nan, np.inf, 1e30])
def test_what_is_nowhere_does_no_harm(place):
    assert (drawn(Shape("rect", RED, (np.array([place, 0.0]), 1.0, 1.0))) == 255).all()


@pytest.mark.parametrize("size", [np.nan, np.inf, 1e30, -1.0])
def test_a_text_of_any_size_does_no_harm(size):
    drawn(Shape("text", RED, (np.zeros(2), size), "WOW"))


def test_a_polygon_of_one_point_is_not_seen():
    assert (drawn(Shape("polygon", RED, (np.zeros((1, 2)),))) == 255).all()


@pytest.mark.parametrize("radius", [1e4, 1e6])
def test_a_circle_far_larger_than_the_picture_is_cut_where_it_must_be(radius, monkeypatch):
    """As a ground; Pillow would take more than a minute for all of it."""
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


def test_an_unknown_shape_is_refused_by_its_kind():
    with pytest.raises(ValueError, match="'star' with 1 numbers"):
        drawn(Shape("star", RED, (np.zeros(2),)))


PARAMS = SimpleNamespace(
    x_threshold=2.4, length=0.5, l=1.0, goal_position=0.5, min_position=-1.2, max_position=0.6,
    link_length_1=1.0, link_length_2=1.0,
)  # fmt: skip


def moved(name, **state):
    return paint(CLASSICS[name](SimpleNamespace(**state), PARAMS), 160, 120)


def middle(frame):
    """The mean place of what has a colour."""
    rows, columns = np.nonzero(np.ptp(frame.astype(int), axis=-1) > 20)
    return columns.mean(), rows.mean()


def test_the_classics_move_the_way_their_states_say():
    # The pole of a cart to the right is to the right; one that leans right has its middle there.
    assert middle(moved("CartPole-v1", x=1.0, theta=0.0))[0] > 110
    upright = middle(moved("CartPole-v1", x=0.0, theta=0.0))
    leaning = middle(moved("CartPole-v1", x=0.0, theta=0.3))
    assert leaning[0] > upright[0] + 2
    # A pendulum at 0 stands up; positive angles turn against the clock.
    assert middle(moved("Pendulum-v1", theta=0.0))[1] < 50
    assert middle(moved("Pendulum-v1", theta=np.pi / 2))[0] < 70
    # Acrobot hangs at 0.
    assert middle(moved("Acrobot-v1", joint_angle1=0.0, joint_angle2=0.0))[1] > 70
    left, right = (moved("MountainCar-v0", position=x) for x in (-1.0, 0.4))
    np.testing.assert_array_equal(right, moved("MountainCarContinuous-v0", position=0.4))
    dark = [np.nonzero((frame < 60).all(-1))[1] for frame in (left, right)]
    assert np.median(dark[0]) < 60 < 100 < np.median(dark[1])
