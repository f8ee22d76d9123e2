"""New-intent discovery on a written log: what is gathered, what is left for people, and that the log is only read."""

import base64
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_repo.contract.events import PredictionEvent
from monitoring.clusters import ClusterRules
from monitoring.discovery import DiscoverIntents, DiscoveryRules, discover, distinct_events
from monitoring.discovery_page import discovery_page
from monitoring.embedded_events import PAGE_EVENTS, EmbeddedEvent, read_embedded
from monitoring.errors import HookFailed
from monitoring.key_terms import key_terms
from monitoring.observations import StreamKey, labelled_dtype, prediction_dtype
from monitoring.remedies import ActionRequest, ActionResult, Awaited
from monitoring.windows import Window
from tests.monitoring.event_logs import BEGAN, KEY, TAXONOMY, WrittenLog, label, prediction
from tests.monitoring.test_clusters import drawn

RULES = DiscoveryRules(clusters=ClusterRules(resamples=3))
SENTENCES = (
    ("do you buy back volumes i have read", "can i sell you my read volumes", "what do you pay for a used box set"),
    ("is there a signing in the shop next week", "when does the author come for a signing", "tickets for the signing"),
    ("読んだ本を買取してくれますか", "買取の値段を教えて", "買取の申し込み方法は？"),
    ("why does the reader show a black page", "the reader shows black pages", "black page in the reader again"),
)
NOISE = (
    "who wins the cup",
    "what is seven times six",
    "rain tomorrow?",
    "tell me of rome",
    "sing",
    "how old is the sun",
)


def encoded(vector: np.ndarray) -> str:
    return base64.b64encode(vector.astype("<f2").tobytes()).decode()


def ood(index: int, text: str | None, vector: np.ndarray | None, **changes: object) -> PredictionEvent:
    embedding = None if vector is None else encoded(vector)
    return prediction(index, text=text, embedding=embedding, intents=(), is_ood=True, **changes)


def request(key: str = "ood_precision_down-20231114T221320/1-discover_intents") -> ActionRequest:
    return ActionRequest(key, key.partition("/")[0], "discover_intents", KEY, BEGAN, ("ood precision",), (), None)


def window() -> Window:
    n_intents = len(TAXONOMY.intents)
    predictions, labelled = (np.empty(0, dtype=kind(n_intents)) for kind in (prediction_dtype, labelled_dtype))
    return Window(KEY, TAXONOMY, predictions, labelled, np.empty((0, 0), dtype=np.float16))


def fill(log: WrittenLog, with_text: bool = True) -> np.ndarray:
    """250 utterances decided ood, of four intents and noise, and 40 of a known one; the truth of the 250."""
    vectors, truth = drawn(1)
    for index, (vector, intent) in enumerate(zip(vectors, truth, strict=True)):
        sentences = SENTENCES[intent] if intent >= 0 else NOISE
        text = f"{sentences[index % len(sentences)]}, {index}"
        log.predict(ood(index, text if with_text else None, vector))
    rng = np.random.default_rng(0)
    for index in range(len(truth), len(truth) + 40):
        vector = vectors[truth == 2].mean(axis=0) + rng.normal(0.0, 0.05, vectors.shape[1])
        log.predict(prediction(index, text="my parcel is late" if with_text else None, embedding=encoded(vector)))
    return truth


def run(log: WrittenLog, folder: Path, rules: DiscoveryRules = RULES) -> ActionResult:
    return DiscoverIntents(log.path, folder, rules).run(request(), window())


def queue(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "discovery" / f"{request().key}.json").read_text(encoding="utf-8"))


def test_clusters_go_to_the_review_queue(log: WrittenLog, tmp_path: Path) -> None:
    """Each with its size, exemplars, terms, nearest known intent and stability, and pure by the truth of the test."""
    truth = fill(log)
    result = run(log, tmp_path)
    body = queue(tmp_path)
    assert result.outcome == "done"
    assert len(body["clusters"]) == 4
    for cluster in body["clusters"]:
        intents = [truth[int(request_id.removeprefix("r"))] for request_id in cluster["request_ids"]]
        main = max(set(intents), key=intents.count)
        assert main >= 0
        assert intents.count(main) >= 0.9 * len(intents)
        assert cluster["size"] == len(intents)
        assert 0.0 <= cluster["stability"] <= 1.0
        assert cluster["nearest_intent"] == "parcel"
        assert -1.0 <= cluster["similarity"] <= 1.0
        assert any(term in sentence for term in cluster["key_terms"] for sentence in SENTENCES[main])
        assert {exemplar["text"].rpartition(",")[0] for exemplar in cluster["exemplars"]} <= set(SENTENCES[main])


