"""
Evidence that the accuracy fell, from what the model's confidence says of each row.

An error where the model is nearly always right says far more than one where it often errs. So errors are bet on
twice: against the reference's error rate of all rows, which nothing but a fall refutes, and against that of the row's
range of confidence, which finds mistaken labels and a corrupted segment sooner. The second alone
would also be refuted by rows that changed ranges; the breach needs the estimate as well (``signals.judge``).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import beta

from model_repo.contract.calibration_error import equal_mass_edges
from model_repo.contract.metrics import grouped_sums
from model_repo.contract.outputs import BoolArray, FloatArray
from monitoring.sequential import Claim
from monitoring.signals import Watch

RANGES = 5
CERTAINTY = 0.6
"""How surely the reference errs no more often than is taken for it: it is a sample too, and an endless stream would
refute a rate that is a little too low. Higher bears a small reference; it finds small falls later: at 0.75 one of 3
points takes a quarter longer."""


@dataclass(frozen=True)
class ErrorReference:
    """How often the reference erred, in all and by confidence."""

    cuts: FloatArray
    """Inner ends of the ranges of confidence, each holding about as many reference rows."""
    errors: FloatArray
    """(ranges,) rate of errors, at its upper end: see ``CERTAINTY``. No range is known never to err."""
    all_errors: float
    """Of all rows, likewise."""


def error_reference(confidence: FloatArray, is_correct: BoolArray, ranges: int = RANGES) -> ErrorReference:
    """
    From the in-scope rows of the reference; fewer ranges when confidences tie.

    ``confidence`` is any number that is known before the label and that a policy revision leaves alone: the top
    probability at the temperature of the reference, not at the one in force.

    >>> reference = error_reference(np.array([0.6, 0.9, 0.8, 0.7]), np.array([True, True, True, False]), ranges=2)
    >>> reference.cuts.tolist(), reference.errors.round(2).tolist(), round(reference.all_errors, 2)
    ([0.75], [0.77, 0.37], 0.44)
    """
    cuts = equal_mass_edges(confidence, ranges)[1:-1]
    groups = np.searchsorted(cuts, confidence, side="left")
    rows = grouped_sums(np.ones(len(confidence)), groups, len(cuts) + 1)
    errors = grouped_sums((~is_correct).astype(np.float64), groups, len(cuts) + 1)
    return ErrorReference(cuts, upper_end(errors, rows), float(upper_end(errors.sum(), rows.sum())))


def accuracy_claim(reference: ErrorReference, watch: Watch) -> Claim:
    """ "Errors are no more frequent than in the reference by more than is tolerated", in two streams."""
    bound = _bound(reference.all_errors, watch)
    return Claim(np.array([bound, bound]), watch.rows_per_false_alarm)


def accuracy_rows(
    confidence: FloatArray, is_correct: BoolArray, reference: ErrorReference, watch: Watch
) -> tuple[FloatArray, FloatArray]:
    """
    Values and row bounds, (n, 2) each, to update the evidence of ``accuracy_claim`` with.

    >>> reference = ErrorReference(np.array([0.75]), np.array([0.5, 0.25]), 0.375)
    >>> watch = Watch("down", threshold=0.01, tolerated=0.005, minimum_rows=1)
    >>> values, bounds = accuracy_rows(np.array([0.8]), np.array([False]), reference, watch)
    >>> values.tolist(), bounds.tolist()
    ([[1.0, 1.0]], [[0.38, 0.255]])
    """
    of_range = _bound(reference.errors[np.searchsorted(reference.cuts, confidence, side="left")], watch)
    of_all = np.full(len(confidence), _bound(reference.all_errors, watch))
    values = np.repeat((~np.asarray(is_correct, dtype=bool)).astype(np.float64)[:, None], 2, axis=1)
    return values, np.stack([of_all, of_range], axis=1)


def upper_end(errors: Any, rows: Any, certainty: float = CERTAINTY) -> FloatArray:
    """
    Of a one-sided Clopper-Pearson interval for a rate, from counts; just below 1 where every row was an error.

    >>> upper_end(0, 50, 0.75).round(3).item()
    0.027
    """
    return np.asarray(np.minimum(beta.ppf(certainty, errors + 1.0, np.maximum(rows - errors, 0.5)), 0.999))


def _bound(errors: Any, watch: Watch) -> Any:
    return np.minimum(errors + watch.tolerated, 1.0 - 1e-4)
