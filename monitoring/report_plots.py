"""
Pictures of a report, as SVG in a data URI: drawn so narrow that their text is still readable on a phone.

Every picture comes with a sentence that says what is in it, for whoever does not see it.
"""

import base64
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import matplotlib as mpl
import numpy as np
from matplotlib import dates
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from scipy.stats import beta

from model_repo.contract.calibration_error import bin_counts, debiased_ece, equal_width_edges
from model_repo.contract.outputs import BoolArray, FloatArray, IntArray
from monitoring.report_slices import Line, lowest
from monitoring.signals import LEVEL

WIDTH_IN = 4.9
INK, GRID, PALE, ALARM = "#1d2733", "#dde3ea", "#c9d8ea", "#b3261e"
COLORS = ("#0b61a4", "#c2570c", "#1b7f5c", "#8a3ffc", "#a3195b", "#5c6670")
"""Told apart also by those who do not see red and green, and in grey by their markers."""
MARKERS = "os^Dvp"
NAMED_LABELS = 16
"""More labels than this are not written on the confusion matrix: they would overlap."""
SHORT_LABEL = 18
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.size": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
}


@dataclass(frozen=True)
class Picture:
    """One picture of the page."""

    title: str
    uri: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Mark:
    """Something that happened, on every time axis."""

    at: float
    """Unix time."""
    until: float | None
    """Its end, when it lasted; None for a moment."""
    words: str
    """As short as ``I1`` or ``1.2``."""
    is_incident: bool


@dataclass(frozen=True)
class Panel:
    """One set of axes over time."""

    label: str
    """Of the vertical axis, with its unit."""
    lines: tuple[Line, ...]
    is_share: bool = False
    limit: float | None = None
    """A level to draw, as a budget or a threshold."""
    limit_words: str = ""
    floor: float | None = 0.0
    """Lowest value of the axis, or lower where an interval is; None follows the data."""
    ceiling: float | None = None
    """Highest value of the axis; None follows the data."""


