"""What all signals of a stream say at one moment: what the failure tree walks, and what people see. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from model_repo.contract.outputs import FloatArray
from monitoring.calibration import CALIBRATION_SIGNALS
from monitoring.latency import LATENCY_SIGNALS, latency_signals
from monitoring.observations import StreamKey
from monitoring.references import ReferenceNumbers, labelled_and_calibration
from monitoring.rows import is_in_scope, labelled_rows, segment_memberships, stage_times, unlabelled_rows
from monitoring.segments import SEGMENT_SIGNALS, SegmentFinding, concentration_signal, segment_findings
from monitoring.sequential import Evidence, start
from monitoring.signals import LABELLED_SIGNALS, Signal, Verdict, Watch, unmeasured
from monitoring.unlabelled import UNLABELLED_SIGNALS, unlabelled_signals
from monitoring.windows import Window

ASSESSED_SIGNALS = (
    *LABELLED_SIGNALS,
    *CALIBRATION_SIGNALS,
    *LATENCY_SIGNALS,
    *UNLABELLED_SIGNALS,
    *SEGMENT_SIGNALS,
)


@dataclass(frozen=True)
class Assessment:
    """One stream at one moment."""

    key: StreamKey
    at: float
    """Unix time, seconds."""
    signals: Mapping[str, Signal]
    """Every one of ASSESSED_SIGNALS by name, and those that actions measured. One that cannot be measured, or has
    nothing to be compared with, is inconclusive."""
    segments: tuple[SegmentFinding, ...]
    """While the accuracy is breached, the one in which errors are most concentrated first; otherwise none."""
    predictions: int
    """Rows in the current window."""
    labelled: int
    """Labelled rows in the current window."""
    reference: Literal["none", "version", "production"]
    """What the window is compared with."""


def window_signals(
    window: Window,
    numbers: ReferenceNumbers,
    temperature: float,
    costs: FloatArray,
    watches: Mapping[str, Watch],
    evidence: Mapping[str, Evidence],
    rng: np.random.Generator,
) -> tuple[dict[str, Signal], tuple[SegmentFinding, ...]]:
    """
    ASSESSED_SIGNALS of a window, and its segments when the accuracy is breached.

    ``temperature`` is that of the policy in force; the window's embeddings are those to look at now. Of a claim without
    ``evidence`` no row has said anything yet.
    """
    evidence = {name: start(claim) for name, claim in numbers.claims.items()} | dict(evidence)
    rows = labelled_rows(window.labelled, temperature, costs)
    times, total = stage_times(window.predictions)
    signals = {
        signal.name: signal
        for signal in (
            *labelled_and_calibration(rows, watches, numbers.values, evidence, rng),
            *latency_signals(times, total, watches, numbers.values, numbers.tail_ms, evidence, rng),
            *_unlabelled(window, numbers, watches, evidence, rng),
        )
    }
    findings: list[SegmentFinding] = []
    signals[SEGMENT_SIGNALS[0]] = unmeasured(SEGMENT_SIGNALS[0], watches[SEGMENT_SIGNALS[0]], 0.0)
    if signals["accuracy"].verdict is Verdict.BREACHED:
        findings, signals[SEGMENT_SIGNALS[0]] = _segments(window, numbers, watches)
    return signals, tuple(findings)


def _unlabelled(
    window: Window,
    numbers: ReferenceNumbers,
    watches: Mapping[str, Watch],
    evidence: Mapping[str, Evidence],
    rng: np.random.Generator,
) -> list[Signal]:
    if numbers.profile is None:
        return [unmeasured(name, watches[name], float("nan")) for name in UNLABELLED_SIGNALS]
    rows = unlabelled_rows(window.predictions, window.embeddings)
    return unlabelled_signals(rows, numbers.profile, watches, evidence, rng)


def _segments(
    window: Window, numbers: ReferenceNumbers, watches: Mapping[str, Watch]
) -> tuple[list[SegmentFinding], Signal]:
    """Of the dimensions that the reference knows: a new one has nothing to be compared with."""
    scope = window.labelled[is_in_scope(window.labelled)]
    known = {name.split("=", 1)[0] for name in numbers.segments}
    memberships = {
        name: rows
        for name, rows in segment_memberships(scope, window.taxonomy).items()
        if name.split("=", 1)[0] in known
    }
    accuracy = numbers.values["accuracy"]
    findings = segment_findings(scope["is_correct"], memberships, numbers.segments, accuracy, watches["accuracy"])
    watch = watches[SEGMENT_SIGNALS[0]]
    return findings, concentration_signal(findings, scope["is_correct"], accuracy, watch)
