import pytest

from lerax_dist.backends._format import format_change, format_duration, format_rate, format_value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0123456, "0.01235"),
        (123.456, "123.5"),
        (1.3e-5, "1.3e-05"),
        (-0.5, "-0.5"),
        (19912.345, "19,912"),
        (1234567.8, "1,234,568"),
        (1.5e18, "1.5e+18"),
        (200.0, "200"),
        (2**40 + 1, "1,099,511,627,777"),
        (-3.0, "-3"),
        (0.0, "0"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
    ],
)
def test_whole_numbers_are_exact_and_others_have_four_digits(value, text):
    assert format_value(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0s"),
        (59.9, "59s"),
        (62, "1m02s"),
        (3600 * 3 + 60 * 7, "3h07m"),
        (86400 * 2 + 3600 * 5, "2d05h"),
    ],
)
def test_durations_have_two_units(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(("rate", "text"), [(19912.3, "19,912"), (0.01234, "0.0123"), (5, "5")])
def test_rates(rate, text):
    assert format_rate(rate) == text


@pytest.mark.parametrize(
    ("value", "before", "text"),
    [
        (1.5, 1.0, "+0.5"),
        (1.0, 1.5, "-0.5"),
        (2.0, 2.0, "="),
        (12_345.0, 45.0, "+12,300"),
        (3e-6, 0.0, "+3.0e-06"),
        (1e20, 0.0, "+1.0e+20"),
        (float("nan"), 1.0, ""),
        (float("inf"), float("inf"), ""),
    ],
)
def test_a_change_has_a_sign_and_three_digits(value, before, text):
    assert format_change(value, before) == text
