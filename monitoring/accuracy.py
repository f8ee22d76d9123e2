"""
Evidence that the accuracy fell, from what the model's confidence and the row's segments say of it.

An error where the model is nearly always right says far more than one where it often errs. So errors are bet on
twice: against the reference's error rate of all rows, which nothing but a fall refutes, and against what the reference
erred at the row's confidence, which finds mistaken labels sooner. Half of the wealth is bet on the segments, on each
by itself: errors that gather in one are found there before all rows together tell. The last two alone would also be
refuted by rows whose confidence changed, or in a segment that matters little; the breach needs the estimate of all
rows as well (``signals.judge``).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit
from scipy.stats import beta, norm

from model_repo.contract.outputs import BoolArray, FloatArray
from monitoring.segments import LARGEST_SHARE
from monitoring.sequential import Claim
from monitoring.signals import Watch

CERTAINTY = 0.75
"""How surely the reference errs no more often than is taken for it: it is a sample too, and an endless stream would
refute a rate that is a little too low. Higher bears a small reference; it finds small falls later."""
SUREST = 1e-4
"""Confidence is taken to be at least so far from 0 and 1."""
CALIBRATED = np.array([0.0, -1.0])
"""The curve of a model that errs as often as its confidence says, from which few rows lead away but little."""
SEGMENTS_SHARE = 0.5
"""Of the wealth, what is bet on segments. Higher finds errors in one segment sooner, and those everywhere later."""
SEGMENT_CERTAINTY = 0.9
"""As ``CERTAINTY``, of a segment's rate of errors: there are many of them, each with fewer rows."""
FEWEST_SEGMENT_ROWS = 100
"""Rows of the reference with fewer of which a segment is not bet on; nor is one above ``segments.LARGEST_SHARE``."""
RIDGE = 1.0
"""How much the distance from it counts: as about four rows at a confidence of a half."""


@dataclass(frozen=True)
class SegmentErrors:
    """A segment of the reference."""

    errors: float
    """Rate of errors, at its upper end: see ``SEGMENT_CERTAINTY``."""
    share: float
    """Of all rows, those that are in it."""


@dataclass(frozen=True)
class ErrorReference:
    """How often the reference erred, in all and by confidence."""

    curve: FloatArray
    """(2,) log-odds of an error: a constant, and so many times the log-odds of the confidence. Two numbers of all rows
    know the rare errors of the surest rows far better than a range of them could count them."""
    covariance: FloatArray
    """(2, 2) of the curve: the reference is a sample too."""
    all_errors: float
    """Rate of errors of all rows, at its upper end: see ``CERTAINTY``."""
    segments: Mapping[str, "SegmentErrors"] = field(default_factory=dict)
    """Those that are bet on, by name."""

    def errors(self, confidence: FloatArray) -> FloatArray:
        """(n,) rate of errors at each confidence, at its upper end."""
        columns = _columns(confidence)
        spread = np.sqrt(np.einsum("ni,ij,nj->n", columns, self.covariance, columns))
        return np.asarray(expit(columns @ self.curve + norm.ppf(CERTAINTY) * spread))


