"""What is laid into one softmax can be told apart again: how sure the first intent is, and which others are carried."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from model_repo.contract.decision import energy, softmax
from model_repo.contract.errors import BadManifest
from model_repo.contract.membership import CONSIDERED, FULL, MembershipHead, laid_out
from model_repo.contract.outputs import ModelOutputs

RESERVE = 0.042
CHANCES = hnp.arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(2, 12)), elements=st.floats(0.0, 1.0))


def _head(reserve: float = 0.2) -> MembershipHead:
    rng = np.random.default_rng(3)
    hidden_weights, hidden_bias, weights, bias = (rng.normal(size=shape) for shape in ((8, 6), (6,), (6, 4), (4,)))
    return MembershipHead(hidden_weights, hidden_bias, weights, bias, reserve)


def _outputs(n: int = 5) -> ModelOutputs:
    rng = np.random.default_rng(4)
    return ModelOutputs(rng.normal(size=(n, 4)), rng.normal(size=n), rng.normal(size=(n, 8)))


@given(CHANCES)
def test_laid_out_is_a_distribution_whose_top_is_the_likeliest(chances: np.ndarray) -> None:
    """Whatever the chances are."""
    laid = laid_out(chances, min(RESERVE, 1.0 / chances.shape[1]))
    assert np.allclose(laid.sum(axis=1), 1.0)
    assert laid.min() >= -1e-12
    rows = np.arange(len(chances))
    assert np.array_equal(chances[rows, laid.argmax(axis=1)], chances.max(axis=1))


@given(CHANCES)
def test_order_of_the_others_is_never_turned_round(chances: np.ndarray) -> None:
    """It may be lost where they are covered, but a likelier one never has less."""
    laid = laid_out(chances, min(RESERVE, 1.0 / chances.shape[1]))
    order = np.argsort(-chances, axis=1, kind="stable")
    assert np.diff(np.take_along_axis(laid, order, axis=1), axis=1).max(initial=0.0) <= 1e-12


def test_unsure_top_and_second_intent_are_told_apart() -> None:
    """The point of it: 0.65 against 0.35 of one request, and two requests for certain."""
    chances = np.full((2, 10), 0.001)
    chances[0, :2] = 0.65, CONSIDERED / 2
    chances[1, :2] = 0.99, 0.98
    laid = laid_out(chances, RESERVE)
    assert laid[0, 0] == pytest.approx(0.65)
    assert laid[0, 1:].max() <= RESERVE
    assert laid[1, 0] > 0.94
    assert laid[1, 1] > RESERVE * 1.25
    assert laid[1, 2:].max() < 0.001


def test_top_gives_way_to_what_is_carried() -> None:
    """Three for certain: the first has what the others leave."""
    chances = np.array([[1.0, 1.0, 1.0, 0.0]])
    assert laid_out(chances, 0.1)[0].tolist() == pytest.approx([1.0 - 2 * FULL * 0.1, FULL * 0.1, FULL * 0.1, 0.0])


def test_what_no_reserve_holds_goes_to_the_next_when_it_is_considered() -> None:
    """Of three intents two reserves of 0.05 cover 0.1; the top one is right in half of such cases."""
    considered, hopeless = laid_out(np.array([[0.5, 0.3, 0.0], [0.5, 0.1, 0.0]]), 0.05)
    assert considered[0] == pytest.approx(0.5)
    assert considered[1] > 0.4
    assert hopeless.tolist() == pytest.approx([0.9, 0.05, 0.05])


def test_head_keeps_energy_age_and_embeddings() -> None:
    """Only which intents there are is asked anew; how familiar the utterance is stays what the network said."""
    outputs = _outputs()
    applied = _head().applied(outputs)
    assert np.allclose(energy(applied.logits), energy(outputs.logits), atol=1e-5)
    assert np.allclose(softmax(applied.logits), laid_out(_head().memberships(outputs.embeddings), 0.2), atol=1e-5)
    assert applied.age_logits is outputs.age_logits
    assert applied.embeddings is outputs.embeddings
    assert applied.logits.dtype == np.float32


def test_rows_do_not_depend_on_their_company() -> None:
    """Alone or in a micro-batch: the same logits, to the last digits that a sum in another order leaves."""
    outputs, head = _outputs(), _head()
    together = head.applied(outputs).logits
    alone = [
        head.applied(ModelOutputs(outputs.logits[[i]], outputs.age_logits[[i]], outputs.embeddings[[i]])).logits[0]
        for i in range(len(outputs))
    ]
    assert np.allclose(together, alone, atol=1e-5)


def test_stored_head_comes_back() -> None:
    """In half precision."""
    arrays = _head().to_arrays()
    again = MembershipHead.from_arrays(arrays)
    assert again.reserve == _head().reserve
    assert np.allclose(again.memberships(_outputs().embeddings), _head().memberships(_outputs().embeddings), atol=0.01)
    assert {array.dtype for name, array in arrays.items() if name != "reserve"} == {np.dtype(np.float16)}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"bias": None}, "lacks bias"),
        ({"bias": np.array([0.0, np.nan, 0.0, 0.0])}, "bias is not finite"),
        ({"weights": np.zeros((5, 4))}, "do not fit together"),
        ({"hidden_bias": np.zeros((6, 1))}, "do not fit together"),
        ({"reserve": np.array(0.3)}, "reserve must be in"),
        ({"reserve": np.array(0.0)}, "reserve must be in"),
    ],
)
def test_head_that_cannot_be_is_refused(changed: dict[str, np.ndarray | None], named: str) -> None:
    """With what is wrong about it."""
    arrays = {**_head().to_arrays(), **changed}
    with pytest.raises(BadManifest, match=named):
        MembershipHead.from_arrays({name: array for name, array in arrays.items() if array is not None})
