"""From outputs to answers and events."""

import base64
import time

import numpy as np
import pytest

from model_repo.contract.outputs import ModelOutputs
from service.answers import Answering, EventContent, Utterance, is_sampled
from service.batcher import BatchTimings
from service.telemetry import Telemetry
from tests.doubles import FakeEventLog
from tests.service.running import POLICY, TAXONOMY

OUTPUTS = ModelOutputs(
    logits=np.array([[6.0, 0.0, 5.9], [0.0, 0.0, 0.0]], dtype=np.float32),
    age_logits=np.array([4.0, -4.0], dtype=np.float32),
    embeddings=np.array([[1.0, -0.5], [0.25, 2.0]], dtype=np.float32),
)
TIMINGS = BatchTimings(queue_ms=(1.0, 2.0), inference_ms=3.0)


def finish(content: EventContent) -> tuple[list[dict[str, object]], FakeEventLog]:
    """Answers and log of the two utterances."""
    log = FakeEventLog()
    answering = Answering(TAXONOMY, POLICY, content, log, Telemetry())
    utterances = [
        Utterance("mail me at jo@example.org", "r-1", "s-1", time.perf_counter(), lambda text: [1, 2, 3]),
        Utterance("予約", "r-2", None, time.perf_counter(), lambda text: [4]),
    ]
    return answering.finish(utterances, OUTPUTS, TIMINGS), log


def test_answers_and_events_say_the_same() -> None:
    """Decision, timings, model; the event is in the log when the answer is there."""
    answers, log = finish(EventContent(store_text=True, embedding_sample_ratio=0.0))
    assert [answer["decision"] for answer in answers] == ["multi", "ood"]
    for answer, event in zip(answers, log.events, strict=True):
        assert event.request_id == answer["request_id"]
        assert event.is_ood == (answer["decision"] == "ood")
        timings = {"tokenize": event.tokenize_ms, "queue": event.queue_ms}
        timings |= {"inference": event.inference_ms, "total": event.total_ms}
        assert answer["timings_ms"] == timings
        assert f"{event.version}.1" == event.policy == "1.1"


def test_risk_names_the_intent_and_the_age() -> None:
    """Both reasons, and none where there is none."""
    answers, _ = finish(EventContent(store_text=True, embedding_sample_ratio=0.0))
    assert answers[0]["high_risk_reasons"] == ["refund", "age_sensitive"]
    assert (answers[1]["high_risk"], answers[1]["high_risk_reasons"]) == (False, [])


def test_the_original_guess_is_kept_when_ood() -> None:
    """Top stands, intents are empty."""
    answers, log = finish(EventContent(store_text=True, embedding_sample_ratio=0.0))
    assert answers[1]["intents"] == []
    assert answers[1]["top"] == {"intent": "refund", "probability": pytest.approx(1 / 3)}
    assert (log.events[1].top, log.events[1].intents) == ("refund", ())


def test_stored_text_is_redacted_and_can_be_left_out() -> None:
    """Language and length are kept either way."""
    _, stored = finish(EventContent(store_text=True, embedding_sample_ratio=0.0))
    _, bare = finish(EventContent(store_text=False, embedding_sample_ratio=0.0))
    assert [event.text for event in stored.events] == ["mail me at <email>", "予約"]
    assert [event.text for event in bare.events] == [None, None]
    assert [(event.lang, event.n_tokens) for event in bare.events] == [("en", 3), ("ja", 1)]


def test_a_sampled_event_carries_the_embedding_as_float16() -> None:
    """Base64 of the raw numbers."""
    _, log = finish(EventContent(store_text=False, embedding_sample_ratio=1.0))
    assert log.events[1].embedding is not None
    assert np.frombuffer(base64.b64decode(log.events[1].embedding), np.float16).tolist() == [0.25, 2.0]


def test_the_sample_has_about_its_share() -> None:
    """Of made-up ids, deterministically."""
    assert sum(is_sampled(f"id-{number}", 0.1) for number in range(5000)) == pytest.approx(500, abs=75)


def test_text_is_tokenized_once() -> None:
    """However often its length is asked."""
    calls = []
    utterance = Utterance("a", "r", None, 0.0, lambda text: calls.append(text) or [1])  # type: ignore[func-returns-value]
    assert (utterance.token_ids, utterance.token_ids) == ([1], [1])
    assert calls == ["a"]
