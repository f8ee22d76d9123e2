"""
Calibration of a window against the reference: ECE in its kinds, and evidence that confidence has come apart from truth.

Rows are labelled utterances that are in scope. An ECE is no mean, so nothing can be bet on it directly; what is bet
on is the signed gap, confidence less correctness, of all rows and of the rows of each range of confidence; and
besides, errors where the confidence says that there are next to none, which tell of one that became too sure soonest.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from model_repo.contract.bootstrap import Measure
from model_repo.contract.calibration_error import (
    bin_counts,
    class_wise_ece,
    debiased_ece,
    equal_mass_edges,
    equal_width_edges,
    expected_calibration_error,
)
from model_repo.contract.errors import CannotMeasure
from model_repo.contract.outputs import BoolArray, FloatArray
from monitoring.accuracy import CALIBRATED, ErrorReference, error_reference
from monitoring.sequential import Claim, Evidence
from monitoring.signals import Signal, Watch, judge, measured_signal, unmeasured

CALIBRATION_SIGNALS = ("ece", "ece_equal_mass", "ece_class_wise")
RANGES = 3
"""Ranges of confidence bet on, besides all rows: what is too sure here and too unsure there may cancel out in all."""


CERTAIN_DEVIATIONS = 1.0
"""Standard errors of a reference gap that are allowed for, besides what is tolerated. An endless quiet stream refutes a
claim that its reference makes too narrow. At 1.64 an ECE that rises by 0.03 is found in time in 33 runs of 40 instead
of 36, and the same quiet streams come to a diagnosis."""


ERRORS_SHARE = 0.2
"""Of the wealth, what is bet on errors at the answered confidence. Less than ``accuracy`` bets on the same rows, so
that an accuracy that falls is found there first, where it belongs."""
NO_ERRORS_KNOWN = ErrorReference(CALIBRATED, np.zeros((2, 2)), 0.5)
"""A calibrated model's."""


@dataclass(frozen=True)
class GapReference:
    """How confidence and truth stood to each other over the reference: all rows first, then each range."""

    cuts: FloatArray
    """(ranges - 1,) inner ends of the ranges, each holding about as many reference rows."""
    gaps: FloatArray
    """(1 + ranges,) mean of confidence less correctness; above zero when too sure."""
    shares: FloatArray
    """(1 + ranges,) of the rows; the first is 1."""
    deviations: FloatArray
    """(1 + ranges,) standard error of each gap: the reference is a sample too."""
    errors: ErrorReference = NO_ERRORS_KNOWN
    """How often it erred by confidence."""


def gap_reference(confidence: FloatArray, is_correct: BoolArray, ranges: int = RANGES) -> GapReference:
    """
    From the rows of the reference; fewer ranges when confidences tie.

    >>> reference = gap_reference(np.array([0.6, 0.9, 0.8, 0.7]), np.array([True, True, True, False]), ranges=2)
    >>> reference.cuts.tolist(), reference.gaps.round(3).tolist(), reference.shares.tolist()
    ([0.75], [0.0, 0.15, -0.15], [1.0, 0.5, 0.5])
    """
    cuts = equal_mass_edges(confidence, ranges)[1:-1]
    members = _members(confidence, cuts)
    rows, gap = members.sum(axis=0), np.asarray(confidence - is_correct)
    gaps = np.asarray(gap @ members / rows)
    deviations = np.sqrt(np.maximum(gap**2 @ members / rows - gaps**2, 0.0) / rows)
    errors = error_reference(confidence, is_correct)
    return GapReference(cuts, gaps, np.asarray(members.mean(axis=0)), np.asarray(deviations), errors)


def gap_claim(reference: GapReference, watch: Watch) -> Claim:
    """
    "No range is surer of itself, or less sure, than over the reference by what would move the ECE by ``tolerated``."

    A range that holds a third of the rows must be off by three times as much, and each by what the reference may be off
    itself. Two streams a range, one a direction; and one of errors, no more frequent at their confidence than over the
    reference by more than ``tolerated``, whose bound each row has of its own.
    """
    slack = watch.tolerated / reference.shares + CERTAIN_DEVIATIONS * reference.deviations
    bounds = np.append((1.0 + np.concatenate([reference.gaps + slack, -reference.gaps + slack])) / 2.0, 0.5)
    weights = np.append(np.full(len(bounds) - 1, (1.0 - ERRORS_SHARE) / (len(bounds) - 1)), ERRORS_SHARE)
    return Claim(np.clip(bounds, 1e-4, 1.0 - 1e-4), watch.rows_per_false_alarm, weights)


