"""
What a reference gives for every signal: the number to compare with, the claims that evidence is gathered against, and
the rows to test them with. Pure.

A signal's reference number is what the signal itself gives over the reference's own rows, so that both are of one kind.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Literal

import numpy as np

from model_repo.contract.labels import Taxonomy
from model_repo.contract.metrics import shares
from model_repo.contract.outputs import BoolArray, FloatArray
from model_repo.contract.reference import ReferenceProfile
from monitoring.accuracy import ErrorReference, accuracy_claim, accuracy_rows, error_reference, upper_end
from monitoring.calibration import (
    CALIBRATION_SIGNALS,
    GapReference,
    calibration_signals,
    gap_claim,
    gap_reference,
    gap_rows,
)
from monitoring.latency import LATENCY_SIGNALS, QUANTILES, exceedances, latency_signals, quantile_claim, tail_means
from monitoring.latency import STAGES as LATENCY_STAGES
from monitoring.observations import STAGES, Records
from monitoring.reference_window import Reference
from monitoring.rows import (
    confidence_at,
    is_in_scope,
    labelled_rows,
    segment_memberships,
    unlabelled_rows,
)
from monitoring.segments import SegmentReference, segment_references
from monitoring.sequential import Claim, Evidence
from monitoring.signals import (
    LABELLED_SIGNALS,
    OOD_SIGNALS,
    LabelledRows,
    Signal,
    Watch,
    labelled_signals,
    mean_values,
)
from monitoring.unlabelled import FOLLOWED_SIGNALS as UNLABELLED_FOLLOWED
from monitoring.unlabelled import claims as unlabelled_claims
from monitoring.unlabelled import values as unlabelled_values

FOLLOWED_QUANTILE = "total_p95_ms"
FOLLOWED_SIGNALS = frozenset(("accuracy", "ece", *OOD_SIGNALS, FOLLOWED_QUANTILE, *UNLABELLED_FOLLOWED))
"""Those that get their verdict from evidence gathered row by row."""
SURE = 0.99
"""How surely the reference's ood precision and recall are no higher than is taken for them: they rest on few rows.
Higher bears a smaller reference and finds small falls later."""
FEWEST_ROWS = 20
"""Rows of the reference that a labelled signal is about, without which it is not judged."""

EvidenceRows = Mapping[str, tuple[FloatArray, FloatArray | None]]
"""By signal: values, and bounds of their own where the rows have them; see ``sequential.update``."""


@dataclass(frozen=True)
class ReferenceNumbers:
    """One reference, ready to be compared with."""

    origin: Literal["none", "version", "production"]
    values: Mapping[str, float]
    """By signal; NaN where the reference says nothing of it."""
    temperature: float = 1.0
    """Of the policy that the reference was answered under; accuracy goes by confidence at this one."""
    profile: ReferenceProfile | None = None
    errors: ErrorReference | None = None
    gaps: GapReference | None = None
    tail_ms: FloatArray = field(default_factory=lambda: np.full(len(LATENCY_STAGES), np.nan))
    """(3,) mean of each stage over the slowest requests."""
    segments: Mapping[str, SegmentReference] = field(default_factory=dict)
    claims: Mapping[str, Claim] = field(default_factory=dict)
    """Of the signals that are followed row by row."""

    @property
    def digest(self) -> str:
        """Other claims, other digest: evidence is about the claims that it was gathered against."""
        hashed = blake2b(digest_size=12)
        for name, claim in sorted(self.claims.items()):
            hashed.update(f"{name} {claim.rows_per_false_alarm}".encode())
            hashed.update(np.asarray(claim.bounds, dtype=np.float64).tobytes())
        if self.errors is not None:
            hashed.update(np.asarray(self.errors.curve, dtype=np.float64).tobytes())
            hashed.update(" ".join(self.errors.segments).encode())
        if self.gaps is not None:
            hashed.update(np.asarray(self.gaps.cuts, dtype=np.float64).tobytes())
        hashed.update(f"{self.temperature} {self.values.get(FOLLOWED_QUANTILE)}".encode())
        return hashed.hexdigest()


NO_REFERENCE = ReferenceNumbers(
    "none", dict.fromkeys((*LABELLED_SIGNALS, *CALIBRATION_SIGNALS, *LATENCY_SIGNALS), np.nan)
)


def reference_numbers(
    reference: Reference,
    temperature: float,
    taxonomy: Taxonomy,
    costs: FloatArray,
    watches: Mapping[str, Watch],
    rng: np.random.Generator,
) -> ReferenceNumbers:
    """
    ``temperature`` is that of the policy the reference was answered under, ``costs`` as in ``rows.labelled_rows``.

    A reference of the version has neither labels nor latencies: those numbers stay NaN, and such signals are not
    judged. Costs a few bootstraps, once.
    """
    labelled = reference.labelled
    rows = labelled_rows(labelled, temperature, costs)
    values = {
        **NO_REFERENCE.values,
        **_known_values(labelled_and_calibration(rows, watches, NO_REFERENCE.values, {}, rng)),
    }
    times, total = reference.latencies_ms[:, : len(LATENCY_STAGES)], reference.latencies_ms[:, STAGES.index("total_ms")]
    tail_ms = NO_REFERENCE.tail_ms
    if len(total):
        values |= _latency_values(times, total, watches, rng)
        tail_ms = tail_means(times, total)
    scope = labelled[is_in_scope(labelled)]
    is_judged = len(scope) >= FEWEST_ROWS
    confidence, memberships = confidence_at(scope, temperature), segment_memberships(scope, taxonomy)
    errors = error_reference(confidence, scope["is_correct"], memberships) if is_judged else None
    gaps = gap_reference(confidence, scope["is_correct"]) if is_judged else None
    claims = dict(unlabelled_claims(reference.profile, watches))
    if errors is not None and gaps is not None:
        claims |= {"accuracy": accuracy_claim(errors, watches["accuracy"]), "ece": gap_claim(gaps, watches["ece"])}
    decided, true = rows.is_ood, ~rows.is_in_scope
    for name, is_wrong in zip(OOD_SIGNALS, (~true[decided], ~decided[true]), strict=True):
        if not np.isnan(values[name]):
            claims[name] = _ood_claim(is_wrong, watches[name])
    if len(total):
        claims[FOLLOWED_QUANTILE] = quantile_claim(watches[FOLLOWED_QUANTILE], QUANTILES["p95"])
    return ReferenceNumbers(
        origin=reference.origin,
        values=values,
        temperature=temperature,
        profile=reference.profile,
        errors=errors,
        gaps=gaps,
        tail_ms=tail_ms,
        segments=segment_references(scope["is_correct"], memberships),
        claims=claims,
    )


def labelled_and_calibration(
    rows: LabelledRows,
    watches: Mapping[str, Watch],
    values: Mapping[str, float],
    evidence: Mapping[str, Evidence],
    rng: np.random.Generator,
) -> list[Signal]:
    """LABELLED_SIGNALS, and CALIBRATION_SIGNALS of the utterances in scope."""
    scope = rows.is_in_scope
    return [
        *labelled_signals(rows, watches, values, evidence, rng),
        *calibration_signals(
            rows.probabilities[scope],
            rows.is_correct[scope],
            shares(rows.targets[scope]),
            watches,
            values,
            evidence.get("ece"),
            rng,
        ),
    ]


def evidence_rows(
    numbers: ReferenceNumbers,
    watches: Mapping[str, Watch],
    predictions: Records,
    labelled: Records,
    taxonomy: Taxonomy,
) -> EvidenceRows:
    """
    What new predictions and labelled predictions say of the claims of ``numbers``; either may be of no rows.

    Accuracy goes by confidence at the reference's temperature, which a policy revision leaves alone; calibration by
    the confidence that was answered, which is what a revision is to put right.
    """
    rows: dict[str, tuple[FloatArray, FloatArray | None]] = {}
    if len(predictions) and numbers.profile is not None:
        unlabelled = unlabelled_values(unlabelled_rows(predictions, np.empty((0, 0))), numbers.profile, watches)
        rows |= {name: (values, None) for name, values in unlabelled.items()}
    if len(predictions) and FOLLOWED_QUANTILE in numbers.claims:
        watch, reference = watches[FOLLOWED_QUANTILE], numbers.values[FOLLOWED_QUANTILE]
        is_slower = exceedances(predictions["total_ms"], watch, reference)
        rows[FOLLOWED_QUANTILE] = is_slower[:, None].astype(np.float64), None
    scope = labelled[is_in_scope(labelled)]
    if len(scope) and numbers.errors is not None and numbers.gaps is not None:
        confidence = confidence_at(scope, numbers.temperature)
        memberships = segment_memberships(scope, taxonomy)
        rows["accuracy"] = accuracy_rows(
            confidence, scope["is_correct"], numbers.errors, watches["accuracy"], memberships
        )
        rows["ece"] = gap_rows(scope["confidence"], scope["is_correct"], numbers.gaps, watches["ece"])
    decided, true = labelled["is_ood"], labelled["truth"][:, -1]
    for name, is_right in zip(OOD_SIGNALS, (true[decided], decided[true]), strict=True):
        if len(is_right) and name in numbers.claims:
            rows[name] = mean_values(watches[name], is_right), None
    return rows


def _known_values(signals: list[Signal]) -> dict[str, float]:
    """Of a few rows nothing is known."""
    return {signal.name: signal.value if signal.n >= FEWEST_ROWS else np.nan for signal in signals}


def _latency_values(
    times: FloatArray, total: FloatArray, watches: Mapping[str, Watch], rng: np.random.Generator
) -> dict[str, float]:
    """Over its own rows a reference has no delay, so no stage has a share in one."""
    signals = latency_signals(times, total, watches, NO_REFERENCE.values, NO_REFERENCE.tail_ms, {}, rng)
    return {signal.name: 0.0 if signal.name.endswith("_share_of_delay") else signal.value for signal in signals}


def _ood_claim(is_wrong: BoolArray, watch: Watch) -> Claim:
    """As ``signals.mean_claim``, from the least favourable reference that its few rows leave open."""
    bound = float(upper_end(float(is_wrong.sum()), float(len(is_wrong)), SURE)) + watch.tolerated
    return Claim(np.array([min(bound, 1.0 - 1e-4)]), watch.rows_per_false_alarm)
