"""
Public sets through the same pipeline: ``python -m model_repo benchmark clinc150 --data DIR --out DIR``.

Trains on a set's own labels, calibrates on its validation part, judges on its test part, and prints each figure that
has a published counterpart beside it. Writes what training, calibration and evaluation write.
"""

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np

from model_repo.contract.bootstrap import Figure
from model_repo.pipeline import calibrate
from model_repo.pipeline.dataset import write_utterances
from model_repo.pipeline.evaluate import compare, evaluate, to_json
from model_repo.pipeline.measures import judge
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
    print_beside_published(name, report["overall"], n_train, len(public.train))
    written = {**to_json(report), "n_train": n_train, "n_train_of": len(public.train), "seed": seed}
    (out / "metrics.json").write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    draw(judged, policy, f"{name} test", np.random.default_rng(seed), out)
    return written


def print_beside_published(name: str, overall: dict[str, Figure], n_train: int, n_train_of: int) -> None:
    """One line a figure; those with a published counterpart say how they stand to it."""
    print(f"\n{name}: trained on {n_train:,} of {n_train_of:,} utterances")
    for shown in SHOWN:
        if shown in overall:
            print(f"  {shown:28} {overall[shown]}")
    for row in tomllib.loads(PUBLISHED.read_text(encoding="utf-8")).get(name, []):
        print(f"  {row['figure']:28} {compare(row['value'], overall[row['figure']])}  ({row['source']})")


def _write(public: PublicSet, folder: Path, seed: int, limit: int | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    kept = list(public.train)
    if limit is not None and limit < len(kept):
        rows = np.random.default_rng(seed).choice(len(kept), size=limit, replace=False)
        kept = [kept[row] for row in np.sort(rows)]
    write_utterances(folder / "train.jsonl", kept)
    write_utterances(folder / "validation.jsonl", public.validation)
    write_utterances(folder / "test.jsonl", public.test)
