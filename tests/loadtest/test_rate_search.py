"""The search for the highest rate."""

import pytest

from loadtest.rate_search import RateSearch


def search(capacity: float, start: float = 50.0) -> tuple[float, list[float]]:
    """What is found for a server that holds up to ``capacity``, and the rates tried."""
    found, tried = RateSearch(start), []
    while (rate := found.next_rate()) is not None:
        tried.append(rate)
        found = found.after(rate, rate <= capacity)
    return found.held, tried


@pytest.mark.parametrize("capacity", [3, 17, 49, 50, 51, 120, 617, 1000, 9000])
def test_the_limit_is_found_from_below_within_the_resolution(capacity: float) -> None:
    """Never above what holds, and less than 5% (or one request) below it."""
    held, tried = search(capacity)
    assert held <= capacity < held + max(1.0, held * 0.05) + 1.0
    assert len(tried) == len(set(tried)) <= 20


def test_a_server_that_holds_nothing_is_found_out() -> None:
    """The search ends at one request a second, with 0."""
    held, tried = search(0.0)
    assert (held, tried[-1]) == (0.0, 1.0)
