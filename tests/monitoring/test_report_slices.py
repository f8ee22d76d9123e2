"""Measures over time: where slices lie, and that a slice is measured as the whole would be."""

import numpy as np
import pytest
from scipy.stats import binomtest

from model_repo.contract.calibration_error import bin_counts, debiased_ece, equal_width_edges
from monitoring.drawn_streams import Change, DrawnStream
from monitoring.observations import Records
from monitoring.report_plots import clopper_pearson
from monitoring.report_slices import (
    LEAST_FOR_ECE,
    LEAST_LABELLED,
    MOST_SLICES,
    accuracy,
    ece,
    expected_accuracy,
    in_scope,
    line,
    quantile_ms,
    rows_a_minute,
    slice_edges,
)


@pytest.fixture
def labelled() -> Records:
    """Six hundred labelled predictions, a second apart."""
    return DrawnStream(np.random.default_rng(5)).draw(600, Change(sharpness=2.0)).labelled


@pytest.mark.parametrize("length", [0.0, 59.0, 3_600.0, 86_400.0, 30 * 86_400.0, 4 * 365 * 86_400.0])
def test_slices_hold_the_whole_stretch_and_are_few(length: float) -> None:
    """From a moment to years: no row lies outside, and no slice is too narrow to be read."""
    first = 1_700_000_123.0
    edges = slice_edges(first, first + length)
    assert edges[0] <= first <= first + length < edges[-1]
    assert len(edges) - 1 <= MOST_SLICES
    assert len(set(np.diff(edges).tolist())) == 1


def test_each_row_counts_in_one_slice(labelled: Records) -> None:
    """Also the first and the last one."""
    edges = slice_edges(float(labelled["at"].min()), float(labelled["at"].max()))
    points = rows_a_minute("all", labelled, edges).points
    assert sum(point.n for point in points) == len(labelled)


def test_rate_of_a_slice_that_the_range_cuts_is_that_of_what_is_inside(labelled: Records) -> None:
    """A row a second, in whole slices and in a half one."""
    begin = float(labelled["at"][0])
    points = rows_a_minute(
        "all", labelled, np.array([begin, begin + 120.0, begin + 150.0, begin + 5000.0, begin + 6000.0])
    )
    assert [round(point.value, 6) for point in points.points[:2]] == [60.0, 60.0]
    assert np.isnan(points.points[3].value)


def test_slice_is_measured_as_its_rows_alone(labelled: Records) -> None:
    """Accuracy and debiased ECE of one slice are those of the rows in it."""
    edges = np.array([labelled["at"][0], labelled["at"][300], labelled["at"][-1] + 1.0])
    rows = in_scope(labelled[300:])
    _, second = line("accuracy", labelled, edges, accuracy).points
    assert (second.value, second.n) == (float(rows["is_correct"].mean()), len(rows))
    assert second.low < second.value < second.high
    _, error = line("ece", labelled, edges, ece(np.random.default_rng(0))).points
    assert error.value == float(debiased_ece(bin_counts(rows["confidence"], rows["is_correct"], equal_width_edges())))
    assert error.low <= error.value <= error.high


def test_slice_with_few_rows_shows_nothing(labelled: Records) -> None:
    """An interval that spans the axis is no picture."""
    scope = in_scope(labelled)
    assert np.isnan(accuracy(scope[: LEAST_LABELLED - 1])[0])
    assert np.isfinite(accuracy(scope[:LEAST_LABELLED])[0])
    assert np.isnan(ece(np.random.default_rng(0))(scope[: LEAST_FOR_ECE - 1])[0])


def test_model_that_is_all_but_certain_has_an_interval(labelled: Records) -> None:
    """Confidences whose sum is a hair below their number."""
    rows = in_scope(labelled)[:60].copy()
    rows["confidence"] = 1.0 - 1e-16
    value, low, high, n = expected_accuracy(rows)
    assert (round(value, 9), high, n) == (1.0, 1.0, 60)
    assert 0.8 < low < 1.0


def test_latency_of_a_slice_is_its_quantile(labelled: Records) -> None:
    """In milliseconds."""
    value, low, high, _ = quantile_ms("total_ms", 0.95)(labelled)
    assert value == pytest.approx(float(np.quantile(labelled["total_ms"].astype(np.float64), 0.95)))
    assert low <= value <= high


def test_intervals_of_bins_are_those_of_scipy() -> None:
    """Clopper-Pearson, at the edges too."""
    correct, n = np.array([0.0, 1.0, 7.0, 20.0]), np.array([5.0, 1.0, 9.0, 20.0])
    low, high = clopper_pearson(correct, n)
    for index in range(len(n)):
        exact = binomtest(int(correct[index]), int(n[index])).proportion_ci(0.95, "exact")
        assert (low[index], high[index]) == (pytest.approx(exact.low), pytest.approx(exact.high))
