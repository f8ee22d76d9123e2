"""What every program must show on every core before a customer's message reaches it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from model_repo.contract.decision import sigmoid, softmax
from model_repo.contract.neuron import NeuronRefused, Refusal
from model_repo.contract.outputs import FloatArray, ModelOutputs, concatenate
from model_repo.contract.packing import PackedRow, pack, rows
from service.backends.neuron_artefact import Golden
from service.backends.neuron_runtime import Program


@dataclass(frozen=True)
class Tolerances:
    """How far the device may be from the trained network in fp32. Proposed for bf16; no device has confirmed them."""

    probability: float = 0.02
    """Largest difference of one probability, at temperature 1."""
    cosine: float = 0.999
    """Smallest cosine of an embedding with its own in fp32."""
    padding: float = 1e-3
    """Largest change of a logit when only padding or a neighbour changes: the mask must hide both."""


def check_golden(program: Program, size: int, slots: int, golden: Golden, allowed: Tolerances) -> None:
    """
    Run the golden utterances that fit ``size``, packed, and compare; raises NeuronRefused (parity_failed).

    A mask that was traced away shows here too: utterances share rows.
    """
    chosen = [index for index, utterance in enumerate(golden.utterances) if len(utterance) <= size]
    if not chosen:
        return
    groups = rows([golden.utterances[index] for index in chosen], slots, size)
    got = concatenate([run_row(program, group, size, slots) for group in groups])
    if not got.is_finite():
        raise _failed(size, "a logit is NaN or infinite")
    wanted = golden.outputs
    difference = max(
        float(np.abs(softmax(got.logits) - softmax(wanted.logits[chosen])).max()),
        float(np.abs(sigmoid(got.age_logits) - sigmoid(wanted.age_logits[chosen])).max()),
    )
    if difference > allowed.probability:
        raise _failed(size, f"a probability differs by {difference:.4f}, at most {allowed.probability} may")
    cosine = float(cosines(got.embeddings, wanted.embeddings[chosen]).min())
    if cosine < allowed.cosine:
        raise _failed(size, f"an embedding has cosine {cosine:.5f}, at least {allowed.cosine} must it have")


def check_mask(program: Program, size: int, slots: int, golden: Golden, allowed: Tolerances) -> None:
    """
    Change only padding, then only a neighbour: the first utterance must not move. Then change itself: it must.

    Raises NeuronRefused (parity_failed) for a program whose mask is dead, or that ignores its input.
    """
    first = next((utterance for utterance in golden.utterances if len(utterance) <= size // 2), None)
    if first is None:
        return
    alone = pack([first], slots, size)
    before = program(*alone.arrays)[0][0]
    beside = pack([first, first[::-1]], slots, size)
    for what, row in (("padding", _with_padding_of(alone, first)), ("a neighbour", beside)):
        moved = float(np.abs(program(*row.arrays)[0][0] - before).max())
        if not moved <= allowed.padding:
            raise _failed(size, f"{what} moves a logit by {moved:.4f}, at most {allowed.padding} may it: a dead mask")
    other = next(utterance for utterance in golden.utterances if utterance != first and len(utterance) <= size)
    if np.array_equal(program(*pack([other], slots, size).arrays)[0][0], before):
        raise _failed(size, "two different utterances have the same logits: the input is ignored")


def run_row(program: Program, utterances: Sequence[Sequence[int]], size: int, slots: int) -> ModelOutputs:
    """One call; a row of outputs for each utterance."""
    outputs = program(*pack(utterances, slots, size).arrays)
    return ModelOutputs(*(output[: len(utterances)] for output in outputs))


def median_seconds(call: Callable[[], object], times: int, clock: Callable[[], float]) -> float:
    """What a call takes; the first ones, which are slower, do not sway a median."""
    taken = []
    for _ in range(times):
        began = clock()
        call()
        taken.append(clock() - began)
    return float(np.median(taken))


def cosines(left: FloatArray, right: FloatArray) -> FloatArray:
    """
    Of each row with its counterpart.

    >>> cosines(np.array([[3.0, 4.0]]), np.array([[4.0, 3.0]])).round(2).tolist()
    [0.96]
    """
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return np.asarray((left * right).sum(axis=1) / np.maximum(norms, 1e-12))


def _with_padding_of(row: PackedRow, ids: Sequence[int]) -> PackedRow:
    """The same row with an utterance's ids where padding was; the segments still call them padding."""
    used = len(ids)
    token_ids = row.token_ids.copy()
    token_ids[used:] = np.resize(np.asarray(ids, dtype=np.int32), row.token_ids.size - used)
    return PackedRow(token_ids, row.positions, row.segments)


def _failed(size: int, what: str) -> NeuronRefused:
    return NeuronRefused(Refusal.PARITY_FAILED, f"program of {size} tokens: {what}")
