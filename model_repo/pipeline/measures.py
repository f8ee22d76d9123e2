"""
What is measured of a version's decisions, each measure by its dotted name.

    intents   in-scope utterances, before the ood verdict: is the right intent named, and how sure is it?
    ood       the verdict: energy as a score, then the cut
    served    every utterance, after the verdict: what the caller gets
    age       the age-sensitive flag, where it is labelled
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from model_repo.contract import calibration_error, metrics, ranking
from model_repo.contract.bootstrap import Interval, Measure
from model_repo.contract.calibration_error import BinCounts, bin_counts
from model_repo.contract.costs import cost_matrix, utterance_costs
from model_repo.contract.decision import Decisions, accept, decide
from model_repo.contract.labels import LabelledUtterance, Taxonomy
from model_repo.contract.outputs import BoolArray, FloatArray, IntArray, ModelOutputs
from model_repo.contract.policy import Policy
from model_repo.pipeline.truth import Truth, check_rows, truth_of

Error = Callable[[BinCounts], FloatArray]


@dataclass(frozen=True)
class Judged:
    """n utterances with their truth and their decisions, row by row."""

    decisions: Decisions
    truth: Truth
    is_accepted: BoolArray
    """(n, K): what is accepted before the ood verdict."""
    costs: FloatArray
    """(n,): what each decision costs the business."""
    intents: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.decisions)


def judge(
    outputs: ModelOutputs,
    policy: Policy,
    utterances: Sequence[LabelledUtterance],
    taxonomy: Taxonomy,
    costs: FloatArray | None = None,
) -> Judged:
    """Decide as serving does, and put the truth beside it. ``costs`` (K + 1, K + 1); None charges 1 a mistake."""
    check_rows(outputs, utterances)
    policy.check_fits(taxonomy)
    truth, decisions, ood = truth_of(utterances, taxonomy), decide(outputs, policy), len(taxonomy.intents)
    matrix = cost_matrix({}, taxonomy) if costs is None else costs
    decided = np.where(decisions.is_ood, ood, decisions.top)
    return Judged(
        decisions=decisions,
        truth=truth,
        is_accepted=accept(decisions.probabilities, np.asarray(policy.thresholds)),
        costs=utterance_costs(truth.targets, decisions.is_accepted, decided, matrix),
        intents=taxonomy.intents,
    )


def measures(judged: Judged) -> dict[str, Measure]:
    """Every measure that these rows can give, by its dotted name; each takes weights (B, n)."""
    in_scope, is_ood = np.flatnonzero(~judged.truth.is_ood), judged.truth.is_ood
    found: dict[str, Measure] = {}
    if len(in_scope):
        found |= {f"intents.{name}": m for name, m in _intent_measures(judged, in_scope).items()}
    if len(in_scope) and is_ood.any():
        found |= {f"ood.{name}": m for name, m in _ood_measures(judged).items()}
    found |= {f"served.{name}": m for name, m in _served_measures(judged).items()}
    return found | {f"age.{name}": m for name, m in _age_measures(judged).items()}


def take(judged: Judged, rows: IntArray) -> Judged:
    d, t = judged.decisions, judged.truth
    decisions = Decisions(*(getattr(d, name)[rows] for name in Decisions.__dataclass_fields__))
    truth = Truth(t.targets[rows], t.main[rows], t.age[rows])
    return Judged(decisions, truth, judged.is_accepted[rows], judged.costs[rows], judged.intents)


def _intent_measures(judged: Judged, rows: IntArray) -> dict[str, Measure]:
    part = take(judged, rows)
    targets, top, probabilities = part.truth.targets, part.decisions.top, part.decisions.probabilities
    is_correct, shares = metrics.top_in_set(top, targets), metrics.shares(targets)
    # The true class is the main intent, or the top one when the utterance carries it.
    credited = np.where(is_correct, top, part.truth.main)
    found = {
        "accuracy": _on(rows, lambda w: metrics.accuracy(is_correct, w)),
        "macro_f1": _on(rows, lambda w: metrics.macro_f1(credited, top, w)),
        "micro_f1": _on(rows, lambda w: metrics.micro_f1(part.is_accepted, targets, w)),
        "exact_match": _on(rows, lambda w: metrics.exact_match(part.is_accepted, targets, w)),
        "brier": _on(rows, lambda w: metrics.brier(probabilities, shares, w)),
        "nll": _on(rows, lambda w: metrics.nll(probabilities, shares, w)),
        "class_wise_ece": _on(rows, lambda w: calibration_error.class_wise_ece(probabilities, shares, w), "plug_in"),
    }
    found |= _calibration_measures(probabilities.max(axis=-1), is_correct, rows)
    several = np.flatnonzero(targets.sum(axis=-1) > 1)
    if len(several):
        accepted, carried = part.is_accepted[several], targets[several]
        found["exact_match_of_several"] = _on(rows[several], lambda w: metrics.exact_match(accepted, carried, w))
    return found | _recalls(judged.intents, judged.is_accepted, judged.truth.targets)


def _ood_measures(judged: Judged) -> dict[str, Measure]:
    energies, is_ood, rejected = judged.decisions.energies, judged.truth.is_ood, judged.decisions.is_ood
    rows = np.arange(len(judged))
    return {
        "auroc": _on(rows, lambda w: ranking.auroc(energies, is_ood, w)),
        "fpr95": _on(rows, lambda w: ranking.fpr_at_tpr(energies, is_ood, w)),
        "aupr": _on(rows, lambda w: ranking.aupr(energies, is_ood, w)),
        **_share("recall", rejected, is_ood),
        **_share("precision", is_ood, rejected),
        **_share("in_scope_kept", ~rejected, ~is_ood),
    }


def _served_measures(judged: Judged) -> dict[str, Measure]:
    decisions, targets, is_ood = judged.decisions, judged.truth.targets, judged.truth.is_ood
    rows, kept = np.arange(len(judged)), np.flatnonzero(~decisions.is_ood)
    is_correct = metrics.top_in_set(decisions.top, targets)
    is_right = np.where(is_ood, decisions.is_ood, ~decisions.is_ood & is_correct)
    found = {
        "accuracy": _on(rows, lambda w: metrics.accuracy(is_right, w)),
        "exact_match": _on(rows, lambda w: metrics.exact_match(decisions.is_accepted, targets, w)),
        "business_error": _on(rows, lambda w: metrics.mean(judged.costs, w)),
    }
    if decisions.is_accepted.any() or targets.any():
        found["micro_f1"] = _on(rows, lambda w: metrics.micro_f1(decisions.is_accepted, targets, w))
    if len(kept):
        # An ood utterance that was let through counts as wrong: this is what a caller sees.
        found |= _calibration_measures(decisions.probabilities[kept].max(axis=-1), is_correct[kept], kept)
    return found | _recalls(judged.intents, decisions.is_accepted, targets)


def _age_measures(judged: Judged) -> dict[str, Measure]:
    known = ~np.isnan(judged.truth.age)
    sensitive, flagged = judged.truth.age == 1.0, judged.decisions.is_age_sensitive & known
    return _share("recall", flagged, sensitive) | _share("precision", sensitive, flagged)


def _calibration_measures(confidence: FloatArray, is_correct: BoolArray, rows: IntArray) -> dict[str, Measure]:
    """The calibration errors of ``confidence`` (m,), which belongs to the m given rows."""
    # A softmax may exceed 1 by rounding.
    confidence = np.minimum(confidence, 1.0)
    even, massed = calibration_error.equal_width_edges(), calibration_error.equal_mass_edges(confidence)

    def measure(error: Error, edges: FloatArray, interval: Interval, debiased: Error | None = None) -> Measure:
        estimate = None if debiased is None else float(debiased(bin_counts(confidence, is_correct, edges)))
        return _on(rows, lambda w: error(bin_counts(confidence, is_correct, edges, w)), interval, estimate)

    plug_in = calibration_error.expected_calibration_error
    return {
        "ece": measure(plug_in, even, "plug_in"),
        "ece_equal_mass": measure(plug_in, massed, "plug_in"),
        "ece_debiased": measure(plug_in, even, "plug_in", calibration_error.debiased_ece),
        "squared_error_debiased": measure(calibration_error.debiased_squared_error, massed, "centred"),
    }


def _recalls(intents: Sequence[str], is_accepted: BoolArray, targets: BoolArray) -> dict[str, Measure]:
    """``recall.<intent>`` of every intent that some utterance carries."""
    found: dict[str, Measure] = {}
    for k, intent in enumerate(intents):
        found |= _share(f"recall.{intent}", is_accepted[:, k], targets[:, k])
    return found


def _share(name: str, is_hit: BoolArray, counts: BoolArray) -> dict[str, Measure]:
    """Of the rows that count, the share of hits; nothing when no row counts."""
    rows = np.flatnonzero(counts)
    return {name: _on(rows, lambda w: metrics.mean(is_hit[rows], w))} if len(rows) else {}


def _on(
    rows: IntArray,
    of: Callable[[FloatArray], FloatArray],
    interval: Interval = "percentile",
    estimate: float | None = None,
) -> Measure:
    """A measure of some of the rows: its weights are theirs."""
    return Measure(lambda weights: of(weights[..., rows]), len(rows), interval, estimate)
