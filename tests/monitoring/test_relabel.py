"""Queues hold what people need to label, once, and say so when texts are not stored."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_repo.contract.events import PredictionEvent
from monitoring.errors import HookFailed
from monitoring.event_texts import EventTexts
from monitoring.observations import Records
from monitoring.relabel import RelabelSegment, SampleForLabels
from monitoring.remedies import ActionRequest, ActionResult
from monitoring.windows import Window
from tests.monitoring.event_logs import TAXONOMY, WrittenLog, prediction
from tests.monitoring.labelled_windows import labelled_rows, request_of, window_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "monitoring.md"


def documented_fields() -> set[str]:
    """Fields that the document's table of a queue has."""
    section = DOCUMENT.read_text(encoding="utf-8").partition("**Queues.**")[2].partition("**Production labels.**")[0]
    return set(re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE))


class FakeRetrain:
    """Remembers what it was asked; fails for now as often as it is told."""

    def __init__(self, failures: int = 0) -> None:
        self.asked: list[str | None] = []
        self._failures = failures

    def run(self, request: ActionRequest, window: Window) -> ActionResult:
        self.asked.append(request.segment)
        if len(self.asked) <= self._failures:
            raise HookFailed("not now")
        return ActionResult("done", "Retrained.", {"version": "2"})


def written(log: WrittenLog, records: Records, texts: list[str | None]) -> None:
    """The records as events of the log, in their order."""
    log.predict(*(_event(record, i, text) for i, (record, text) in enumerate(zip(records, texts, strict=True))))


def _event(record: Records, index: int, text: str | None) -> PredictionEvent:
    return prediction(
        index, at=float(record["at"]), text=text, energy=float(record["energy"]), confidence=float(record["confidence"])
    )


def queue_of(result: ActionResult) -> list[dict[str, Any]]:
    """The rows of the file that the result names."""
    return [json.loads(line) for line in Path(result.detail["file"]).read_text(encoding="utf-8").splitlines()]


def numbered(n: int) -> list[str | None]:
    """A text of its own for each."""
    return [f"text {i}" for i in range(n)]


def rows_with_half_labelled(n: int = 400) -> Records:
    """The odd ones have no label; a quarter is mixed language, where the labels are wrong."""
    rows = labelled_rows(n, 0)
    rows["lang"] = np.where(np.arange(n) % 4 < 2, 2, 0)
    is_mixed = rows["lang"] == 2
    rows["truth"][is_mixed] = np.roll(rows["truth"][is_mixed], 1, axis=1)
    rows["is_correct"] = rows["truth"][np.arange(n), rows["top"]]
    rows["is_labelled"] = np.arange(n) % 2 == 0
    return rows


def window(rows: Records) -> Window:
    """Predictions of all of them, labels of those that have one."""
    whole = window_of(rows)
    return Window(whole.key, TAXONOMY, whole.predictions, rows[rows["is_labelled"]], whole.embeddings)


class TestRelabel:
    def test_queue_is_of_the_segment_and_says_why(self, log: WrittenLog, tmp_path: Path) -> None:
        """Disagreeing labels first, then what is least certain; each with its request and the text of that request."""
        rows = rows_with_half_labelled()
        written(log, rows, numbered(400))
        retrain = FakeRetrain()
        action = RelabelSegment(EventTexts(log.path), tmp_path, retrain, most=60)
        result = action.run(request_of("relabel_segment", segment="lang=mix"), window(rows))
        queue = queue_of(result)
        assert [row["why"] for row in queue] == ["label_disagrees"] * 30 + ["least_certain"] * 30
        assert {row["lang"] for row in queue} == {"mix"}
        assert all(row["text"] == f"text {row['request_id'][1:]}" for row in queue)
        assert all(row["label"] != row["intents"] for row in queue[:30])
        assert all(row["label"] is None for row in queue[30:])
        assert result.detail["rows_by_reason"] == {"label_disagrees": 30, "least_certain": 30}
        assert (retrain.asked, result.outcome, result.detail["version"]) == (["lang=mix"], "done", "2")

    def test_row_says_what_was_answered(self, log: WrittenLog, tmp_path: Path) -> None:
        """Every documented field, with values of the prediction."""
        rows = rows_with_half_labelled(8)
        rows["channel"] = b"app"
        written(log, rows, numbered(8))
        action = RelabelSegment(EventTexts(log.path), tmp_path, FakeRetrain())
        row = queue_of(action.run(request_of("relabel_segment", segment="lang=mix"), window(rows)))[0]
        record = rows[int(row["request_id"][1:])]
        assert set(row) == documented_fields() - {"drawn_from"}
        assert row["prediction"] == TAXONOMY.intents[int(record["top"])]
        assert row["probability"] == pytest.approx(float(record["confidence"]), abs=1e-6)
        assert (row["channel"], row["at"]) == ("app", float(record["at"]))

    def test_queue_is_bounded_and_one_kind_fills_what_the_other_lacks(self, log: WrittenLog, tmp_path: Path) -> None:
        """All labels agree: the whole queue is what is least certain."""
        rows = rows_with_half_labelled()
        rows["is_correct"] = True
        rows["truth"] = np.arange(4) == rows["top"][:, None]
        written(log, rows, numbered(400))
        action = RelabelSegment(EventTexts(log.path), tmp_path, FakeRetrain(), most=50)
        result = action.run(request_of("relabel_segment", segment="lang=mix"), window(rows))
        assert result.detail["rows_by_reason"] == {"least_certain": 50}

    def test_same_text_is_labelled_once(self, log: WrittenLog, tmp_path: Path) -> None:
        """But for case, width and spaces."""
        rows = rows_with_half_labelled(80)
        written(log, rows, [("Hello  there", "hello there", "ＨＥＬＬＯ there", "other")[i % 4] for i in range(80)])
        action = RelabelSegment(EventTexts(log.path), tmp_path, FakeRetrain())
        queue = queue_of(action.run(request_of("relabel_segment", segment="lang=mix"), window(rows)))
        assert len(queue) == 1

    def test_without_stored_texts_the_request_ids_are_left(self, log: WrittenLog, tmp_path: Path) -> None:
        """And the words say so."""
        rows = rows_with_half_labelled(80)
        written(log, rows, [None] * 80)
        action = RelabelSegment(EventTexts(log.path), tmp_path, FakeRetrain())
        result = action.run(request_of("relabel_segment", segment="lang=mix"), window(rows))
        queue = queue_of(result)
        assert {row["text"] for row in queue} == {None}
        assert len({row["request_id"] for row in queue}) == len(queue) > 20
        assert "request ids alone" in result.words

    def test_asked_again_the_queue_stays_as_people_have_it(self, log: WrittenLog, tmp_path: Path) -> None:
        """The retrain failed for now; meanwhile the window moved on."""
        rows = rows_with_half_labelled()
        written(log, rows, numbered(400))
        retrain = FakeRetrain(failures=1)
        action = RelabelSegment(EventTexts(log.path), tmp_path, retrain, most=20)
        request = request_of("relabel_segment", segment="lang=mix")
        with pytest.raises(HookFailed):
            action.run(request, window(rows))
        (file,) = (tmp_path / "relabel").rglob("*.jsonl")
        before = file.read_bytes()
        assert action.run(request, window(rows[:100])).detail["rows"] == 20
        assert file.read_bytes() == before
        assert len(retrain.asked) == 2

    def test_request_without_a_segment_is_refused(self, log: WrittenLog, tmp_path: Path) -> None:
        """Nothing is asked of the retrain hook."""
        retrain = FakeRetrain()
        action = RelabelSegment(EventTexts(log.path), tmp_path, retrain)
        assert action.run(request_of("relabel_segment"), window(rows_with_half_labelled(8))).outcome == "failed"
        assert retrain.asked == []

    def test_log_that_cannot_be_read_now_is_tried_again(self, tmp_path: Path) -> None:
        """No empty queue is left behind."""
        action = RelabelSegment(EventTexts(tmp_path / "none.sqlite"), tmp_path, FakeRetrain())
        with pytest.raises(HookFailed, match=r"none\.sqlite"):
            action.run(request_of("relabel_segment", segment="lang=mix"), window(rows_with_half_labelled(8)))
        assert not (tmp_path / "relabel").exists()


