"""
Train one network: ``python -m model_repo train --data DIR --out DIR [--preset default] [--seed 42]``.

Reads train.jsonl and validation.jsonl; writes checkpoint/, outputs_validation.npz, outputs_test.npz and train.json
(settings, seed, data digests, losses, validation figures by epoch). Started again with the same arguments it goes on
after the last whole epoch, or leaves a finished run as it is.
"""

import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch.optim import AdamW
from tqdm import tqdm

from model_repo.contract.decision import energy
from model_repo.contract.labels import LabelledUtterance, Taxonomy
from model_repo.contract.outputs import ModelOutputs
from model_repo.pipeline.base_model import load_base
from model_repo.pipeline.dataset import TensorDataset, length_sorted_batches, read_utterances, to_tensors
from model_repo.pipeline.losses import choose, concentrate, total_loss
from model_repo.pipeline.network import RouterNetwork, save_checkpoint
from model_repo.pipeline.settings import Preset, TrainSettings
from model_repo.pipeline.vocabulary import add_word_pieces

STATE = "state.safetensors"
RECORD = "train.json"
INITIAL_SEED = 42
"""Of the heads' first weights, whatever the run's seed: only runs that start alike have weights worth averaging."""


class OtherRun(ValueError):
    """What lies in the folder is an interrupted run of other settings or on other data."""


def train(
    data: Path, out: Path, taxonomy: Taxonomy, preset: Preset, seed: int, stop_after: int | None = None
) -> Path | None:
    """
    Train on ``data``/train.jsonl and give the checkpoint folder; resumes an interrupted run, keeps a whole one.

    ``stop_after`` ends a slice of a long run after that many epochs in all and gives None: call again to go on.
    Raises OtherRun.
    """
    origin = _origin(data, preset, seed)
    if is_finished(out, origin):
        print(f"{out} is trained already, with these settings on this data")
        return out / "checkpoint"
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(INITIAL_SEED)
    utterances = read_utterances(data / "train.jsonl")
    encoder, tokenizer_file = load_base(preset.train.base)
    if preset.train.japanese_word_pieces:
        n_pieces = add_word_pieces(encoder, tokenizer_file, [u.text for u in utterances], out / "tokenizer.json")
        tokenizer_file = out / "tokenizer.json"
        print(f"vocabulary: {n_pieces} unused rows given to Japanese word pieces")
    tokenizer = plain_tokenizer(tokenizer_file)
    network = RouterNetwork(encoder, len(taxonomy.intents), preset.train.dropout)
    held_out = read_utterances(data / "validation.jsonl")
    tensors, validation = (to_tensors(rows, tokenizer, taxonomy) for rows in (utterances, held_out))

    bf16 = has_fast_bf16()
    epochs = preset.train.epochs if stop_after is None else min(stop_after, preset.train.epochs)
    history = fit(
        network, tensors, validation, held_out, out, taxonomy, preset, seed, origin=origin, until=epochs, bf16=bf16
    )
    if len(history) < preset.train.epochs:
        return None

    save_run(out, network, tokenizer_file, taxonomy, data)
    products = "bf16" if bf16 else "fp32"
    record = {**origin, "n_train": len(utterances), "products": products, "epochs": history}
    finish(out, record)
    return out / "checkpoint"


def save_run(out: Path, network: RouterNetwork, tokenizer_file: Path, taxonomy: Taxonomy, data: Path) -> None:
    """The checkpoint, and what it says of the parts of ``data`` that it was not trained on."""
    save_checkpoint(out / "checkpoint", network, tokenizer_file, taxonomy)
    tokenizer = plain_tokenizer(tokenizer_file)
    for part in ("validation", "test"):
        tensors = to_tensors(read_utterances(data / f"{part}.jsonl"), tokenizer, taxonomy)
        save_outputs(out / f"outputs_{part}.npz", predict(network, tensors))


