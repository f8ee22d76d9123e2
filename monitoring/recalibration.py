"""
Another temperature for a policy whose confidence has come apart from truth, and how it does on rows that it was not
fitted on. Pure functions of labelled rows.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from model_repo.contract.calibration_error import equal_width_edges
from model_repo.contract.decision import softmax
from model_repo.contract.metrics import top_in_set
from model_repo.contract.outputs import BoolArray, IntArray
from model_repo.contract.policy import Policy
from model_repo.contract.temperature import fit_temperature, moved_thresholds, top_nll
from monitoring.calibration import ece_measure
from monitoring.failure_tree import REFIT_SIGNAL
from monitoring.observations import Records
from monitoring.signals import Signal, Verdict, Watch, measured_signal

MOST_ROWS = 4000
"""Labelled rows in scope, the latest ones, among which the stretch to fit on is looked for. Higher reaches back further
for a change that was long in being found, and takes longer."""
STRETCH_GROWTH = 1.15
"""From one length that is tried to the next: a change is found to that part of the rows since."""
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Judged:
    """How a temperature did on rows that it was not fitted on."""

    ece: Signal
    """Debiased, with the interval of one look."""
    nll: float
    """See ``temperature.top_nll``."""


def fit_half(numbers: IntArray) -> BoolArray:
    """
    Which predictions are fitted on; the others judge. By the number of the prediction alone, so that the halves stay
    the same whenever they are drawn, hold as many rows of every stretch, and no rhythm of the traffic falls into step.

        fitted on when frac(number * golden ratio) < 1/2

    >>> fit_half(np.arange(10)).tolist()
    [True, False, True, False, True, True, False, True, False, False]
    """
    mixed = np.asarray(numbers).astype(np.uint64) * _GOLDEN
    return np.asarray(mixed >> np.uint64(63) == 0)


def recent_stretch(labelled: Records, temperature: float, half_rows: int) -> Records:
    """
    The latest rows in scope since confidence came apart from truth, in the order of their numbers; all when they are
    too few for two halves of ``half_rows``.

    A window reaches back to before the change, and a temperature fitted across it would lie between the two. So of
    several lengths the one is taken under which the rows that are fitted on are most likely: those before it at the
    ``temperature`` in force, those in it at one of their own. The judging half has no say.
    """
    rows = labelled[labelled["truth"][:, :-1].any(axis=1)]
    rows = rows[np.argsort(rows["number"], kind="stable")][-MOST_ROWS:]
    fits = fit_half(rows["number"])
    from_end = np.minimum(np.cumsum(fits[::-1]), np.cumsum(~fits[::-1]))
    if len(rows) == 0 or from_end[-1] < half_rows:
        return rows
    shortest = int(np.argmax(from_end >= half_rows)) + 1
    steps = math.log(len(rows) / shortest) / math.log(STRETCH_GROWTH)
    lengths = np.unique(np.geomspace(len(rows), shortest, int(steps) + 2).round().astype(np.int64))
    costs = [_stretch_nll(rows[fits], int(fits[-length:].sum()), temperature) for length in lengths]
    return rows[-int(lengths[int(np.argmin(costs))]) :]


def refitted(before: Policy, labelled: Records, predictions: Records) -> Policy:
    """
    The policy with the temperature that these labelled rows ask for, and thresholds moved with it.

    ``predictions`` need no label: what was accepted of them is to stay. The revision is the one after ``before``, until
    it is published.
    """
    temperature = fit_temperature(labelled["logits"], labelled["truth"][:, :-1])
    logits = predictions["logits"][~predictions["is_ood"]]
    moved = moved_thresholds(logits, np.asarray(before.thresholds), before.temperature, temperature)
    return replace(before, revision=before.revision + 1, temperature=temperature, thresholds=tuple(moved.tolist()))


def judged(policy: Policy, labelled: Records, watch: Watch, reference: float) -> Judged:
    """A policy on rows that it was not fitted on, against the reference's ECE."""
    logits = labelled["logits"].astype(np.float64)
    confidence = softmax(logits, policy.temperature).max(axis=1)
    is_correct = _is_correct(labelled)
    measure = ece_measure(confidence, is_correct, equal_width_edges())
    rng = np.random.default_rng(0)
    ece = measured_signal(REFIT_SIGNAL, measure, len(labelled), watch, reference, rng)
    return Judged(ece, top_nll(logits, is_correct, policy.temperature))


def verdict_after(before: Judged, after: Judged, watch: Watch) -> Verdict:
    """
    ``ok`` when the ECE recovers, ``breached`` when it persists.

    It recovers when its change is below the watch's threshold. At or above it, it persists only if the rows say so:
    the re-fit made nothing better, or the whole interval is worse than what is tolerated. A few hundred rows of a
    perfect calibrator show a debiased ECE of 0.01 to 0.02 above that of a larger reference, so that the bare estimate
    would send two of five such re-fits to a full retrain. In doubt the better calibrator goes into service, and
    evidence gathered anew says whether it was enough.
    """
    signal = after.ece
    if signal.n < watch.minimum_rows or np.isnan(signal.value):
        return Verdict.INCONCLUSIVE
    if watch.change_for_the_worse(signal.value, signal.reference) < watch.threshold:
        return Verdict.OK
    is_better = after.nll < before.nll and signal.value < before.ece.value
    is_shown = watch.change_for_the_worse(signal.low, signal.reference) > watch.tolerated
    return Verdict.BREACHED if is_shown or not is_better else Verdict.OK


def _stretch_nll(rows: Records, length: int, temperature: float) -> float:
    """In nats, of all rows together: the last ``length`` at the temperature that suits them, the others at this one."""
    earlier, latest = rows[:-length], rows[-length:]
    fitted = fit_temperature(latest["logits"], latest["truth"][:, :-1])
    parts = [(part, at) for part, at in ((earlier, temperature), (latest, fitted)) if len(part)]
    return sum(len(part) * top_nll(part["logits"], _is_correct(part), at) for part, at in parts)


def _is_correct(rows: Records) -> BoolArray:
    return top_in_set(rows["logits"].argmax(axis=1), rows["truth"][:, :-1])
