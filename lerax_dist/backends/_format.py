"""Numbers as text for people."""

import math


def format_value(value: float) -> str:
    """A metric's value: whole numbers to the last digit, others to four significant digits."""
    if not math.isfinite(value):
        return str(float(value))
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if 1e4 <= abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def format_change(value: float, before: float) -> str:
    """The change of a value since the one before, with its sign; `=` if it is 0.

    Three digits show its direction and size; the rest is in the value.
    """
    change = value - before
    if not math.isfinite(change):
        return ""
    if change == 0.0:
        return "="
    if abs(change) >= 1e15 or abs(change) < 1e-4:
        return f"{change:+.1e}"
    if abs(change) >= 1000:
        return f"{change:+,.0f}"
    return f"{change:+.3g}"


def format_duration(seconds: float) -> str:
    """`42s`, `1m02s`, `3h07m` or `2d05h`."""
    whole = max(0, int(seconds))
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d{hour:02d}h"
    if hours:
        return f"{hours}h{minute:02d}m"
    return f"{minutes}m{second:02d}s" if minutes else f"{second}s"


def format_rate(rate: float) -> str:
    """Steps a second: whole above 100, with three digits below."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def format_percent(share: float) -> str:
    """A share as a percentage, rounded down: only a complete run shows 100.0%."""
    return f"{math.floor(share * 1000) / 10:.1f}%"
