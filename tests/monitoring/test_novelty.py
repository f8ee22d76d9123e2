"""How many utterances of something new have come: counted on streams of which the test knows, and in a written log."""

import numpy as np
import pytest

from monitoring.journey import Journey
from monitoring.novelty import (
    LOOKED_BACK,
    NO_OOD_DECISIONS,
    OodDecisions,
    began_at,
    novel_utterances,
    ood_decisions,
)
from monitoring.state_file import StateFile
from tests.monitoring.event_logs import BEGAN, EMBEDDING, WrittenLog, label, prediction, taxonomy_of

PRECISION = 0.7
"""Of the reference."""


def drawn(seed: int, quiet: int, new: int, novel_share: float = 0.6) -> tuple[OodDecisions, int]:
    """
    Ood decisions a second apart, all labelled and embedded: so many of before, and then as many of which a share is of
    something new; and how many of them are.
    """
    rng = np.random.default_rng(seed)
    is_novel = np.arange(quiet + new) >= quiet
    is_novel &= rng.random(quiet + new) < novel_share
    is_wrong = is_novel | (rng.random(quiet + new) < 1.0 - PRECISION)
    at = np.arange(float(quiet + new))
    return OodDecisions(at, at, is_wrong, 1.0), int(is_novel.sum())


class TestWhenItBegan:
    def test_is_found_to_within_a_few_decisions(self) -> None:
        """Half of the streams to within six of them, nine in ten to within twenty."""
        errors = []
        for seed in range(60):
            began = began_at(drawn(seed, quiet=400, new=80)[0], PRECISION)
            assert began is not None
            errors.append(abs(began - 400.0))
        assert np.quantile(errors, 0.5) <= 6.0
        assert np.quantile(errors, 0.9) <= 20.0

    def test_is_not_told_where_decisions_are_right_as_often_as_ever(self) -> None:
        """Or without a label."""
        at = np.arange(40.0)
        assert began_at(OodDecisions(at, at, np.zeros(40, dtype=np.bool_), 1.0), PRECISION) is None
        assert began_at(NO_OOD_DECISIONS, PRECISION) is None

    def test_is_found_where_the_reference_knows_no_wrong_one(self) -> None:
        """A recall of one: the first miss is no proof of its own, or the latest would be the beginning."""
        at = np.arange(120.0)
        is_wrong = (at >= 80) & (at % 4 < 3)
        assert began_at(OodDecisions(at, at, is_wrong, 1.0), precision=1.0) == 80.0

    def test_is_looked_for_among_the_latest_decisions(self) -> None:
        """Further back the error of the reference itself would pass for it."""
        at = np.arange(3.0 * LOOKED_BACK)
        always_worse = np.arange(len(at)) % 2 == 0
        began = began_at(OodDecisions(at, at, always_worse, 1.0), PRECISION)
        assert began is not None
        assert began >= 2 * LOOKED_BACK


class TestHowMany:
    @pytest.mark.parametrize("novel_share", [0.3, 0.6, 0.9])
    def test_is_told_to_within_the_error_of_a_share(self, novel_share: float) -> None:
        """Without bias, whether or not most of what is rejected is new."""
        told, were = [], []
        for seed in range(60):
            decisions, novel = drawn(seed, quiet=400, new=100, novel_share=novel_share)
            told.append(novel_utterances(decisions, 400.0, PRECISION))
            were.append(novel)
        assert np.mean(told) == pytest.approx(np.mean(were), abs=3.0)
        assert np.std(np.subtract(told, were)) < 8.0

    def test_decisions_without_a_label_count_by_the_share_of_those_with_one(self) -> None:
        """Labels are late, and few; what is looked through has no need of them."""
        decisions, _ = drawn(1, quiet=400, new=100)
        every_fifth = slice(None, None, 5)
        few = OodDecisions(decisions.at, decisions.labelled_at[every_fifth], decisions.is_wrong[every_fifth], 1.0)
        both = [novel_utterances(one, 400.0, PRECISION) for one in (decisions, few)]
        assert both[1] == pytest.approx(both[0], abs=25)
        assert both[1] > 20

    def test_only_what_carries_an_embedding_counts(self) -> None:
        """Nothing else can be clustered."""
        decisions, _ = drawn(1, quiet=400, new=100)
        sampled = OodDecisions(decisions.at, decisions.labelled_at, decisions.is_wrong, 0.1)
        assert novel_utterances(sampled, 400.0, PRECISION) == novel_utterances(decisions, 400.0, PRECISION) // 10

    def test_nothing_is_new_where_decisions_are_right_more_often(self) -> None:
        """Nor where no label has come since."""
        at = np.arange(40.0)
        decisions = OodDecisions(at, at[:20], np.zeros(20, dtype=np.bool_), 1.0)
        assert [novel_utterances(decisions, since, PRECISION) for since in (0.0, 30.0)] == [0, 0]


def test_decisions_are_those_of_all_policies_in_the_order_of_the_answers(log: WrittenLog, state: StateFile) -> None:
    """Labels come in any order; what was not decided ood, or is of another version, says nothing."""
    rejected = {"intents": (), "is_ood": True}
    log.predict(
        prediction(0, **rejected),
        prediction(1, **rejected, embedding=EMBEDDING),
        prediction(2, **rejected, policy="1.2", embedding=EMBEDDING),
        prediction(3, embedding=EMBEDDING),
        prediction(4, **rejected, policy="1.2"),
    )
    for index, intents in ((4, ("refund",)), (0, ()), (3, ("parcel",)), (2, ("parcel",))):
        log.label(label(f"r{index}", *intents), BEGAN + 10.0)
    journey = Journey(log.path, state, taxonomy_of)
    journey.step(BEGAN + 20.0)
    streams = [journey.windows.stream(key) for key in journey.windows.stream_keys()]
    decisions = ood_decisions(streams, "ood_precision")
    journey.close()
    assert sorted((decisions.at - BEGAN).tolist()) == [0.0, 1.0, 2.0, 4.0]
    assert (decisions.labelled_at - BEGAN).tolist() == [0.0, 2.0, 4.0]
    assert decisions.is_wrong.tolist() == [False, True, True]
    assert decisions.embedded_share == 0.6
    assert ood_decisions([], "ood_precision") is NO_OOD_DECISIONS


def test_of_the_recall_they_are_the_utterances_labelled_ood(log: WrittenLog, state: StateFile) -> None:
    """Wrong are those that were decided in scope; what has no label cannot be one of them."""
    rejected = {"intents": (), "is_ood": True}
    log.predict(
        prediction(0, **rejected),
        prediction(1, embedding=EMBEDDING),
        prediction(2, policy="1.2"),
        prediction(3, **rejected),
        prediction(4, **rejected),
    )
    for index, intents in ((2, ()), (1, ()), (0, ()), (3, ("parcel",))):
        log.label(label(f"r{index}", *intents), BEGAN + 10.0)
    journey = Journey(log.path, state, taxonomy_of)
    journey.step(BEGAN + 20.0)
    streams = [journey.windows.stream(key) for key in journey.windows.stream_keys()]
    decisions = ood_decisions(streams, "ood_recall")
    journey.close()
    assert (decisions.at - BEGAN).tolist() == (decisions.labelled_at - BEGAN).tolist() == [0.0, 1.0, 2.0]
    assert decisions.is_wrong.tolist() == [False, True, True]
    assert decisions.embedded_share == 0.2
