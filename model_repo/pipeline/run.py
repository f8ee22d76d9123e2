"""
The whole pipeline: ``python -m model_repo run --preset default --out runs/default``.

data -> train (one run a seed) -> quantise -> membership -> calibrate -> export -> evaluate -> a version in the model
repository. With several seeds the mean of their weights is a candidate beside them, and the candidate with the best
validation accuracy goes on to be the version. The test figures of each, and their spread over the seeds, are written to
seeds.json.
"""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model_repo.contract.labels import LabelledUtterance, Taxonomy
from model_repo.pipeline import calibrate
from model_repo.pipeline.average import average
from model_repo.pipeline.dataset import read_utterances
from model_repo.pipeline.measures import judge, measures
from model_repo.pipeline.membership import attach
from model_repo.pipeline.quantise import quantise
from model_repo.pipeline.settings import Preset
from model_repo.pipeline.train import load_outputs, train
from model_repo.pipeline.version import MIN_DECISIONS_EQUAL, VersionSettings, make_version
from model_repo.store import Store

AVERAGED = "averaged"
"""Run folder of the mean of the seeds' weights."""
QUANTISED = "quantised"
"""Run folder of the best of them in 8 bits."""
SPREAD = ("intents.accuracy", "intents.micro_f1", "intents.ece", "ood.auroc", "served.accuracy")
"""Figures whose spread over the seeds is reported."""


def run(
    data: Path,
    out: Path,
    store: Store,
    taxonomy: Taxonomy,
    preset: Preset,
    seeds: Sequence[int],
    command: str,
) -> str:
    """Train every seed on ``data``, make the version from the best candidate, and give its name; ``command`` did it."""
    runs = {seed: out / f"seed-{seed}" for seed in seeds}
    for seed, folder in runs.items():
        train(data, folder, taxonomy, preset, seed)
    candidates = list(runs.values())
    if len(runs) > 1:
        average(candidates, data, out / AVERAGED)
        candidates.append(out / AVERAGED)
    best = max(candidates, key=_validation_accuracy)
    made_by = f"made by preset {preset.name}, {best.name}"
    rounded_from = best
    if preset.quantise:
        quantise(best, data, out / QUANTISED, preset)
        best = out / QUANTISED

    def served(folder: Path) -> Path:
        """The run as it would serve."""
        if preset.membership is None:
            return folder
        embedded_by = rounded_from if folder.name == QUANTISED else None
        return attach(folder, data, folder.with_name(f"{folder.name}-membership"), preset, embedded_by).parent

    spread = seed_spread({seed: served(folder) for seed, folder in runs.items()}, data, taxonomy)
    made = [*candidates[len(runs) :], *([out / QUANTISED] if preset.quantise else [])]
    for folder in made:
        spread[folder.name] = _figures(served(folder), *_held_out(data), taxonomy)
    best = served(best)
    (out / "seeds.json").write_text(json.dumps(spread, indent=2) + "\n", encoding="utf-8")
    parity = preset.quantise.min_decisions_equal if preset.quantise else MIN_DECISIONS_EQUAL
    settings = VersionSettings(min_decisions_equal=parity, seed=seeds[0], commands=(command,))
    store.root.mkdir(parents=True, exist_ok=True)
    manifest, policy = make_version(best, data, out / "version", store, taxonomy, settings)
    store.promote(manifest.version, policy.revision, made_by)
    return manifest.version


def seed_spread(runs: dict[int, Path], data: Path, taxonomy: Taxonomy) -> dict[str, Any]:
    """Test figures of each seed, their mean, and their standard deviation where there are two or more."""
    validation, test = _held_out(data)
    by_seed = {seed: _figures(folder, validation, test, taxonomy) for seed, folder in runs.items()}
    summary = {}
    for name in SPREAD:
        values = [figures[name] for figures in by_seed.values() if name in figures]
        if values:
            deviation = statistics.stdev(values) if len(values) > 1 else None
            summary[name] = {"mean": statistics.fmean(values), "standard_deviation": deviation, "seeds": len(values)}
    return {"by_seed": by_seed, "summary": summary}


def _held_out(data: Path) -> tuple[list[LabelledUtterance], list[LabelledUtterance]]:
    return read_utterances(data / "validation.jsonl"), read_utterances(data / "test.jsonl")


def _figures(
    folder: Path, validation: Sequence[LabelledUtterance], test: Sequence[LabelledUtterance], taxonomy: Taxonomy
) -> dict[str, float]:
    fitted = load_outputs(folder / "outputs_validation.npz")
    lengths = np.ones(len(validation), dtype=np.int64)
    policy, _ = calibrate.calibrate(fitted, validation, lengths, taxonomy, "0", np.random.default_rng(0))
    judged = judge(load_outputs(folder / "outputs_test.npz"), policy, test, taxonomy)
    everything = np.ones((1, len(test)))
    found = measures(judged)
    return {name: float(found[name].of(everything)[0]) for name in SPREAD if name in found}


def _validation_accuracy(folder: Path) -> float:
    record = json.loads((folder / "train.json").read_text(encoding="utf-8"))
    return float(record["epochs"][-1]["top1"])
