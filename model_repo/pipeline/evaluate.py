"""
Judge a version: ``python -m model_repo evaluate --run DIR --data DIR --policy FILE --out DIR``.

Reads a training run's outputs_test.npz, test.jsonl, policy.json and the cost table; writes metrics.json (every figure
with its 95% bootstrap interval, sample count and data) and three pictures. The test split is read here and only here.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model_repo.contract import metrics
from model_repo.contract.bootstrap import RESAMPLES, Figure, Measure, bootstrap
from model_repo.contract.costs import cost_matrix
from model_repo.contract.labels import LANGUAGES, ORIGINS, LabelledUtterance, Taxonomy
from model_repo.contract.outputs import BoolArray, FloatArray
from model_repo.contract.policy import Policy
from model_repo.pipeline.measures import Judged, judge, measures, take

SMALLEST_SLICE = 20
"""Utterances below which a language or an origin gets no figures: their interval would span half the scale."""


def evaluate(
    judged: Judged,
    utterances: Sequence[LabelledUtterance],
    data: str,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """Figures over all utterances, by origin, by language, and how far each language is from English."""
    everything = np.ones(len(judged), dtype=np.bool_)
    report: dict[str, Any] = {"overall": _figures(judged, everything, data, rng, resamples)}
    for title, names, values in (
        ("by_origin", ORIGINS, np.array([u.origin for u in utterances])),
        ("by_language", LANGUAGES, np.array([u.lang for u in utterances])),
    ):
        report[title] = {
            name: _figures(judged, values == name, f"{data}, {name}", rng, resamples)
            for name in names
            if np.count_nonzero(values == name) >= SMALLEST_SLICE
        }
    report["minus_english"] = language_gaps(judged, utterances, data, rng, resamples)
    return report


def language_gaps(
    judged: Judged,
    utterances: Sequence[LabelledUtterance],
    data: str,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> dict[str, Figure]:
    """Top-1 accuracy of each other language less that of English, over in-scope utterances."""
    in_scope, langs = ~judged.truth.is_ood, np.array([u.lang for u in utterances])
    is_correct = metrics.top_in_set(judged.decisions.top, judged.truth.targets)
    english = np.flatnonzero(in_scope & (langs == "en"))
    gaps: dict[str, Measure] = {}
    for lang in LANGUAGES:
        rows = np.flatnonzero(in_scope & (langs == lang))
        if lang != "en" and min(len(rows), len(english)) >= SMALLEST_SLICE:
            gaps[lang] = Measure(_difference(is_correct, rows, english), len(rows))
    return bootstrap(gaps, len(judged), f"{data}, accuracy minus English", rng, resamples) if gaps else {}


def compare(published: float, figure: Figure, higher_is_better: bool = True) -> str:
    """
    How a figure stands to a published one: ``better``, ``worse``, or ``level`` when the interval holds it.

    The published figure's own uncertainty is rarely given and plays no part.

    >>> compare(0.90, Figure(0.93, 0.91, 0.95, 1000, "test"))
    '0.9300 [0.9100, 0.9500] (n = 1,000, test); published 0.9000: better'
    """
    if figure.low <= published <= figure.high:
        verdict = "level"
    else:
        verdict = "better" if (figure.value > published) == higher_is_better else "worse"
    return f"{figure}; published {published:.4f}: {verdict}"


def to_json(report: Mapping[str, Any]) -> dict[str, Any]:
    """The report with every figure as a JSON object."""
    return {
        key: value.to_json() if isinstance(value, Figure) else to_json(value) if isinstance(value, Mapping) else value
        for key, value in report.items()
    }


def run(
    run_folder: Path, data: Path, taxonomy: Taxonomy, policy: Policy, costs_file: Path, name: str, out: Path, seed: int
) -> dict[str, Any]:
    """The stage: judge outputs_test.npz on test.jsonl, write metrics.json and the pictures into ``out``."""
    from model_repo.pipeline.dataset import read_utterances
    from model_repo.pipeline.plots import draw
    from model_repo.pipeline.train import load_outputs

    utterances = read_utterances(data / "test.jsonl")
    costs = cost_matrix(tomllib.loads(costs_file.read_text(encoding="utf-8")), taxonomy)
    judged = judge(load_outputs(run_folder / "outputs_test.npz"), policy, utterances, taxonomy, costs)
    report = to_json(evaluate(judged, utterances, name, np.random.default_rng(seed)))
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    draw(judged, policy, name, np.random.default_rng(seed), out)
    return report


def _figures(judged: Judged, rows: BoolArray, data: str, rng: np.random.Generator, resamples: int) -> dict[str, Figure]:
    part = take(judged, np.flatnonzero(rows))
    return bootstrap(measures(part), len(part), data, rng, resamples)


def _difference(is_correct: BoolArray, rows: Any, others: Any) -> Any:
    def of(weights: FloatArray) -> FloatArray:
        return metrics.accuracy(is_correct[rows], weights[..., rows]) - metrics.accuracy(
            is_correct[others], weights[..., others]
        )

    return of