def predict(network: RouterNetwork, tensors: TensorDataset, batch_size: int = 64, bf16: bool = False) -> ModelOutputs:
    """Outputs for every row, in order; evaluation mode, fp32, or with ``bf16`` products to learn from."""
    network.eval()
    lengths = [len(ids) for ids in tensors.token_ids]
    order = np.argsort(lengths, kind="stable")
    parts = []
    with torch.inference_mode():
        for start in tqdm(range(0, len(order), batch_size), desc="outputs", mininterval=5, leave=False):
            batch = tensors.batch(order[start : start + batch_size].tolist())
            parts.append([t.float().numpy() for t in network(batch.input_ids, batch.attention_mask, bf16)])
    back = np.argsort(order)
    logits, ages, embeddings = (np.concatenate(column)[back] for column in zip(*parts, strict=True))
    return ModelOutputs(logits, ages, embeddings)


def save_outputs(file: Path, outputs: ModelOutputs) -> None:
    """The three arrays under their names."""
    np.savez(file, logits=outputs.logits, age_logits=outputs.age_logits, embeddings=outputs.embeddings)


def load_outputs(file: Path) -> ModelOutputs:
    """Inverse of ``save_outputs``."""
    with np.load(file, allow_pickle=False) as arrays:
        return ModelOutputs(arrays["logits"], arrays["age_logits"], arrays["embeddings"])


def fit(
    network: RouterNetwork,
    tensors: TensorDataset,
    validation: TensorDataset,
    labelled: Sequence[LabelledUtterance],
    out: Path,
    taxonomy: Taxonomy,
    preset: Preset,
    seed: int,
    *,
    origin: Mapping[str, Any],
    until: int,
    choosing_from: int = 1,
    bf16: bool = False,
) -> list[dict[str, float]]:
    """
    Train ``network`` in place up to epoch ``until`` and give the figures of every epoch; resumes what lies in ``out``.

    From epoch ``choosing_from`` on (the first is 0) targets of several intents follow the network's own choice: one
    that has learnt nothing yet has none. ``bf16``: see RouterNetwork. Raises OtherRun when what lies in ``out`` has
    another ``origin``.
    """
    settings = preset.train
    frequencies = (tensors.targets > 0).sum(0)
    optimizer = _optimizer(network, settings)
    steps_per_epoch = math.ceil(len(tensors) / settings.batch_size)
    history = _resume(out / STATE, network, optimizer, origin)
    done, total = len(history) * steps_per_epoch, settings.epochs * steps_per_epoch
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: slanted_triangular(done + step, total, settings.warmup)
    )
    lengths = [len(ids) for ids in tensors.token_ids]
    for epoch in range(len(history), until):
        # Seeded by epoch, so that a resumed run goes on exactly as an uninterrupted one.
        torch.manual_seed(seed * 1000 + epoch)
        rng = np.random.default_rng([seed, epoch])
        network.train()
        summed, started = 0.0, time.monotonic()
        batches = length_sorted_batches(lengths, settings.batch_size, rng)
        for rows in tqdm(batches, total=steps_per_epoch, desc=f"epoch {epoch + 1}/{settings.epochs}", mininterval=5):
            batch = tensors.batch(rows)
            logits, age_logits, _ = network(batch.input_ids, batch.attention_mask, bf16)
            targets = batch.targets
            choice = choose(logits, targets, frequencies, preset.loss.choice_margin)
            if epoch >= choosing_from and preset.loss.choice_share:
                targets = concentrate(targets, choice, preset.loss.choice_share)
            loss = total_loss(logits, age_logits, targets, choice, batch.is_ood, batch.age, preset.loss)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            summed += float(loss.detach()) * len(rows)
        figures = {
            "epoch": epoch + 1,
            "loss": round(summed / len(tensors), 4),
            "seconds": round(time.monotonic() - started, 1),
            **quick_figures(predict(network, validation), labelled, taxonomy),
        }
        print(json.dumps(figures), flush=True)
        history.append(figures)
        _save_state(out / STATE, network, optimizer, history, origin)
    return history


def has_fast_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in matrix tiles (AMX), where a step takes two thirds of the time."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))


