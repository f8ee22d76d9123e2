"""Replayed streams are what they are said to be: the shares of traffic, and changes of the size that is named."""

from dataclasses import replace

import numpy as np
import pytest

from monitoring.failure_tree import load
from monitoring.latency import STAGES
from monitoring.observations import Records
from monitoring.replay_changes import CHANGES, PINNED, Change, Changed, Replay, changed_of, pinned, stream_of, stretches
from monitoring.replay_streams import (
    BROKEN_CHANNEL,
    MOST_NEW,
    OOD_SHARE,
    TRAFFIC,
    accuracy,
    cut,
    ece,
    joined_by,
    moved,
    relabelled,
    too_sure,
)
from monitoring.replay_text import CUT, NEW, OWN
from tests.monitoring.made_up_corpus import POLICY, TAXONOMY, made_up_replay

RNG = np.random.default_rng(5)


@pytest.fixture(scope="module")
def replay() -> Replay:
    """The same for all tests, which change nothing of it."""
    return made_up_replay()


def rows_of(replay: Replay, changed: Changed, rows: int = 20_000) -> Records:
    """Labelled rows of a changed stream."""
    parts = stretches(stream_of(replay, 1), changed.phase, rows, "changed")
    return np.concatenate([part.joined.labelled for part in parts])


def change_called(name: str) -> Change:
    """From the table."""
    (found,) = [change for change in CHANGES if change.name == name]
    return found


def test_main_intents_come_in_the_shares_of_the_traffic(replay: Replay) -> None:
    """Ood beside them; every message of a part as often as another of its intent."""
    main, weights = replay.corpus.main, replay.quiet.weights
    shares = np.bincount(main, weights=weights, minlength=11)
    assert shares[-1] == pytest.approx(OOD_SHARE)
    assert shares[:-1] == pytest.approx(np.array(list(TRAFFIC.values())) * (1 - OOD_SHARE))
    assert weights[replay.corpus.of(CUT)].sum() == 0.0
    assert weights.sum() == pytest.approx(1.0)


def test_a_drawn_event_says_what_the_version_said_of_its_message(replay: Replay) -> None:
    """The label, the confidence and the embedding are those of the message; times add up; numbers go on."""
    stream = stream_of(replay, 2)
    pinned(stream, replay)
    joined, messages = stream.draw(500, replay.quiet)
    rows = joined.labelled
    assert rows["number"].tolist() == list(range(PINNED + 1, PINNED + 501))
    assert np.array_equal(rows["truth"], replay.corpus.truth[messages])
    assert np.array_equal(rows["confidence"], replay.quiet.table["confidence"][messages])
    assert rows["total_ms"] == pytest.approx(sum(rows[f"{stage}_ms"] for stage in STAGES), rel=1e-5)
    at_row = joined.embeddings.numbers - PINNED - 1
    expected = replay.corpus.outputs.embeddings[messages[at_row]].astype(np.float16)
    assert np.array_equal(joined.embeddings.vectors, expected)
    assert np.array_equal(joined.predictions["energy"], rows["energy"])


def test_streams_of_one_seed_are_the_same_up_to_the_change(replay: Replay) -> None:
    """A copy goes on as the stream would have, and does not move it."""
    stream = stream_of(replay, 3)
    stream.draw(100, replay.quiet)
    copied = stream.copy()
    _, one = copied.draw(100, replay.quiet)
    _, other = stream.draw(100, replay.quiet)
    assert np.array_equal(one, other)


@pytest.mark.parametrize("intent", [None, TAXONOMY.index("product_question")])
def test_labels_are_remapped_until_three_points_are_lost(replay: Replay, intent: int | None) -> None:
    """Of any intent, or of one alone, and then all to one other."""
    phase = relabelled(replay.quiet, replay.corpus, 0.03, RNG, intent)
    before, after = (accuracy(one.weights, one.table) for one in (replay.quiet, phase))
    assert before - after == pytest.approx(0.03, abs=0.002)
    moved_rows = np.flatnonzero((phase.table["truth"] != replay.quiet.table["truth"]).any(axis=1))
    if intent is not None:
        assert set(replay.corpus.main[moved_rows].tolist()) == {intent}
        assert phase.table["truth"][moved_rows].any(axis=0).sum() == 1


def test_an_intent_too_rare_to_lose_three_points_is_refused(replay: Replay) -> None:
    """Rather than losing less than is said."""
    with pytest.raises(ValueError, match=r"not 0\.03"):
        relabelled(replay.quiet, replay.corpus, 0.03, RNG, TAXONOMY.index("escalation"))