def over_time(
    title: str, panels: Sequence[Panel], marks: Sequence[Mark], span: tuple[float, float], caption: str
) -> Picture:
    """Panels above each other with one time axis. Streams have the same colour and marker in each of them."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH_IN, 0.9 + 1.9 * len(panels)), layout="constrained")
        rows = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, panel in zip(rows, panels, strict=True):
            _draw_panel(axes, panel)
            _draw_marks(axes, marks, span, is_named=axes is rows[0])
        rows[-1].set_xlim(*(_day(at) for at in span))
        locator = dates.AutoDateLocator(tz=UTC, minticks=3, maxticks=7)
        rows[-1].xaxis.set_major_locator(locator)
        rows[-1].xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, tz=UTC, show_offset=False))
        first, last = (f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}" for at in (span[0], span[1] - 1.0))
        days = first if first == last else f"{first} to {last}"
        rows[-1].set_xlabel(f"time of the answer (UTC), {days}")
        handles, names = rows[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
        uri = _uri(figure)
    return Picture(title, uri, _words_of_panels(title, panels), caption)


def reliability(name: str, confidence: FloatArray, is_correct: BoolArray, caption: str) -> Picture:
    """Accuracy by confidence in the bins of the ECE, with 95% intervals, and the rows of each bin below."""
    edges = equal_width_edges()
    bins = bin_counts(confidence, is_correct, edges)
    held = np.flatnonzero(bins.count > 0)
    n, correct = bins.count[held], bins.correct[held]
    centre, share = bins.confidence[held] / n, correct / n
    low, high = clopper_pearson(correct, n)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH_IN, 5.3), layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3.0, 1.0])
        top.plot([0, 1], [0, 1], color=INK, linewidth=0.9, linestyle="--", label="perfectly calibrated")
        spread = np.maximum(np.stack([share - low, high - share]), 0.0)
        top.errorbar(
            centre,
            share,
            spread,
            fmt="o-",
            color=COLORS[0],
            capsize=3,
            markersize=4,
            linewidth=1.2,
            label="observed, 95%",
        )
        top.set(ylabel="share that was right", xlim=(0, 1), ylim=(0, 1.03))
        figure.legend(*top.get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False, fontsize=8)
        _percent(top.yaxis)
        bottom.bar(edges[:-1], bins.count, np.diff(edges), align="edge", color=PALE, edgecolor="white")
        for b in held:
            _write(bottom, (edges[b] + edges[b + 1]) / 2.0, bins.count[b], _short_count(bins.count[b]))
        bottom.set(xlabel="confidence (calibrated probability of the top intent)", ylabel="labelled", xlim=(0, 1))
        bottom.set_ylim(0, 1.3 * float(bins.count.max()))
        bottom.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        _percent(bottom.xaxis)
        uri = _uri(figure)
    gap = centre - share
    worst = int(np.argmax(np.abs(gap) * n))
    ece = float(debiased_ece(bins))
    alt = (
        f"Reliability diagram of {name}: {len(held)} bins, {len(confidence):,} labelled predictions, debiased ECE "
        f"{ece:.3f}. The bin that weighs most has confidence {centre[worst]:.0%} and accuracy {share[worst]:.0%}."
    )
    return Picture(f"Reliability of {name}", uri, alt, caption)


def confusion(name: str, counts: IntArray, labels: Sequence[str], caption: str) -> Picture:
    """True label (rows) by decided label, ood last: counts written, shade by share of the row."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    is_named = len(labels) <= NAMED_LABELS
    with mpl.rc_context({**_STYLE, "axes.grid": False, "axes.spines.top": True, "axes.spines.right": True}):
        figure = Figure(figsize=(WIDTH_IN, 0.97 * WIDTH_IN), layout="constrained")
        axes = figure.subplots()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.set(xlabel="decided label", ylabel="true label")
        if is_named:
            names = [_shortened(label) for label in labels]
            axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=7.5)
            axes.set_yticks(range(len(names)), names, fontsize=7.5)
            for row, column in np.argwhere(counts):
                ink = "white" if shares[row, column] > 0.55 else INK
                text = _short_count(counts[row, column])
                axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=7)
        else:
            axes.set(xlabel=f"decided label (number 0 to {len(labels) - 1})", ylabel="true label (number)")
        uri = _uri(figure)
    off = counts.copy()
    np.fill_diagonal(off, 0)
    row, column = divmod(int(off.argmax()), len(labels))
    alt = (
        f"Confusion matrix of {name}: {int(np.trace(counts)):,} of {int(counts.sum()):,} labelled predictions on the "
        f"diagonal. Most frequent mistake: {labels[row]} decided as {labels[column]}, {int(off.max())} times."
    )
    return Picture(f"Confusion of {name}", uri, alt, caption)


def clopper_pearson(correct: FloatArray, n: FloatArray) -> tuple[FloatArray, FloatArray]:
    """
    Exact 95% interval of a share, for a sample whose size was fixed beforehand (Clopper & Pearson 1934).

    >>> [end.round(3).tolist() for end in clopper_pearson(np.array([0.0, 8.0]), np.array([10.0, 10.0]))]
    [[0.0, 0.444], [0.308, 0.975]]
    """
    tail = (1.0 - LEVEL) / 2.0
    correct, wrong = np.asarray(correct, dtype=np.float64), np.asarray(n, dtype=np.float64) - correct
    low = np.where(correct > 0, beta.ppf(tail, np.maximum(correct, 1e-9), wrong + 1.0), 0.0)
    high = np.where(wrong > 0, beta.ppf(1.0 - tail, correct + 1.0, np.maximum(wrong, 1e-9)), 1.0)
    return np.asarray(low), np.asarray(high)