class TestSample:
    def test_sample_has_three_reasons_and_no_request_twice(self, log: WrittenLog, tmp_path: Path) -> None:
        """Thirds; the random rows say what they were drawn from."""
        rows = rows_with_half_labelled(1000)
        written(log, rows, numbered(1000))
        result = SampleForLabels(EventTexts(log.path), tmp_path, size=90).run(
            request_of("sample_for_labels"), window(rows)
        )
        queue = queue_of(result)
        assert result.detail["rows_by_reason"] == {"random": 30, "least_certain": 30, "most_novel": 30}
        assert len({row["request_id"] for row in queue}) == 90
        assert {row["drawn_from"] for row in queue[:30]} == {500}
        assert {row["drawn_from"] for row in queue[30:]} == {None}
        assert all(int(row["request_id"][1:]) % 2 for row in queue)
        assert set(queue[0]) == documented_fields()

    def test_repeated_texts_weigh_in_the_random_part_alone(self, log: WrittenLog, tmp_path: Path) -> None:
        """There a frequent text is frequent; elsewhere it is labelled once."""
        rows = rows_with_half_labelled(600)
        written(log, rows, ["the same" if i % 4 else f"text {i}" for i in range(600)])
        rows["is_labelled"] = False
        queue = queue_of(
            SampleForLabels(EventTexts(log.path), tmp_path, size=60).run(request_of("sample_for_labels"), window(rows))
        )
        same = [row["why"] for row in queue if row["text"] == "the same"]
        assert len(same) > 5
        assert set(same) == {"random"}
        assert len(queue) == 60

    def test_sample_is_drawn_once_for_a_request(self, log: WrittenLog, tmp_path: Path) -> None:
        """The same key gives the same rows, by the file, and by the draw when the file is gone; another key others."""
        rows = rows_with_half_labelled(600)
        written(log, rows, numbered(600))
        action = SampleForLabels(EventTexts(log.path), tmp_path, size=60)
        first = queue_of(action.run(request_of("sample_for_labels"), window(rows)))
        assert queue_of(action.run(request_of("sample_for_labels"), window(rows[:50]))) == first
        next((tmp_path / "labelling").rglob("*.jsonl")).unlink()
        assert queue_of(action.run(request_of("sample_for_labels"), window(rows))) == first
        other = queue_of(action.run(request_of("sample_for_labels", ordinal=2), window(rows)))
        assert [row["request_id"] for row in other] != [row["request_id"] for row in first]

    def test_nothing_to_label_is_said(self, log: WrittenLog, tmp_path: Path) -> None:
        """All labelled, or gone from the log."""
        rows = rows_with_half_labelled(20)
        action = SampleForLabels(EventTexts(log.path), tmp_path)
        assert action.run(request_of("sample_for_labels"), window(rows)).outcome == "nothing_to_do"
        rows["is_labelled"] = True
        written(log, rows, numbered(20))
        assert action.run(request_of("sample_for_labels", ordinal=2), window(rows)).outcome == "nothing_to_do"