def test_every_utterance_is_in_one_cluster_or_counted_as_in_none(log: WrittenLog, tmp_path: Path) -> None:
    """Nothing is lost between the log and the queue."""
    truth = fill(log)
    run(log, tmp_path)
    body = queue(tmp_path)
    ids = [one for cluster in body["clusters"] for one in cluster["request_ids"]] + body["unclustered_request_ids"]
    assert sorted(ids) == sorted(f"r{index}" for index in range(len(truth)))
    assert body["clustered"] + body["unclustered"] == body["utterances"]["all"] == len(truth)
    assert body["unclustered"] == len(body["unclustered_request_ids"])
    assert body["looked_through"]["predictions"] == len(truth) + 40


def test_the_result_tells_what_was_found(log: WrittenLog, tmp_path: Path) -> None:
    """An incident shows the result, not the file."""
    fill(log)
    result = run(log, tmp_path)
    body = queue(tmp_path)
    assert f"{len(body['clusters'])} clusters of {body['clustered']} utterances among 250" in result.words
    assert Path(result.detail["file"]).is_file()
    assert Path(result.detail["readable"]).read_text(encoding="utf-8") == discovery_page(body)
    assert [one["size"] for one in result.detail["clusters"]] == [one["size"] for one in body["clusters"]]


def test_without_texts_request_ids_have_to_do(log: WrittenLog, tmp_path: Path) -> None:
    """The service may store no text: clusters are the same, and tell ids only."""
    fill(log, with_text=False)
    assert run(log, tmp_path).outcome == "done"
    body = queue(tmp_path)
    assert body["utterances"]["with_text"] == 0
    assert all(cluster["key_terms"] == [] for cluster in body["clusters"])
    assert all(exemplar["text"] is None for cluster in body["clusters"] for exemplar in cluster["exemplars"])
    page = (tmp_path / "discovery" / f"{request().key}.md").read_text(encoding="utf-8")
    assert "without texts" in page
    assert "request r" in page


@pytest.mark.parametrize(("have", "is_short"), [(37, True), (80, False)])
def test_a_wait_that_was_cut_short_is_told(log: WrittenLog, tmp_path: Path, have: int, is_short: bool) -> None:
    """In the incident and on the page: whoever reads them is not to take what is missing for what is not there."""
    fill(log)
    awaited = Awaited("discover_intents", 80, have, since=BEGAN, until=None, precision=0.7)
    asked = replace(request(), awaited=awaited)
    result = DiscoverIntents(log.path, tmp_path, RULES).run(asked, window())
    page = Path(result.detail["readable"]).read_text(encoding="utf-8")
    assert f"about {have} utterances of what is new since 2023-11-14 22:13 UTC, 80 are enough" in page
    assert ("may be missing" in page) == is_short
    assert (f"the longest wait was over with about {have} utterances" in result.words) == is_short
    assert queue(tmp_path)["request"]["awaited"]["have"] == have


def test_a_wait_that_was_cut_short_is_told_where_nothing_was_found(log: WrittenLog, tmp_path: Path) -> None:
    """That is where it explains most."""
    log.predict(*[ood(index, "sing me a song", np.ones(4)) for index in range(20)])
    awaited = Awaited("discover_intents", 80, 12, since=BEGAN, until=None, precision=0.7)
    result = DiscoverIntents(log.path, tmp_path, RULES).run(replace(request(), awaited=awaited), window())
    assert result.outcome == "nothing_to_do"
    assert "the longest wait was over with about 12 utterances" in result.words


def test_the_log_is_only_read(log: WrittenLog, tmp_path: Path) -> None:
    """Discovery runs beside a service that writes."""
    fill(log)
    log.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = log.path.read_bytes()
    run(log, tmp_path)
    assert log.path.read_bytes() == before


def test_asked_again_under_the_same_key_nothing_is_overwritten(log: WrittenLog, tmp_path: Path) -> None:
    """People may be at work on the file."""
    fill(log)
    run(log, tmp_path)
    file = tmp_path / "discovery" / f"{request().key}.json"
    file.write_text('{"reviewed": true}', encoding="utf-8")
    again = run(log, tmp_path)
    assert again.outcome == "nothing_to_do"
    assert "already" in again.words
    assert json.loads(file.read_text(encoding="utf-8")) == {"reviewed": True}


def test_too_few_utterances_are_nothing_to_do_in_words(log: WrittenLog, tmp_path: Path) -> None:
    """With what would change it, when what is missing is embeddings."""
    log.predict(*[ood(index, "sing me a song", np.ones(4)) for index in range(20)])
    log.predict(*[ood(index, "sing me a song", None) for index in range(20, 60)])
    result = run(log, tmp_path)
    assert result.outcome == "nothing_to_do"
    assert "20 utterances" in result.words
    assert "clusters need 50" in result.words
    assert "40 more were decided ood without one" in result.words
    assert not (tmp_path / "discovery").exists()


