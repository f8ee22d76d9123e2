"""What an open-loop run sends."""

import pytest

from loadtest.load_plan import LoadPlan, RateStep


def test_gaps_are_constant_within_a_step_and_steps_follow_each_other() -> None:
    """No randomness in when requests leave."""
    due = LoadPlan((RateStep(100.0, 1.0), RateStep(10.0, 1.0))).due_times()
    assert len(due) == 110
    assert due[:100] == pytest.approx([number / 100 for number in range(100)])
    assert due[100:] == pytest.approx([1 + number / 10 for number in range(10)])


@pytest.mark.parametrize("steps", [(), (RateStep(0.0, 1.0),), (RateStep(1.0, -1.0),), (RateStep(1.0, 601.0),)])
def test_a_plan_without_requests_or_without_end_is_refused(steps: tuple[RateStep, ...]) -> None:
    """Every run is bounded in time."""
    with pytest.raises(ValueError, match=r"steps of positive rate|at most 600 s"):
        LoadPlan(steps)
