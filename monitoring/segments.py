"""
Where an accuracy fell: per segment (intent, language, high-risk, channel), corrected for how many were looked at.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from model_repo.contract.errors import CannotMeasure
from model_repo.contract.outputs import BoolArray
from monitoring.sequential import confidence_sequence, e_bh, log_e_values
from monitoring.signals import LEVEL, Signal, Verdict, Watch, judge, unmeasured

SEGMENT_SIGNALS = ("segment_concentration",)
FALSE_DISCOVERIES = 0.05
"""Of the segments named as worse, the share that may be named wrongly."""
MINIMUM_ROWS = 50
"""With fewer rows of a segment its accuracy is inconclusive; the watch's own minimum is for all rows together."""
LARGEST_SHARE = 0.5
"""A segment that holds more of the rows is no segment: to retrain on it is a full retrain, and what lies outside it
is too little to compare it with."""
PRIOR_ROWS = 20
"""Rows at the overall accuracy that a segment's reference is mixed with, so that a handful of rows is no certainty."""


@dataclass(frozen=True)
class SegmentReference:
    """A segment of the reference."""

    correct: int
    n: int


@dataclass(frozen=True)
class SegmentFinding:
    """One segment of the current window; its name is ``dimension=value``."""

    name: str
    accuracy: Signal
    concentration: float
    """
    How far the excess errors of the window lie in this segment: 0 when no more than its share of rows, 1 when all.

    Measured against its rows, since a large segment has many errors in any case; 0 above ``LARGEST_SHARE``.
    """
    is_worse: bool
    """Worse than tolerated, after correction for the number of segments."""


def memberships_of(dimension: str, values: Sequence[str]) -> dict[str, BoolArray]:
    """
    Which rows are in each segment of one dimension; an empty value is in none.

    >>> {name: rows.tolist() for name, rows in memberships_of("lang", ["en", "ja", "en"]).items()}
    {'lang=en': [True, False, True], 'lang=ja': [False, True, False]}
    """
    column = np.asarray(values, dtype=np.str_)
    return {f"{dimension}={value}": np.asarray(column == value) for value in np.unique(column) if value}


def segment_references(is_correct: BoolArray, memberships: Mapping[str, BoolArray]) -> dict[str, SegmentReference]:
    """
    The segments of the reference window.

    >>> segment_references(np.array([True, False]), {"lang=en": np.array([True, True])})
    {'lang=en': SegmentReference(correct=1, n=2)}
    """
    return {
        name: SegmentReference(int(is_correct[members].sum()), int(members.sum()))
        for name, members in memberships.items()
    }


def segment_findings(
    is_correct: BoolArray,
    memberships: Mapping[str, BoolArray],
    references: Mapping[str, SegmentReference],
    reference: float,
    watch: Watch,
) -> list[SegmentFinding]:
    """
    Each segment, the one in which errors are most concentrated first. ``memberships`` says which of the n rows are in
    each, ``reference`` is the accuracy of all.

    A segment is worse when its e-value against "no worse than the reference by more than is tolerated" passes e-BH over
    all segments; segments overlap, and e-BH bears any dependence. A segment the reference has not seen is compared with
    the accuracy of its dimension.
    """
    for name, members in memberships.items():
        if len(members) != len(is_correct):
            raise CannotMeasure(f"segment {name} has {len(members)} rows and is_correct {len(is_correct)}")
    if not memberships:
        return []
    expected = {name: _expected_accuracy(references, name) for name in memberships}
    errors = np.stack([np.where(members, ~is_correct, np.nan) for members in memberships.values()], axis=1)
    bounds = np.array([1.0 - expected[name] + watch.tolerated for name in memberships])
    worse = e_bh(log_e_values(errors, np.clip(bounds, 1e-4, 1.0 - 1e-4)), FALSE_DISCOVERIES)
    findings = [
        SegmentFinding(
            name,
            _accuracy_signal(name, is_correct[members], expected[name], watch, bool(is_worse)),
            _concentration(is_correct, members, expected[name], reference),
            bool(is_worse),
        )
        for (name, members), is_worse in zip(memberships.items(), worse, strict=True)
    ]
    return sorted(findings, key=lambda finding: -finding.concentration)


def concentration_signal(
    findings: list[SegmentFinding], is_correct: BoolArray, reference: float, watch: Watch
) -> Signal:
    """
    ``segment_concentration``: that of the worst segment, 0 when none is worse. Breached means one segment, ok broad.

    Not measured in a window that is no worse than the ``reference`` accuracy: it has nothing to lay anywhere.
    """
    n, errors = len(is_correct), int((~is_correct).sum())
    if errors <= n * (1.0 - reference):
        return unmeasured("segment_concentration", watch, 0.0)
    value = next((finding.concentration for finding in findings if finding.is_worse), 0.0)
    # As if each error lay inside or outside by chance: the excess alone is no count.
    low, high = confidence_sequence(value * errors, errors, LEVEL)
    verdict = Verdict.BREACHED if value >= watch.threshold else Verdict.OK
    if n < watch.minimum_rows:
        verdict = Verdict.INCONCLUSIVE
    return Signal("segment_concentration", value, low, high, n, verdict, 0.0, watch.threshold)


def worst_segment(findings: list[SegmentFinding], watch: Watch) -> str | None:
    """The segment to re-label first; None when none is worse, or the fall is broad: see ``concentration_signal``."""
    worse = (finding.name for finding in findings if finding.is_worse and finding.concentration >= watch.threshold)
    return next(worse, None)


def _accuracy_signal(name: str, is_correct: BoolArray, expected: float, watch: Watch, is_worse: bool) -> Signal:
    n = len(is_correct)
    if n == 0:
        return unmeasured(f"accuracy[{name}]", watch, expected)
    value = float(is_correct.mean())
    low, high = confidence_sequence(float(is_correct.sum()), n, LEVEL)
    verdict = judge(replace(watch, minimum_rows=MINIMUM_ROWS), value, expected, n, is_worse)
    return Signal(f"accuracy[{name}]", value, low, high, n, verdict, expected, watch.threshold)


def _concentration(is_correct: BoolArray, members: BoolArray, expected: float, reference: float) -> float:
    """See ``SegmentFinding``; excess errors are those above what the reference's accuracy would have made."""
    excess = float((~is_correct).sum()) - len(is_correct) * (1.0 - reference)
    share_of_rows = float(members.mean()) if len(members) else 1.0
    if excess <= 0.0 or share_of_rows > LARGEST_SHARE:
        return 0.0
    inside = float((~is_correct[members]).sum()) - int(members.sum()) * (1.0 - expected)
    return min(1.0, max(0.0, (inside / excess - share_of_rows) / (1.0 - share_of_rows)))


def _expected_accuracy(references: Mapping[str, SegmentReference], name: str) -> float:
    """Drawn towards the overall accuracy of its dimension, the more so the fewer rows the reference has."""
    dimension = name.split("=", 1)[0]
    peers = [segment for key, segment in references.items() if key.split("=", 1)[0] == dimension]
    rows = sum(segment.n for segment in peers)
    if rows == 0:
        raise CannotMeasure(f"the reference has no rows of the dimension {dimension!r}")
    overall = sum(segment.correct for segment in peers) / rows
    own = references.get(name, SegmentReference(0, 0))
    return (own.correct + PRIOR_ROWS * overall) / (own.n + PRIOR_ROWS)
