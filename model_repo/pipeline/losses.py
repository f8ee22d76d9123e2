"""What training minimises: focal loss on soft targets, the other intents, a margin on the energy, age-sensitivity."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class LossWeights:
    """How the parts add up; see the presets for the values that were chosen."""

    focal_gamma: float
    """Lin et al. 2017; 0 is cross-entropy. Higher pays less attention to what is already right."""
    label_smoothing: float
    energy: float
    """Weight of the ood part; 0 leaves the energy untrained."""
    energy_margin: float
    """Centre of the energy margin: trained so that -energy is above it in scope and below it out of scope."""
    age: float
    choice_share: float
    """
    Of an utterance with several intents, the share of the target on one of them (``choose``), from the second epoch
    on; the others split the rest. Even shares (0 turns this off) would hold the top probability near 1/m although it
    is right 19 times in 20, which no temperature can mend.
    """
    choice_margin: float
    """
    Carried intents whose logits lie within this of the highest carried one are a draw, which goes to the rarest of
    them in training. At 0 the network's own order decides, which tears it where two are equally clear.
    """
    others: float
    """
    Weight of the part that asks which intents are carried besides the chosen one. The less of the target is left for
    them, the less the focal part teaches of them: this one asks for their order alone, whatever they share.
    """


def focal_loss(logits: Tensor, targets: Tensor, gamma: float, smoothing: float) -> Tensor:
    """
    (n,) focal cross-entropy against soft targets (n, K), rows summing to 1.

    Generalises Lin et al. 2017 to distributions: sum_k q_k |q_k - p_k|^gamma (-log p_k), as in
    quality focal loss (Li et al. 2020); with gamma 0 it is cross-entropy.
    """
    n_intents = logits.shape[1]
    smooth = targets * (1 - smoothing) + smoothing / n_intents
    log_probabilities = functional.log_softmax(logits, dim=1)
    weights = (smooth - log_probabilities.exp()).abs().pow(gamma) if gamma else 1.0
    return -(smooth * weights * log_probabilities).sum(1)


def choose(logits: Tensor, targets: Tensor, frequencies: Tensor, margin: float) -> Tensor:
    """
    (n, 1) the carried intent that the others stand back behind; anything where none is carried.

    It is the one of the highest logit; of several within ``margin`` of that, the one least frequent in training
    (``frequencies``, (K,)), so that the same pair of intents is always ordered the same way.

    >>> logits, targets = torch.tensor([[9.0, 2.0, 1.0]]), torch.tensor([[0.0, 0.5, 0.5]])
    >>> [choose(logits, targets, torch.tensor([50, 40, 30]), margin).item() for margin in (0.0, 3.0)]
    [1, 2]
    """
    of_carried = logits.detach().masked_fill(targets <= 0, float("-inf"))
    drawn = of_carried >= of_carried.amax(1, keepdim=True) - margin
    return torch.where(drawn, frequencies.to(logits.dtype), float("inf")).argmin(1, keepdim=True)


def concentrate(targets: Tensor, choice: Tensor, share: float) -> Tensor:
    """
    (n, K) targets with ``share`` moved to the chosen intent (n, 1), where several are carried.

    >>> concentrate(torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([[1]]), 0.8).tolist()[0][1].__round__(3)
    0.8
    """
    carried = targets > 0
    count = carried.sum(1, keepdim=True)
    rest = (1 - share) / (count - 1).clamp(min=1)
    moved = (carried * rest).to(targets.dtype).scatter(1, choice, share)
    return torch.where(count > 1, moved, targets)


def others_loss(logits: Tensor, targets: Tensor, choice: Tensor) -> Tensor:
    """
    (n,) cross-entropy of the intents carried besides the chosen one (n, 1), among all but that; 0 for one intent.

    >>> logits, targets = torch.tensor([[9.0, 0.0, 0.0]] * 2), torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    >>> others_loss(logits, targets, torch.tensor([[0], [0]]))
    tensor([0.6931, 0.0000])
    """
    carried = targets > 0
    others = carried.to(logits.dtype).scatter(1, choice, 0.0)
    shares = others / others.sum(1, keepdim=True).clamp(min=1.0)
    # A large finite number rather than -inf, which times a share of 0 would be NaN.
    log_probabilities = functional.log_softmax(logits.scatter(1, choice, -1e4), dim=1)
    return (shares * -log_probabilities).sum(1)


def energy_loss(logits: Tensor, is_ood: Tensor, margin: float) -> Tensor:
    """
    (n,) logistic loss on the free energy: outlier exposure (Hendrycks et al. 2019) on the score of Liu et al. 2020.

    softplus keeps a pull on near-ood utterances that a squared hinge drops once they are past its edge.
    """
    familiarity = torch.logsumexp(logits, dim=1) - margin
    return functional.softplus(torch.where(is_ood, familiarity, -familiarity))


def total_loss(
    logits: Tensor,
    age_logits: Tensor,
    targets: Tensor,
    choice: Tensor,
    is_ood: Tensor,
    age: Tensor,
    weights: LossWeights,
) -> Tensor:
    """
    Mean loss of a batch. ``targets`` rows of ood utterances are ignored; ``age`` is NaN where it is not known.
    """
    in_scope = (~is_ood).to(logits.dtype)
    loss = (focal_loss(logits, targets, weights.focal_gamma, weights.label_smoothing) * in_scope).sum() / len(logits)
    if weights.others:
        loss = loss + weights.others * others_loss(logits, targets, choice).sum() / len(logits)
    if weights.energy:
        loss = loss + weights.energy * energy_loss(logits, is_ood, weights.energy_margin).mean()
    known = ~age.isnan()
    if weights.age and bool(known.any()):
        age_part = functional.binary_cross_entropy_with_logits(age_logits[known], age[known], reduction="sum")
        loss = loss + weights.age * age_part / len(logits)
    return loss