def gap_rows(
    confidence: FloatArray, is_correct: BoolArray, reference: GapReference, watch: Watch
) -> tuple[FloatArray, FloatArray]:
    """
    Values and row bounds to update the evidence of ``gap_claim`` with: gaps brought from [-1, 1] to [0, 1], and errors.

    >>> reference = GapReference(np.array([0.5]), np.zeros(3), np.array([1.0, 0.5, 0.5]), np.zeros(3))
    >>> watch = Watch("up", threshold=0.01, tolerated=0.0, minimum_rows=1)
    >>> values, bounds = gap_rows(np.array([0.8]), np.array([False]), reference, watch)
    >>> values.round(3).tolist(), bounds.round(3).tolist()
    ([[0.9, nan, 0.9, 0.1, nan, 0.1, 1.0]], [[0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.2]])
    """
    too_sure = (1.0 + np.asarray(confidence, dtype=np.float64) - is_correct) / 2.0
    column = np.where(_members(confidence, reference.cuts), too_sure[:, None], np.nan)
    errors = 1.0 - np.asarray(is_correct, dtype=np.float64)[:, None]
    values = np.clip(np.concatenate([column, 1.0 - column, errors], axis=1), 0.0, 1.0)
    bounds = np.tile(gap_claim(reference, watch).bounds, (len(values), 1))
    bounds[:, -1] = np.minimum(reference.errors.errors(confidence) + watch.tolerated, 1.0 - 1e-4)
    return values, bounds


def calibration_signals(
    probabilities: FloatArray,
    top_is_correct: BoolArray,
    targets: FloatArray,
    watches: Mapping[str, Watch],
    references: Mapping[str, float],
    evidence: Evidence | None,
    rng: np.random.Generator,
) -> list[Signal]:
    """
    CALIBRATION_SIGNALS over a window: ``probabilities`` (n, K), ``targets`` (n, K) as shares.

    ``ece`` and ``ece_equal_mass`` are debiased (``debiased_ece``), with the interval of the plug-in error, which holds
    a calibrated model's zero. ``evidence`` is that of ``gap_claim`` and gives the verdict of ``ece``; the reference
    numbers must be of the same kind.
    """
    if len(probabilities) == 0:
        return [unmeasured(name, watches[name], references[name]) for name in CALIBRATION_SIGNALS]
    confidence = probabilities.max(axis=1)
    signals = []
    for name, edges in (("ece", equal_width_edges()), ("ece_equal_mass", equal_mass_edges(confidence))):
        measure = ece_measure(confidence, top_is_correct, edges)
        signals.append(measured_signal(name, measure, len(confidence), watches[name], references[name], rng))
    name = "ece_class_wise"
    class_wise = Measure(lambda weights: class_wise_ece(probabilities, targets, weights), len(confidence), "plug_in")
    signals.append(measured_signal(name, class_wise, len(confidence), watches[name], references[name], rng))
    if evidence is not None:
        signals[0] = _judged(signals[0], watches["ece"], evidence)
    return signals


def ece_measure(confidence: FloatArray, is_correct: BoolArray, edges: FloatArray) -> Measure:
    """The plug-in ECE over these bins, reported debiased."""
    return Measure(
        lambda weights: expected_calibration_error(bin_counts(confidence, is_correct, edges, weights)),
        n=len(confidence),
        interval="plug_in",
        estimate=float(debiased_ece(bin_counts(confidence, is_correct, edges))),
    )


def _judged(signal: Signal, watch: Watch, evidence: Evidence) -> Signal:
    """The same number, with the verdict of evidence gathered row by row."""
    return replace(signal, verdict=judge(watch, signal.value, signal.reference, signal.n, evidence.has_detected))


def _members(confidence: FloatArray, cuts: FloatArray) -> BoolArray:
    """(n, 1 + ranges): whether each row is among all rows (always), and in each range (lower, upper]."""
    if len(confidence) == 0:
        raise CannotMeasure("calibration needs at least one labelled row, got none")
    inside = np.searchsorted(cuts, confidence, side="left")[:, None] == np.arange(len(cuts) + 1)
    return np.concatenate([np.ones((len(confidence), 1), dtype=bool), inside], axis=1)
