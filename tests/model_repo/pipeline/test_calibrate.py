"""Calibration finds the temperature that was put in, keeps the retention it was asked for, and says what is missing."""

import numpy as np
import pytest

from model_repo.contract.decision import decide, energy, softmax
from model_repo.contract.errors import BadTaxonomy, CannotMeasure
from model_repo.contract.labels import LabelledUtterance, Taxonomy
from model_repo.contract.outputs import ModelOutputs
from model_repo.contract.policy import Policy
from model_repo.contract.reference import EMBEDDINGS, QUANTILES, ReferenceProfile
from model_repo.pipeline.calibrate import (
    NEVER,
    calibrate,
    fit_age_threshold,
    fit_energy_cut,
    fit_energy_temperature,
)
from model_repo.pipeline.truth import truth_of
from tests.model_repo.pipeline.simulated import TAXONOMY, simulated


def calibrated(n: int = 800, seed: int = 0, **changes: float) -> tuple[Policy, ReferenceProfile, ModelOutputs]:
    """The policy and profile of a simulated split, with its outputs."""
    outputs, utterances = simulated(n, seed, **changes)
    lengths = np.arange(n) % 30 + 3
    policy, profile = calibrate(outputs, utterances, lengths, TAXONOMY, "7", np.random.default_rng(0))
    return policy, profile, outputs


def test_cut_keeps_the_retention_it_was_asked_for() -> None:
    """On the calibration split at least 95%, and one row fewer would not do."""
    policy, _, outputs = calibrated()
    _, utterances = simulated(800, 0)
    in_scope = np.array([not u.is_ood for u in utterances])
    kept = ~decide(outputs, policy).is_ood[in_scope]
    assert 0.95 <= kept.mean() < 0.95 + 1 / in_scope.sum()


def test_cut_is_indifferent_to_the_rounding_of_an_engine() -> None:
    """It lies between two energies, not on one."""
    energies = np.random.default_rng(2).normal(size=200)
    assert np.abs(energies - fit_energy_cut(energies, 0.9)).min() > 1e-6


def test_energy_temperature_is_one_when_nothing_ranks_better() -> None:
    """Also when there is no ood utterance to rank."""
    outputs, utterances = simulated(300, 3, ood_share=0.0)
    assert fit_energy_temperature(outputs.logits, truth_of(utterances, TAXONOMY).is_ood) == 1.0
    apart = np.array([[9.0, 0.0], [0.0, 9.0], [-3.0, -3.0]])
    assert fit_energy_temperature(apart, np.array([False, False, True])) == 1.0


class TestAgeThreshold:
    def test_best_f1_against_every_cut(self) -> None:
        """No cut does better on the rows it was fitted on."""
        rng = np.random.default_rng(4)
        sensitive = rng.random(200) < 0.2
        probabilities = np.clip(0.3 + 0.4 * sensitive + rng.normal(size=200) * 0.15, 0.0, 1.0)

        def f1(cut: float) -> float:
            flagged = probabilities >= cut
            return float(2 * (flagged & sensitive).sum() / (flagged.sum() + sensitive.sum()))

        best = max(f1(cut) for cut in np.linspace(0.001, 1.0, 1000))
        assert f1(fit_age_threshold(probabilities, sensitive.astype(float))) >= best

    def test_without_age_labels_no_request_is_age_sensitive(self) -> None:
        """Unknown everywhere, or sensitive nowhere."""
        assert fit_age_threshold(np.array([0.9, 0.1]), np.array([np.nan, np.nan])) == NEVER
        assert fit_age_threshold(np.array([0.9, 0.1]), np.array([0.0, np.nan])) == NEVER


class TestReferenceProfile:
    def test_counts_and_sizes_are_those_of_the_split(self) -> None:
        """Labels and languages count every row; quantiles rise; embeddings are a bounded sample."""
        policy, profile, outputs = calibrated()
        assert profile.n == profile.label_counts.sum() == profile.lang_counts.sum() == profile.confusion.sum() == 800
        assert profile.confusion.sum(axis=1).tolist() == profile.label_counts.tolist()
        assert len(profile.energy_quantiles) == QUANTILES
        assert (np.diff(profile.energy_quantiles) >= 0).all()
        assert profile.energy_quantiles[-1] == pytest.approx(
            energy(outputs.logits, policy.energy_temperature).max(), rel=1e-5
        )
        assert profile.embeddings.shape == (EMBEDDINGS, 8)
        assert (profile.length_quantiles[0], profile.length_quantiles[-1]) == (3.0, 32.0)

    def test_same_seed_gives_the_same_policy_and_profile(self) -> None:
        """No hidden randomness."""
        (policy, profile, _), (again, same, _) = calibrated(), calibrated()
        assert policy == again
        assert np.array_equal(profile.embeddings, same.embeddings)