def test_cut_messages_lose_three_points_in_one_channel_alone(replay: Replay) -> None:
    """As they come, over a long stretch."""
    phase = cut(replay.quiet, replay.corpus, 0.03)
    parts = list(stretches(stream_of(replay, 1), phase, 40_000, "changed"))
    rows = np.concatenate([part.joined.labelled for part in parts])
    is_cut = np.isin(np.concatenate([part.messages for part in parts]), replay.corpus.of(CUT))
    assert set(rows["channel"][is_cut]) == {BROKEN_CHANNEL}
    scope = ~rows["truth"][:, -1]
    expected = accuracy(replay.quiet.weights, replay.quiet.table) - 0.03
    assert rows["is_correct"][scope].mean() == pytest.approx(expected, abs=0.006)


def test_a_wrong_temperature_adds_three_points_of_calibration_error_and_nothing_else(replay: Replay) -> None:
    """Another policy, so another stream; top intents and energies stay."""
    phase, policy = too_sure(replay.quiet, replay.corpus, POLICY, 0.03)
    added = ece(phase.weights, phase.table) - ece(replay.quiet.weights, replay.quiet.table)
    assert added == pytest.approx(0.03, abs=0.001)
    assert policy.temperature < POLICY.temperature
    assert phase.key.policy == policy.name == "1.2"
    for name in ("top", "energy", "is_ood", "is_correct"):
        assert np.array_equal(phase.table[name], replay.quiet.table[name])


def test_moved_priors_move_ten_points_of_all_traffic(replay: Replay) -> None:
    """From one intent to another; what an intent does not have cannot move."""
    phase = moved(replay.quiet, replay.corpus, "recommendation", "faq", 0.10)
    before, after = (np.bincount(replay.corpus.main, one.weights, 11) for one in (replay.quiet, phase))
    gained = dict(zip(TRAFFIC, (after - before)[:-1], strict=True))
    assert gained.pop("faq") == pytest.approx(0.10)
    assert gained.pop("recommendation") == pytest.approx(-0.10)
    assert max(map(abs, gained.values())) < 1e-12
    with pytest.raises(ValueError, match="escalation has 3%"):
        moved(replay.quiet, replay.corpus, "escalation", "faq", 0.10)


@pytest.mark.parametrize("is_filed", [False, True])
def test_a_new_intent_grows_to_a_tenth(replay: Replay, is_filed: bool) -> None:
    """In a straight line; people label it ood or file it."""
    part = f"{NEW}hint3_x BARTER"
    phase = joined_by(replay.quiet, replay.corpus, part, 10_000, is_filed)
    parts = list(stretches(stream_of(replay, 1), phase, 20_000, "changed"))
    is_new = np.isin(np.concatenate([one.messages for one in parts]), replay.corpus.of(part))
    assert is_new[:10_000].mean() == pytest.approx(MOST_NEW / 2, abs=0.01)
    assert is_new[10_000:].mean() == pytest.approx(MOST_NEW, abs=0.01)
    truth = np.concatenate([one.joined.labelled["truth"] for one in parts])[is_new]
    assert np.array_equal(truth.argmax(axis=1), np.full(len(truth), 3 if is_filed else 10))


def test_without_labels_none_comes(replay: Replay) -> None:
    """Predictions all the same."""
    joined, _ = stream_of(replay, 1).draw(100, replace(replay.quiet, has_labels=False))
    assert (len(joined.predictions), len(joined.labelled)) == (100, 0)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_every_change_of_the_table_can_be_drawn(replay: Replay, change: Change) -> None:
    """Its diagnosis is one of the tree's, and messages are those of the parts it is about."""
    changed = changed_of(change, replay, 1)
    tree = load()
    for diagnosis in changed.diagnoses:
        branch, action = diagnosis.split("/")
        assert branch in {one.node for one in tree.branches} & changed.branches
        assert action in tree.actions
    _, messages = stream_of(replay, 1).draw(2_000, changed.phase, 5_000)
    assert np.isin(messages, replay.corpus.of(OWN)).mean() > 0.5


def test_a_slower_stage_adds_four_milliseconds_to_every_request(replay: Replay) -> None:
    """In one stage, which differs from run to run."""
    seen = set()
    for seed in range(8):
        changed = changed_of(change_called("slower"), replay, seed)
        assert sorted(changed.phase.delays_ms) == [0.0, 0.0, 4.0]
        seen.add(changed.diagnosis)
    assert len(seen) == 3
    added = rows_of(replay, changed, 2_000)["total_ms"].min()
    assert added >= 4.0
