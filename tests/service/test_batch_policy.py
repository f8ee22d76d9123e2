"""The choice respects the budget, keeps order, and starves nobody."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batch_policy import BatchLimits, choose

LENGTHS = st.lists(st.integers(1, 128), max_size=300)
LIMITS = st.builds(BatchLimits, max_tokens=st.integers(1, 256), max_utterances=st.integers(1, 32))


@given(LENGTHS, LIMITS)
def test_choice_keeps_the_budget_and_the_order(lengths: list[int], limits: BatchLimits) -> None:
    """Ascending, at most max_utterances, and within max_tokens unless the oldest alone exceeds it."""
    chosen = choose(lengths, limits)
    assert chosen == sorted(set(chosen))
    assert len(chosen) <= limits.max_utterances
    assert len(chosen) <= 1 or sum(lengths[index] for index in chosen) <= limits.max_tokens


@given(LENGTHS.filter(bool), LIMITS)
def test_the_oldest_is_always_taken(lengths: list[int], limits: BatchLimits) -> None:
    """So an utterance waits at most for those that came before it."""
    assert choose(lengths, limits)[0] == 0


@given(LENGTHS, LIMITS)
def test_nothing_that_fits_is_left_behind(lengths: list[int], limits: BatchLimits) -> None:
    """Of what was examined, an utterance left behind did not fit: no slot, or too few tokens."""
    chosen = set(choose(lengths, limits))
    left = limits.max_tokens - sum(lengths[index] for index in chosen)
    if len(chosen) < limits.max_utterances:
        assert all(lengths[i] > left for i in range(min(len(lengths), limits.look_ahead)) if i not in chosen)


@given(st.lists(st.integers(1, 128), min_size=1, max_size=60), LIMITS)
def test_a_queue_empties(lengths: list[int], limits: BatchLimits) -> None:
    """Repeated choices serve everybody within as many batches as there are utterances."""
    waiting = list(lengths)
    for _ in lengths:
        taken = set(choose(waiting, limits))
        waiting = [length for index, length in enumerate(waiting) if index not in taken]
    assert not waiting


@pytest.mark.parametrize("field", ["max_tokens", "max_utterances"])
def test_limits_below_one_are_named(field: str) -> None:
    """With the field and what was got."""
    with pytest.raises(ValueError, match=f"{field} must be >= 1, got 0"):
        BatchLimits(**{field: 0})
