"""How a report says things: names of signals, numbers with their unit, times, verdicts."""

import math
from datetime import UTC, datetime

SIGNAL_WORDS = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro-F1, ood as a class",
    "brier": "Brier score",
    "nll": "Negative log-likelihood (nats)",
    "business_error": "Business-weighted error (cost a decision)",
    "ood_precision": "Ood precision",
    "ood_recall": "Ood recall",
    "ece": "ECE, equal width, debiased",
    "ece_equal_mass": "ECE, equal mass, debiased",
    "ece_class_wise": "ECE, class-wise",
    "ece_after_refit": "ECE after a re-fit",
    "expected_accuracy": "Expected accuracy (mean confidence)",
    "ood_rate": "Ood rate",
    "prior_shift": "Shift of the label mix (BBSE, total variation)",
    "energy_ks": "Energy, KS distance",
    "confidence_ks": "Confidence, KS distance",
    "length_ks": "Length in tokens, KS distance",
    "language_shift": "Shift of the language mix (total variation)",
    "embedding_mmd": "Embeddings, squared MMD",
    "over_15_ms_share": "Share over 15 ms",
    "segment_concentration": "Concentration of errors in one segment",
}
SHARES = frozenset(
    ("accuracy", "macro_f1", "ood_precision", "ood_recall", "expected_accuracy", "ood_rate", "over_15_ms_share")
)
VERDICT_WORDS = {
    "ok": "✓ ok",
    "breached": "▲ breached",
    "inconclusive": "? inconclusive",
    "none": "not judged",
}
"""A sign besides the colour: a printed page may have none."""


def signal_words(name: str) -> str:
    """
    A signal as people call it.

    >>> signal_words("total_p95_ms"), signal_words("queue_share_of_delay"), signal_words("accuracy[lang=ja]")
    ('Latency, total, P95 (ms)', 'Share of the delay: queue', 'Accuracy of lang=ja')
    """
    if name.startswith("accuracy["):
        return f"Accuracy of {name[len('accuracy[') : -1]}"
    if name.endswith("_share_of_delay"):
        return f"Share of the delay: {name.removesuffix('_share_of_delay')}"
    if name.endswith("_ms"):
        stage, quantile = name.removesuffix("_ms").rsplit("_", 1)
        return f"Latency, {stage}, {quantile.upper()} (ms)"
    return SIGNAL_WORDS.get(name, name)


def number(name: str, value: float | None) -> str:
    """
    A value of a signal in its unit; a dash for none.

    >>> number("accuracy", 0.9342), number("ece", 0.0123), number("total_p95_ms", 4.256), number("ece", float("nan"))
    ('93.4%', '0.0123', '4.26', '–')
    """
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞"
    if name.split("[", 1)[0] in SHARES or name.endswith("_share_of_delay"):
        return f"{value:.1%}"
    if name.endswith("_ms"):
        return f"{value:.2f}"
    return f"{value:.4f}"


def interval(name: str, low: float | None, high: float | None) -> str:
    """
    Both ends.

    >>> interval("ece", 0.01, 0.02), interval("ece", None, None)
    ('0.0100 to 0.0200', '–')
    """
    ends = number(name, low), number(name, high)
    return "–" if ends == ("–", "–") else " to ".join(ends)


def clock(at: float) -> str:
    """
    A moment, UTC.

    >>> clock(1_767_268_800.0)
    '2026-01-01 12:00:00'
    """
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}"


def lasted(seconds: float) -> str:
    """
    A length of time in its two largest units.

    >>> lasted(12.3), lasted(75), lasted(3_725), lasted(90_000)
    ('12 s', '1 min 15 s', '1 h 2 min', '1 d 1 h')
    """
    units = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))
    left, parts = round(seconds), list[str]()
    for unit, length in units:
        count, left = divmod(left, length)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
        if len(parts) == 2 or (parts and not count):
            break
    return " ".join(parts)


def share(part: int, whole: int) -> str:
    """
    A part of a whole, as a percentage.

    >>> share(1, 3), share(0, 0)
    ('33.3%', '–')
    """
    return f"{part / whole:.1%}" if whole else "–"