def error_reference(
    confidence: FloatArray, is_correct: BoolArray, memberships: Mapping[str, BoolArray] | None = None
) -> ErrorReference:
    """
    From the in-scope rows of the reference, by logistic regression of the errors on the confidence. ``memberships``
    says which of the rows are in each segment.

    ``confidence`` is any number that is known before the label and that a policy revision leaves alone: the top
    probability at the temperature of the reference, not at the one in force.

    >>> rows = np.random.default_rng(0).uniform(0.5, 1.0, 5000)
    >>> reference = error_reference(rows, np.random.default_rng(1).random(5000) < rows)
    >>> reference.errors(np.array([0.6, 0.9])).round(2).tolist()
    [0.4, 0.1]
    """
    columns, errors = _columns(confidence), (~np.asarray(is_correct, dtype=bool)).astype(np.float64)

    def cost(curve: FloatArray) -> tuple[float, FloatArray]:
        odds, away = columns @ curve, curve - CALIBRATED
        value = float(np.logaddexp(0.0, odds).sum() - odds @ errors + RIDGE * (away @ away) / 2.0)
        return value, columns.T @ (expit(odds) - errors) + RIDGE * away

    curve = np.asarray(minimize(cost, CALIBRATED, jac=True).x)
    rates = expit(columns @ curve)
    information = columns.T @ (columns * (rates * (1.0 - rates))[:, None]) + RIDGE * np.eye(2)
    all_errors = float(upper_end(errors.sum(), float(len(errors))))
    segments = {
        name: SegmentErrors(
            float(upper_end(errors[members].sum(), float(members.sum()), SEGMENT_CERTAINTY)), float(members.mean())
        )
        for name, members in (memberships or {}).items()
        if FEWEST_SEGMENT_ROWS <= members.sum() <= LARGEST_SHARE * len(errors)
    }
    return ErrorReference(curve, np.asarray(np.linalg.inv(information)), all_errors, segments)


def accuracy_claim(reference: ErrorReference, watch: Watch) -> Claim:
    """
    "Errors are no more frequent than in the reference by more than is tolerated": of all rows, at each confidence, and
    in each segment. Of a segment so much is tolerated as would be of all rows if it lay in that segment alone.
    """
    bound = _bound(reference.all_errors, watch.tolerated)
    of_segments = [_bound(one.errors, watch.tolerated / one.share) for one in reference.segments.values()]
    for_segments = SEGMENTS_SHARE if of_segments else 0.0
    weights = [(1.0 - for_segments) / 2.0] * 2 + [for_segments / max(1, len(of_segments))] * len(of_segments)
    return Claim(np.array([bound, bound, *of_segments]), watch.rows_per_false_alarm, np.array(weights))


def accuracy_rows(
    confidence: FloatArray,
    is_correct: BoolArray,
    reference: ErrorReference,
    watch: Watch,
    memberships: Mapping[str, BoolArray] | None = None,
) -> tuple[FloatArray, FloatArray]:
    """
    Values and row bounds, (n, 2 + segments) each, to update the evidence of ``accuracy_claim`` with.

    >>> reference = ErrorReference(np.array([0.0, -1.0]), np.zeros((2, 2)), 0.375)
    >>> watch = Watch("down", threshold=0.01, tolerated=0.005, minimum_rows=1)
    >>> values, bounds = accuracy_rows(np.array([0.8]), np.array([False]), reference, watch)
    >>> values.tolist(), bounds.round(3).tolist()
    ([[1.0, 1.0]], [[0.38, 0.205]])
    """
    n, errors = len(confidence), (~np.asarray(is_correct, dtype=bool)).astype(np.float64)
    bounds = np.tile(accuracy_claim(reference, watch).bounds, (n, 1))
    bounds[:, 1] = _bound(reference.errors(confidence), watch.tolerated)
    nowhere = np.zeros(n, dtype=bool)
    of_segments = [np.where((memberships or {}).get(name, nowhere), errors, np.nan) for name in reference.segments]
    return np.stack([errors, errors, *of_segments], axis=1), bounds


def upper_end(errors: Any, rows: Any, certainty: float = CERTAINTY) -> FloatArray:
    """
    Of a one-sided Clopper-Pearson interval for a rate, from counts; just below 1 where every row was an error.

    >>> upper_end(0, 50, 0.75).round(3).item()
    0.027
    """
    return np.asarray(np.minimum(beta.ppf(certainty, errors + 1.0, np.maximum(rows - errors, 0.5)), 0.999))


def _columns(confidence: FloatArray) -> FloatArray:
    odds = logit(np.clip(np.asarray(confidence, dtype=np.float64), SUREST, 1.0 - SUREST))
    return np.stack([np.ones(len(odds)), odds], axis=1)


def _bound(errors: Any, tolerated: float) -> Any:
    return np.minimum(errors + tolerated, 1.0 - 1e-4)
