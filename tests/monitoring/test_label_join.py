"""A label finds its prediction and a prediction its label, in whichever order they come, once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from model_repo.contract.events import PredictionEvent
from model_repo.contract.labels import Taxonomy
from monitoring.decoding import decode
from monitoring.errors import BadState
from monitoring.event_reader import Cursor, LogRows
from monitoring.label_join import Joined, LabelJoin, StreamJoined
from monitoring.observations import Limits, Records, StreamKey
from monitoring.state_file import StateFile
from tests.monitoring.event_logs import BEGAN, EMBEDDING, KEY, TAXONOMY, label, prediction, taxonomy_of

DAY = 86_400.0
SHADOW = StreamKey("2", "2.1", "shadow")
Label = tuple[str, Sequence[str], float, str]
"""request_id, intents (none: ood), seconds after the beginning, source"""


@dataclass
class Feed:
    """A join that is fed chunk by chunk, as the journey does it."""

    state: StateFile
    limits: Limits
    seq: int = 0
    latest_at: float = BEGAN

    def __post_init__(self) -> None:
        self.join = LabelJoin(self.state, taxonomy_of, self.limits)

    def add(self, predictions: Sequence[PredictionEvent] = (), labels: Sequence[Label] = ()) -> Joined:
        """One chunk."""
        rows = []
        for event in predictions:
            self.seq += 1
            rows.append((self.seq, event.at, event.to_body().encode()))
            self.latest_at = max(self.latest_at, event.at)
        label_rows = [
            (seq, BEGAN + at, label(request_id, *intents, source=source).to_body().encode())
            for seq, (request_id, intents, at, source) in enumerate(labels, start=1)
        ]
        chunk = decode(LogRows(tuple(rows), tuple(label_rows), Cursor()), taxonomy_of)
        with self.state.transaction():
            return self.join.add(chunk, self.latest_at, now=BEGAN + 1000 * DAY)


@pytest.fixture
def feed(state: StateFile) -> Feed:
    """A join of small limits."""
    return Feed(state, Limits(predictions=6, recent=4, labelled=3, embeddings=2, labels=3, max_age_s=DAY, streams=2))


def of(joined: Joined, key: StreamKey = KEY) -> StreamJoined:
    """What a chunk brought to a stream."""
    return next(stream for stream in joined.streams if stream.key == key)


def outcomes(labelled: Records) -> list[tuple[int, list[str], bool]]:
    """Number, true intents and correctness of each row."""
    names = (*TAXONOMY.intents, "ood")
    return [
        (int(row["number"]), [names[index] for index in np.flatnonzero(row["truth"])], bool(row["is_correct"]))
        for row in labelled
    ]


def test_label_after_its_prediction_is_joined(feed: Feed) -> None:
    """The label tells whether the top intent was right; ood never makes it right."""
    feed.add([prediction(0), prediction(1), prediction(2)])
    joined = feed.add(
        labels=[
            ("r2", ["hello"], 9, "agent"),
            ("r0", ["refund", "parcel"], 8, "review"),
            ("r1", [], 9, "agent"),
        ]
    )
    assert outcomes(of(joined).labelled) == [
        (3, ["hello"], False),
        (1, ["refund", "parcel"], True),
        (2, ["ood"], False),
    ]
    assert of(joined).labelled["label_at"].tolist() == [BEGAN + 9, BEGAN + 8, BEGAN + 9]
    assert of(joined).labelled["confidence"].tolist() == [0.92] * 3
    assert joined.label_counts["read"] == 3


def test_label_before_its_prediction_waits_for_it(feed: Feed) -> None:
    """The prediction brings it in when it comes."""
    assert feed.add(labels=[("r0", ["parcel"], 0, "agent")]).streams == ()
    joined = of(feed.add([prediction(0)]))
    assert outcomes(joined.labelled) == [(1, ["parcel"], True)]
    assert joined.counts == {"early": 1}


def test_label_and_prediction_of_one_chunk_are_joined_once(feed: Feed) -> None:
    """Neither side brings the other in twice."""
    joined = of(feed.add([prediction(0)], [("r0", ["parcel"], 1, "agent")]))
    assert (outcomes(joined.labelled), len(joined.corrected)) == ([(1, ["parcel"], True)], 0)


def test_label_given_twice_counts_once(feed: Feed) -> None:
    """By one source or by two, in one chunk or in two."""
    feed.add([prediction(0)])
    first = feed.add(labels=[("r0", ["parcel"], 1, "customer"), ("r0", ["parcel"], 2, "agent")])
    second = feed.add(labels=[("r0", ["parcel"], 3, "review")])
    assert len(of(first).labelled) == 1
    assert (first.label_counts["repeated"], second.label_counts["repeated"]) == (1, 1)
    assert second.streams == ()


def test_later_label_corrects_the_first(feed: Feed) -> None:
    """The prediction stays labelled once, with what is now right."""
    feed.add([prediction(0)], [("r0", ["hello"], 1, "agent")])
    joined = feed.add(labels=[("r0", ["parcel"], 2, "agent")])
    assert len(of(joined).labelled) == 0
    assert outcomes(of(joined).corrected) == [(1, ["parcel"], True)]
    assert joined.label_counts["corrected"] == 1
    (remembered,) = feed.join.remembered()
    assert outcomes(remembered.labelled) == [(1, ["parcel"], True)]


def test_weaker_source_corrects_nothing(feed: Feed) -> None:
    """What a reviewer said is not undone by a rule."""
    feed.add([prediction(0)], [("r0", ["hello"], 1, "review")])
    joined = feed.add(labels=[("r0", ["parcel"], 2, "rule")])
    assert (joined.streams, joined.label_counts["outranked"]) == ((), 1)


def test_shadow_of_a_request_gets_the_label_too(feed: Feed) -> None:
    """Also when it answers after the label has come."""
    feed.add([prediction(0)], [("r0", ["parcel"], 1, "agent")])
    shadow = prediction(0, version="2", policy="2.1", role="shadow", top="hello", intents=("hello",))
    joined = feed.add([shadow])
    assert outcomes(of(joined, SHADOW).labelled) == [(2, ["parcel"], False)]
    corrected = feed.add(labels=[("r0", ["hello"], 2, "agent")])
    assert outcomes(of(corrected).corrected) == [(1, ["hello"], False)]
    assert outcomes(of(corrected, SHADOW).corrected) == [(2, ["hello"], True)]


def test_repeated_request_id_is_traffic_but_takes_no_label(feed: Feed) -> None:
    """A retry in the same chunk or later; one label is one outcome."""
    first = feed.add([prediction(0), prediction(0, at=BEGAN + 1)])
    second = feed.add([prediction(0, at=BEGAN + 2)], [("r0", ["parcel"], 3, "agent")])
    assert (of(first).counts, len(of(first).predictions)) == ({"repeated": 1}, 2)
    assert outcomes(of(second).labelled) == [(1, ["parcel"], True)]
    assert of(second).counts == {"repeated": 1}


def test_label_that_comes_too_late_is_counted(feed: Feed) -> None:
    """A label after the longest delay is no outcome."""
    feed.add([prediction(0)])
    joined = of(feed.add(labels=[("r0", ["parcel"], DAY + 1, "agent")]))
    assert (len(joined.labelled), joined.counts) == (0, {"too_late": 1})


def test_label_of_another_taxonomy_is_counted(feed: Feed) -> None:
    """An intent that the version does not know cannot be its truth."""
    feed.add([prediction(0)])
    joined = of(feed.add(labels=[("r0", ["weather"], 1, "agent")]))
    assert (len(joined.labelled), joined.counts) == (0, {"foreign": 1})


def test_prediction_without_a_label_is_let_go_in_time(feed: Feed) -> None:
    """What was labelled and what never was: the join rate."""
    feed.add([prediction(0), prediction(1)], [("r1", ["parcel"], 2, "agent")])
    joined = of(feed.add([prediction(2, at=BEGAN + DAY + 60)]))
    assert joined.counts == {"closed_unlabelled": 1, "closed_labelled": 1}


def test_too_many_predictions_are_evicted_and_counted(feed: Feed) -> None:
    """The oldest go first, and a label no longer finds them."""
    joined = feed.add([prediction(index) for index in range(8)])
    assert of(joined).counts == {"evicted": 2}
    late = feed.add(labels=[("r1", ["parcel"], 9, "agent"), ("r2", ["parcel"], 9, "agent")])
    assert outcomes(of(late).labelled) == [(3, ["parcel"], True)]


def test_labels_that_met_no_prediction_are_orphans(feed: Feed) -> None:
    """Counted when they are let go, by number or by age; those that met one are not."""
    feed.add([prediction(0)], [("r0", ["parcel"], 1, "agent"), ("x1", ["hello"], 1, "agent")])
    crowded = feed.add(labels=[(f"x{index}", ["hello"], 2, "agent") for index in (2, 3, 4)])
    assert crowded.label_counts["orphaned"] == 1
    aged = feed.add([prediction(9, at=BEGAN + DAY + 60)])
    assert aged.label_counts["orphaned"] == 3


def test_clock_running_ahead_throws_nothing_away(state: StateFile) -> None:
    """Old is judged by the earlier of the log's time and the sidecar's."""
    feed = Feed(state, Limits(max_age_s=DAY))
    feed.latest_at = BEGAN + 5000 * DAY
    feed.add([prediction(0, at=BEGAN + 999.5 * DAY)])
    (remembered,) = feed.join.remembered()
    assert len(remembered.predictions) == 1


def test_silent_stream_makes_room_for_a_new_one(feed: Feed) -> None:
    """Of three streams where two have room, the one that was silent for longest goes, and is accounted for."""
    feed.add([prediction(0)])
    feed.add([prediction(1, policy="1.2")])
    joined = feed.add([prediction(2, policy="1.3")])
    assert joined.dropped == (KEY,)
    assert of(joined).counts == {"evicted": 1}
    assert {remembered.key.policy for remembered in feed.join.remembered()} == {"1.2", "1.3"}


def test_embedding_of_another_length_is_left_out(feed: Feed) -> None:
    """One version has one length; what differs is counted."""
    feed.add([prediction(0, embedding=EMBEDDING)])
    joined = of(feed.add([prediction(1, embedding="ADg=")]))
    assert (len(joined.embeddings), joined.counts) == (0, {"odd_embeddings": 1})


def test_what_is_remembered_is_what_was_last_seen(feed: Feed) -> None:
    """The latest predictions with their flags, labels in the order they came, embeddings; each within its limit."""
    feed.add([prediction(index, embedding=EMBEDDING) for index in range(6)])
    feed.add(labels=[(f"r{index}", ["parcel"], 9, "agent") for index in (5, 1, 3, 2)])
    (remembered,) = feed.join.remembered()
    assert remembered.predictions["number"].tolist() == [3, 4, 5, 6]
    assert remembered.predictions["is_labelled"].tolist() == [True, True, False, True]
    assert remembered.labelled["number"].tolist() == [2, 4, 3]
    assert remembered.embeddings.numbers.tolist() == [5, 6]


def test_version_that_changed_its_intents_is_refused(feed: Feed) -> None:
    """Records of one size cannot be read as those of another."""
    feed.add([prediction(0)])
    with pytest.raises(BadState, match="other intents"):
        LabelJoin(feed.state, lambda _: Taxonomy(("one", "two")), feed.limits).remembered()


def test_rollback_undoes_all_of_a_chunk(feed: Feed) -> None:
    """What was not committed is read again and counted then."""

    class FullDisk(Exception):
        """Stands for a commit that fails."""

    def fail() -> None:
        rows = LogRows(((1, BEGAN, prediction(0).to_body().encode()),), (), Cursor())
        with feed.state.transaction():
            feed.join.add(decode(rows, taxonomy_of), BEGAN, BEGAN)
            raise FullDisk

    with pytest.raises(FullDisk):
        fail()
    assert feed.join.remembered() == []
    assert of(feed.add([prediction(0)])).counts == {}


@pytest.mark.parametrize("name", ["predictions", "recent", "labelled", "embeddings", "labels", "max_age_s", "streams"])
def test_limit_must_be_positive(name: str) -> None:
    """The message names the field."""
    with pytest.raises(ValueError, match=f"{name} must be > 0"):
        Limits(**{name: 0})
