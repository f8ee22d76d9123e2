"""The packed graph gives each utterance what it would get alone."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from model_repo.contract.packing import pack
from model_repo.pipeline.network import RouterNetwork
from model_repo.pipeline.packed import MASKED, PackedRouter
from model_repo.pipeline.quantised import QuantisedLinear
from tests.tiny_artefact import quantised_network, tiny_network

UTTERANCES = ([2, 10, 11, 12, 3], [2, 3], [2, 40, 3], [2, *range(20, 60), 3])
SLOTS = 6


NETWORKS = pytest.mark.parametrize("made", [tiny_network, quantised_network])
"""One in fp32, and one that rounds."""


def run_packed(size: int | None = None, made: Callable[[], RouterNetwork] = tiny_network) -> tuple[Tensor, ...]:
    """All utterances in one row."""
    total = sum(map(len, UTTERANCES))
    row = pack(UTTERANCES, SLOTS, size or total)
    with torch.inference_mode():
        outputs = PackedRouter(made(), SLOTS).eval()(*map(torch.from_numpy, row.arrays))
    return tuple(outputs)


def run_alone(utterance: list[int], made: Callable[[], RouterNetwork]) -> tuple[Tensor, ...]:
    """One utterance through the network as it was trained."""
    ids = torch.tensor([utterance])
    with torch.inference_mode():
        return tuple(made()(ids, torch.ones_like(ids)))


@NETWORKS
@pytest.mark.parametrize("size", [None, 64])
def test_packed_row_equals_one_by_one_inference(size: int | None, made: Callable[[], RouterNetwork]) -> None:
    """Logits, age logits and embeddings agree to 1e-5, with and without padding at the end of the row."""
    packed = run_packed(size, made)
    for slot, utterance in enumerate(UTTERANCES):
        for together, alone in zip(packed, run_alone(utterance, made), strict=True):
            torch.testing.assert_close(together[slot], alone[0], atol=1e-5, rtol=1e-5)


def test_utterances_differ_from_each_other() -> None:
    """The parity above means something: the rows of this model are far apart."""
    logits = run_packed()[0][: len(UTTERANCES)]
    assert torch.cdist(logits, logits).add(torch.eye(len(UTTERANCES)) * 9).min() > 0.05


def test_a_neighbour_changes_nothing() -> None:
    """An utterance's logits do not depend on who shares its row."""
    model = PackedRouter(tiny_network(), SLOTS).eval()
    first = list(UTTERANCES[0])
    with torch.inference_mode():
        beside_short = model(*map(torch.from_numpy, pack([first, [2, 3]], SLOTS, 7).arrays))[0][0]
        beside_long = model(*map(torch.from_numpy, pack([first, [2, *[70] * 40, 3]], SLOTS, 47).arrays))[0][0]
    torch.testing.assert_close(beside_short, beside_long, atol=1e-6, rtol=1e-6)


def test_attention_to_another_utterance_is_nothing_in_fp32_and_no_denormal() -> None:
    """For scores as far apart as trained networks have them: 16 above the best of one's own, or 30 below."""
    shares = torch.softmax(torch.tensor([0.0, 16.0 + MASKED, MASKED - 30.0]), dim=0)
    assert shares[0] == 1.0
    assert (shares >= torch.finfo(torch.float32).tiny).all()


def test_rows_without_an_utterance_are_finite() -> None:
    """Empty slots pool nothing and never divide by zero."""
    assert all(torch.isfinite(output).all() for output in run_packed(64))


def test_layers_of_one_input_that_round_it_differently_are_refused() -> None:
    """One graph node rounds for query, key and value."""
    network = quantised_network()
    query = network.encoder.transformer.layer[0].attention.q_lin
    assert isinstance(query, QuantisedLinear)
    query.rounding.steps = replace(query.rounding.steps, zero_point=query.rounding.steps.zero_point + 1)
    with pytest.raises(ValueError, match="round it differently"):
        PackedRouter(network, SLOTS)
