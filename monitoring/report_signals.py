"""
The table of signals of a report: every signal over the whole range, against the reference where there is one.

Verdicts rest on evidence gathered row by row from the beginning of the range, as the sidecar gathers it; a signal that
the reference says nothing of is measured and not judged.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from model_repo.contract.outputs import FloatArray
from model_repo.contract.policy import Policy
from monitoring.assessment import ASSESSED_SIGNALS, window_signals
from monitoring.calibration import CALIBRATION_SIGNALS
from monitoring.latency import STAGES
from monitoring.references import ReferenceNumbers, evidence_rows
from monitoring.report_rows import StreamRows
from monitoring.rows import is_in_scope, segment_memberships
from monitoring.segments import SEGMENT_SIGNALS, SegmentFinding, segment_findings, segment_references
from monitoring.sequential import Evidence, start, update
from monitoring.signals import Signal, Verdict, Watch, mean_signal
from monitoring.windows import Window

EVIDENCE_ROWS = 10_000
"""Rows whose evidence is gathered at once: a few MB."""
NEEDS_TEMPERATURE = frozenset(("brier", "nll", *CALIBRATION_SIGNALS))
"""What cannot be told from the event alone: it takes the probabilities of all intents."""


@dataclass(frozen=True)
class Yardstick:
    """What a stream is measured by."""

    policy: Policy | None
    """Under which it answered; None when the model repository does not hold that revision."""
    costs: FloatArray
    """(K + 1, K + 1), see ``costs.cost_matrix``."""
    numbers: ReferenceNumbers
    """Of the reference; ``NO_REFERENCE`` without any."""


def stream_signals(
    stream: StreamRows, measured_by: Yardstick, watches: Mapping[str, Watch], rng: np.random.Generator
) -> list[Signal]:
    """ASSESSED_SIGNALS over the whole range, but for those that nothing is known of for want of the policy."""
    numbers, policy = measured_by.numbers, measured_by.policy
    vectors = stream.embeddings.vectors
    window = Window(stream.key, stream.taxonomy, stream.predictions, stream.labelled, vectors)
    evidence = gathered_evidence(stream, numbers, watches)
    temperature = policy.temperature if policy else 1.0
    measured, _ = window_signals(window, numbers, temperature, measured_by.costs, watches, evidence, rng)
    left_out = {*SEGMENT_SIGNALS, *(() if policy else NEEDS_TEMPERATURE)}
    if measured["total_p95_ms"].verdict is not Verdict.BREACHED:
        # Without a delay there is nothing to share out.
        left_out |= {f"{stage}_share_of_delay" for stage in STAGES}
    signals = {name: signal for name, signal in measured.items() if name not in left_out}
    if numbers.profile is None:
        signals["ood_rate"] = mean_signal("ood_rate", stream.predictions["is_ood"], watches["ood_rate"], float("nan"))
    return [signals[name] for name in ASSESSED_SIGNALS if name in signals]


def gathered_evidence(
    stream: StreamRows, numbers: ReferenceNumbers, watches: Mapping[str, Watch]
) -> dict[str, Evidence]:
    """What speaks against each claim of the reference, from the first row of the range on."""
    evidence = {name: start(claim) for name, claim in numbers.claims.items()}
    most = max(len(stream.predictions), len(stream.labelled))
    for begin in range(0, most, EVIDENCE_ROWS):
        part = slice(begin, begin + EVIDENCE_ROWS)
        rows = evidence_rows(numbers, watches, stream.predictions[part], stream.labelled[part], stream.taxonomy)
        for name, (values, bounds) in rows.items():
            evidence[name] = update(evidence[name], numbers.claims[name], values, bounds)
    return evidence


def stream_segments(stream: StreamRows, measured_by: Yardstick, watch: Watch) -> list[SegmentFinding]:
    """
    Accuracy of each segment of the labelled rows in scope, by dimension, the one with most rows first.

    Without a pinned reference, and in a dimension that it does not have, a segment is measured and not judged.
    """
    rows = stream.labelled[is_in_scope(stream.labelled)]
    if len(rows) == 0:
        return []
    memberships, known = segment_memberships(rows, stream.taxonomy), measured_by.numbers.segments
    dimensions = {_dimension(name) for name in known}
    judged = {name: members for name, members in memberships.items() if _dimension(name) in dimensions}
    others = {name: members for name, members in memberships.items() if _dimension(name) not in dimensions}
    is_correct = rows["is_correct"]
    findings = segment_findings(is_correct, judged, known, measured_by.numbers.values["accuracy"], watch)
    own = segment_references(is_correct, others)
    unjudged = segment_findings(is_correct, others, own, float(is_correct.mean()), watch)
    findings += [replace(f, accuracy=replace(f.accuracy, reference=float("nan"))) for f in unjudged]
    order = list(dict.fromkeys(map(_dimension, memberships)))
    return sorted(findings, key=lambda f: (order.index(_dimension(f.name)), -f.accuracy.n, f.name))


def _dimension(segment: str) -> str:
    """As ``lang`` of ``lang=ja``."""
    return segment.split("=", 1)[0]
