"""
A signal is one measured number with its sample count, its interval and a verdict; here are those that labels give.

Pure functions of arrays. What a signal is compared with (the reference) and what is asked of it (the watch) are
arguments. Verdicts rest on evidence that may be looked at after every row (see ``sequential``), never on a 95%
interval that is looked at again and again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist
from typing import Literal

import numpy as np

from model_repo.contract.bootstrap import Measure, bootstrap
from model_repo.contract.errors import CannotMeasure
from model_repo.contract.metrics import brier, macro_f1, nll, shares
from model_repo.contract.outputs import BoolArray, FloatArray, IntArray
from monitoring.sequential import Claim, Evidence, confidence_sequence

LEVEL = 0.95
RESAMPLES = 400
"""For the few measures that are no means: the ends of an interval then move by a tenth of its width between seeds."""

LABELLED_SIGNALS = ("accuracy", "macro_f1", "brier", "nll", "business_error", "ood_precision", "ood_recall")
OOD_SIGNALS = ("ood_precision", "ood_recall")
"""Of ood decisions, those that are right; of utterances that are ood, those that are decided so."""


class Verdict(StrEnum):
    """What a signal says; ``inconclusive`` is too little to tell: hold, ask for labels, never fire."""

    OK = "ok"
    BREACHED = "breached"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Watch:
    """What is asked of one signal."""

    worse: Literal["up", "down", "either"]
    """In which direction it gets worse."""
    threshold: float
    """Change for the worse, in the signal's unit, from which on it is a breach."""
    tolerated: float
    """Change that evidence is not counted for: above the reference's own error, below the threshold."""
    minimum_rows: int
    """With fewer rows the verdict is inconclusive."""
    rows_per_false_alarm: float = 1e6
    """See ``sequential.Claim``."""

    def __post_init__(self) -> None:
        if self.worse not in ("up", "down", "either"):
            raise CannotMeasure(f"worse must be up, down or either, got {self.worse!r}")
        if not 0.0 <= self.tolerated <= self.threshold < np.inf:
            raise CannotMeasure(f"tolerated and threshold must be 0 <= {self.tolerated} <= {self.threshold}")
        if self.minimum_rows < 1:
            raise CannotMeasure(f"minimum_rows must be >= 1, got {self.minimum_rows}")

    def change_for_the_worse(self, value: float, reference: float) -> float:
        """Above zero when ``value`` is worse than the reference."""
        change = value - reference
        return {"up": change, "down": -change, "either": abs(change)}[self.worse]


@dataclass(frozen=True)
class Signal:
    """One measured number."""

    name: str
    value: float
    low: float
    high: float
    n: int
    """Rows that it is about; zero when it could not be measured, and the numbers are NaN then."""
    verdict: Verdict
    reference: float
    """The same number over the reference window."""
    threshold: float
    """Change for the worse from which on it is a breach."""


@dataclass(frozen=True)
class LabelledRows:
    """Decisions whose label is known, n rows, K intents; a row of ``targets`` without an intent is ood."""

    probabilities: FloatArray
    """(n, K), calibrated."""
    top: IntArray
    """(n,), kept also when decided ood."""
    is_ood: BoolArray
    """(n,), the decision."""
    is_accepted: BoolArray
    """(n, K)."""
    targets: BoolArray
    """(n, K), the label."""
    costs: FloatArray
    """(n,), what each decision cost; see ``costs.utterance_costs``."""

    def __len__(self) -> int:
        return len(self.top)

    @property
    def is_in_scope(self) -> BoolArray:
        """(n,), by the label."""
        return np.asarray(self.targets.any(axis=1))

    @property
    def is_correct(self) -> BoolArray:
        """(n,), whether the top intent is one that the utterance carries; never for one that is ood."""
        return np.asarray(self.targets[np.arange(len(self.top)), self.top])