def _draw_panel(axes: Axes, panel: Panel) -> None:
    for index, line in enumerate(panel.lines):
        at = np.array([_day(point.at) for point in line.points])
        value = np.array([point.value for point in line.points])
        low, high = (np.array([getattr(point, end) for point in line.points]) for end in ("low", "high"))
        spread = np.maximum(np.stack([value - low, np.where(np.isfinite(high), high, value) - value]), 0.0)
        has_interval = bool(np.nanmax(np.append(spread, 0.0)) > 0)
        axes.errorbar(
            at,
            value,
            spread if has_interval else None,
            color=COLORS[index % len(COLORS)],
            marker=MARKERS[index % len(MARKERS)],
            markersize=3.5,
            linewidth=1.2,
            elinewidth=0.8,
            capsize=1.5,
            label=line.name,
        )
    if panel.limit is not None:
        axes.axhline(panel.limit, color=ALARM, linewidth=1.0, linestyle="--")
        # In the corner: beside the line it would lie on the points.
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0}
        axes.text(
            0.01,
            0.98,
            f"- - {panel.limit_words}",
            transform=axes.transAxes,
            va="top",
            color=ALARM,
            fontsize=7.5,
            bbox=box,
        )
        axes.set_ylim(top=max(axes.get_ylim()[1], 1.2 * panel.limit))
    if not any(line.has_points for line in panel.lines):
        axes.text(0.5, 0.5, "no slice has enough rows", transform=axes.transAxes, ha="center", va="center", fontsize=8)
    axes.set_ylabel(panel.label, fontsize=8.5)
    if panel.is_share:
        _percent(axes.yaxis)
    if panel.floor is not None:
        bottom, top = min(panel.floor, lowest(panel.lines)), axes.get_ylim()[1]
        # The margin above was measured before the axis was drawn down to its floor.
        axes.set_ylim(bottom, top + 0.05 * (top - bottom))
    if panel.ceiling is not None:
        axes.set_ylim(top=panel.ceiling)


def _draw_marks(axes: Axes, marks: Sequence[Mark], span: tuple[float, float], *, is_named: bool) -> None:
    for mark in marks:
        until = mark.at if mark.until is None else mark.until
        if mark.at >= span[1] or until < span[0]:
            continue
        color = ALARM if mark.is_incident else INK
        begin = max(mark.at, span[0])
        if mark.until is not None:
            axes.axvspan(_day(begin), _day(min(until, span[1])), color=ALARM, alpha=0.09, linewidth=0)
        if mark.at >= span[0]:
            axes.axvline(_day(mark.at), color=color, linewidth=0.9, linestyle="-" if mark.is_incident else ":")
        if is_named:
            # To the left of its line near the right end: it must not reach out of the picture.
            is_late = begin > span[0] + 0.75 * (span[1] - span[0])
            axes.annotate(
                mark.words,
                (_day(begin), 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(-1 if is_late else 1, 2),
                textcoords="offset points",
                ha="right" if is_late else "left",
                color=color,
                fontsize=7.5,
            )


def _words_of_panels(title: str, panels: Sequence[Panel]) -> str:
    """First and last value of each line that has any, in words."""
    told = []
    for panel in panels:
        for line in panel.lines:
            known = [point for point in line.points if np.isfinite(point.value)]
            if known:
                form = "{:.1%}" if panel.is_share else "{:.3g}"
                ends = " to ".join(form.format(point.value) for point in (known[0], known[-1]))
                told.append(f"{panel.label}, {line.name}: from {ends} in {len(known)} slices")
    return f"{title}. " + ("; ".join(told) + "." if told else "No slice has enough rows.")


def _day(at: float) -> float:
    """Matplotlib's days of a Unix time."""
    return at / 86_400.0


def _percent(axis: object) -> None:
    axis.set_major_formatter(PercentFormatter(1.0, decimals=None))  # type: ignore[attr-defined]


def _write(axes: Axes, x: float, y: float, text: str) -> None:
    axes.annotate(text, (x, y), ha="center", va="bottom", fontsize=6.5)


def _short_count(count: float) -> str:
    """
    Four signs at most, so that it fits a bar.

    >>> [_short_count(count) for count in (7, 999, 1_234, 45_678)]
    ['7', '999', '1.2k', '46k']
    """
    if count < 1000:
        return f"{count:.0f}"
    return f"{count / 1000:.1f}k" if count < 10_000 else f"{count / 1000:.0f}k"


def _shortened(label: str) -> str:
    return label if len(label) <= SHORT_LABEL else label[: SHORT_LABEL - 1] + "…"


def _uri(figure: Figure) -> str:
    FigureCanvasSVG(figure)
    file = io.BytesIO()
    with warnings.catch_warnings():
        # Names of intents may be in a script that the measuring font lacks; the reader's own font draws them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        # No date and no software stamp: the same rows give the same bytes.
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode("ascii")
