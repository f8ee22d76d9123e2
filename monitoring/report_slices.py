"""
Measures of a report over time: the range is cut into slices of equal length, and each slice is measured alone.

A slice holds the predictions answered in it, with the labels that are known by now, whenever those were given: what is
drawn at a time is how good the answers of that time were.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from model_repo.contract.bootstrap import Measure, bootstrap
from model_repo.contract.calibration_error import (
    bin_counts,
    debiased_ece,
    equal_width_edges,
    expected_calibration_error,
)
from model_repo.contract.outputs import BoolArray, FloatArray
from model_repo.contract.reference import ReferenceProfile
from monitoring.drift import ks_signal
from monitoring.latency import quantile_signal
from monitoring.observations import Records
from monitoring.priors import prior_shift_signal
from monitoring.rows import decided_labels, is_in_scope
from monitoring.sequential import Claim, confidence_sequence, start
from monitoring.signals import LEVEL, RESAMPLES, Signal, Watch

MOST_SLICES = 24
"""More would be too narrow to read on a phone."""
FEWEST_SLICES = 5
ROWS_A_SLICE, LABELLED_A_SLICE = 200, 150
"""Rows to have in a slice on average."""
STEPS_S = tuple(60.0 * minutes for minutes in (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 10_080, 40_320))
"""Lengths of a slice that people count in: minutes, hours, days, weeks."""
LEAST_LABELLED = 20
"""Labelled predictions below which a slice shows no accuracy: its interval would span half the axis."""
LEAST_FOR_ECE = 100
"""The same of the ECE, whose error falls more slowly."""
LEAST_PREDICTIONS = 50
"""The same of drift and latency."""
_UNWATCHED = Watch("either", threshold=1.0, tolerated=1.0, minimum_rows=1)
"""Only the number and its interval are drawn of a slice; verdicts come from evidence over the whole range."""


@dataclass(frozen=True)
class Point:
    """One slice of one line; NaN when the slice has too few rows."""

    at: float
    """Unix time, the middle of the slice."""
    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Line:
    """One measure of one stream over time."""

    name: str
    points: tuple[Point, ...]

    @property
    def has_points(self) -> bool:
        """Whether any slice could be measured."""
        return any(np.isfinite(point.value) for point in self.points)


Measured = Callable[[Records], tuple[float, float, float, int]]
"""Value, low, high, rows; NaN where there are too few rows."""
TOO_FEW = (float("nan"), float("nan"), float("nan"), 0)


def slice_edges(first: float, last: float, most: int = MOST_SLICES) -> FloatArray:
    """
    Edges of at most so many slices (2 or more) that hold all times from ``first`` to ``last``; each has one length of
    STEPS_S, and begins at a multiple of it.

    >>> (slice_edges(0.0, 3_600.0) / 60).tolist()[:3], len(slice_edges(0.0, 3_600.0))
    ([0.0, 5.0, 10.0], 14)
    """
    step = next((step for step in STEPS_S if last - first <= step * (most - 1)), None)
    if step is None:
        step = float(np.ceil((last - first) / (most - 1) / STEPS_S[-1])) * STEPS_S[-1]
    begin = np.floor(first / step) * step
    return np.asarray(begin + step * np.arange(int((last - begin) // step) + 2))


def slices_for(predictions: int, labelled: int) -> int:
    """
    How many slices a range bears: with few rows in each, there would be more interval than picture.

    >>> slices_for(12_000, 5_000), slices_for(1_100, 430), slices_for(5_000, 0)
    (24, 5, 24)
    """
    borne = min(predictions // ROWS_A_SLICE, labelled // LABELLED_A_SLICE if labelled else MOST_SLICES)
    return max(FEWEST_SLICES, min(MOST_SLICES, borne))


def line(name: str, rows: Records, edges: FloatArray, measured: Measured) -> Line:
    """One point a slice."""
    group = np.searchsorted(edges, rows["at"], side="right") - 1
    points = []
    for index, (low, high) in enumerate(pairwise(edges.tolist())):
        points.append(Point((low + high) / 2.0, *measured(rows[group == index])))
    return Line(name, tuple(points))


def rows_a_minute(name: str, rows: Records, edges: FloatArray) -> Line:
    """How many rows came in each slice, by the minute; an exact count, so without an interval. None is not drawn."""
    points = []
    for point, seconds in zip(line(name, rows, edges, _counted).points, np.diff(edges).tolist(), strict=True):
        rate = 60.0 * point.n / seconds if point.n else float("nan")
        points.append(Point(point.at, rate, rate, rate, point.n))
    return Line(name, tuple(points))


def lowest(lines: Sequence[Line]) -> float:
    """The lowest end of any interval that is known; infinite when none is."""
    ends = [end for each in lines for point in each.points for end in (point.value, point.low) if np.isfinite(end)]
    return min(ends, default=float("inf"))


def accuracy(rows: Records) -> tuple[float, float, float, int]:
    """Of labelled rows that are in scope by their label."""
    return _mean(in_scope(rows)["is_correct"], LEAST_LABELLED)


def expected_accuracy(rows: Records) -> tuple[float, float, float, int]:
    """The mean confidence of the same rows: what the accuracy would be if the calibration held."""
    return _mean(in_scope(rows)["confidence"], LEAST_LABELLED)


def ood_rate(rows: Records) -> tuple[float, float, float, int]:
    """Share of predictions that were decided ood."""
    return _mean(rows["is_ood"], LEAST_PREDICTIONS)


def ece(rng: np.random.Generator) -> Measured:
    """The debiased ECE of labelled rows in scope, with the interval of the plug-in error."""

    def measured(rows: Records) -> tuple[float, float, float, int]:
        rows = in_scope(rows)
        if len(rows) < LEAST_FOR_ECE:
            return TOO_FEW
        confidence, is_correct, edges = rows["confidence"], rows["is_correct"], equal_width_edges()

        def plug_in(weights: FloatArray) -> FloatArray:
            return expected_calibration_error(bin_counts(confidence, is_correct, edges, weights))

        estimate = float(debiased_ece(bin_counts(confidence, is_correct, edges)))
        measure = Measure(plug_in, len(rows), "plug_in", estimate)
        figure = bootstrap({"ece": measure}, len(rows), "slice", rng, RESAMPLES)["ece"]
        return figure.value, figure.low, figure.high, figure.n

    return measured


def ks(field: str, quantiles: FloatArray) -> Measured:
    """KS distance of one field of the predictions from the reference."""

    def measured(rows: Records) -> tuple[float, float, float, int]:
        if len(rows) < LEAST_PREDICTIONS:
            return TOO_FEW
        return _of(ks_signal(field, rows[field].astype(np.float64), quantiles, _UNWATCHED))

    return measured


def prior_shift(profile: ReferenceProfile, rng: np.random.Generator) -> Measured:
    """How far the mix of labels is from the reference's, told from decisions alone (BBSE)."""
    nothing = start(Claim(np.array([0.5]), 2.0))

    def measured(rows: Records) -> tuple[float, float, float, int]:
        if len(rows) < LEAST_PREDICTIONS:
            return TOO_FEW
        codes = decided_labels(rows)
        return _of(prior_shift_signal("prior_shift", profile.confusion, codes, _UNWATCHED, nothing, rng))

    return measured


def quantile_ms(stage: str, quantile: float) -> Measured:
    """A quantile of one stage, milliseconds."""

    def measured(rows: Records) -> tuple[float, float, float, int]:
        if len(rows) < LEAST_PREDICTIONS:
            return TOO_FEW
        return _of(quantile_signal(stage, rows[stage], quantile, _UNWATCHED, float("nan")))

    return measured


def in_scope(labelled: Records) -> Records:
    """The labelled rows that are about an intent, by their label."""
    return np.asarray(labelled[is_in_scope(labelled)])


def _counted(rows: Records) -> tuple[float, float, float, int]:
    return (*TOO_FEW[:3], len(rows))


def _mean(values: FloatArray | BoolArray, least: int) -> tuple[float, float, float, int]:
    n = len(values)
    if n < least:
        return TOO_FEW
    low, high = confidence_sequence(float(values.sum()), n, LEVEL)
    return float(values.mean()), low, high, n


def _of(signal: Signal) -> tuple[float, float, float, int]:
    return signal.value, signal.low, signal.high, signal.n