class TestBadInput:
    def test_rows_that_do_not_pair_are_named(self) -> None:
        """Outputs and utterances, and lengths."""
        outputs, utterances = simulated(50, 5)
        rng = np.random.default_rng(0)
        with pytest.raises(CannotMeasure, match="50 rows for 49 utterances"):
            calibrate(outputs, utterances[1:], np.ones(50, dtype=int), TAXONOMY, "1", rng)
        with pytest.raises(CannotMeasure, match="n_tokens has 3 rows"):
            calibrate(outputs, utterances, np.ones(3, dtype=int), TAXONOMY, "1", rng)

    def test_logits_that_are_not_finite_are_refused(self) -> None:
        """They would become a policy without complaint otherwise."""
        outputs, utterances = simulated(50, 6)
        outputs.logits[3, 0] = np.nan
        with pytest.raises(CannotMeasure, match="NaN"):
            calibrate(outputs, utterances, np.ones(50, dtype=int), TAXONOMY, "1", np.random.default_rng(0))

    def test_split_without_in_scope_utterances_is_refused(self) -> None:
        """There is nothing to fit a temperature on."""
        outputs, _ = simulated(5, 7)
        strangers = [LabelledUtterance(f"stranger {i}", (), True) for i in range(5)]
        with pytest.raises(CannotMeasure, match="in-scope"):
            calibrate(outputs, strangers, np.ones(5, dtype=int), TAXONOMY, "1", np.random.default_rng(0))

    def test_intent_of_another_taxonomy_is_named(self) -> None:
        """A label the version does not know."""
        outputs, utterances = simulated(50, 8)
        with pytest.raises(BadTaxonomy, match="unknown intent"):
            calibrate(outputs, utterances, np.ones(50, dtype=int), Taxonomy(("a", "b")), "1", np.random.default_rng(0))


def test_thresholds_heed_the_intents_of_high_risk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The intent with the highest threshold gets a lower one when the taxonomy says that it is of high risk."""
    monkeypatch.setattr("model_repo.pipeline.thresholds.SHRINKAGES", (0.0,))
    outputs, utterances = simulated(300, 4, several_share=0.4)

    def thresholds(high_risk: frozenset[str]) -> tuple[float, ...]:
        taxonomy, rng = Taxonomy(TAXONOMY.intents, high_risk), np.random.default_rng(0)
        return calibrate(outputs, utterances, np.full(300, 5), taxonomy, "7", rng)[0].thresholds

    free = thresholds(frozenset())
    highest = int(np.argmax(free))
    capped = thresholds(frozenset({TAXONOMY.intents[highest]}))
    assert capped[highest] < free[highest]
    assert np.delete(capped, highest).tolist() == np.delete(free, highest).tolist()


def test_served_probability_is_right_as_often_as_it_says() -> None:
    """After calibration on one split, the top probability of another is right to 3 points on average."""
    policy, _, _ = calibrated(2000, 9, sharpening=3.0)
    outputs, utterances = simulated(2000, 10, sharpening=3.0)
    truth = truth_of(utterances, TAXONOMY)
    in_scope = ~truth.is_ood
    probabilities = softmax(outputs.logits[in_scope], policy.temperature)
    hit_rate = truth.targets[in_scope][np.arange(in_scope.sum()), probabilities.argmax(axis=1)].mean()
    assert probabilities.max(axis=1).mean() == pytest.approx(hit_rate, abs=0.03)


def test_shared_probability_keeps_its_second_intents(capsys: pytest.CaptureFixture[str]) -> None:
    """Where the top intent is never wrong its temperature would leave nothing of the second; that is said."""
    rng = np.random.default_rng(3)
    k = len(TAXONOMY.intents)
    first, second = rng.integers(0, k, 400), rng.integers(0, k, 400)
    logits = rng.normal(0.0, 0.3, (400, k))
    logits[np.arange(400), first] += 8.0
    logits[np.arange(400), second] += 8.0 * (first != second)
    names = [{TAXONOMY.intents[a], TAXONOMY.intents[b]} for a, b in zip(first, second, strict=True)]
    utterances = [
        LabelledUtterance(f"u {row}", tuple(sorted(carried)), is_ood=False) for row, carried in enumerate(names)
    ]
    outputs = ModelOutputs(logits, np.zeros(400), rng.normal(size=(400, 4)))
    policy, _ = calibrate(outputs, utterances, np.full(400, 5), TAXONOMY, "7", np.random.default_rng(0))
    assert "shares of several intents" in capsys.readouterr().out
    decisions = decide(outputs, policy)
    is_exact = (decisions.is_accepted == truth_of(utterances, TAXONOMY).targets).all(axis=1)
    assert is_exact[~decisions.is_ood].mean() > 0.98
