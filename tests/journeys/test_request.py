"""One request, end to end, in this process: from the bytes of the body to the event that monitoring will read."""

import contextlib
import sqlite3
from pathlib import Path

import httpx
import numpy as np
import pytest

from model_repo.contract.decision import decide
from model_repo.contract.events import LabelEvent, PredictionEvent
from model_repo.contract.outputs import ModelOutputs
from service.app import build
from service.backends.choice import open_backend
from service.tokenizer import UtteranceTokenizer
from tests.service.real_version import make_real_repository
from tests.service.running import POLICY, running, test_settings
from tests.tiny_artefact import POLICY as TINY_POLICY

TEXT = "refund & hello, write to kana@example.org about order 4411"


@pytest.mark.asyncio
async def test_a_request_becomes_a_decision_an_event_and_later_a_label(tmp_path: Path) -> None:
    """The answer, the event and the contract's decision function agree; the label finds its event."""
    async with running(tmp_path, embedding_sample_ratio=1.0) as service:
        answer = (await service.route(f"  {TEXT}  ", session_id="chat-1")).json()
        label = {"request_id": answer["request_id"], "intents": [answer["top"]["intent"]], "source": "agent"}
        assert (await service.client.post("/feedback", json=label)).status_code == 202

    with contextlib.closing(sqlite3.connect(tmp_path / "events.sqlite")) as log:
        [(body,)] = log.execute("SELECT body FROM predictions").fetchall()
        [(label_body,)] = log.execute("SELECT labels.body FROM labels JOIN predictions USING (request_id)").fetchall()
    event = PredictionEvent.from_body(body)
    assert event.text == "refund & hello, write to <email> about order <order>"
    assert (event.session_id, event.lang, event.n_tokens) == ("chat-1", "en", len(TEXT))
    assert list(event.intents) == [entry["intent"] for entry in answer["intents"]]
    assert LabelEvent.from_body(label_body).intents == (event.top,)

    outputs = _outputs_of(event)
    decisions = decide(outputs, POLICY)
    assert decisions.verdict(0) == answer["decision"] == "multi"
    assert decisions.probabilities[0].tolist() == pytest.approx(list(answer["probabilities"].values()))


def _outputs_of(event: PredictionEvent) -> ModelOutputs:
    """What monitoring rebuilds from an event."""
    return ModelOutputs(np.array([event.logits]), np.array([event.age_logit]), np.zeros((1, 1)))


@pytest.mark.asyncio
async def test_the_real_engine_answers_as_it_would_alone(tmp_path: Path) -> None:
    """A tiny exported model through the whole service: probabilities are those of one pass of its engine."""
    make_real_repository(tmp_path / "repo")
    app, service = build(test_settings(tmp_path))
    await service.start()
    try:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://router") as client:
            model = (await client.get("/model")).json()
            answer = (await client.post("/route", json={"text": "where is my order"})).json()
    finally:
        await service.stop()
    assert model["backend"] in ("onnxruntime", "openvino")
    assert sum(answer["probabilities"].values()) == pytest.approx(1.0)

    folder = tmp_path / "repo" / "1"
    ids = UtteranceTokenizer(folder / "tokenizer.json", 48).encode("where is my order")
    expected = decide(open_backend(folder).infer([ids]), TINY_POLICY).probabilities[0]
    assert list(answer["probabilities"].values()) == pytest.approx(expected.tolist(), abs=1e-5)
