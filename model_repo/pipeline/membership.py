"""
Ask of each intent whether it is carried: ``python -m model_repo membership --run DIR --data DIR --out DIR``.

A run's network stays as it is: the head (``contract.membership``) learns from its embeddings of the training
utterances, and one scale is fitted on the calibration split, since embeddings that were trained on are surer than
others. Writes what ``train`` writes, with the head in the checkpoint and its logits in the outputs.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import logit
from torch import Tensor, nn
from torch.nn import functional
from tqdm import trange

from model_repo.contract.membership import MEMBERSHIP_FILE, MembershipHead
from model_repo.contract.metrics import top_in_set
from model_repo.contract.outputs import BoolArray, FloatArray
from model_repo.contract.temperature import fit_temperature
from model_repo.pipeline.dataset import read_utterances, to_tensors
from model_repo.pipeline.network import load_checkpoint
from model_repo.pipeline.settings import MembershipSettings, Preset
from model_repo.pipeline.train import (
    RECORD,
    finish,
    has_fast_bf16,
    is_finished,
    load_outputs,
    plain_tokenizer,
    predict,
    save_outputs,
)
from model_repo.pipeline.truth import truth_of

BATCH = 256


class NoMembership(ValueError):
    """The preset does not say how, or the run has a head already."""


@dataclass(frozen=True)
class Embedded:
    """Utterances as the head sees them, n rows; a row of ``targets`` without an intent is ood."""

    embeddings: FloatArray
    """(n, H)"""
    targets: BoolArray
    """(n, K)"""


def attach(run: Path, data: Path, out: Path, preset: Preset, embedded_by: Path | None = None) -> Path:
    """
    Write ``run`` with a head to ``out`` and give its checkpoint folder; a finished one is kept.

    ``data`` is what the run was trained on. ``embedded_by`` is the run that ``run`` was quantised from, if it was: the
    head learns from its embeddings, which are nearly the same and come forty times as fast. Raises NoMembership.
    """
    if preset.membership is None:
        raise NoMembership(f"preset {preset.name} has no [membership]")
    record: Mapping[str, Any] = json.loads((run / RECORD).read_text(encoding="utf-8"))
    if "membership" in record:
        raise NoMembership(f"{run} has a membership head already")
    record = {**record, "membership": asdict(preset.membership)}
    if is_finished(out, record):
        print(f"{out} is fitted already, with these settings on this data")
        return out / "checkpoint"
    trained = load_checkpoint(run / "checkpoint")
    tokenizer, taxonomy = plain_tokenizer(trained.tokenizer_file), trained.taxonomy
    utterances, held_out = (read_utterances(data / f"{part}.jsonl") for part in ("train", "validation"))
    embedding = trained.network if embedded_by is None else load_checkpoint(embedded_by / "checkpoint").network
    embedded = predict(embedding, to_tensors(utterances, tokenizer, taxonomy), bf16=has_fast_bf16())
    head = fit_membership(
        Embedded(embedded.embeddings, truth_of(utterances, taxonomy).targets),
        Embedded(load_outputs(run / "outputs_validation.npz").embeddings, truth_of(held_out, taxonomy).targets),
        preset.membership,
    )
    shutil.copytree(run / "checkpoint", out / "checkpoint", dirs_exist_ok=True)
    np.savez(out / "checkpoint" / MEMBERSHIP_FILE, allow_pickle=False, **head.to_arrays())
    for part in ("validation", "test"):
        name = f"outputs_{part}.npz"
        save_outputs(out / name, head.applied(load_outputs(run / name)))
    finish(out, record)
    return out / "checkpoint"


def fit_membership(training: Embedded, calibration: Embedded, settings: MembershipSettings) -> MembershipHead:
    """
    The mean of one head a seed, each trained on the log-loss of every intent, with the log-odds brought to scale.

    Ood utterances carry none. Raises CannotMeasure when no calibration utterance is in scope.
    """
    single = [_train(training, settings, seed) for seed in settings.seeds]
    joined = MembershipHead(
        hidden_weights=np.concatenate([one.hidden_weights for one in single], axis=1),
        hidden_bias=np.concatenate([one.hidden_bias for one in single]),
        weights=np.concatenate([one.weights for one in single]) / len(single),
        bias=np.mean([one.bias for one in single], axis=0),
        reserve=settings.reserve,
    )
    scale = fit_scale(joined, calibration)
    scaled = MembershipHead(
        joined.hidden_weights, joined.hidden_bias, joined.weights / scale, joined.bias / scale, joined.reserve
    )
    # Judged as it is stored.
    return MembershipHead.from_arrays(scaled.to_arrays())


def fit_scale(head: MembershipHead, calibration: Embedded) -> float:
    """
    What the log-odds are divided by, so that the chance of the top intent has the lowest log-loss in scope.

    It belongs to the head and not to the policy, since a temperature moves the probabilities that were laid out.
    """
    in_scope = calibration.targets.any(axis=1)
    chances = head.memberships(calibration.embeddings[in_scope])
    log_odds = logit(np.clip(chances.max(axis=1, initial=0.0), 1e-12, 1.0 - 1e-12))
    is_right = top_in_set(chances.argmax(axis=1), calibration.targets[in_scope])
    # A sigmoid is a softmax over the log-odds and 0.
    return fit_temperature(np.column_stack([log_odds, np.zeros_like(log_odds)]), np.column_stack([is_right, ~is_right]))


def _train(training: Embedded, settings: MembershipSettings, seed: int) -> MembershipHead:
    torch.manual_seed(seed)
    embeddings = torch.from_numpy(np.asarray(training.embeddings, dtype=np.float32))
    targets = torch.from_numpy(training.targets.astype(np.float32))
    hidden, output = nn.Linear(embeddings.shape[1], settings.units), nn.Linear(settings.units, targets.shape[1])
    drop = nn.Dropout(settings.dropout)
    network = nn.Sequential(drop, hidden, nn.ReLU(), drop, output)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    for _ in trange(settings.epochs, desc=f"membership head, seed {seed}", mininterval=5):
        for rows in torch.randperm(len(embeddings)).split(BATCH):
            loss = functional.binary_cross_entropy_with_logits(
                network(embeddings[rows]), targets[rows], reduction="sum"
            )
            optimizer.zero_grad(set_to_none=True)
            (loss / len(rows)).backward()
            optimizer.step()
    return MembershipHead(
        _array(hidden.weight.T), _array(hidden.bias), _array(output.weight.T), _array(output.bias), settings.reserve
    )


def _array(parameter: Tensor) -> FloatArray:
    return np.ascontiguousarray(parameter.detach().numpy())
