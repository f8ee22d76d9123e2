"""Pictures of a version's decisions: reliability diagram, confusion matrix, ood scores. PNG, no display needed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from model_repo.contract.bootstrap import LEVEL, resampled_weights
from model_repo.contract.calibration_error import bin_counts, equal_width_edges, expected_calibration_error
from model_repo.contract.labels import OOD
from model_repo.contract.metrics import top_in_set
from model_repo.contract.outputs import BoolArray, FloatArray, IntArray
from model_repo.contract.policy import Policy
from model_repo.pipeline.measures import Judged

DPI = 110
BAND_RESAMPLES = 2_000
NAMED_LABELS = 25
"""More labels than this are not written on the confusion matrix: they would overlap."""
INK, ACCENT, SECOND, PALE = "#222222", "#1f5fa8", "#d1662b", "#c9d8ea"


def draw(judged: Judged, policy: Policy, data: str, rng: np.random.Generator, out: Path) -> list[Path]:
    """Write every picture that the data can give into ``out``; the confusion matrix always."""
    decisions, truth = judged.decisions, judged.truth
    files = [out / "confusion.png"]
    decided = np.where(decisions.is_ood, len(judged.intents), decisions.top)
    is_right = top_in_set(decisions.top, truth.targets) & ~decisions.is_ood
    confusion_matrix(np.where(is_right, decisions.top, truth.main), decided, [*judged.intents, OOD], data, files[0])
    in_scope = ~truth.is_ood
    if in_scope.any():
        is_correct = top_in_set(decisions.top[in_scope], truth.targets[in_scope])
        confidence = np.minimum(decisions.probabilities[in_scope].max(axis=-1), 1.0)
        reliability_diagram(confidence, is_correct, data, rng, out / "reliability.png")
        files.append(out / "reliability.png")
    if in_scope.any() and truth.is_ood.any():
        ood_scores(decisions.energies, truth.is_ood, policy.energy_cut, data, out / "ood_scores.png")
        files.append(out / "ood_scores.png")
    return files


def reliability_diagram(
    confidence: FloatArray, is_correct: BoolArray, data: str, rng: np.random.Generator, file: Path
) -> None:
    """Accuracy by confidence in the bins of the ECE, with 95% bootstrap bands, and how many utterances are in each."""
    edges = equal_width_edges()
    bins = bin_counts(confidence, is_correct, edges)
    parts = [
        bin_counts(confidence, is_correct, edges, weights)
        for weights in resampled_weights(len(confidence), BAND_RESAMPLES, rng)
    ]
    count, correct = (np.concatenate([getattr(p, name) for p in parts]) for name in ("count", "correct"))
    occupied = np.flatnonzero(bins.count > 0)
    tail = (1.0 - LEVEL) / 2.0
    bands = np.array([np.quantile(_shares(correct[:, b], count[:, b]), [tail, 1.0 - tail]) for b in occupied]).T
    centre = bins.confidence[occupied] / bins.count[occupied]
    accuracy = bins.correct[occupied] / bins.count[occupied]

    figure = Figure(figsize=(5.2, 5.6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1.0])
    top.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle="--", label="perfectly calibrated")
    # A band that bootstraps to no width, as of a bin that is all correct, is drawn as its point alone.
    spread = np.maximum(np.stack([accuracy - bands[0], bands[1] - accuracy]), 0.0)
    top.errorbar(centre, accuracy, yerr=spread, fmt="o-", color=ACCENT, capsize=3, label="observed, 95% band")
    top.set(ylabel="top intent is one of those carried", xlim=(0, 1), ylim=(0, 1.02))
    top.set_title(f"{data}: ECE {float(expected_calibration_error(bins)):.4f}, n = {len(confidence):,}", fontsize=10)
    top.legend(frameon=False, loc="lower right", fontsize=9)
    bottom.bar(edges[:-1], bins.count, width=np.diff(edges), align="edge", color=PALE, edgecolor="white")
    for b in occupied:
        middle = float(edges[b] + edges[b + 1]) / 2.0
        bottom.annotate(f"{int(bins.count[b])}", (middle, bins.count[b]), ha="center", va="bottom", fontsize=7)
    bottom.set(xlabel="served probability of the top intent", ylabel="utterances", ylim=(0, 1.2 * bins.count.max()))
    _save(figure, file)


def confusion_matrix(true: IntArray, decided: IntArray, labels: Sequence[str], data: str, file: Path) -> None:
    """
    True label by decided top label, ood last: counts written, shade by share of the row.

    Of several true intents it is the decided one when that is among them, or else the main one.
    """
    n = len(labels)
    counts = np.bincount(true * n + decided, minlength=n * n).reshape(n, n)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    is_named = n <= NAMED_LABELS
    side = 1.8 + 0.55 * n if is_named else 7.0
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(
        xlabel="decided",
        ylabel="true label (of several: the decided one, else the main)",
        title=f"{data}, n = {len(true):,}",
    )
    if is_named:
        axes.set_xticks(range(n), labels, rotation=45, ha="right", fontsize=8)
        axes.set_yticks(range(n), labels, fontsize=8)
        for row, column in np.argwhere(counts):
            shade = "white" if shares[row, column] > 0.55 else INK
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=shade, fontsize=8)
    _save(figure, file)


def ood_scores(energies: FloatArray, is_ood: BoolArray, cut: float, data: str, file: Path) -> None:
    """Histograms of the energy, in-scope and ood, each as a share of its own kind, with the cut."""
    figure = Figure(figsize=(6.0, 3.6), layout="constrained")
    axes = figure.subplots()
    edges = np.linspace(min(energies.min(), cut), max(energies.max(), cut), 41).tolist()
    for values, name, color in ((energies[~is_ood], "in-scope", ACCENT), (energies[is_ood], OOD, SECOND)):
        weights = np.full(len(values), 1.0 / len(values))
        axes.hist(values, edges, weights=weights, color=color, alpha=0.55, label=f"{name}, n = {len(values):,}")
    axes.axvline(cut, color=INK, linewidth=1.0, linestyle="--", label=f"cut {cut:.2f}")
    axes.set(xlabel="energy (higher is less familiar)", ylabel="share of its kind", title=data)
    axes.legend(frameon=False, fontsize=9)
    _save(figure, file)


def _shares(correct: FloatArray, count: FloatArray) -> FloatArray:
    """Accuracy of each resample that reached the bin."""
    reached = count > 0
    return np.asarray(correct[reached] / count[reached])


def _save(figure: Figure, file: Path) -> None:
    FigureCanvasAgg(figure)
    # No software stamp: the same figures give the same bytes.
    figure.savefig(file, dpi=DPI, metadata={"Software": None})
