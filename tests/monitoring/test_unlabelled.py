"""Decisions alone: a quiet stream walks to nothing, a changed one to a labelling sample."""

import numpy as np
import pytest

from model_repo.contract.reference import ReferenceProfile, quantiles
from monitoring.failure_tree import Outcome, load, walk
from monitoring.sequential import start, update
from monitoring.signals import Signal, Verdict
from monitoring.unlabelled import (
    FOLLOWED_SIGNALS,
    UNLABELLED_SIGNALS,
    UnlabelledRows,
    claims,
    unlabelled_signals,
    values,
)

TREE = load()
CONFUSION_SHARES = np.array([[0.90, 0.05, 0.05], [0.06, 0.90, 0.04], [0.05, 0.05, 0.90]])
"""Decided by true; ood last."""


def stream(n: int, seed: int, priors: tuple[float, float, float] = (0.6, 0.3, 0.1)) -> UnlabelledRows:
    """Two intents and ood, told by where the energy and the embedding lie; half of the rows have an embedding."""
    rng = np.random.default_rng(seed)
    true = rng.choice(3, n, p=priors)
    decided = (CONFUSION_SHARES[true].cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return UnlabelledRows(
        confidence=np.where(true == 2, rng.beta(3.0, 3.0, n), rng.beta(20.0, 1.5, n)),
        energy=rng.normal(np.where(true == 2, -2.0, -6.0), 1.0),
        length=rng.poisson(12, n),
        language=rng.choice(3, n, p=(0.85, 0.06, 0.09)),
        decided=decided,
        embeddings=rng.normal(np.eye(3)[true] * 3.0, 1.0)[:200],
    )


@pytest.fixture(scope="module")
def profile() -> ReferenceProfile:
    """Of 4,000 rows, its confusion by the stream's own mistakes."""
    rows = stream(4000, seed=1000)
    return ReferenceProfile(
        n=4000,
        energy_quantiles=quantiles(rows.energy),
        confidence_quantiles=quantiles(rows.confidence),
        length_quantiles=quantiles(rows.length.astype(np.float64)),
        label_counts=np.array([2400, 1200, 400]),
        confusion=np.round(4000 * np.array([[0.6], [0.3], [0.1]]) * CONFUSION_SHARES).astype(np.int64),
        lang_counts=np.bincount(rows.language, minlength=3),
        embeddings=rows.embeddings,
    )


def followed(profile: ReferenceProfile, parts: list[UnlabelledRows]) -> list[Signal]:
    """The signals of the last part, after all of them were followed."""
    held = claims(profile, TREE.watches)
    evidence = {name: start(claim) for name, claim in held.items()}
    for rows in parts:
        columns = values(rows, profile, TREE.watches)
        evidence = {name: update(evidence[name], held[name], columns[name]) for name in held}
    return unlabelled_signals(parts[-1], profile, TREE.watches, evidence, np.random.default_rng(0))


def test_every_unlabelled_signal_is_measured(profile: ReferenceProfile) -> None:
    """In order, each with its interval and the count of rows it is about."""
    signals = followed(profile, [stream(1000, 1)])
    assert tuple(signal.name for signal in signals) == UNLABELLED_SIGNALS
    assert all(signal.low <= signal.value <= signal.high for signal in signals)
    assert [signal.n for signal in signals] == [1000] * len(FOLLOWED_SIGNALS) + [200]
    by_name = {signal.name: signal for signal in signals}
    assert by_name["expected_accuracy"].reference == pytest.approx(by_name["expected_accuracy"].value, abs=0.02)
    assert by_name["ood_rate"].reference == pytest.approx(0.132, abs=0.001)


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_quiet_stream_breaches_nothing(profile: ReferenceProfile, seed: int) -> None:
    """10,000 rows of the reference's kind, in ten parts: no signal is breached and no branch fires."""
    signals = followed(profile, [stream(1000, 100 * seed + part) for part in range(10)])
    assert [signal.name for signal in signals if signal.verdict is Verdict.BREACHED] == []
    assert all(one.outcome is not Outcome.FIRED for one in walk(TREE, {signal.name: signal for signal in signals}))


def test_new_intent_of_a_tenth_of_traffic_asks_for_labels_within_3000(profile: ReferenceProfile) -> None:
    """What the model takes for ood doubles: rate, energy and priors move, and a sample is drawn for labels."""
    signals = followed(profile, [stream(2000, 21), stream(3000, 22, priors=(0.54, 0.27, 0.19))])
    breached = {signal.name for signal in signals if signal.verdict is Verdict.BREACHED}
    assert {"ood_rate", "prior_shift", "energy_ks"} <= breached
    fired = [one for one in walk(TREE, {signal.name: signal for signal in signals}) if one.outcome is Outcome.FIRED]
    assert [one.diagnosis for one in fired] == ["unlabelled_drift/sample_for_labels"]


def test_priors_moved_between_intents_leave_the_energy_alone(profile: ReferenceProfile) -> None:
    """Ten points from one intent to the other are a prior shift and nothing else that ood would show."""
    signals = followed(profile, [stream(3000, 31, priors=(0.5, 0.4, 0.1))])
    breached = {signal.name for signal in signals if signal.verdict is Verdict.BREACHED}
    assert "prior_shift" in breached
    assert breached.isdisjoint({"ood_rate", "energy_ks", "expected_accuracy"})


def test_window_without_embeddings_leaves_them_unmeasured(profile: ReferenceProfile) -> None:
    """Sampling may be turned off; the other signals are measured all the same."""
    rows = stream(600, 41)
    bare = UnlabelledRows(
        rows.confidence, rows.energy, rows.length, rows.language, rows.decided, np.empty((0, 0), dtype=np.float16)
    )
    signals = followed(profile, [bare])
    assert (signals[-1].name, signals[-1].n) == ("embedding_mmd", 0)
    assert all(signal.n == 600 for signal in signals[:-1])
