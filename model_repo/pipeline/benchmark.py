"""
Public sets through the same pipeline: ``python -m model_repo benchmark clinc150 --data DIR --out DIR``.

Trains on a set's own labels, calibrates on its validation part, judges on its test part, and prints each figure that
has a published counterpart beside it. Writes what training, calibration and evaluation write.
"""

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model_repo.contract.bootstrap import Figure, Measure, bootstrap
from model_repo.contract.outputs import FloatArray
from model_repo.pipeline import calibrate
from model_repo.pipeline.dataset import write_utterances
from model_repo.pipeline.evaluate import compare, evaluate, to_json
from model_repo.pipeline.measures import Judged, judge
from model_repo.pipeline.plots import draw
from model_repo.pipeline.public_sets import PublicSet, load_public_set
from model_repo.pipeline.settings import PRESETS, Preset
from model_repo.pipeline.train import load_outputs, train

PUBLISHED = PRESETS / "published.toml"
SHOWN = (
    "intents.accuracy",
    "intents.exact_match",
    "intents.micro_f1",
    "intents.ece",
    "ood.auroc",
    "ood.fpr95",
    "ood.recall",
    "ood.precision",
    "ood.in_scope_kept",
)


def benchmark(name: str, data: Path, out: Path, preset: Preset, seed: int, limit: int | None = None) -> dict[str, Any]:
    """
    Train and judge on one public set; gives the report that is also written to ``out``/metrics.json.

    ``limit`` trains on that many utterances only (drawn with the seed); the report says so.
    """
    public = load_public_set(name, data)
    folder = out / "data"
    _write(public, folder, seed, limit)
    train(folder, out, public.taxonomy, preset, seed)
    policy = calibrate.run(out, folder, public.taxonomy, "1", out, seed)
    judged = judge(load_outputs(out / "outputs_test.npz"), policy, public.test, public.taxonomy)
    report = evaluate(judged, public.test, f"{name} test", np.random.default_rng(seed))
    n_train = min(limit or len(public.train), len(public.train))
    published = tomllib.loads(PUBLISHED.read_text(encoding="utf-8")).get(name, [])
    at = at_published_accuracy(judged, published, f"{name} test", np.random.default_rng(seed))
    print_beside_published(name, {**report["overall"], **at}, published, n_train, len(public.train))
    written = {
        **to_json({**report, "at_accuracy": at}),
        "n_train": n_train,
        "n_train_of": len(public.train),
        "seed": seed,
    }
    (out / "metrics.json").write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    draw(judged, policy, f"{name} test", np.random.default_rng(seed), out)
    return written


def at_published_accuracy(
    judged: Judged, published: Sequence[Mapping[str, Any]], data: str, rng: np.random.Generator
) -> dict[str, Figure]:
    """Ood recall at each accuracy in scope that a published one is given at, by ``figure_of``."""
    rows = [row for row in published if "at_accuracy" in row]
    n = int(judged.truth.is_ood.sum())
    measures = {figure_of(row): Measure(recall_at_accuracy(judged, row["at_accuracy"]), n) for row in rows}
    return bootstrap(measures, len(judged), data, rng) if measures else {}


def recall_at_accuracy(judged: Judged, accuracy: float) -> Callable[[FloatArray], FloatArray]:
    """
    Weights (B, n) -> (B,) share of ood utterances above the lowest energy cut that leaves ``accuracy`` in scope.

    A rejected utterance in scope is wrong. 0 where no cut leaves so much: then nothing could be rejected.
    """
    order = np.argsort(judged.decisions.energies, kind="stable")
    is_ood = judged.truth.is_ood[order]
    is_right = judged.truth.targets[np.arange(len(judged)), judged.decisions.top][order]

    def recall(weights: FloatArray) -> FloatArray:
        ordered = weights[:, order]
        kept_right = np.cumsum(ordered * is_right, axis=1) / (ordered * ~is_ood).sum(axis=1, keepdims=True)
        kept_ood = np.cumsum(ordered * is_ood, axis=1) / (ordered * is_ood).sum(axis=1, keepdims=True)
        is_enough = kept_right >= accuracy
        at_cut = kept_ood[np.arange(len(weights)), is_enough.argmax(axis=1)]
        return np.where(is_enough.any(axis=1), 1.0 - at_cut, 0.0)

    return recall


def figure_of(row: Mapping[str, Any]) -> str:
    """
    The name of what a published row is beside.

    >>> figure_of({"figure": "ood.recall", "at_accuracy": 0.7}), figure_of({"figure": "ood.recall"})
    ('ood.recall at 0.7', 'ood.recall')
    """
    return f"{row['figure']} at {row['at_accuracy']}" if "at_accuracy" in row else str(row["figure"])


def print_beside_published(
    name: str,
    overall: Mapping[str, Figure],
    published: Sequence[Mapping[str, Any]],
    n_train: int,
    n_train_of: int,
) -> None:
    """One line a figure; those with a published counterpart say how they stand to it."""
    print(f"\n{name}: trained on {n_train:,} of {n_train_of:,} utterances")
    for shown in SHOWN:
        if shown in overall:
            print(f"  {shown:28} {overall[shown]}")
    for row in published:
        print(f"  {figure_of(row):28} {compare(row['value'], overall[figure_of(row)])}  ({row['source']})")


def _write(public: PublicSet, folder: Path, seed: int, limit: int | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    kept = list(public.train)
    if limit is not None and limit < len(kept):
        rows = np.random.default_rng(seed).choice(len(kept), size=limit, replace=False)
        kept = [kept[row] for row in np.sort(rows)]
    write_utterances(folder / "train.jsonl", kept)
    write_utterances(folder / "validation.jsonl", public.validation)
    write_utterances(folder / "test.jsonl", public.test)
