"""The arguments of a video."""

import pytest

from lerax_dist.video._settings import check_settings

GOOD = {"interval": 4, "num_steps": 8, "width": 64, "height": 48, "fps": 50.0, "log_interval": 2}


def test_good_ones_are_kept():
    assert tuple(check_settings(**GOOD)) == (4, 8, 64, 48, 50.0)
    assert check_settings(**GOOD | {"interval": 0}).interval == 0


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"interval": -5}, "`video_interval` must be 0 or more, an integer; got -5"),
        ({"interval": 1.5}, "`video_interval` must be 0 or more, an integer; got 1.5"),
        ({"num_steps": 0}, "`video_num_steps` must be 1 or more"),
        ({"width": True}, "`video_width` must be 1 or more"),
        ({"height": None}, "`video_height` must be 1 or more"),
        ({"fps": 0.0}, "`video_fps` must be positive and finite, got 0.0"),
        ({"fps": float("nan")}, "`video_fps` must be positive and finite, got nan"),
        ({"interval": 5}, "multiple of `log_interval` 2.* got 5. Use 4"),
        ({"interval": 1}, "got 1. Use 2"),
    ],
)
def test_others_are_refused_by_name(bad, message):
    with pytest.raises(ValueError, match=message):
        check_settings(**GOOD | bad)
