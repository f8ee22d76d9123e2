"""
The page of a report: one file, without scripts, that needs nothing from anywhere else. Pure: a value in, HTML out.

No text of a customer is in it: it is made of counts, names that the model version brings, and what actions say.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from monitoring.calibration import CALIBRATION_SIGNALS
from monitoring.incidents import Incident, Remedy
from monitoring.latency import LATENCY_SIGNALS
from monitoring.remedies import SignalRecord
from monitoring.report_markup import Content, Markup, element, join, table
from monitoring.report_plots import Picture
from monitoring.report_rows import RangeRows, StreamRows
from monitoring.report_words import VERDICT_WORDS, clock, interval, lasted, number, share, signal_words
from monitoring.segments import SegmentFinding
from monitoring.signals import LABELLED_SIGNALS, Signal, Verdict
from monitoring.unlabelled import UNLABELLED_SIGNALS

SHORT_WORDS = 400
"""Longer sentences of an action are cut: a failing command may have said a page."""
SIGNAL_GROUPS = {
    "With labels": LABELLED_SIGNALS,
    "Calibration": CALIBRATION_SIGNALS,
    "Without labels": UNLABELLED_SIGNALS,
    "Latency": LATENCY_SIGNALS,
}
REFERENCE_WORDS = {
    "production": "the stretch of production that the sidecar pinned for this version",
    "version": "the profile that the version brings (signals without labels only)",
    "none": "nothing: the model repository has no profile of this version",
}
STYLE = """
:root{color-scheme:light}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1080px;padding:16px;background:#fff;color:#1d2733;
font:15px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
h1{font-size:1.5rem;line-height:1.2;margin:.2em 0}
h2{font-size:1.15rem;margin:2em 0 .5em;padding-top:.6em;border-top:1px solid #dde3ea}
h3{font-size:1rem;margin:1.4em 0 .4em}
p{margin:.4em 0}
.quiet{color:#52606d;font-size:.87rem}
.summary{list-style:none;margin:14px 0;padding:0;display:grid;gap:8px;grid-template-columns:repeat(4,1fr)}
.summary li{background:#f4f6f8;border-radius:6px;padding:8px 12px}
.summary b{display:block;font-size:1.25rem}
.summary .bad{background:#fbeae9}
.notes{background:#fff7e0;border-left:4px solid #b7860b;padding:6px 14px;margin:10px 0}
.scroll{overflow-x:auto;margin:.5em 0}
table{border-collapse:collapse;font-size:.87rem;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:4px 8px;text-align:right;border-bottom:1px solid #e7ebef;vertical-align:top}
td{white-space:nowrap}
th[scope=row],th:first-child{text-align:left;font-weight:500}
.judged td:nth-child(2),.judged thead th:nth-child(2){text-align:left}
thead th{color:#52606d;font-weight:600;border-bottom:2px solid #c5ced8;vertical-align:bottom}
tr.group th{background:#f4f6f8;font-weight:600;text-align:left}
.verdict{display:inline-block;padding:0 7px;border-radius:9px;background:#eef1f4;white-space:nowrap}
.ok{background:#e0f2e9;color:#0d5c3c}
.breached{background:#fbdfdc;color:#8c1d18;font-weight:600}
.inconclusive{background:#fff1cc;color:#6b4e00}
.figures{columns:420px 2;column-gap:28px}
figure{margin:0 0 26px;break-inside:avoid}
figure h3{margin:0 0 .3em}
figure img{width:100%;max-width:560px;height:auto;display:block}
figcaption{color:#52606d;font-size:.82rem}
.incident{border:1px solid #dde3ea;border-left:5px solid #b3261e;border-radius:6px;padding:4px 14px 10px;margin:14px 0}
.incident.recovered{border-left-color:#1b7f5c}
.path{margin:.4em 0}
.path span+span::before{content:" \\2192  ";color:#52606d}
ol.remedies{padding-left:1.3em;margin:.3em 0}
@media(max-width:640px){.summary{grid-template-columns:repeat(2,1fr)}}
@media(max-width:520px){body{padding:10px}table{font-size:.8rem}th,td{padding:3px 6px}}
@media print{td{white-space:normal}body{max-width:none;padding:0;font-size:10.5pt}h2,h3{break-after:avoid}
figure,.incident,tr,.summary{break-inside:avoid}.scroll{overflow:visible}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
"""


@dataclass(frozen=True)
class StreamSection:
    """What the page says of one stream."""

    rows: StreamRows
    signals: tuple[Signal, ...]
    segments: tuple[SegmentFinding, ...]
    origin: str
    """What it is compared with: a key of REFERENCE_WORDS."""


@dataclass(frozen=True)
class Report:
    """Everything on the page."""

    rows: RangeRows
    made_at: float
    """Unix time."""
    sections: tuple[StreamSection, ...]
    over_time: tuple[Picture, ...]
    reliability: tuple[Picture, ...]
    confusion: tuple[Picture, ...]
    incidents: tuple[Incident, ...] | None
    """None when there is no state file to read them from."""
    notes: tuple[str, ...]
    """What the reader must know before anything else."""


def page(report: Report) -> str:
    """The whole file."""
    title = f"Router report, {clock(report.rows.began)} to {clock(report.rows.ended)} UTC"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Markup(STYLE)),
    )
    parts = [_header(report)]
    if report.rows.predictions:
        parts += [
            _section("Incidents", _incidents(report.incidents)),
            _section("Over time", _figures(report.over_time)),
            _section("Signals", [_signals(section) for section in report.sections]),
            _section("Calibration", _figures(report.reliability) or _nothing("No labelled prediction is in scope.")),
            _section("Confusion", _figures(report.confusion) or _nothing("No prediction of the range has a label.")),
            _section("Segments", _all_segments(report.sections)),
        ]
    else:
        parts.append(_section("Incidents", _incidents(report.incidents)))
    return "<!doctype html>\n" + element("html", head, element("body", element("main", parts)), lang="en") + "\n"


def _header(report: Report) -> Markup:
    rows = report.rows
    lines: list[Content] = [
        element("h1", "Router report"),
        element(
            "p",
            f"{clock(rows.began)} to {clock(rows.ended)} UTC (not included), {lasted(rows.ended - rows.began)}.",
        ),
        element("p", f"Made {clock(report.made_at)} UTC, with the labels known by then.", class_="quiet"),
    ]
    lines.append(_summary(report))
    if rows.predictions == 0:
        lines.append(element("p", "The event log holds no prediction of this range that could be read."))
    else:
        lines.append(_streams(rows))
        lines.append(_breaches(report.sections))
    if report.notes:
        lines.append(element("div", [element("p", note) for note in report.notes], class_="notes"))
    return element("header", lines)


def _summary(report: Report) -> Markup:
    """The five numbers that somebody looks for first."""
    rows = report.rows
    breached = sum(s.verdict is Verdict.BREACHED for section in report.sections for s in section.signals)
    tiles = [
        _tile(f"{rows.predictions:,}", "predictions"),
        _tile(f"{rows.labelled:,}", f"with a label ({share(rows.labelled, rows.predictions)})"),
        _tile(str(breached), "signal breached" if breached == 1 else "signals breached", is_bad=breached > 0),
    ]
    if report.incidents is None:
        tiles.append(_tile("–", "incidents: no state file"))
    else:
        still = sum(incident.ended_at is None for incident in report.incidents)
        words = f"{'incident' if len(report.incidents) == 1 else 'incidents'}, {still} not ended"
        tiles.append(_tile(str(len(report.incidents)), words, is_bad=still > 0))
    return element("ul", tiles, class_="summary")


def _tile(figure: str, words: str, *, is_bad: bool = False) -> Markup:
    return element("li", element("b", figure), words, class_="bad" if is_bad else "good")


def _streams(rows: RangeRows) -> Markup:
    head = (
        "Stream: version / policy / role",
        "Predictions",
        "Labelled",
        "Join rate",
        "Label delay, median",
        "First",
        "Last",
    )
    return table(head, [_stream_row(stream) for stream in rows.streams])


def _breaches(sections: Sequence[StreamSection]) -> Content:
    """By name, so that nobody has to look for them in the tables."""
    told = []
    for section in sections:
        names = [
            signal_words(signal.name).removesuffix(" (ms)")
            for signal in section.signals
            if signal.verdict is Verdict.BREACHED
        ]
        if names:
            told.append(element("li", element("b", section.rows.key.name), ": ", "; ".join(names)))
    return [element("p", "Breached over the whole range:"), element("ul", told)] if told else []


def _stream_row(stream: StreamRows) -> list[str]:
    at, labelled = stream.predictions["at"], stream.labelled
    delay = lasted(float(np.median(np.maximum(labelled["label_at"] - labelled["at"], 0)))) if len(labelled) else "–"
    return [
        stream.key.name,
        f"{len(at):,}",
        f"{len(labelled):,}",
        share(int(stream.predictions["is_labelled"].sum()), len(at)),
        delay,
        clock(float(at.min())),
        clock(float(at.max())),
    ]


def _signals(section: StreamSection) -> Markup:
    head = ("Signal", "Verdict", "Value", "95% interval", "Reference", "n")
    rows: list[Iterable[Content]] = []
    for group, names in SIGNAL_GROUPS.items():
        measured = [signal for signal in section.signals if signal.n > 0 and signal.name in names]
        if measured:
            rows += [[group], *(_signal_row(signal) for signal in measured)]
    unmeasured = [signal_words(signal.name) for signal in section.signals if signal.n == 0]
    lines: list[Content] = [
        element("h3", section.rows.key.name),
        element("p", f"Compared with {REFERENCE_WORDS[section.origin]}.", class_="quiet"),
        table(head, rows, "judged"),
    ]
    if unmeasured:
        lines.append(element("p", f"Not measured, for want of rows: {', '.join(unmeasured)}.", class_="quiet"))
    return join(lines)


def _signal_row(signal: Signal | SignalRecord) -> list[Content]:
    has_reference = signal.reference is not None and not math.isnan(signal.reference)
    return [
        signal_words(signal.name),
        _verdict(str(signal.verdict) if has_reference else "none"),
        number(signal.name, signal.value),
        interval(signal.name, signal.low, signal.high),
        number(signal.name, signal.reference),
        f"{signal.n:,}",
    ]


def _verdict(verdict: str) -> Markup:
    return element("span", VERDICT_WORDS.get(verdict, verdict), class_=f"verdict {verdict}")


def _all_segments(sections: Sequence[StreamSection]) -> Content:
    parts: list[Content] = []
    for section in sections:
        if section.segments:
            head = ("Segment", "Verdict", "Accuracy", "95% interval", "Reference", "n")
            parts.append(element("h3", section.rows.key.name))
            parts.append(table(head, [[s.name, *_signal_row(s.accuracy)[1:]] for s in section.segments], "judged"))
    if not parts:
        return _nothing("No labelled prediction is in scope.")
    words = (
        "In-scope labelled predictions; intent goes by the label, decided by the decision. "
        "A verdict is corrected for the number of segments; without a pinned reference none is judged."
    )
    return [*parts, element("p", words, class_="quiet")]


def _incidents(incidents: Sequence[Incident] | None) -> Content:
    if incidents is None:
        return _nothing("There is no state file of the sidecar, so incidents are not known.")
    if not incidents:
        return _nothing("None was open in this range.")
    return [_incident(number, incident) for number, incident in enumerate(incidents, start=1)]


def _incident(ordinal: int, incident: Incident) -> Markup:
    if incident.ended_at is None:
        state = "needs people" if incident.status == "needs_people" else "open"
        ended = f"{state} since {clock(incident.began_at)} UTC"
    else:
        took = lasted(incident.ended_at - incident.began_at)
        ended = f"{clock(incident.began_at)} to {clock(incident.ended_at)} UTC, recovered after {took}"
    head = ("Evidence", "Verdict", "Value", "95% interval", "Reference", "n")
    lines: list[Content] = [
        element("h3", f"I{ordinal}: {incident.diagnosis}"),
        element("p", f"{ended}; {incident.stream.name}; {incident.id}", class_="quiet"),
        element("p", [element("span", step) for step in incident.path], class_="path"),
    ]
    if incident.segment:
        lines.append(element("p", f"Segment: {incident.segment}"))
    if incident.evidence:
        lines.append(table(head, [_signal_row(record) for record in incident.evidence], "judged"))
    if incident.remedies:
        lines.append(element("ol", [_remedy(remedy) for remedy in incident.remedies], class_="remedies"))
    elif incident.awaited is None:
        lines.append(element("p", "No remedy was asked for."))
    if incident.awaited is not None:
        lines.append(element("p", f"{incident.awaited.action} waits: {incident.awaited.words}."))
    return element("article", lines, class_=f"incident {incident.status}")


def _remedy(remedy: Remedy) -> Markup:
    lines: list[Content] = [element("b", remedy.action), f", asked for {clock(remedy.asked_at)} UTC. "]
    if remedy.result is None or remedy.finished_at is None:
        lines.append(f"Not finished, {remedy.attempts} tries so far.")
    else:
        took = lasted(remedy.finished_at - remedy.asked_at)
        outcome = remedy.result.outcome.replace("_", " ")
        lines.append(f"{outcome.capitalize()} after {took}: {_cut(remedy.result.words)}")
        if remedy.result.signals:
            head = ("Measured by it", "Verdict", "Value", "95% interval", "Reference", "n")
            lines.append(table(head, [_signal_row(record) for record in remedy.result.signals], "judged"))
    if remedy.check is not None:
        verdict = "recovered" if remedy.check.verdict == "recovered" else "did not help"
        lines.append(element("p", f"Check {clock(remedy.check.at)} UTC: {verdict}. {_cut(remedy.check.words)}"))
    return element("li", lines)


def _cut(words: str) -> str:
    return words if len(words) <= SHORT_WORDS else words[: SHORT_WORDS - 1] + "…"


def _figures(pictures: Iterable[Picture]) -> Content:
    figures = [
        element(
            "figure",
            element("h3", picture.title),
            element("img", src=picture.uri, alt=picture.alt),
            element("figcaption", picture.caption),
        )
        for picture in pictures
    ]
    return element("div", figures, class_="figures") if figures else []


def _section(title: str, content: Content) -> Markup:
    return element("section", element("h2", title), content)


def _nothing(words: str) -> Markup:
    return element("p", words, class_="quiet")
