"""Who may come in."""

import pytest

from service.admission import WINDOW_ANSWERS, WINDOW_S, Admission, AdmissionLimits
from service.errors import Overloaded

LIMITS = AdmissionLimits(target_ms=10.0, least=4, most=64)


def admission() -> Admission:
    """At its highest bound."""
    return Admission(LIMITS, lambda in_flight, limit: None)


def observe_window(door: Admission, seconds: float, now: float) -> None:
    """As many equal answers as close a window."""
    for _ in range(WINDOW_ANSWERS):
        door.observe(seconds, now)


def test_beyond_the_bound_nobody_comes_in_until_one_leaves() -> None:
    """The bound is exact."""
    door = admission()
    for _ in range(64):
        door.enter()
    with pytest.raises(Overloaded, match="64"):
        door.enter()
    door.leave()
    door.enter()
    assert door.in_flight == 64


def test_a_batch_comes_in_whole_or_not_at_all() -> None:
    """A refused one takes no place."""
    door = admission()
    door.enter(60)
    with pytest.raises(Overloaded):
        door.enter(5)
    assert door.in_flight == 60
    door.enter(4)


def test_an_empty_service_takes_a_batch_larger_than_the_bound() -> None:
    """Otherwise it would never be answered on a slow machine."""
    door = admission()
    observe_window(door, 10.0, now=1.0)
    assert door.limit == 4
    door.enter(8)
    with pytest.raises(Overloaded):
        door.enter()


def test_overload_brings_the_bound_down_within_a_window() -> None:
    """Four times the target: a quarter of the bound, by Little's law."""
    door = admission()
    observe_window(door, 0.040, now=1.0)
    assert door.limit == 16


def test_the_bound_is_back_within_two_seconds_of_the_overload() -> None:
    """A tenth more each window."""
    door = admission()
    observe_window(door, 1.0, now=1.0)
    assert door.limit == LIMITS.least
    now = 1.0
    while door.limit < LIMITS.most:
        now += WINDOW_S
        observe_window(door, 0.002, now)
    assert now - 1.0 < 3.0


def test_a_few_slow_answers_move_nothing() -> None:
    """At 25 requests a second a window has two: no percentile of that."""
    door = admission()
    for number in range(WINDOW_ANSWERS - 1):
        door.observe(1.0, now=float(number))
    assert door.limit == 64


def test_the_target_is_held_in_a_simulated_overload() -> None:
    """A server of 1,000 a second offered twice that: from the second window on, answers take the target at most."""
    door, service_s, now = admission(), 0.001, 0.0
    queue: list[float] = []
    late = []
    for step in range(4000):
        now = step * service_s
        if queue:
            began = queue.pop(0)
            door.leave()
            door.observe(now - began, now)
            if now > 0.5:
                late.append(now - began)
        for _ in range(2):
            try:
                door.enter()
            except Overloaded:
                continue
            queue.append(now)
    late.sort()
    assert late[int(0.95 * len(late))] <= 0.0125
    assert len(late) > 3000


def test_tuning_lowers_the_bound_at_once_and_is_given_back() -> None:
    """Those inside stay; a bound that was at its highest is so again when the tuning ends."""
    door = admission()
    door.enter(40)
    door.tune(16)
    assert (door.limit, door.most, door.in_flight) == (16, 16, 40)
    with pytest.raises(Overloaded, match="16"):
        door.enter()
    door.tune(None)
    door.enter(24)
    assert (door.limit, door.most) == (64, 64)


def test_tuning_only_lowers_and_never_below_the_least() -> None:
    """More than the settings say is what they say; less than the least is the least."""
    door = admission()
    door.tune(1000)
    assert door.most == LIMITS.most
    door.tune(1)
    assert (door.most, door.limit) == (LIMITS.least, LIMITS.least)


def test_a_steered_bound_grows_back_by_itself_when_the_tuning_ends() -> None:
    """An overload does not end because a tuning did."""
    door = admission()
    observe_window(door, 0.080, now=1.0)
    assert door.limit == 8
    door.tune(32)
    door.tune(None)
    assert door.limit == 8
    observe_window(door, 0.002, now=2.0)
    assert door.limit == 9
