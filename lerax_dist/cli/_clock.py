"""How far two clocks are apart, from the times at which messages came. Pure."""

from collections.abc import Sequence

from lerax_dist.cli._facts import Clock


def compare_clocks(rounds: Sequence[tuple[float, float, float]]) -> Clock:
    """How far another process's clock is ahead.

    In each round it read its clock after this one had sent a message and before this one had its
    answer, so each round leaves an interval for the difference; all of them hold at once.

    Args:
        rounds: this clock when the message was sent, the other clock in between, and this clock
            when the answer was there; in seconds.

    Returns:
        The middle of what all rounds leave, and how far the truth can be from it. A clock that
        was set meanwhile leaves nothing; then the bound covers the contradiction.
    """
    least = max(there - back for _, there, back in rounds)
    most = min(there - sent for sent, there, _ in rounds)
    return Clock((least + most) / 2, abs(most - least) / 2)
