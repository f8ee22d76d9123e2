"""Percentiles and the time to recover."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.latency import Sample, percentile, recovery_s, summarise


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200), st.sampled_from([1, 50, 90, 95, 99, 100]))
def test_percentile_is_numpys_nearest_rank(values: list[float], q: int) -> None:
    """The published definition (inverted CDF), value for value."""
    assert percentile(sorted(values), q) == np.percentile(values, q, method="inverted_cdf")


def test_nothing_answered_has_no_latency() -> None:
    """NaN compares as never inside the budget."""
    assert math.isnan(summarise([]).p95)
    assert not summarise([]).p95 < 15.0


def sample(due_s: float, latency_ms: float = 1.0, error: str = "") -> Sample:
    """A request, answered unless ``error`` says otherwise."""
    return Sample(due_s, latency_ms, 503 if error else 200, error)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ([sample(10.0), sample(11.0)], 0.0),
        ([sample(10.0, 80.0), sample(10.05), sample(10.3), sample(11.0)], 0.1),
        ([sample(10.0), sample(10.25, error="http_503"), sample(10.4)], 0.3),
        ([sample(10.0), sample(10.25, 1.0), sample(10.26, 99.0)], math.inf),
    ],
)
def test_recovery_ends_after_the_last_bad_tenth_of_a_second(after: list[Sample], expected: float) -> None:
    """A server that is still bad at the end has not recovered."""
    overloaded = [sample(9.9, 500.0, "http_503")]
    assert recovery_s([*overloaded, *after], overload_ends_s=10.0, slo_ms=15.0) == pytest.approx(expected)
