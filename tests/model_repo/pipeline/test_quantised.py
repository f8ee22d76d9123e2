"""Layers that round: to which steps, and with which gradient."""

import pytest
import torch
from torch import nn

from model_repo.pipeline.quantised import (
    INPUT_STEPS,
    WEIGHT_STEPS,
    InputSteps,
    QuantisedLinear,
    quantise_layers,
    steps_of,
)


def layer(steps: InputSteps, seed: int = 3) -> tuple[nn.Linear, QuantisedLinear]:
    """A layer and the same one, rounding."""
    torch.manual_seed(seed)
    linear = nn.Linear(5, 3)
    return linear, QuantisedLinear(linear, steps)


@pytest.mark.parametrize(("low", "high"), [(-3.0, 1.0), (0.5, 2.0), (-2.0, -1.0)])
def test_steps_reach_both_ends_and_hold_zero(low: float, high: float) -> None:
    """0 is what padding and masked context are made of; it is never rounded away."""
    steps = InputSteps.covering(low, high)
    assert 0 <= steps.zero_point <= INPUT_STEPS
    assert -steps.scale * steps.zero_point == pytest.approx(min(low, 0.0), abs=steps.scale)
    assert steps.scale * (INPUT_STEPS - steps.zero_point) == pytest.approx(max(high, 0.0), abs=steps.scale)


def test_nothing_but_zeros_still_has_steps() -> None:
    """A layer that was given only zeros divides by no zero."""
    steps = InputSteps.covering(0.0, 0.0)
    assert (steps.scale > 0, steps.zero_point) == (True, 0)


def test_every_weight_lies_on_one_of_127_steps_of_its_row() -> None:
    """Less than half a step away from where it was, and never more than the 7 bits that sum without overflow."""
    linear, rounding = layer(InputSteps.covering(-1, 1))
    rounded, trained = rounding.rounded_weight(), linear.weight
    scales = trained.abs().amax(1, keepdim=True) / WEIGHT_STEPS
    integers = rounded / scales
    torch.testing.assert_close(integers, integers.round(), atol=1e-3, rtol=0)
    assert integers.abs().max() <= WEIGHT_STEPS + 1e-3
    assert ((rounded - trained).abs() <= scales / 2 + 1e-6).all()
    assert not torch.equal(rounded, trained)


def test_two_products_fit_sixteen_bits() -> None:
    """CPUs without VNNI add them in pairs, and overflow silently."""
    assert 2 * INPUT_STEPS * WEIGHT_STEPS < 2**15


@pytest.mark.parametrize("training", [True, False])
def test_output_is_that_of_integers(training: bool) -> None:
    """As an engine computes it: sums of integer products, scaled at the end."""
    steps = InputSteps.covering(-2.0, 2.5)
    linear, rounding = layer(steps)
    rounding.train(training)
    inputs = torch.tensor([[0.3, -1.9, 2.5, 0.0, 9.0]])
    with torch.no_grad():
        got = rounding(inputs)
    codes = (inputs / steps.scale).round().add(steps.zero_point).clamp(0, INPUT_STEPS).to(torch.int64)
    scales = linear.weight.detach().abs().amax(1) / WEIGHT_STEPS
    weights = (linear.weight.detach() / scales[:, None]).round().to(torch.int64)
    sums = (codes - steps.zero_point) @ weights.T
    torch.testing.assert_close(got, sums * steps.scale * scales + linear.bias)


def test_judged_output_does_not_depend_on_the_order_of_its_sums() -> None:
    """CPUs sum in orders of their own; exact sums are the same in all."""
    torch.manual_seed(5)
    order, inputs, steps = torch.randperm(1536), 3.0 + torch.rand(64, 1536), InputSteps.covering(0.0, 4.0)
    linear, shuffled = nn.Linear(1536, 8), nn.Linear(1536, 8)
    nn.init.uniform_(linear.weight, 0.8, 1.0)
    shuffled.load_state_dict({"weight": linear.weight[:, order], "bias": linear.bias})
    one, other = (QuantisedLinear(each, steps).eval() for each in (linear, shuffled))
    with torch.no_grad():
        assert torch.equal(one(inputs), other(inputs[:, order]))


def test_weights_between_two_steps_go_the_same_way_in_training_and_judged() -> None:
    """One weight on another step shifts an output for every input, and that inputs of later layers."""
    torch.manual_seed(7)
    linear = nn.Linear(4096, 256)
    # Halves of a step, up to the last digit.
    scales = linear.weight.detach().abs().amax(1, keepdim=True) / WEIGHT_STEPS
    halves = (torch.randint(-WEIGHT_STEPS, WEIGHT_STEPS, linear.weight.shape) + 0.5) * scales
    with torch.no_grad():
        linear.weight.copy_(torch.where(linear.weight.abs() / scales > WEIGHT_STEPS - 0.1, linear.weight, halves))
    layer = QuantisedLinear(linear, InputSteps(1.0, 0))
    unit = torch.eye(4096)
    with torch.no_grad():
        torch.testing.assert_close(layer.eval()(unit), layer.train()(unit), atol=1e-6, rtol=0)


def test_gradient_passes_the_rounding_but_not_the_ends() -> None:
    """As if nothing were rounded, except for inputs beyond the last step."""
    linear, rounding = layer(InputSteps.covering(-1.0, 1.0))
    inputs = torch.tensor([[0.3, -0.9, 5.0, 0.0, 0.7]], requires_grad=True)
    rounding(inputs).sum().backward()
    assert inputs.grad is not None
    expected = rounding.rounded_weight().detach().sum(0)
    expected[2] = 0.0
    torch.testing.assert_close(inputs.grad[0], expected)
    assert linear.weight.grad is not None
    assert (linear.weight.grad[:, 0] != 0).all()


def test_only_named_layers_round_and_keep_their_parameters() -> None:
    """A checkpoint of the rounding network has the names of the one in fp32."""
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    steps = {"1": InputSteps(0.5, 128)}
    quantise_layers(network, steps)
    assert steps_of(network) == steps
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
