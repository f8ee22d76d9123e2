"""From the outputs of a micro-batch to its decisions, its events in the log, and an answer for each utterance."""

import base64
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from model_repo.contract.decision import Decisions, decide, high_risk_reasons
from model_repo.contract.events import PredictionEvent
from model_repo.contract.labels import Taxonomy
from model_repo.contract.outputs import ModelOutputs
from model_repo.contract.policy import Policy
from service.batcher import BatchTimings
from service.event_log import EventLog
from service.language import guess_language
from service.redaction import redact
from service.telemetry import Telemetry

Answer = dict[str, Any]
"""As ``schemas.RouteAnswer`` describes it, ready to be written as JSON."""


class Utterance:
    """An admitted utterance on its way; tokenized by the worker that first looks at its length."""

    __slots__ = ("_encode", "_token_ids", "received_at", "request_id", "session_id", "text", "tokenize_ms")

    def __init__(
        self,
        text: str,
        request_id: str,
        session_id: str | None,
        received_at: float,
        encode: Callable[[str], Sequence[int]],
    ) -> None:
        """``received_at`` is ``time.perf_counter()``."""
        self.text = text
        self.request_id = request_id
        self.session_id = session_id
        self.received_at = received_at
        self.tokenize_ms = 0.0
        self._encode = encode
        self._token_ids: Sequence[int] | None = None

    @property
    def token_ids(self) -> Sequence[int]:
        """Computed once. Two workers that ask at the same moment compute the same."""
        if self._token_ids is None:
            began = time.perf_counter()
            self._token_ids = self._encode(self.text)
            self.tokenize_ms = (time.perf_counter() - began) * 1e3
        return self._token_ids


@dataclass(frozen=True)
class EventContent:
    """What an event carries besides the decision."""

    store_text: bool
    embedding_sample_ratio: float


class Answering:
    """Turns micro-batches of one version into answers, under the policy in force at that moment."""

    def __init__(
        self, taxonomy: Taxonomy, policy: Policy, content: EventContent, event_log: EventLog, telemetry: Telemetry
    ) -> None:
        self.taxonomy = taxonomy
        self.policy = policy
        """May be replaced by another revision at any time; a micro-batch reads it once."""
        self._content = content
        self._event_log = event_log
        self._telemetry = telemetry

    def finish(self, utterances: Sequence[Utterance], outputs: ModelOutputs, timings: BatchTimings) -> list[Answer]:
        """On a worker thread: decide, write the events of the whole micro-batch, then give the answers."""
        began = time.perf_counter()
        policy = self.policy
        decisions = decide(outputs, policy)
        waits = _waits_ms(utterances, timings, began)
        answers = build_answers(utterances, decisions, policy, self.taxonomy, waits)
        decided = time.perf_counter()
        self._event_log.append(build_events(utterances, outputs, answers, self._content, time.time()))
        logged = time.perf_counter()
        self._record(utterances, timings, answers, decided - began, logged - decided)
        return answers

    def _record(
        self,
        utterances: Sequence[Utterance],
        timings: BatchTimings,
        answers: Sequence[Answer],
        decide_s: float,
        log_s: float,
    ) -> None:
        self._telemetry.record_batch(len(answers), timings.inference_ms / 1e3, decide_s, log_s)
        self._telemetry.record_waits(
            [utterance.tokenize_ms / 1e3 for utterance in utterances],
            [answer["timings_ms"]["queue"] / 1e3 for answer in answers],
        )
        self._telemetry.record_decisions(
            [answer["decision"] for answer in answers],
            [entry["intent"] for answer in answers for entry in answer["intents"]],
        )


def _waits_ms(utterances: Sequence[Utterance], timings: BatchTimings, now: float) -> list[dict[str, float]]:
    """The timings of each answer; the queue is what is left of the wait after tokenizing, which is part of it."""
    inference = round(timings.inference_ms, 3)
    return [
        {
            "tokenize": round(utterance.tokenize_ms, 3),
            "queue": round(max(0.0, queue_ms - utterance.tokenize_ms), 3),
            "inference": inference,
            "total": round((now - utterance.received_at) * 1e3, 3),
        }
        for utterance, queue_ms in zip(utterances, timings.queue_ms, strict=True)
    ]


