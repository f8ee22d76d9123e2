"""Which pictures a report has, made of its rows: over time, reliability, confusion."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from model_repo.contract.labels import OOD
from model_repo.contract.outputs import FloatArray
from model_repo.contract.reference import ReferenceProfile
from monitoring.latency import BUDGET_MS, QUANTILES, STAGES
from monitoring.observations import Records, StreamKey
from monitoring.reference_window import confusion_of
from monitoring.report_plots import Mark, Panel, Picture, confusion, over_time, reliability
from monitoring.report_rows import RangeRows, StreamRows
from monitoring.report_slices import (
    LEAST_FOR_ECE,
    LEAST_LABELLED,
    LEAST_PREDICTIONS,
    Line,
    Measured,
    accuracy,
    ece,
    expected_accuracy,
    in_scope,
    ks,
    line,
    lowest,
    ood_rate,
    prior_shift,
    quantile_ms,
    rows_a_minute,
    slice_edges,
    slices_for,
)
from monitoring.signals import Watch

DRAWN_STREAMS = 6
"""The ones with most predictions: more lines could not be told apart."""
_LATENCY = np.dtype([("at", "<f8"), *((f"{stage}_ms", "<f4") for stage in (*STAGES, "total"))])


def pictures_over_time(
    rows: RangeRows,
    profiles: Mapping[StreamKey, ReferenceProfile],
    watches: Mapping[str, Watch],
    marks: Sequence[Mark],
    rng: np.random.Generator,
) -> list[Picture]:
    """Traffic, accuracy, ECE, drift and latency; what no stream has rows for is left out."""
    streams = rows.streams[:DRAWN_STREAMS]
    at = np.concatenate([stream.predictions["at"] for stream in streams])
    edges = slice_edges(float(at.min()), float(at.max()), slices_for(rows.predictions, rows.labelled))
    step = float(edges[1] - edges[0])
    # What lies outside the range was not read: a slice that reaches out of it is only as long as it is inside.
    edges = np.clip(edges, rows.began, rows.ended)
    span, marks = (float(edges[0]), float(edges[-1])), [*marks, *policy_marks(rows)]
    note = f"Slices of {duration(step)}."

    def labelled(measured: Measured) -> tuple[Line, ...]:
        return tuple(line(s.key.name, s.labelled, edges, measured) for s in streams if len(s.labelled))

    traffic = Panel("predictions a minute", tuple(rows_a_minute(s.key.name, s.predictions, edges) for s in streams))
    pictures = [
        over_time(
            "Traffic",
            [traffic, *_labels_panel(streams, edges)],
            marks,
            span,
            f"{note} Labels by the time of the answer.",
        )
    ]
    if rows.labelled:
        observed, expected = labelled(accuracy), labelled(expected_accuracy)
        # One scale for both: what lies between them is the error of the calibration.
        floor = 0.05 * np.floor(min(lowest(observed), lowest(expected), 0.9) / 0.05)
        panels = [
            Panel(label, lines, is_share=True, floor=floor, ceiling=1.005)
            for label, lines in (("accuracy", observed), ("accuracy expected\nfrom confidence", expected))
        ]
        words = (
            f"{note} In-scope labelled predictions, 95% intervals; "
            f"slices with fewer than {LEAST_LABELLED} are left out."
        )
        pictures.append(over_time("Accuracy", panels, marks, span, words))
        panels = [Panel("ECE, debiased", labelled(ece(rng)))]
        words = (
            f"{note} In-scope labelled predictions, 15 bins; slices with fewer than {LEAST_FOR_ECE} are left out. "
            "95% interval of the plug-in error; a debiased ECE at or below zero is no sign of an error."
        )
        pictures.append(over_time("Calibration error", panels, marks, span, words))
    words = (
        f"{note} Distance from the reference, without any label; 95% intervals, slices with fewer than "
        f"{LEAST_PREDICTIONS} are left out. By chance alone a slice of n rows has a KS distance of about 0.87 / √n: "
        "verdicts are in the table of signals, which counts every row."
    )
    panels = _drift_panels(streams, edges, profiles, watches, rng)
    pictures.append(over_time("Drift", panels, marks, span, words))
    pictures.append(_latency(rows, edges, marks, span, note))
    return pictures


def reliability_pictures(rows: RangeRows) -> list[Picture]:
    """One a stream with labels in scope."""
    pictures = []
    for stream in rows.streams[:DRAWN_STREAMS]:
        labelled = in_scope(stream.labelled)
        if len(labelled):
            caption = (
                f"{len(labelled):,} in-scope labelled predictions in 15 bins of equal width; exact 95% intervals "
                "(Clopper-Pearson). Below the diagonal the model is too sure."
            )
            confidence = np.asarray(labelled["confidence"], dtype=np.float64)
            pictures.append(reliability(stream.key.name, confidence, labelled["is_correct"], caption))
    return pictures


def confusion_pictures(rows: RangeRows) -> list[Picture]:
    """One a stream with labels, champions before shadows."""
    pictures = []
    for stream in rows.streams[:DRAWN_STREAMS]:
        if len(stream.labelled):
            labels = [*stream.taxonomy.intents, OOD]
            caption = (
                f"{len(stream.labelled):,} labelled predictions; the shade is the share of the row. "
                "Of several true intents the decided one counts when it is among them."
            )
            pictures.append(confusion(stream.key.name, confusion_of(stream.labelled, len(labels)), labels, caption))
    return pictures


def policy_marks(rows: RangeRows) -> list[Mark]:
    """Where another version or policy began to answer."""
    began = sorted(
        (float(stream.predictions["at"].min()), stream.key) for stream in rows.streams if stream.key.role != "shadow"
    )
    return [Mark(at, None, f"policy {key.policy}", is_incident=False) for at, key in began[1:]]


def duration(seconds: float) -> str:
    """
    A length of time as people say it.

    >>> duration(60), duration(300), duration(7200), duration(86_400)
    ('1 minute', '5 minutes', '2 hours', '1 day')
    """
    for unit, length in (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1)):
        if seconds >= length and seconds % length == 0:
            count = int(seconds // length)
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{seconds:.0f} seconds"


def _each(streams: Sequence[StreamRows], edges: FloatArray, measured: Measured) -> tuple[Line, ...]:
    return tuple(line(stream.key.name, stream.predictions, edges, measured) for stream in streams)


def _labels_panel(streams: Sequence[StreamRows], edges: FloatArray) -> list[Panel]:
    """How many of the answers of each slice have a label by now."""

    def share(rows: Records) -> tuple[float, float, float, int]:
        if len(rows) == 0:
            return float("nan"), float("nan"), float("nan"), 0
        labelled = float(rows["is_labelled"].mean())
        return labelled, labelled, labelled, len(rows)

    return [Panel("labelled by now", _each(streams, edges, share), is_share=True)]


def _drift_panels(
    streams: Sequence[StreamRows],
    edges: FloatArray,
    profiles: Mapping[StreamKey, ReferenceProfile],
    watches: Mapping[str, Watch],
    rng: np.random.Generator,
) -> list[Panel]:
    """Distances from the reference, with the threshold of the failure tree."""
    compared = [stream for stream in streams if stream.key in profiles]

    def lines(measured: Callable[[ReferenceProfile], Measured]) -> tuple[Line, ...]:
        return tuple(line(s.key.name, s.predictions, edges, measured(profiles[s.key])) for s in compared)

    def panel(label: str, signal: str, measured: Callable[[ReferenceProfile], Measured]) -> Panel:
        limit = watches[signal].threshold
        return Panel(label, lines(measured), limit=limit, limit_words=f"threshold {limit:g}")

    return [
        panel("energy (KS distance)", "energy_ks", lambda profile: ks("energy", profile.energy_quantiles)),
        panel("confidence (KS distance)", "confidence_ks", lambda p: ks("confidence", p.confidence_quantiles)),
        panel("label mix (total variation)", "prior_shift", lambda profile: prior_shift(profile, rng)),
        Panel("decided ood", _each(streams, edges, ood_rate), is_share=True),
    ]


def _latency(
    rows: RangeRows, edges: FloatArray, marks: Sequence[Mark], span: tuple[float, float], note: str
) -> Picture:
    """Of the answers that callers waited for; a shadow delays nobody."""
    waited = [stream for stream in rows.streams if stream.key.role != "shadow"] or list(rows.streams)
    times = np.concatenate([_times(stream.predictions) for stream in waited])
    panels = []
    for stage in ("total", *STAGES):
        lines = tuple(
            line(name.upper(), times, edges, quantile_ms(f"{stage}_ms", quantile))
            for name, quantile in QUANTILES.items()
        )
        is_total = stage == "total"
        panels.append(
            Panel(
                f"{stage} (ms)",
                lines,
                limit=BUDGET_MS if is_total else None,
                limit_words=f"budget {BUDGET_MS:.0f} ms" if is_total else "",
            )
        )
    words = (
        f"{note} All answers that a caller waited for, measured inside the service; 95% intervals, slices with fewer "
        f"than {LEAST_PREDICTIONS} are left out."
    )
    return over_time("Latency by stage", panels, marks, span, words)


def _times(predictions: Records) -> Records:
    """The columns that streams of different taxonomies share."""
    times = np.empty(len(predictions), dtype=_LATENCY)
    for name in _LATENCY.names or ():
        times[name] = predictions[name]
    return times