def slanted_triangular(step: int, total: int, warmup: float) -> float:
    """
    Learning-rate factor in [0, 1]: linear up over the warm-up share, linear down to 0 (Howard and Ruder 2018).

    >>> [slanted_triangular(s, 10, 0.2) for s in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    peak = max(1, round(total * warmup))
    if step < peak:
        return (step + 1) / peak
    return max(0.0, (total - step) / max(1, total - peak))


def quick_figures(outputs: ModelOutputs, labelled: Sequence[LabelledUtterance], taxonomy: Taxonomy) -> dict[str, float]:
    """Top-1 in the true set, overall and by language, and ood AUROC: to follow a run, not to report it."""
    from sklearn.metrics import roc_auc_score

    top = outputs.logits.argmax(1)
    hits: dict[str, list[bool]] = {}
    for row, utterance in enumerate(labelled):
        if not utterance.is_ood:
            hit = taxonomy.intents[top[row]] in utterance.intents
            for key in ("top1", f"top1_{utterance.lang}"):
                hits.setdefault(key, []).append(hit)
    figures = {key: round(float(np.mean(values)), 4) for key, values in sorted(hits.items())}
    is_ood = np.array([u.is_ood for u in labelled])
    if is_ood.any() and not is_ood.all():
        figures["ood_auroc"] = round(float(roc_auc_score(is_ood, energy(outputs.logits))), 4)
    return figures


def _optimizer(network: RouterNetwork, settings: TrainSettings) -> AdamW:
    """Discriminative learning rates: heads, then each layer ``layer_decay`` slower than the one above it."""
    layers = list(network.encoder.transformer.layer)
    groups: list[tuple[list[torch.nn.Parameter], float]] = [
        ([*network.classifier.parameters(), *network.age.parameters()], settings.head_learning_rate)
    ]
    for depth, layer in enumerate(reversed(layers)):
        groups.append((list(layer.parameters()), settings.encoder_learning_rate * settings.layer_decay**depth))
    lowest = settings.encoder_learning_rate * settings.layer_decay ** len(layers)
    groups.append((list(network.encoder.embeddings.parameters()), lowest))
    tables: list[dict[str, Any]] = []
    for parameters, rate in groups:
        for decays in (True, False):
            chosen = [p for p in parameters if (p.ndim > 1) == decays]
            tables.append({"params": chosen, "lr": rate, "weight_decay": settings.weight_decay if decays else 0.0})
    return AdamW(tables, fused=True)


def _save_state(
    file: Path, network: RouterNetwork, optimizer: AdamW, history: list[dict[str, float]], origin: Mapping[str, Any]
) -> None:
    tensors = {f"network.{k}": v.contiguous() for k, v in network.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            tensors[f"optimizer.{index}.{key}"] = torch.as_tensor(value)
    metadata = {"history": json.dumps(history), "origin": json.dumps(origin)}
    save_file(tensors, file.with_suffix(".new"), metadata=metadata)
    file.with_suffix(".new").replace(file)


def _resume(file: Path, network: RouterNetwork, optimizer: AdamW, origin: Mapping[str, Any]) -> list[dict[str, float]]:
    """Load the state of the last whole epoch; an empty history when there is none. Raises OtherRun."""
    if not file.is_file():
        return []
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    if metadata["origin"] != json.dumps(origin):
        raise OtherRun(
            f"{file} is of an interrupted run of other settings or on other data: remove it, or name another folder"
        )
    history: list[dict[str, float]] = json.loads(metadata["history"])
    tensors = load_file(file)
    network.load_state_dict({k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")})
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    print(f"resuming after epoch {len(history)}")
    return history


def plain_tokenizer(file: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _origin(data: Path, preset: Preset, seed: int) -> dict[str, Any]:
    """What makes a run what it is."""
    return {
        "preset": {"name": preset.name, "train": asdict(preset.train), "loss": asdict(preset.loss)},
        "seed": seed,
        "data_sha256": {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(data.glob("*.jsonl"))},
    }


def is_finished(out: Path, origin: Mapping[str, Any]) -> bool:
    """Whether ``out`` holds a whole run whose record has all that ``origin`` has."""
    if not (out / RECORD).is_file() or (out / STATE).is_file():
        return False
    record = json.loads((out / RECORD).read_text(encoding="utf-8"))
    # By way of JSON, which makes lists of tuples.
    return all(record.get(key) == value for key, value in json.loads(json.dumps(origin)).items())


def finish(out: Path, record: Mapping[str, Any]) -> None:
    """Write the record of a run that is whole, and drop what it would have been resumed from."""
    (out / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    (out / STATE).unlink(missing_ok=True)