def test_utterances_that_are_not_alike_are_nothing_to_do(log: WrittenLog, tmp_path: Path) -> None:
    """Noise alone makes no cluster, and no file."""
    rng = np.random.default_rng(3)
    log.predict(*[ood(index, NOISE[index % 6], rng.normal(0.0, 1.0, 192)) for index in range(120)])
    result = run(log, tmp_path)
    assert result.outcome == "nothing_to_do"
    assert "120 utterances" in result.words


def test_a_missing_log_is_tried_again(tmp_path: Path) -> None:
    """The volume may come back."""
    with pytest.raises(HookFailed, match="cannot be read"):
        DiscoverIntents(tmp_path / "events.sqlite", tmp_path).run(request(), window())


def test_a_folder_that_cannot_be_written_is_tried_again(log: WrittenLog, tmp_path: Path) -> None:
    """And then there is no file that would say that it was done."""
    fill(log)
    (tmp_path / "discovery").write_text("in the way", encoding="utf-8")
    with pytest.raises(HookFailed, match="cannot be written"):
        run(log, tmp_path)


def test_what_counts_as_unrouted(log: WrittenLog) -> None:
    """Decided ood, labelled ood, or labelled with none of what was decided; the label that holds counts."""
    vector = encoded(np.ones(4))
    log.predict(*[prediction(index, embedding=vector) for index in range(6)])
    log.predict(ood(6, "sing", np.ones(4)))
    log.label(label("r1", "parcel"), BEGAN + 10)
    log.label(label("r2", "refund"), BEGAN + 10)
    log.label(label("r3"), BEGAN + 10)
    log.label(label("r4", "refund", "parcel"), BEGAN + 10)
    log.label(label("r5", source="rule"), BEGAN + 10)
    log.label(label("r5", "parcel", source="review"), BEGAN + 20)
    log.label(label("r6", "refund"), BEGAN + 10)
    found = read_embedded(log.path, KEY, TAXONOMY, 100)
    assert {event.request_id for event in found.events if event.is_unrouted} == {"r2", "r3", "r6"}
    assert {event.request_id: event.label for event in found.events} == {
        "r0": None,
        "r1": ("parcel",),
        "r2": ("refund",),
        "r3": (),
        "r4": ("parcel", "refund"),
        "r5": ("parcel",),
        "r6": ("refund",),
    }


def test_only_the_version_in_its_role_counts_under_whichever_policy(log: WrittenLog) -> None:
    """Embeddings of another version lie elsewhere; a shadow answered the same requests once more."""
    vector = encoded(np.ones(4))
    log.predict(
        prediction(0, embedding=vector),
        prediction(1, embedding=vector, policy="1.2"),
        prediction(2, embedding=vector, role="shadow"),
        prediction(3, embedding=vector, version="2", policy="2.1"),
    )
    found = read_embedded(log.path, StreamKey("1", "1.2", "champion"), TAXONOMY, 100)
    assert [event.request_id for event in found.events] == ["r1", "r0"]
    assert found.looked_through == 2


def test_reading_stops_at_the_limit_and_the_newest_come_first(log: WrittenLog) -> None:
    """Over several pages, with every event once."""
    n, vector = PAGE_EVENTS + 100, encoded(np.ones(4))
    log.predict(*[prediction(index, embedding=vector if index % 50 == 0 else None) for index in range(n)])
    found = read_embedded(log.path, KEY, TAXONOMY, PAGE_EVENTS + 50)
    assert found.looked_through == PAGE_EVENTS + 50
    assert [event.request_id for event in found.events] == [f"r{index}" for index in range(2100, 49, -50)]
    assert found.vectors.shape == (len(found.events), 4)


def test_a_request_answered_twice_counts_once(log: WrittenLog) -> None:
    """With its latest answer."""
    log.predict(ood(0, "first", np.ones(4)), ood(0, "second", np.ones(4)))
    assert [event.text for event in read_embedded(log.path, KEY, TAXONOMY, 10).events] == ["second"]


def test_what_cannot_be_read_is_counted_and_left_out(log: WrittenLog) -> None:
    """One bad row costs no other."""
    log.predict(ood(0, "sing", np.ones(4)))
    log.write_predictions([("r1", BEGAN, "{"), ("r2", BEGAN, b"\xff\xfe"), ("r3", BEGAN, "[]")])
    log.write_labels([("r0", BEGAN, "nonsense")])
    found = read_embedded(log.path, KEY, TAXONOMY, 10)
    assert [event.request_id for event in found.events] == ["r0"]
    assert found.malformed == 3
    assert found.events[0].label is None


