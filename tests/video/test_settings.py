"""The `video_*` arguments are checked, and an error names the argument, its value and the rule."""

import pytest

from lerax_dist.video._record import check_settings

GOOD = {"interval": 4, "num_steps": 8, "width": 64, "height": 48, "fps": 50.0, "log_interval": 2}


def test_valid_settings_are_kept():
    assert tuple(check_settings(**GOOD)) == (4, 8, 64, 48, 50.0)
    assert check_settings(**GOOD | {"interval": 0}).interval == 0


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"interval": -5}, "`video_interval` must be an integer of 0 or more, got -5"),
        ({"interval": 1.5}, "`video_interval` must be an integer of 0 or more, got 1.5"),
        ({"num_steps": 0}, "`video_num_steps` must be an integer of 1 or more, got 0"),
        ({"width": True}, "`video_width` must be an integer of 1 or more, got True"),
        ({"height": None}, "`video_height` must be an integer of 1 or more, got None"),
        ({"fps": 0.0}, "`video_fps` must be positive and finite, got 0.0"),
        ({"fps": float("nan")}, "`video_fps` must be positive and finite, got nan"),
        ({"interval": 5}, "multiple of `log_interval` 2.* got 5. Use 4"),
        ({"interval": 1}, "got 1. Use 2"),
    ],
)
def test_an_invalid_setting_raises_with_its_name(bad, message):
    with pytest.raises(ValueError, match=message):
        check_settings(**GOOD | bad)