def build_answers(
    utterances: Sequence[Utterance],
    decisions: Decisions,
    policy: Policy,
    taxonomy: Taxonomy,
    waits_ms: Sequence[dict[str, float]],
) -> list[Answer]:
    """One answer a row. Arrays become lists once a batch: element by element it would cost ten times as much."""
    intents = taxonomy.intents
    model = {"version": policy.version, "policy": policy.name, "role": "champion"}
    rows = zip(
        utterances,
        waits_ms,
        decisions.probabilities.tolist(),
        decisions.is_accepted.tolist(),
        decisions.energies.tolist(),
        decisions.is_ood.tolist(),
        decisions.top.tolist(),
        decisions.is_age_sensitive.tolist(),
        strict=True,
    )
    answers = []
    for utterance, timings, probabilities, is_accepted, energy, is_ood, top, age_sensitive in rows:
        accepted = [k for k, taken in enumerate(is_accepted) if taken]
        accepted.sort(key=lambda k: -probabilities[k])
        reasons = high_risk_reasons([intents[k] for k in accepted], age_sensitive, taxonomy)
        answers.append(
            {
                "request_id": utterance.request_id,
                "decision": "ood" if is_ood else "multi" if len(accepted) > 1 else "single",
                "intents": [{"intent": intents[k], "probability": probabilities[k]} for k in accepted],
                "top": {"intent": intents[top], "probability": probabilities[top]},
                "probabilities": dict(zip(intents, probabilities, strict=True)),
                "ood": {"is_ood": is_ood, "energy": energy, "cut": policy.energy_cut},
                "high_risk": bool(reasons),
                "high_risk_reasons": reasons,
                "age_sensitive": age_sensitive,
                "model": model,
                "timings_ms": timings,
            }
        )
    return answers


def build_events(
    utterances: Sequence[Utterance],
    outputs: ModelOutputs,
    answers: Sequence[Answer],
    content: EventContent,
    at: float,
) -> list[PredictionEvent]:
    """One event an answer, with the same timings."""
    rows = zip(utterances, answers, outputs.logits.tolist(), outputs.age_logits.tolist(), strict=True)
    return [
        PredictionEvent(
            request_id=utterance.request_id,
            at=at,
            version=answer["model"]["version"],
            policy=answer["model"]["policy"],
            role=answer["model"]["role"],
            session_id=utterance.session_id,
            text=redact(utterance.text) if content.store_text else None,
            n_tokens=len(utterance.token_ids),
            lang=guess_language(utterance.text),
            logits=tuple(logits),
            age_logit=age_logit,
            embedding=_encoded(outputs.embeddings[row])
            if is_sampled(utterance.request_id, content.embedding_sample_ratio)
            else None,
            top=answer["top"]["intent"],
            intents=tuple(entry["intent"] for entry in answer["intents"]),
            confidence=answer["top"]["probability"],
            energy=answer["ood"]["energy"],
            is_ood=answer["ood"]["is_ood"],
            age_sensitive=answer["age_sensitive"],
            tokenize_ms=answer["timings_ms"]["tokenize"],
            queue_ms=answer["timings_ms"]["queue"],
            inference_ms=answer["timings_ms"]["inference"],
            total_ms=answer["timings_ms"]["total"],
        )
        for row, (utterance, answer, logits, age_logit) in enumerate(rows)
    ]


def is_sampled(request_id: str, ratio: float) -> bool:
    """
    Whether a request belongs to a sample of this share; always the same for the same id.

    >>> is_sampled("a", 0.0), is_sampled("a", 1.0)
    (False, True)
    """
    return zlib.crc32(request_id.encode()) < ratio * 2**32


def _encoded(embedding: "np.ndarray[Any, np.dtype[np.floating[Any]]]") -> str:
    return base64.b64encode(embedding.astype(np.float16).tobytes()).decode()