def test_older_utterances_are_left_out_and_counted(log: WrittenLog) -> None:
    """Clustering has its price; what is new is what is looked for."""
    truth = fill(log)
    found = read_embedded(log.path, KEY, TAXONOMY, 1000)
    body = discover(found, replace(RULES, most_utterances=100))
    ids = [one for cluster in body["clusters"] for one in cluster["request_ids"]] + body["unclustered_request_ids"]
    assert sorted(ids) == sorted(f"r{index}" for index in range(len(truth) - 100, len(truth)))
    assert body["utterances"]["left_out_as_older"] == 150


@pytest.mark.parametrize(("since", "expected"), [(100, 150), (0, 250), (240, 50)])
def test_utterances_of_before_something_new_came_are_left_out(log: WrittenLog, since: int, expected: int) -> None:
    """Ordinary ones would hide it; but when too few have come since, older ones make up what clusters need."""
    fill(log)
    body = discover(read_embedded(log.path, KEY, TAXONOMY, 1000), RULES, since=BEGAN + since)
    assert body["utterances"]["all"] == expected
    assert body["utterances"]["left_out_as_older"] == 250 - expected
    assert body["looked_through"]["from"] == BEGAN + 250 - expected


def test_the_action_clusters_what_has_come_since(log: WrittenLog, tmp_path: Path) -> None:
    """Its request says since when."""
    fill(log)
    awaited = Awaited("discover_intents", 80, 90, since=BEGAN + 100, until=None, precision=0.7)
    DiscoverIntents(log.path, tmp_path, RULES).run(replace(request(), awaited=awaited), window())
    assert queue(tmp_path)["utterances"]["all"] == 150


def event(request_id: str, text: str | None) -> EmbeddedEvent:
    return EmbeddedEvent(request_id, BEGAN, text, "en", (), None)


def test_exemplars_are_told_apart_by_what_they_say() -> None:
    """Case, spaces and signs make no other text; without a text, or with signs alone, each is its own."""
    events = [event("a", "Sell my books?"), event("b", "sell  my books"), event("c", None), event("d", None)]
    assert [one.request_id for one in distinct_events(events)] == ["a", "c", "d"]
    assert [one.request_id for one in distinct_events([event("a", "???"), event("b", "!!!")])] == ["a", "b"]


def test_nothing_a_customer_writes_is_markup(log: WrittenLog, tmp_path: Path) -> None:
    """The page is opened by people; a text stays a text, on one line and of bounded length."""
    fill(log)
    run(log, tmp_path)
    body = queue(tmp_path)
    body["clusters"][0]["exemplars"][0]["text"] = "<script>x</script>\n# head [a](http://b) `c` | d" + "e" * 500
    page = discovery_page(body)
    assert "<script>" not in page
    assert "\n# head" not in page
    assert "[a](" not in page
    assert max(map(len, page.splitlines())) < 700


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([["buy back my books", "do you buy back books"], ["a signing today", "the signing"]], ["buy", "signing"]),
        ([["本を買取して", "買取の値段"], ["サイン会はいつ", "サイン会の予約"]], ["買取", "サイン"]),
        ([["ｓing", "¿?"], []], [None, None]),
    ],
)
def test_key_terms_are_what_a_group_says_and_others_do_not(
    groups: Sequence[Sequence[str]], expected: Sequence[str | None]
) -> None:
    """In languages with and without spaces; of nothing telling there are no terms."""
    terms = key_terms(groups, [text for group in groups for text in group] + ["do you have the box", "本はどこ"], 3)
    for words, word in zip(terms, expected, strict=True):
        assert words == () if word is None else any(word in term for term in words)


def test_key_terms_leave_out_what_everybody_says_and_what_was_redacted() -> None:
    """A word of every utterance weighs nothing, a tag of the redaction is no word."""
    group = ["please sell my <order> books", "please sell these <order>"]
    (terms,) = key_terms([group], [*group, "please help", "please come", "please stop"], 5)
    assert any("sell" in term for term in terms)
    assert not any("order" in term or term == "please" for term in terms)


def test_killed_before_the_file_was_there_it_is_done_again(log: WrittenLog, tmp_path: Path) -> None:
    """A kill between page and file does the whole again: the file is what counts."""
    fill(log)
    run(log, tmp_path)
    file = tmp_path / "discovery" / f"{request().key}.json"
    file.unlink()
    assert run(log, tmp_path).outcome == "done"
    assert file.exists()
