"""
Train a run on in 8 bits: ``python -m model_repo quantise --run DIR --data DIR --out DIR [--preset default]``.

The layers of the blocks round from here on as the serving engine will (``quantised``), and a short training, if the
preset has one, lets the network settle on the steps. Writes what ``train`` writes; the export of such a run is an int8
artefact.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from model_repo.pipeline.dataset import encode, read_utterances, to_tensors
from model_repo.pipeline.export import HALF_PRECISION_ABOVE, run_network
from model_repo.pipeline.network import RouterNetwork, load_checkpoint
from model_repo.pipeline.quantised import InputSteps, QuantisedLinear, quantise_layers, steps_of
from model_repo.pipeline.settings import Preset
from model_repo.pipeline.train import RECORD, finish, fit, is_finished, plain_tokenizer, save_run

MEASURED = 2000
"""Training utterances that the steps are measured on."""


class CannotQuantise(ValueError):
    """The preset does not say how, or the run rounds already."""


def quantise(run: Path, data: Path, out: Path, preset: Preset) -> Path:
    """
    Write the quantised run to ``out`` and give its checkpoint folder. ``data`` is what ``run`` was trained on.

    Goes on after the last whole epoch when it was interrupted, and keeps a finished run. Raises CannotQuantise,
    and OtherRun when ``out`` holds an interrupted run of other settings or on other data.
    """
    if preset.quantise is None:
        raise CannotQuantise(f"preset {preset.name} has no [quantise]")
    record = json.loads((run / RECORD).read_text(encoding="utf-8"))
    trained_epochs = record.pop("epochs")
    record["quantised"] = asdict(preset.quantise)
    if is_finished(out, record):
        print(f"{out} is trained already, with these settings on this data")
        return out / "checkpoint"
    trained = load_checkpoint(run / "checkpoint")
    network, tokenizer_file, taxonomy = trained.network, trained.tokenizer_file, trained.taxonomy
    if steps_of(network):
        raise CannotQuantise(f"{run} rounds already")
    tokenizer = plain_tokenizer(tokenizer_file)
    utterances, held_out = (read_utterances(data / f"{part}.jsonl") for part in ("train", "validation"))
    tensors, validation = (to_tensors(rows, tokenizer, taxonomy) for rows in (utterances, held_out))
    sample = np.random.default_rng(record["seed"]).permutation(len(utterances))[:MEASURED]
    quantise_layers(network, measured_steps(network, encode(tokenizer, [utterances[i].text for i in sample])))

    out.mkdir(parents=True, exist_ok=True)
    settings = preset.quantise.replaced_in(preset)
    history = fit(
        network,
        tensors,
        validation,
        held_out,
        out,
        taxonomy,
        settings,
        record["seed"],
        origin=record,
        until=preset.quantise.epochs,
        choosing_from=0,
    )
    halve_rest(network)
    save_run(out, network, tokenizer_file, taxonomy, data)
    finish(out, {**record, "epochs": [*trained_epochs, *history]})
    return out / "checkpoint"


def halve_rest(network: RouterNetwork) -> None:
    """
    Round what the export stores in half precision, so that the network is judged as it is stored.

    Afterwards it would be too late: a difference of 0.0005 takes inputs of the first layer to the next step, those
    take others further up, and 5% of the decisions were different.
    """
    integers = {id(module.weight) for module in network.modules() if isinstance(module, QuantisedLinear)}
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.numel() >= HALF_PRECISION_ABOVE and id(parameter) not in integers:
                parameter.copy_(parameter.half().float())


def measured_steps(network: RouterNetwork, utterances: Sequence[Sequence[int]]) -> dict[str, InputSteps]:
    """Steps that cover what the layers of the blocks are given for these token ids."""
    modules = network.encoder.named_modules(prefix="encoder")
    layers = {name: module for name, module in modules if isinstance(module, nn.Linear)}
    ends = dict.fromkeys(layers, (0.0, 0.0))

    def widen(name: str, _: nn.Module, given: tuple[Tensor, ...]) -> None:
        low, high = ends[name]
        ends[name] = (min(low, float(given[0].min())), max(high, float(given[0].max())))

    hooks = [layer.register_forward_pre_hook(partial(widen, name)) for name, layer in layers.items()]
    run_network(network, utterances)
    for hook in hooks:
        hook.remove()
    return {name: InputSteps.covering(*ends[name]) for name in layers}