def judge(watch: Watch, value: float, reference: float, n: int, has_detected: bool) -> Verdict:
    """
    A breach needs both: evidence that something changed, and an estimate that the change is large enough to matter.

    Evidence of a change whose estimate has come back below half the threshold is a recovery; between the two, hold.

    >>> watch = Watch("down", threshold=0.01, tolerated=0.005, minimum_rows=100)
    >>> [str(judge(watch, value, 0.92, 500, True)) for value in (0.90, 0.912, 0.918)]
    ['breached', 'inconclusive', 'ok']
    >>> str(judge(watch, 0.5, 0.92, 99, True)), str(judge(watch, 0.90, 0.92, 500, False))
    ('inconclusive', 'ok')
    """
    if n < watch.minimum_rows or np.isnan(value) or np.isnan(reference):
        return Verdict.INCONCLUSIVE
    if not has_detected:
        return Verdict.OK
    change = watch.change_for_the_worse(value, reference)
    if change >= watch.threshold:
        return Verdict.BREACHED
    return Verdict.INCONCLUSIVE if change >= watch.threshold / 2 else Verdict.OK


def mean_claim(watch: Watch, reference: float, largest: float = 1.0) -> Claim:
    """
    "The mean of values in [0, largest] is no worse than the reference by more than is tolerated"; two streams for
    ``either``. Where nothing could refute it, as an accuracy of 0 that is to fall, nothing ever does.
    """
    ends = {"up": [reference + watch.tolerated], "down": [largest - reference + watch.tolerated]}
    bounds = ends["up"] + ends["down"] if watch.worse == "either" else ends[watch.worse]
    # A reference of exactly 0 that nothing is tolerated of would be refuted by one row; none is that certain.
    return Claim(np.clip(np.asarray(bounds) / largest, 1e-4, 1.0 - 1e-4), watch.rows_per_false_alarm)


def mean_values(watch: Watch, values: FloatArray | BoolArray, largest: float = 1.0) -> FloatArray:
    """The rows to update the evidence of ``mean_claim`` with."""
    scaled = np.minimum(np.asarray(values, dtype=np.float64) / largest, 1.0)
    columns = {"up": [scaled], "down": [1.0 - scaled], "either": [scaled, 1.0 - scaled]}
    return np.stack(columns[watch.worse], axis=1)


def mean_signal(
    name: str,
    values: FloatArray | BoolArray,
    watch: Watch,
    reference: float,
    evidence: Evidence | None = None,
    largest: float = 1.0,
) -> Signal:
    """
    The mean of values in [0, largest]; higher values count as ``largest``. The interval holds at every look at once.

    Without ``evidence`` of a stream, only this window speaks: it does when its whole interval is worse than tolerated.

    >>> watch = Watch("down", threshold=0.01, tolerated=0.005, minimum_rows=100)
    >>> signal = mean_signal("accuracy", np.repeat([True, False], [600, 400]), watch, reference=0.9)
    >>> signal.value, str(signal.verdict)
    (0.6, 'breached')
    """
    n = len(values)
    if n == 0:
        return unmeasured(name, watch, reference)
    scaled = np.minimum(np.asarray(values, dtype=np.float64) / largest, 1.0)
    low, high = (end * largest for end in confidence_sequence(float(scaled.sum()), n, LEVEL))
    value = float(scaled.mean()) * largest
    if evidence is None:
        has_detected = lies_beyond(watch, reference, *_strict_interval(scaled, watch, largest))
    else:
        has_detected = evidence.has_detected
    return Signal(
        name, value, low, high, n, judge(watch, value, reference, n, has_detected), reference, watch.threshold
    )


def unmeasured(name: str, watch: Watch, reference: float) -> Signal:
    """A signal that no row is about."""
    nan = float("nan")
    return Signal(name, nan, nan, nan, 0, Verdict.INCONCLUSIVE, reference, watch.threshold)


