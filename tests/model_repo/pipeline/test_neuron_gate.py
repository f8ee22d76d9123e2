"""The gate passes what decides alike and names what does not; emulated bfloat16 rounds what it says."""

import dataclasses

import numpy as np
import pytest
import torch

from model_repo.contract.decision import decide
from model_repo.contract.outputs import ModelOutputs
from model_repo.pipeline.export import run_network
from model_repo.pipeline.neuron_gate import Bfloat16Products, gate, run_emulated, threshold_distances
from model_repo.pipeline.packed import PackedRouter
from tests.tiny_artefact import POLICY, tiny_network

N = 1000


def outputs() -> ModelOutputs:
    """Clear decisions for in-scope rows; every fifth row is flat, so its energy is high."""
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 0.3, size=(N, 3))
    logits[np.arange(N), rng.integers(0, 3, N)] += 6.0
    logits[::5] = rng.normal(-2.5, 0.2, size=(N // 5, 3))
    return ModelOutputs(logits, rng.normal(-5, 1, N), rng.normal(size=(N, 8)))


TRUTH = (outputs().logits == outputs().logits.max(axis=1, keepdims=True)) & (np.arange(N) % 5 != 0)[:, None]
"""The most probable intent of each row; every fifth row is ood."""


def failures(candidate: ModelOutputs) -> str:
    """What the gate says of it."""
    return "; ".join(gate(outputs(), candidate, POLICY, TRUTH, "test").failures)


def test_equal_outputs_pass() -> None:
    """With every figure perfect."""
    report = gate(outputs(), outputs(), POLICY, TRUTH, "test")
    assert report.is_passed
    assert (report.n, report.decisions_equal, report.max_probability_difference) == (N, 1.0, 0.0)
    assert report.ood_auroc_difference == report.ece_difference == 0.0


def test_without_labels_of_both_kinds_neither_ranking_nor_calibration_is_judged() -> None:
    """They are not counted as kept."""
    for truth in (None, np.ones((N, 3), dtype=bool)):
        report = gate(outputs(), outputs(), POLICY, truth, "test")
        assert report.ood_auroc_difference is report.ece_difference is None


def test_flattened_probabilities_fail_on_calibration() -> None:
    """Though no decision's top intent changes."""
    before = outputs()
    assert "ece_difference" in failures(dataclasses.replace(before, logits=before.logits * 0.7))


def test_noise_of_a_thousandth_passes() -> None:
    """As low precision makes."""
    before = outputs()
    noise = np.random.default_rng(6).normal(0, 1e-3, before.logits.shape)
    assert failures(dataclasses.replace(before, logits=before.logits + noise)) == ""


def test_swapped_intents_fail() -> None:
    """Decisions far from any threshold differ."""
    before = outputs()
    found = failures(dataclasses.replace(before, logits=before.logits[:, ::-1].copy()))
    assert "decisions_equal" in found
    assert "furthest_from_threshold" in found
    assert "max_probability_difference" in found


def test_one_far_difference_fails_though_the_share_is_kept() -> None:
    """One in a thousand decisions may differ, but not from far."""
    before = outputs()
    logits = before.logits.copy()
    logits[1] = logits[1][[1, 2, 0]]
    found = failures(dataclasses.replace(before, logits=logits))
    assert "decisions_equal" not in found
    assert "furthest_from_threshold" in found


def test_turned_embedding_fails() -> None:
    """Drift is measured on embeddings too."""
    before = outputs()
    embeddings = before.embeddings.copy()
    embeddings[3] = -embeddings[3]
    assert "min_cosine is -1.00000" in failures(dataclasses.replace(before, embeddings=embeddings))


@pytest.mark.parametrize("field", ["logits", "age_logits", "embeddings"])
def test_nan_fails(field: str) -> None:
    """Wherever it is."""
    bad = getattr(outputs(), field).copy()
    bad[7] = np.nan
    assert "NaN" in failures(dataclasses.replace(outputs(), **{field: bad}))


def test_distance_to_another_decision() -> None:
    """The nearest of threshold, runner-up and cut."""
    near = ModelOutputs(np.array([[3.0, 3.0, -9.0], [9.0, 0.0, 0.0]]), np.full(2, -9.0), np.zeros((2, 1)))
    distances = threshold_distances(decide(near, POLICY), POLICY)
    assert distances[0] == pytest.approx(0.0, abs=1e-6)
    assert distances[1] > 0.3


UTTERANCES = [[2, *range(10, 10 + length), 3] for length in (1, 5, 0, 44, 12, 3)]


def test_emulation_rounds_the_products_and_nothing_else() -> None:
    """Near the trained network and not equal to it; a product equals one of rounded factors summed in fp32."""
    network = tiny_network()
    exact = run_network(network, UTTERANCES)
    emulated = run_emulated(PackedRouter(network, 32).eval(), UTTERANCES)
    drift = np.abs(exact.logits - emulated.logits).max()
    assert 1e-5 < drift < 0.5
    left, right = torch.randn(3, 4), torch.randn(4, 5)
    with torch.no_grad(), Bfloat16Products() as mode:
        product = left @ right
        total = left + 1e-4
    assert mode.rounded == 1
    torch.testing.assert_close(product, left.bfloat16().float() @ right.bfloat16().float())
    torch.testing.assert_close(total, left + 1e-4, atol=0, rtol=0)
