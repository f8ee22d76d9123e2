"""
Every signal that needs no label, from the decisions of a window and the reference profile of the version.

``claims`` and ``values`` are what evidence is followed with row by row; ``unlabelled_signals`` measures a window and
takes its verdicts from that evidence.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from model_repo.contract.errors import CannotMeasure
from model_repo.contract.outputs import FloatArray, IntArray
from model_repo.contract.reference import ReferenceProfile
from monitoring.drift import ks_claim, ks_signal, ks_values, mix_claim, mix_signal, mix_values, mmd_signal
from monitoring.priors import prior_shift_signal
from monitoring.sequential import Claim, Evidence
from monitoring.signals import Signal, Watch, mean_claim, mean_signal, mean_values, unmeasured

FOLLOWED_SIGNALS = (
    "expected_accuracy",
    "ood_rate",
    "prior_shift",
    "energy_ks",
    "confidence_ks",
    "length_ks",
    "language_shift",
)
UNLABELLED_SIGNALS = (*FOLLOWED_SIGNALS, "embedding_mmd")


@dataclass(frozen=True)
class UnlabelledRows:
    """Decisions, n rows."""

    confidence: FloatArray
    """(n,), calibrated, of the top intent."""
    energy: FloatArray
    """(n,)."""
    length: IntArray
    """(n,), tokens."""
    language: IntArray
    """(n,), positions in ``labels.LANGUAGES``."""
    decided: IntArray
    """(n,), main decided label, ood last: a position in the profile's confusion."""
    embeddings: FloatArray
    """(m, H), of the sampled ones, new since the last look."""


def claims(profile: ReferenceProfile, watches: Mapping[str, Watch]) -> dict[str, Claim]:
    """What is taken to hold of each of FOLLOWED_SIGNALS."""
    return {
        "expected_accuracy": mean_claim(watches["expected_accuracy"], _expected_accuracy(profile)),
        "ood_rate": mean_claim(watches["ood_rate"], _ood_rate(profile)),
        "prior_shift": mix_claim(_decided_counts(profile), watches["prior_shift"]),
        "language_shift": mix_claim(profile.lang_counts, watches["language_shift"]),
        **{name: ks_claim(quantiles, watches[name])[1] for name, quantiles in _quantiles(profile).items()},
    }


def values(rows: UnlabelledRows, profile: ReferenceProfile, watches: Mapping[str, Watch]) -> dict[str, FloatArray]:
    """The rows to update the evidence of ``claims`` with."""
    columns = _columns(rows)
    return {
        "expected_accuracy": mean_values(watches["expected_accuracy"], rows.confidence),
        "ood_rate": mean_values(watches["ood_rate"], _is_ood(rows, profile)),
        "prior_shift": mix_values(rows.decided, len(profile.confusion)),
        "language_shift": mix_values(rows.language, len(profile.lang_counts)),
        **{
            name: ks_values(columns[name], ks_claim(quantiles, watches[name])[0])
            for name, quantiles in _quantiles(profile).items()
        },
    }


def unlabelled_signals(
    rows: UnlabelledRows,
    profile: ReferenceProfile,
    watches: Mapping[str, Watch],
    evidence: Mapping[str, Evidence],
    rng: np.random.Generator,
) -> list[Signal]:
    """
    UNLABELLED_SIGNALS over a window; ``evidence`` is that of every one of FOLLOWED_SIGNALS.

    The mean of a calibrated confidence is the accuracy to expect, as long as the calibration holds: what it cannot see
    is a model that has become wrong and stayed sure.
    """
    columns, is_ood = _columns(rows), _is_ood(rows, profile)
    expected, ood = _expected_accuracy(profile), _ood_rate(profile)
    name, mix = "prior_shift", "language_shift"
    return [
        _mean("expected_accuracy", rows.confidence, expected, watches, evidence),
        _mean("ood_rate", is_ood.astype(np.float64), ood, watches, evidence),
        prior_shift_signal(name, profile.confusion, rows.decided, watches[name], evidence[name], rng),
        *(ks_signal(n, columns[n], q, watches[n], evidence[n]) for n, q in _quantiles(profile).items()),
        mix_signal(mix, rows.language, profile.lang_counts, watches[mix], evidence[mix]),
        _embeddings(rows, profile, watches["embedding_mmd"], rng),
    ]


def _embeddings(rows: UnlabelledRows, profile: ReferenceProfile, watch: Watch, rng: np.random.Generator) -> Signal:
    try:
        return mmd_signal("embedding_mmd", profile.embeddings, rows.embeddings, watch, rng)
    except CannotMeasure:
        # A reference of too few embeddings, or of one over and over, has no distances to go by.
        return unmeasured("embedding_mmd", watch, 0.0)


def _mean(
    name: str,
    column: FloatArray,
    reference: float,
    watches: Mapping[str, Watch],
    evidence: Mapping[str, Evidence],
) -> Signal:
    return mean_signal(name, column, watches[name], reference, evidence[name])


def _columns(rows: UnlabelledRows) -> dict[str, FloatArray]:
    return {"energy_ks": rows.energy, "confidence_ks": rows.confidence, "length_ks": rows.length.astype(np.float64)}


def _quantiles(profile: ReferenceProfile) -> dict[str, FloatArray]:
    return {
        "energy_ks": profile.energy_quantiles,
        "confidence_ks": profile.confidence_quantiles,
        "length_ks": profile.length_quantiles,
    }


def _is_ood(rows: UnlabelledRows, profile: ReferenceProfile) -> np.ndarray:
    return np.asarray(rows.decided == len(profile.confusion) - 1)


def _decided_counts(profile: ReferenceProfile) -> IntArray:
    return np.asarray(profile.confusion.sum(axis=0))


def _ood_rate(profile: ReferenceProfile) -> float:
    return float(profile.confusion[:, -1].sum() / profile.confusion.sum())


def _expected_accuracy(profile: ReferenceProfile) -> float:
    """The mean is the area under the quantiles."""
    return float(
        np.trapezoid(np.asarray(profile.confidence_quantiles, dtype=np.float64), dx=1.0)
        / (len(profile.confidence_quantiles) - 1)
    )
