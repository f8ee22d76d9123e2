"""The self-check on programs of a few lines: each way to be wrong is told apart."""

from collections.abc import Callable

import numpy as np
import pytest

from model_repo.contract.neuron import NeuronRefused, Refusal
from model_repo.contract.outputs import FloatArray, ModelOutputs
from model_repo.contract.packing import Int32Array
from service.backends.neuron_artefact import Golden
from service.backends.neuron_runtime import Arrays
from service.backends.neuron_self_check import Tolerances, check_golden, check_mask, median_seconds

SLOTS, SIZE = 4, 12
UTTERANCES = ((1, 2), (3, 1, 2), (2, 5, 5, 1), (1,) * 11, (1,) * 20)


def pooled(ids: Int32Array, segments: Int32Array) -> FloatArray:
    """(slots, 2): count and sum of the ids of each segment, scaled to the size of logits."""
    member = segments[None, :] == np.arange(SLOTS)[:, None]
    return np.stack([member.sum(1), (member * ids).sum(1)], axis=1).astype(np.float32) / 4


def alive(ids: Int32Array, positions: Int32Array, segments: Int32Array) -> Arrays:
    """Each utterance sees itself."""
    rows = pooled(ids, segments)
    return rows, rows[:, 0] - 2, rows + 1


def leaking(ids: Int32Array, positions: Int32Array, segments: Int32Array) -> Arrays:
    """Every utterance sees the whole row."""
    rows = pooled(ids, segments) + float(ids.sum()) * np.array([0.0, 0.01], dtype=np.float32)
    return rows, rows[:, 0] - 2, rows + 1


def deaf(ids: Int32Array, positions: Int32Array, segments: Int32Array) -> Arrays:
    """Nothing is seen."""
    rows = np.ones((SLOTS, 2), dtype=np.float32)
    return rows, rows[:, 0], rows


def golden() -> Golden:
    """What the living program gives for each utterance alone."""
    rows = np.concatenate(
        [pooled(np.array(u, dtype=np.int32), np.zeros(len(u), dtype=np.int32))[:1] for u in UTTERANCES]
    )
    return Golden(UTTERANCES, ModelOutputs(rows, rows[:, 0] - 2, rows + 1))


def moved(logit: float = 0.0, age: float = 0.0, turn: bool = False) -> Callable[..., Arrays]:
    """The living program, off by so much."""

    def program(ids: Int32Array, positions: Int32Array, segments: Int32Array) -> Arrays:
        logits, ages, embeddings = alive(ids, positions, segments)
        return logits + np.array([logit, 0.0], dtype=np.float32), ages + age, embeddings * (-1 if turn else 1)

    return program


def test_living_program_passes_both_checks() -> None:
    """Utterances longer than the program are left out."""
    check_golden(alive, SIZE, SLOTS, golden(), Tolerances())
    check_mask(alive, SIZE, SLOTS, golden(), Tolerances())


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (moved(logit=0.5), "a probability differs"),
        (moved(age=0.5), "a probability differs"),
        (moved(turn=True), r"an embedding has cosine -1\.0"),
        (moved(logit=np.nan), "NaN or infinite"),
        (leaking, "a probability differs"),
    ],
)
def test_golden_rows_tell_what_differs(program: Callable[..., Arrays], message: str) -> None:
    """With the value and the limit."""
    with pytest.raises(NeuronRefused, match=message) as refused:
        check_golden(program, SIZE, SLOTS, golden(), Tolerances())
    assert refused.value.reason is Refusal.PARITY_FAILED


@pytest.mark.parametrize(("program", "message"), [(leaking, "a dead mask"), (deaf, "the input is ignored")])
def test_mask_check_tells_dead_from_deaf(program: Callable[..., Arrays], message: str) -> None:
    """A mask that hides nothing, and a program that listens to nothing."""
    with pytest.raises(NeuronRefused, match=message):
        check_mask(program, SIZE, SLOTS, golden(), Tolerances())


def test_difference_within_the_tolerance_passes() -> None:
    """As bfloat16 makes."""
    check_golden(moved(logit=0.01, age=0.01), SIZE, SLOTS, golden(), Tolerances())


def test_first_slow_calls_do_not_sway_the_time() -> None:
    """Nine seconds, then one each."""
    clock = iter([0.0, 9.0, 9.0, 10.0, 10.0, 11.0]).__next__
    assert median_seconds(lambda: None, 3, clock) == 1.0
