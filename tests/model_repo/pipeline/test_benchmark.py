"""What is rejected at the accuracy that others were published with."""

from dataclasses import replace

import numpy as np
import pytest

from model_repo.contract.policy import Policy
from model_repo.pipeline.benchmark import at_published_accuracy, recall_at_accuracy
from model_repo.pipeline.measures import Judged, judge
from tests.model_repo.pipeline.simulated import TAXONOMY, simulated

POLICY = Policy("1", 1, 1.0, (0.2,) * 4, 1.0, -1.5, 0.5, 0.95)


def judged_sample(n: int = 400) -> Judged:
    """Simulated utterances with their decisions, and energies that tell ood from in-scope by half only."""
    outputs, utterances = simulated(n, 0)
    judged = judge(outputs, POLICY, utterances, TAXONOMY)
    energies = judged.decisions.energies + np.random.default_rng(1).normal(0.0, 5.0, n)
    return replace(judged, decisions=replace(judged.decisions, energies=energies))


@pytest.mark.parametrize("accuracy", [0.2, 0.5, 0.7])
def test_recall_is_that_of_the_lowest_cut_which_leaves_the_accuracy(accuracy: float) -> None:
    """Found by trying every energy as the cut."""
    judged = judged_sample()
    energies, is_ood = judged.decisions.energies, judged.truth.is_ood
    is_right = judged.truth.targets[np.arange(len(judged)), judged.decisions.top]
    cut = next(c for c in np.sort(energies) if (is_right & (energies <= c)).sum() / (~is_ood).sum() >= accuracy)
    got = recall_at_accuracy(judged, accuracy)(np.ones((1, len(judged))))
    assert got == pytest.approx([(energies[is_ood] > cut).mean()])
    assert 0.0 < got[0] < 1.0


def test_accuracy_beyond_reach_rejects_nothing() -> None:
    """Nobody could reject anything and be right as often."""
    assert recall_at_accuracy(judged_sample(), 1.01)(np.ones((2, 400))).tolist() == [0.0, 0.0]


def test_only_rows_with_an_accuracy_are_measured_and_with_an_interval() -> None:
    """The others have their figure already."""
    published = [{"figure": "ood.recall", "value": 0.5, "at_accuracy": 0.5}, {"figure": "ood.auroc", "value": 0.9}]
    figures = at_published_accuracy(judged_sample(), published, "simulated", np.random.default_rng(0))
    assert list(figures) == ["ood.recall at 0.5"]
    figure = figures["ood.recall at 0.5"]
    assert figure.low < figure.value < figure.high
    assert at_published_accuracy(judged_sample(), published[1:], "simulated", np.random.default_rng(0)) == {}
