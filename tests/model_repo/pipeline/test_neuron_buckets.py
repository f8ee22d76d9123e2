"""The optimiser finds what a search of all choices finds; both families compute every utterance."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_repo.contract.engine import TOKENIZER_FILE
from model_repo.pipeline.compile_neuron import SIZES
from model_repo.pipeline.neuron_buckets import (
    Work,
    choose_packed,
    compare,
    grid_work,
    optimal_edges,
    packed_work,
    padding_cost,
    row_tokens,
    token_lengths,
)
from model_repo.store import Store

VERSIONS = Path(__file__).resolve().parents[3] / "model_repo" / "versions"
DEMANDS = st.lists(st.integers(0, 20), min_size=2, max_size=14).filter(lambda weights: any(weights[1:]))
LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=12)


@settings(deadline=None, max_examples=60)
@given(weights=DEMANDS, count=st.integers(1, 4), step=st.integers(1, 3))
def test_edges_cost_no_more_than_any_other_choice(weights: list[int], count: int, step: int) -> None:
    """Compared with all subsets of the candidates that hold the largest value."""
    demand = np.asarray([0, *weights[1:]], dtype=np.float64)
    edges = optimal_edges(demand, count, step)
    largest = int(np.flatnonzero(demand).max())
    candidates = range(step, largest + step, step)
    last = max(candidates)
    every = (
        (*rest, last) for n in range(count) for rest in combinations([edge for edge in candidates if edge < last], n)
    )
    assert len(edges) <= count
    assert edges[-1] == last
    assert padding_cost(demand, edges) == min(padding_cost(demand, choice) for choice in every)


def test_one_more_program_never_costs_more() -> None:
    """And with a program for each value nothing is padded."""
    demand = np.random.default_rng(3).integers(1, 50, size=20).astype(np.float64)
    demand[0] = 0
    costs = [padding_cost(demand, optimal_edges(demand, count)) for count in range(1, 20)]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] == (demand * np.arange(20)).sum()


def test_edges_that_cannot_be_asked_for_are_refused() -> None:
    """With what was asked."""
    with pytest.raises(ValueError, match="got 0 and 8"):
        optimal_edges(np.ones(4), 0, 8)


@settings(deadline=None, max_examples=60)
@given(lengths=LENGTHS)
def test_families_compute_at_least_the_real_tokens(lengths: list[int]) -> None:
    """Packed rows hold every token; the grid has a row for every utterance."""
    sizes, sequences = (16, 32, 64), (16, 64)
    assert sum(row_tokens(lengths, 64)) == sum(lengths)
    packed, grid = packed_work(lengths, sizes), grid_work(lengths, sequences)
    assert packed.tokens >= sum(lengths)
    assert grid.tokens >= sum(lengths)
    assert -(-len(lengths) // 4) <= grid.calls <= len(lengths)
    assert packed.calls <= len(lengths)


def test_grid_takes_the_cheaper_of_one_large_and_several_small_calls() -> None:
    """Four short ones together; a long one is kept apart from short ones."""
    assert grid_work([10] * 4, (16, 64)) == Work(64, 1)
    assert grid_work([10, 10, 10, 10, 60], (16, 64)) == Work(128, 2)


def test_chosen_sizes_end_at_the_longest_row_and_follow_the_lengths() -> None:
    """Utterances of nine tokens, one or two at a time, want rows of 16 and 24."""
    sizes = choose_packed([9] * 400, 6, 256, np.random.default_rng(1))
    assert sizes[-1] == 256
    assert {16, 24, 40, 72, 144} <= set(sizes)


def test_row_sizes_of_the_compile_stage_are_those_chosen_for_the_version_that_ships() -> None:
    """As the command prints them: another tokenizer or other messages may want others."""
    store = Store(VERSIONS)
    lengths = token_lengths(store.load(store.deployment().champion.version).file(TOKENIZER_FILE))
    assert tuple(choose_packed(lengths[::2], len(SIZES), SIZES[-1], np.random.default_rng(42))) == SIZES


def test_report_prints_the_choice_and_each_family() -> None:
    """With real lengths of our own."""
    lengths = np.random.default_rng(2).integers(3, 40, size=320).tolist()
    report = compare(lengths, programs=4, max_tokens=48, max_row_tokens=96, seed=1)
    assert report.count("computed/real tokens") == 4
    assert "packed" in report
    assert report.count(", chosen saves of ") == 3
