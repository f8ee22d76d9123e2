"""The timer of the open loop."""

import select
import time

import pytest

from loadtest.timer import DueTimer


@pytest.fixture
def timer() -> DueTimer:
    """One of its own for each test."""
    return DueTimer()


def fires(timer: DueTimer, within_s: float) -> bool:
    """Whether a poll of the timer wakes in time."""
    return bool(select.select([timer.fd], [], [], within_s)[0])


def test_it_wakes_at_its_time_and_not_before(timer: DueTimer) -> None:
    """Between a check that it is too early and a wait with plenty of room."""
    due = time.monotonic() + 0.05
    timer.wake_at(due)
    assert fires(timer, 30.0)
    assert time.monotonic() >= due
    timer.close()


def test_a_time_gone_by_wakes_at_once(timer: DueTimer) -> None:
    """A late generator does not fall asleep."""
    timer.wake_at(time.monotonic() - 5.0)
    assert fires(timer, 30.0)
    timer.close()


def test_cleared_it_sleeps_until_set_again(timer: DueTimer) -> None:
    """Clearing twice is harmless."""
    timer.wake_at(time.monotonic() - 5.0)
    assert fires(timer, 30.0)
    timer.clear()
    timer.clear()
    assert not fires(timer, 0.0)
    timer.wake_at(time.monotonic() - 5.0)
    assert fires(timer, 30.0)
    timer.close()
