"""
Linear layers that compute as engines do in 8 bits, rounding included, so that a network can be trained with it.

What goes into a layer is rounded to 256 steps of one size, its weights to 127 steps, of a size for each output.
An engine's products are then exact sums of integers: it computes what was trained, whoever shares the micro-batch. The
gradient passes the rounding as if it were not there (straight through: Jacob et al. 2018).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

INPUT_STEPS = 255
WEIGHT_STEPS = 63
"""
On each side of 0: weights of 7 bits. CPUs without VNNI add pairs of products in 16 bits, where pairs of 8 by 8 bits
overflow, silently.
"""


@dataclass(frozen=True)
class InputSteps:
    """How what goes into a layer is rounded: to ``scale`` * (0..255 - ``zero_point``)."""

    scale: float
    zero_point: int

    @staticmethod
    def covering(low: float, high: float) -> "InputSteps":
        """
        The smallest steps that reach from ``low`` to ``high``, with 0 on one of them.

        >>> InputSteps.covering(-1.0, 254.0)
        InputSteps(scale=1.0, zero_point=1)
        """
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max((high - low) / INPUT_STEPS, 1e-6)
        return InputSteps(scale, round(-low / scale))


class Rounding(nn.Module):
    """Rounds what passes to ``steps``."""

    def __init__(self, steps: InputSteps) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, hidden: Tensor) -> Tensor:
        """Any shape; what lies beyond the steps becomes the last one."""
        return torch.fake_quantize_per_tensor_affine(hidden, self.steps.scale, self.steps.zero_point, 0, INPUT_STEPS)


class QuantisedLinear(nn.Linear):
    """A linear layer with rounded inputs and weights. It keeps and trains the unrounded ones, under the same names."""

    def __init__(self, linear: nn.Linear, steps: InputSteps) -> None:
        """Takes over the parameters of ``linear``."""
        super().__init__(linear.in_features, linear.out_features, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.rounding = Rounding(steps)

    def forward(self, hidden: Tensor) -> Tensor:
        """
        (..., in) -> (..., out). In evaluation the sums are exact, as an engine's are.

        Sums in fp32 depend on their order, which differs among CPUs, and a last digit can carry an input of the next
        layer to another step: on a CPU with AMX 0.5% of the decisions were not the engine's, with exact sums 0.1%.
        """
        if self.training:
            return functional.linear(self.rounding(hidden), self.rounded_weight(), self.bias)
        scales = weight_scales(self.weight.detach())
        inputs = (hidden / self.rounding.steps.scale).round() + self.rounding.steps.zero_point
        inputs = inputs.clamp(0, INPUT_STEPS) - self.rounding.steps.zero_point
        # By way of what is exported: a weight in the middle between two steps may go either way.
        weights = (self.rounded_weight() / scales[:, None]).round()
        sums = functional.linear(inputs.double(), weights.double()).to(hidden.dtype)
        return sums * (scales * self.rounding.steps.scale) + self.bias

    def rounded_weight(self) -> Tensor:
        """(out, in) weights, each on a step of its row."""
        scales = weight_scales(self.weight.detach())
        zeros = torch.zeros_like(scales, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(self.weight, scales, zeros, 0, -WEIGHT_STEPS, WEIGHT_STEPS)


def weight_scales(weight: Tensor) -> Tensor:
    """(out,) step sizes of (out, in) weights: the largest of a row lies on its last step."""
    return weight.abs().amax(dim=1).clamp(min=1e-8) / WEIGHT_STEPS


def quantise_layers(network: nn.Module, steps: Mapping[str, InputSteps]) -> None:
    """From now on the linear layers named in ``steps`` round."""
    for name, of_inputs in steps.items():
        parent, _, child = name.rpartition(".")
        layer = cast(nn.Linear, network.get_submodule(name))
        setattr(network.get_submodule(parent), child, QuantisedLinear(layer, of_inputs))


def steps_of(network: nn.Module) -> dict[str, InputSteps]:
    """The steps of every layer that rounds, by name; empty for a network in fp32."""
    return {
        name: module.rounding.steps for name, module in network.named_modules() if isinstance(module, QuantisedLinear)
    }
