"""The demonstration: what it sends, and that it fails when something it shows does not happen."""

import asyncio
import random
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy import demo
from deploy.demo_traffic import AGENT_INTENT, about_the_club, ordinary, shuffled_for_ever
from model_repo.pipeline.data import read_authored, read_taxonomy


class TestTraffic:
    def test_ordinary_messages_were_held_out_of_training(self) -> None:
        """A fifth of the authored ones, as labelled there."""
        labels = {utterance.text: tuple(utterance.intents) for utterance in read_authored()}
        messages = ordinary()
        assert 0.19 < len(messages) / len(labels) < 0.21
        assert all(labels[message.text] == message.intents for message in messages)

    def test_the_new_kind_is_distinct_and_filed_under_an_intent_there_is(self) -> None:
        """And none of it is among the authored messages."""
        messages = about_the_club()
        assert len({message.text for message in messages}) == len(messages) == 1800
        assert AGENT_INTENT in read_taxonomy().intents
        assert not {message.text for message in messages} & {utterance.text for utterance in read_authored()}

    def test_every_message_comes_once_a_round(self) -> None:
        """In another order each time."""
        messages = about_the_club()[:20]
        endless = shuffled_for_ever(messages, random.Random(3))
        first, second = ([next(endless) for _ in messages] for _ in range(2))
        assert sorted(m.text for m in first) == sorted(m.text for m in second) == sorted(m.text for m in messages)
        assert first != second


def _incident(**changes: Any) -> dict[str, Any]:
    figures = {"value": 0.09, "low": 0.05, "high": 0.12, "n": 600, "reference": 0.03}
    remedy = {"key": "k/1", "action": "refit_calibrator", "result": {"outcome": "done", "words": "it recovers"}}
    incident = {
        "id": "ece_up-20260101T120000",
        "branch": "ece_up",
        "path": ["ECE up"],
        "evidence": [{"name": "ece", "verdict": "breached", **figures}],
        "remedies": [remedy],
        "status": "recovered",
        "began_at": 4e9,
        "ended_at": 4e9 + 30.0,
        "awaited": None,
    }
    return incident | changes


def _watcher(incidents: list[dict[str, Any]]) -> tuple[demo.Traffic, demo.Watcher]:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"incidents": incidents} if request.url.path == "/incidents" else {})

    client = httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://sidecar")
    traffic = demo.Traffic(client, about_the_club())
    return traffic, demo.Watcher(client, traffic)


class TestWatching:
    def test_an_incident_is_told_once_with_its_figures(self, capsys: pytest.CaptureFixture[str]) -> None:
        """And becomes a row of the table."""
        row = asyncio.run(demo._see("miscalibration", "ece_up", *_watcher([_incident()])))
        told = capsys.readouterr().out
        assert told.count("INCIDENT") == 1
        assert "ece 0.090 [0.050, 0.120] n 600, reference 0.030" in told
        assert "RECOVERED" in told
        assert (row.remedies, row.recovered_s - row.diagnosed_s) == ("refit_calibrator", 30.0)

    def test_what_is_waited_for_is_told(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Whoever watches is not to think that nothing happens."""
        awaited = {"action": "discover_intents", "have": 44, "need": 80}
        asyncio.run(demo._see("miscalibration", "ece_up", *_watcher([_incident(awaited=awaited)])))
        told = capsys.readouterr().out
        assert told.count("discover_intents: about 44 utterances of what is new, 80 are enough") == 1

    @pytest.mark.parametrize(
        ("incident", "lacking"),
        [
            (_incident(branch="latency_up"), "remedy for ece_up"),
            (_incident(began_at=0.0), "remedy for ece_up"),
            (_incident(remedies=[]), "remedy for ece_up"),
            (_incident(status="open", ended_at=None), "recovery of ece_up-20260101T120000"),
        ],
    )
    def test_what_does_not_happen_in_its_time_fails(
        self, monkeypatch: pytest.MonkeyPatch, incident: dict[str, Any], lacking: str
    ) -> None:
        """Saying what was waited for; an incident of before the break is not taken for its own."""
        monkeypatch.setattr(demo, "PHASE_S", 0.2)
        with pytest.raises(demo.DemoFailed, match=lacking):
            asyncio.run(demo._see("miscalibration", "ece_up", *_watcher([incident])))

    def test_a_folder_that_is_there_is_not_written_into(self, tmp_path: Path) -> None:
        """Exit status 2, and nothing is started."""
        assert demo.main(["--out", str(tmp_path)]) == 2
