"""The losses are what their sources say, and pull the right way."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from model_repo.pipeline.losses import (
    LossWeights,
    choose,
    concentrate,
    energy_loss,
    focal_loss,
    others_loss,
    total_loss,
)


def test_focal_loss_with_gamma_zero_is_cross_entropy() -> None:
    """Against torch's own cross-entropy with soft targets."""
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]])
    targets = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
    expected = functional.cross_entropy(logits, targets, reduction="none")
    assert torch.allclose(focal_loss(logits, targets, 0.0, 0.0), expected)


def test_focal_loss_attends_less_to_what_is_right_already() -> None:
    """The share of an easy utterance in the loss falls as gamma grows."""
    logits, targets = torch.tensor([[6.0, 0.0], [0.0, 0.5]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    plain, focal = (focal_loss(logits, targets, gamma, 0.0) for gamma in (0.0, 2.0))
    assert focal[0] / focal[1] < plain[0] / plain[1]


def test_energy_loss_pulls_ood_below_the_margin_and_the_rest_above() -> None:
    """The gradient raises logits in scope and lowers them out of scope."""
    logits = torch.zeros(2, 3, requires_grad=True)
    energy_loss(logits, torch.tensor([False, True]), margin=4.0).sum().backward()
    assert logits.grad is not None
    assert (logits.grad[0] < 0).all()
    assert (logits.grad[1] > 0).all()


def test_unknown_age_and_ood_targets_do_not_count() -> None:
    """Changing what must be ignored changes nothing."""
    weights = LossWeights(0.0, 0.0, 0.0, 0.0, age=1.0, choice_share=0.0, choice_margin=0.0, others=0.0)
    choice = torch.tensor([[0], [0]])
    logits, is_ood = torch.tensor([[1.0, 0.0], [0.3, 2.0]]), torch.tensor([False, True])
    age = torch.tensor([1.0, float("nan")])
    targets = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    other = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    first = total_loss(logits, torch.tensor([0.2, 5.0]), targets, choice, is_ood, age, weights)
    second = total_loss(logits, torch.tensor([0.2, -5.0]), other, choice, is_ood, age, weights)
    assert torch.isfinite(first)
    assert torch.equal(first, second)


def test_draw_goes_to_the_rarest_and_a_clear_lead_to_the_leader() -> None:
    """Only carried intents take part, whatever the logits of the rest."""
    logits = torch.tensor([[4.0, 2.0, 9.0], [4.0, 0.5, 9.0], [4.0, 2.0, 1.5]])
    targets = torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    assert choose(logits, targets, torch.tensor([90, 20, 10]), margin=3.0).squeeze(1).tolist() == [1, 0, 2]
    assert choose(logits, targets, torch.tensor([90, 20, 10]), margin=0.0).squeeze(1).tolist() == [0, 0, 0]


def test_concentrated_targets_still_sum_to_one_and_leave_single_intents_alone() -> None:
    """Two and three carried intents, one, and none."""
    targets = torch.tensor([[0.5, 0.5, 0.0], [1 / 3, 1 / 3, 1 / 3], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    got = concentrate(targets, torch.tensor([[0], [2], [1], [0]]), 0.8)
    expected = torch.tensor([[0.8, 0.2, 0.0], [0.1, 0.1, 0.8], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    assert torch.allclose(got, expected)


def test_others_are_asked_for_whatever_share_is_left_for_them() -> None:
    """The gradient raises what is carried besides the chosen one, at full strength, and leaves the choice alone."""
    logits = torch.tensor([[3.0, 0.0, 0.0, 0.0], [0.0, 1.0, 5.0, 0.0]], requires_grad=True)
    targets = torch.tensor([[0.99, 0.01, 0.0, 0.0], [0.02, 0.96, 0.0, 0.02]])
    others_loss(logits, targets, torch.tensor([[0], [1]])).sum().backward()
    assert logits.grad is not None
    assert logits.grad[0].tolist() == pytest.approx([0.0, 1 / 3 - 1, 1 / 3, 1 / 3], abs=1e-5)
    assert logits.grad[1, 1] == 0.0
    assert (logits.grad[1, [0, 3]] < -0.4).all()
    assert logits.grad[1, 2] > 0.9


def test_utterances_of_one_intent_or_none_have_no_others() -> None:
    """No loss, no gradient, and no NaN."""
    logits = torch.tensor([[3.0, 0.0, -900.0], [0.0, 1.0, 900.0]], requires_grad=True)
    loss = others_loss(logits, torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]), torch.tensor([[0], [0]]))
    loss.sum().backward()
    assert logits.grad is not None
    assert loss.tolist() == [0.0, 0.0]
    assert not logits.grad.any()


def test_others_count_by_their_weight() -> None:
    """In the mean over the batch."""
    base = LossWeights(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, others=0.0)
    logits, targets = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), torch.tensor([[0.9, 0.1, 0.0], [0.0, 1.0, 0.0]])
    choice = torch.tensor([[0], [1]])
    rest = (torch.zeros(2), targets, choice, torch.tensor([False, False]), torch.full((2,), float("nan")))
    without, with_others = (total_loss(logits, *rest, weights) for weights in (base, replace(base, others=3.0)))
    assert (with_others - without).item() == pytest.approx(3.0 * math.log(2) / 2)
