"""Thresholds reach the best micro-F1 there is, and rare intents stay close to the global threshold."""

from itertools import product

import numpy as np
import pytest

from model_repo.contract.decision import accept, softmax
from model_repo.contract.errors import CannotMeasure
from model_repo.contract.metrics import micro_f1
from model_repo.pipeline.thresholds import fit_thresholds, global_threshold, separate_thresholds, shrunk_thresholds
from model_repo.pipeline.truth import truth_of
from tests.model_repo.pipeline.simulated import TAXONOMY, simulated

NONE = np.zeros(4, dtype=np.bool_)
"""No intent of high risk."""


def in_scope(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and targets, four messages in ten with two intents."""
    outputs, utterances = simulated(n, seed, ood_share=0.0, several_share=0.4)
    return softmax(outputs.logits), truth_of(utterances, TAXONOMY).targets


def score(probabilities: np.ndarray, targets: np.ndarray, thresholds: np.ndarray) -> float:
    """Micro-F1 of the decisions."""
    return float(micro_f1(accept(probabilities, thresholds), targets))


def test_no_other_thresholds_do_better_on_the_rows_they_were_fitted_on() -> None:
    """Against every combination of 12 cuts an intent, three intents."""
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(3, 0.7), 60)
    targets = rng.random((60, 3)) < probabilities + 0.15
    targets[~targets.any(axis=1), 0] = True
    cuts = np.linspace(0.02, 0.9, 12)
    best = max(score(probabilities, targets, np.array(c)) for c in product(cuts, repeat=3))
    assert score(probabilities, targets, separate_thresholds(probabilities, targets)) >= best - 1e-12


def test_global_threshold_is_the_best_single_cut() -> None:
    """Against 500 cuts."""
    probabilities, targets = in_scope(400, 1)
    best = max(score(probabilities, targets, np.full(4, cut)) for cut in np.linspace(0.01, 0.99, 500))
    assert score(probabilities, targets, np.full(4, global_threshold(probabilities, targets))) >= best - 1e-12


def test_thresholds_help_on_new_messages() -> None:
    """More than accepting the top intent alone, on rows that were not fitted on."""
    thresholds = fit_thresholds(*in_scope(600, 2), NONE, np.random.default_rng(0))
    fresh = in_scope(600, 3)
    assert score(*fresh, thresholds) > score(*fresh, np.ones(4)) + 0.02


def test_high_risk_intent_has_no_higher_threshold_than_the_global_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its own is higher; the others keep theirs, and a lower one stays."""
    monkeypatch.setattr("model_repo.pipeline.thresholds.SHRINKAGES", (0.0,))
    probabilities, targets = in_scope(300, 4)
    free = fit_thresholds(probabilities, targets, NONE, np.random.default_rng(0))
    shared = global_threshold(probabilities, targets)
    assert free.min() < shared < free.max()
    for risky in (np.ones(4, dtype=np.bool_), free == free.max(), free == free.min()):
        got = fit_thresholds(probabilities, targets, risky, np.random.default_rng(0))
        assert got.tolist() == [min(own, shared) if risk else own for own, risk in zip(free, risky, strict=True)]


def test_shrinkage_moves_from_own_to_global() -> None:
    """None keeps the intents' own thresholds, infinite gives all the same one, between them it is monotone."""
    probabilities, targets = in_scope(300, 4)
    shared = global_threshold(probabilities, targets)
    distances = [
        np.abs(shrunk_thresholds(probabilities, targets, s) - shared).max() for s in (0.0, 20.0, 320.0, float("inf"))
    ]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] == 0.0
    own = separate_thresholds(probabilities, targets)
    assert shrunk_thresholds(probabilities, targets, 0.0) == pytest.approx(own, abs=1e-9)


def test_intent_that_is_never_second_gets_the_global_threshold() -> None:
    """Nothing is known of its own, whatever the shrinkage."""
    probabilities, targets = in_scope(300, 5)
    rows = np.arange(len(targets))
    is_top = np.zeros_like(targets)
    is_top[rows, probabilities.argmax(axis=1)] = True
    targets[:, 0] &= is_top[:, 0]
    kept = targets.any(axis=1)
    thresholds = shrunk_thresholds(probabilities[kept], targets[kept], 0.0)
    assert thresholds[0] == pytest.approx(global_threshold(probabilities[kept], targets[kept]), abs=1e-9)


def test_ood_rows_are_refused() -> None:
    """A row without an intent has no place here."""
    with pytest.raises(CannotMeasure, match="in-scope"):
        fit_thresholds(np.full((2, 2), 0.5), np.array([[True, False], [False, False]]), NONE, np.random.default_rng(0))
