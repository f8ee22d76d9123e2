"""
The mean of several runs' weights, as one run: ``python -m model_repo average --runs DIR DIR ... --data DIR --out DIR``.

Runs over the same text from the same first weights end so close together that the mean of their weights is a
network too, and often a better one than each of them (Wortsman et al. 2022, "Model soups"). It costs nothing to serve.
Writes what ``train`` writes.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from model_repo.pipeline.dataset import read_utterances
from model_repo.pipeline.network import Checkpoint, load_checkpoint
from model_repo.pipeline.train import load_outputs, quick_figures, save_run


class CannotAverage(ValueError):
    """The runs are not of one kind, so the mean of their weights would be no network."""


def average(runs: Sequence[Path], data: Path, out: Path) -> Path:
    """
    Write the averaged run to ``out`` and give its checkpoint folder. ``data`` is what the runs were trained on.

    Raises CannotAverage naming what differs between the runs.
    """
    records = [json.loads((run / "train.json").read_text(encoding="utf-8")) for run in runs]
    checkpoints = [load_checkpoint(run / "checkpoint") for run in runs]
    _check_alike(records, checkpoints)
    network, taxonomy = checkpoints[0].network, checkpoints[0].taxonomy
    states = [checkpoint.network.state_dict() for checkpoint in checkpoints]
    network.load_state_dict({name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]})

    out.mkdir(parents=True, exist_ok=True)
    save_run(out, network, checkpoints[0].tokenizer_file, taxonomy, data)
    held_out = read_utterances(data / "validation.jsonl")
    figures = quick_figures(load_outputs(out / "outputs_validation.npz"), held_out, taxonomy)
    epochs = [{"seed": record["seed"], **epoch} for record in records for epoch in record["epochs"]]
    record = {
        **records[0],
        "averaged_seeds": [record["seed"] for record in records],
        "epochs": [*epochs, {"averaged": len(records), **figures}],
    }
    (out / "train.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return out / "checkpoint"


def _check_alike(records: Sequence[dict[str, Any]], checkpoints: Sequence[Checkpoint]) -> None:
    if len(records) < 2:
        raise CannotAverage("an average is of two runs or more")
    for key in ("preset", "data_sha256"):
        if any(record[key] != records[0][key] for record in records):
            raise CannotAverage(f"the runs differ in their {key}")
    if any("quantised" in record for record in records):
        raise CannotAverage("runs are averaged first and quantised then: steps have no mean")
    files = {checkpoint.tokenizer_file.read_bytes() for checkpoint in checkpoints}
    if len(files) > 1 or any(checkpoint.taxonomy != checkpoints[0].taxonomy for checkpoint in checkpoints):
        raise CannotAverage("the runs differ in their tokenizer or taxonomy")
    if len({record["seed"] for record in records}) < len(records):
        raise CannotAverage("a run is given twice, or two have the same seed")