def measured_signal(
    name: str, measure: Measure, rows: int, watch: Watch, reference: float, rng: np.random.Generator
) -> Signal:
    """
    A measure that is no mean, with its bootstrap interval of 95%.

    The verdict takes a wider one (as of a normal estimate), so that the errors of all looks may be added up: see
    ``look_error``.
    """
    if measure.n < 1 or rows < 1:
        return unmeasured(name, watch, reference)
    try:
        figure = bootstrap({name: measure}, rows, "window", rng, RESAMPLES)[name]
    except CannotMeasure:
        return unmeasured(name, watch, reference)
    stretch = _stretch(watch)
    wide = (figure.value - stretch * (figure.value - figure.low), figure.value + stretch * (figure.high - figure.value))
    verdict = judge(watch, figure.value, reference, measure.n, lies_beyond(watch, reference, *wide))
    return Signal(name, figure.value, figure.low, figure.high, measure.n, verdict, reference, watch.threshold)


def labelled_signals(
    rows: LabelledRows,
    watches: Mapping[str, Watch],
    references: Mapping[str, float],
    evidence: Mapping[str, Evidence],
    rng: np.random.Generator,
) -> list[Signal]:
    """
    LABELLED_SIGNALS over a window. Accuracy, Brier and NLL are of utterances that are in scope; macro-F1 has ood as a
    class of its own; ``business_error`` is the mean cost. ``evidence`` holds that of the means that are followed row
    by row; the others are judged by this window alone.
    """
    scope = rows.is_in_scope
    targets, probabilities = shares(rows.targets[scope]), rows.probabilities[scope]
    decided = np.where(rows.is_ood, rows.targets.shape[1], rows.top)
    true = np.where(scope, np.where(rows.is_correct, rows.top, rows.targets.argmax(axis=1)), rows.targets.shape[1])

    def mean_of(name: str, values: BoolArray) -> Signal:
        return mean_signal(name, values, watches[name], references[name], evidence.get(name))

    def measured(name: str, of: Callable[[FloatArray], FloatArray], n: int) -> Signal:
        return measured_signal(name, Measure(of, n), n, watches[name], references[name], rng)

    return [
        mean_of("accuracy", rows.is_correct[scope]),
        measured("macro_f1", lambda weights: macro_f1(true, decided, weights), len(rows)),
        measured("brier", lambda weights: brier(probabilities, targets, weights), len(targets)),
        measured("nll", lambda weights: nll(probabilities, targets, weights), len(targets)),
        measured("business_error", lambda weights: np.asarray(weights @ rows.costs / len(rows)), len(rows)),
        mean_of("ood_precision", ~scope[rows.is_ood]),
        mean_of("ood_recall", rows.is_ood[~scope]),
    ]


def lies_beyond(watch: Watch, reference: float, low: float, high: float) -> bool:
    """Whether the whole interval is worse than what is tolerated."""
    is_above, is_below = low > reference + watch.tolerated, high < reference - watch.tolerated
    return {"up": is_above, "down": is_below, "either": is_above or is_below}[watch.worse]


def look_error(watch: Watch) -> float:
    """
    How often one look may be wrong, when every look is at ``minimum_rows`` new rows or more.

    Their sum over the looks, whatever depends on what, is then at most one in ``rows_per_false_alarm`` rows.
    """
    return min(1.0 - LEVEL, watch.minimum_rows / watch.rows_per_false_alarm)


def _strict_interval(scaled: FloatArray, watch: Watch, largest: float) -> tuple[float, float]:
    """What a verdict on one window takes."""
    low, high = confidence_sequence(float(scaled.sum()), len(scaled), 1.0 - look_error(watch))
    return low * largest, high * largest


def _stretch(watch: Watch) -> float:
    """How much wider than 95% an interval is that is wrong as seldom as one look may be."""
    return NormalDist().inv_cdf(1.0 - look_error(watch) / 2.0) / NormalDist().inv_cdf(0.5 + LEVEL / 2.0)
