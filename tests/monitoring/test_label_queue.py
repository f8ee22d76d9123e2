"""Who is to be labelled: the doubtful first, no stratum crowded out, and a random part that stands for the whole."""

from collections import Counter

import numpy as np
import pytest

from model_repo.contract.events import LABEL_SOURCES
from monitoring.label_queue import (
    LEAST_CERTAIN,
    MOST_NOVEL,
    RANDOM,
    disagreeing,
    labelled_of_segment,
    least_certain,
    margins,
    predictions_of_segment,
    stratified_sample,
    stratum_of,
)
from monitoring.observations import Records
from tests.monitoring.event_logs import TAXONOMY
from tests.monitoring.labelled_windows import labelled_rows, window_of


def unlabelled(n: int, seed: int = 0) -> Records:
    """Predictions of the made-up model, in three languages of which one is rare."""
    predictions = window_of(labelled_rows(n, seed)).predictions
    predictions["is_labelled"] = False
    predictions["lang"] = np.where(np.arange(n) % 50 == 0, 2, np.arange(n) % 5 == 0)
    return predictions


def test_margin_is_the_log_odds_of_the_first_two() -> None:
    """Whatever the others are, and in whichever order they stand."""
    records = unlabelled(2)
    records["logits"] = [[1.0, 4.0, 3.5], [2.0, 2.0, -9.0]]
    assert margins(records).tolist() == [0.5, 0.0]


class TestSegments:
    def test_prediction_is_in_an_intent_when_it_is_one_of_its_two_most_probable(self) -> None:
        """A customer who was wrongly sent elsewhere is looked for too."""
        records = unlabelled(3)
        records["logits"] = [[3.0, 2.0, 1.0], [1.0, 3.0, 2.0], [2.0, 1.0, 3.0]]
        assert predictions_of_segment(records, TAXONOMY, "intent=refund").tolist() == [True, False, True]
        assert not predictions_of_segment(records, TAXONOMY, "intent=gone").any()

    def test_other_dimensions_need_no_label(self) -> None:
        """Language, channel, risk and what was decided stand in the prediction."""
        records = unlabelled(4)
        records["lang"] = [0, 1, 2, 2]
        records["channel"] = [b"web", b"app", b"", b"web"]
        records["is_high_risk"] = [True, False, False, True]
        records["top"], records["is_ood"] = [0, 1, 0, 1], [False, False, True, False]
        members = {
            f"decided={TAXONOMY.intents[0]}": [True, False, False, False],
            f"decided={TAXONOMY.intents[1]}": [False, True, False, True],
            "decided=ood": [False, False, True, False],
            "decided=gone": [False] * 4,
            "lang=mix": [False, False, True, True],
            "channel=web": [True, False, False, True],
            "high_risk=yes": [True, False, False, True],
            "high_risk=no": [False, True, True, False],
            "lang=fr": [False] * 4,
            "weather=rain": [False] * 4,
        }
        for segment, expected in members.items():
            assert predictions_of_segment(records, TAXONOMY, segment).tolist() == expected, segment

    def test_labelled_rows_are_in_the_segments_that_accuracy_is_counted_by(self) -> None:
        """By what the label says, not by what was decided."""
        rows = labelled_rows(200, 1)
        assert (labelled_of_segment(rows, TAXONOMY, "intent=refund") == rows["truth"][:, 0]).all()
        assert not labelled_of_segment(rows, TAXONOMY, "intent=gone").any()
        assert labelled_of_segment(rows[:0], TAXONOMY, "intent=refund").tolist() == []


class TestOrder:
    def test_least_certain_begins_with_the_smallest_margin(self) -> None:
        """And passes over what has a label."""
        records = unlabelled(100)
        records["is_labelled"][:50] = True
        picked = least_certain(records)
        assert sorted(picked.rows.tolist()) == list(range(50, 100))
        assert (np.diff(margins(records)[picked.rows]) >= 0).all()

    def test_surest_disagreement_comes_first(self) -> None:
        """Wrong intent, in scope decided ood, ood decided in scope; not where they agree, not what was reviewed."""
        rows = labelled_rows(6, 0)
        rows["source"] = LABEL_SOURCES.index("customer")
        rows["confidence"] = [0.5, 0.9, 0.6, 0.7, 0.8, 0.99]
        rows["truth"] = False
        rows["truth"][np.arange(6), [0, 0, 0, 3, 3, 1]] = True
        rows["is_correct"] = [False, True, True, False, False, False]
        rows["is_ood"] = [False, False, True, False, True, False]
        rows["source"][5] = LABEL_SOURCES.index("review")
        assert disagreeing(rows).rows.tolist() == [3, 2, 0]


class TestSample:
    def test_random_rows_are_so_many_and_in_no_other_part(self) -> None:
        """The other two hold all the rest, each in its own order."""
        random, least, novel = stratified_sample(unlabelled(3000), 100, np.random.default_rng(0))
        assert [part.why for part in (random, least, novel)] == [RANDOM, LEAST_CERTAIN, MOST_NOVEL]
        assert len(set(random.rows.tolist())) == 100
        for part in (least, novel):
            assert sorted([*random.rows.tolist(), *part.rows.tolist()]) == list(range(3000))

    def test_rare_strata_are_not_crowded_out(self) -> None:
        """Each intent in each language has its turn, although one language has two in a hundred predictions."""
        records = unlabelled(3000)
        for part in stratified_sample(records, 100, np.random.default_rng(0))[1:]:
            counts = Counter(stratum_of(records[row], TAXONOMY) for row in part.rows[:90])
            assert list(counts.values()) == [10] * 9

    def test_foremost_comes_first(self) -> None:
        """The least certain and the most novel of all lead their parts, unless they were drawn."""
        records = unlabelled(3000)
        random, least, novel = stratified_sample(records, 30, np.random.default_rng(0))
        assert random.rows.tolist().count(int(margins(records).argmin())) or least.rows[0] == margins(records).argmin()
        assert (
            random.rows.tolist().count(int(records["energy"].argmax())) or novel.rows[0] == records["energy"].argmax()
        )

    def test_random_rows_stand_for_the_whole(self) -> None:
        """Over many draws their share of a property is that of all, where the others lean to what is doubtful."""
        records = unlabelled(2000)
        is_unsure = margins(records) < 1.0
        drawn = [stratified_sample(records, 50, np.random.default_rng(seed)) for seed in range(40)]
        shares = [np.mean([is_unsure[parts[i].rows[:50]].mean() for parts in drawn]) for i in range(2)]
        assert shares[0] == pytest.approx(is_unsure.mean(), abs=0.02)
        assert shares[1] > 3 * is_unsure.mean()

    def test_what_is_labelled_is_not_asked_for(self) -> None:
        """All that is left is in it; of nothing, nothing."""
        records = unlabelled(100)
        records["is_labelled"][:88] = True
        random, least, _ = stratified_sample(records, 5, np.random.default_rng(0))
        assert sorted([*random.rows.tolist(), *least.rows.tolist()]) == list(range(88, 100))
        records["is_labelled"] = True
        assert sum(len(part.rows) for part in stratified_sample(records, 300, np.random.default_rng(0))) == 0
