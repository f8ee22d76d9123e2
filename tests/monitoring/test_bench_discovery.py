"""The measure of new-intent discovery, on a small made-up case; the real run takes the public sets and minutes."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from monitoring.bench_discovery import adjusted_rand, line, mean_line, measured
from monitoring.service_replay import Asked
from monitoring.withheld_intents import NEW, NOISE, Message, clinc150, halves, in_scope_messages, is_unknown
from tests.monitoring.event_logs import TAXONOMY, prediction
from tests.monitoring.test_clusters import drawn
from tests.monitoring.test_discovery import ood


@pytest.mark.parametrize("seed", range(5))
def test_adjusted_rand_is_that_of_scikit_learn(seed: int) -> None:
    """On the data as they are; labels of either side may be any numbers."""
    rng = np.random.default_rng(seed)
    truth, found = rng.integers(0, 4, 60), rng.integers(0, 6, 60)
    found[:30] = truth[:30]
    (value,) = adjusted_rand(np.ones((1, 60)), truth, found)
    assert value == pytest.approx(adjusted_rand_score(truth, found), abs=1e-12)


def test_a_row_drawn_twice_makes_no_pair_with_itself() -> None:
    """Else the bootstrap of groups that have nothing to do with each other would lie above zero."""
    rng = np.random.default_rng(1)
    truth, found = rng.integers(0, 3, 200), rng.integers(0, 3, 200)
    weights = rng.multinomial(200, np.full(200, 1 / 200), size=400).astype(np.float64)
    once = adjusted_rand(np.ones((1, 200)), truth, found)[0]
    assert adjusted_rand(weights, truth, found).mean() == pytest.approx(once, abs=0.005)


def test_one_draw_from_the_events_to_the_line() -> None:
    """Every share in the line is of what it says."""
    vectors, truth = drawn(1)
    messages, bodies = [], {}
    for index, (vector, intent) in enumerate(zip(vectors, truth, strict=True)):
        name = f"{NEW}intent {intent}" if intent >= 0 else "noise: ood"
        messages.append(Message(Asked(f"r{index}", "sing"), name))
        # One in ten is taken for a known intent, and discovery never sees it.
        event = ood(index, "sing", vector) if index % 10 else prediction(index)
        bodies[f"r{index}"] = event.to_body()
    outcome = measured("a draw", messages, bodies, TAXONOMY)
    n_new = int((truth >= 0).sum())
    n_seen = int((truth[np.arange(len(truth)) % 10 != 0] >= 0).sum())
    assert outcome.candidates == 225
    assert outcome.rejected == pytest.approx(n_seen / n_new)
    assert outcome.found == 4
    assert outcome.rand.value >= 0.9
    assert outcome.rand.low <= outcome.rand.value <= outcome.rand.high
    assert outcome.rand.n == round(outcome.clustered * outcome.candidates)
    assert f"{outcome.rand.value:.3f} [{outcome.rand.low:.3f}, {outcome.rand.high:.3f}]" in line(outcome)
    assert "mean of 1 draws (all)" in mean_line("all", [outcome])


def test_a_draw_without_clusters_counts_as_nothing_found() -> None:
    """Left out, it would make the means look better than they are."""
    messages = [Message(Asked(f"r{index}", "sing"), f"{NEW}song") for index in range(20)]
    bodies = {f"r{index}": ood(index, "sing", np.ones(4)).to_body() for index in range(20)}
    outcome = measured("a draw", messages, bodies, TAXONOMY)
    assert (outcome.candidates, outcome.clusters, outcome.found, outcome.withheld) == (20, 0, 0, 1)
    assert (outcome.clustered, outcome.withheld_clustered) == (0.0, 0.0)
    assert np.isnan(outcome.rand.value)
    assert "found 0.000 [0.000, 0.000]" in mean_line("all", [outcome])


def test_the_halves_share_no_intent() -> None:
    """What the rules were chosen on is not what they are judged on."""
    intents = [f"intent {index}" for index in range(9)]
    parts = halves(intents)
    assert sorted(parts["chosen-on"] + parts["held-out"]) == intents
    assert halves(intents) == parts


def test_messages_are_read_with_what_they_are(tmp_path: Path) -> None:
    """Test messages by intent; as much noise of each kind; the model's own ood stays ood."""
    rows = {
        "clinc150/test.jsonl": [{"text": "hum a tune", "labels": ["hum"]}, {"text": "hello", "labels": ["hi"]}],
        "clinc150/oos_test.jsonl": [{"text": f"odd {index}", "labels": ["oos"]} for index in range(NOISE)],
        "ms_chitchat_en/all.jsonl": [{"text": f"nice {index}", "labels": ["chat"]} for index in range(NOISE)],
        "own.jsonl": [{"text": "a box set?", "intents": ["faq", "promotion"]}, {"text": "rain?", "intents": []}],
    }
    for name, lines in rows.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in lines), encoding="utf-8")
    labels = {"datasets": {"clinc150": {"hi": {"target": "chitchat", "fit": "strong"}}}}
    (tmp_path / "label_map.json").write_text(json.dumps(labels), encoding="utf-8")
    withheld, noise = clinc150(tmp_path)
    own = in_scope_messages(tmp_path, tmp_path / "own.jsonl")
    assert [(one.asked.text, one.truth) for one in withheld["hum"]] == [("hum a tune", f"{NEW}hum")]
    assert sorted({one.truth for one in noise}) == ["noise: chat", "noise: ood"]
    assert len(noise) == 2 * NOISE
    assert [one.truth for one in own] == ["own: faq", "own: ood"]
    assert (is_unknown(tmp_path, "hum"), is_unknown(tmp_path, "hi")) == (True, False)
