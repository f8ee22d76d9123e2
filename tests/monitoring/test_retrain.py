"""Labels of production become training text once each, under the label that holds, and the hook is told where."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from model_repo.contract.labels import LabelledUtterance
from monitoring.errors import HookFailed, LogUnavailable
from monitoring.event_texts import LoggedUtterance
from monitoring.label_choice import ChosenLabel
from monitoring.remedies import ActionRequest, ActionResult
from monitoring.retrain import Retrain, as_training_text, production_labels, read_labels
from tests.monitoring.event_logs import BEGAN, TAXONOMY, WrittenLog, label, prediction
from tests.monitoring.labelled_windows import labelled_rows, request_of, window_of

WINDOW = window_of(labelled_rows(4, 0))


class FakeHook:
    """Remembers its parameters; fails for now as often as it is told."""

    def __init__(self, failures: int = 0) -> None:
        self.sent: list[Mapping[str, str]] = []
        self._failures = failures

    def send(self, request: ActionRequest, parameters: Mapping[str, str]) -> ActionResult:
        self.sent.append(dict(parameters))
        if len(self.sent) <= self._failures:
            raise HookFailed("not now")
        return ActionResult("done", "The command has ended well.", {"version": "2"})


def chosen(request_id: str, *intents: str, source: str = "agent", at: float = BEGAN) -> ChosenLabel:
    """A label that holds."""
    return ChosenLabel(request_id, tuple(sorted(intents)), at, source)


def logged(text: str | None, top: str = "parcel", lang: str = "en") -> LoggedUtterance:
    """What the log has of a request."""
    return LoggedUtterance("", text, lang, top)


class TestTrainingText:
    def test_row_is_what_the_pipeline_reads(self) -> None:
        """The decided intent is the main one where the label has it; what is not known is null."""
        labels = [chosen("r0", "hello", "parcel"), chosen("r1", "hello", "refund"), chosen("r2")]
        utterances = {"r0": logged("a"), "r1": logged("b", lang="mix"), "r2": logged("c")}
        rows = as_training_text(labels, utterances, TAXONOMY).rows
        read = [LabelledUtterance.from_json(json.loads(json.dumps(row))) for row in rows]
        assert [(one.text, one.intents, one.is_ood, one.lang) for one in read] == [
            ("a", ("parcel", "hello"), False, "en"),
            ("b", ("refund", "hello"), False, "mix"),
            ("c", (), True, "en"),
        ]
        assert {(one.age_sensitive, one.source, one.origin) for one in read} == {(None, "production", "live")}

    def test_one_text_has_one_label_the_strongest_then_the_latest(self) -> None:
        """A review outranks a later customer; of two agents the later one holds."""
        labels = [
            chosen("r0", "refund", source="review", at=BEGAN),
            chosen("r1", "hello", source="customer", at=BEGAN + 9),
            chosen("r2", "hello", at=BEGAN + 1),
            chosen("r3", "parcel", at=BEGAN + 2),
            chosen("r4", "parcel", source="rule", at=BEGAN + 8),
        ]
        utterances = {
            "r0": logged("My parcel!"), "r1": logged("my  parcel!"),
            "r2": logged("hm"), "r3": logged("ＨＭ"), "r4": logged("Hm"),
        }  # fmt: skip
        found = as_training_text(labels, utterances, TAXONOMY)
        assert [(row["request_id"], row["intents"]) for row in found.rows] == [("r0", ["refund"]), ("r3", ["parcel"])]
        assert found.left_out == {"no_text": 0, "unknown_intent": 0, "same_text": 1, "contradicted": 2}

    def test_what_cannot_be_trained_on_is_counted(self) -> None:
        """Without a text, gone from the log, of an intent that the taxonomy lacks, of an unknown language."""
        labels = [chosen("r0", "hello"), chosen("r1", "hello"), chosen("r2", "gone"), chosen("r3", "hello")]
        utterances = {"r0": logged(None), "r2": logged("a"), "r3": logged("b", lang="fr")}
        found = as_training_text(labels, utterances, TAXONOMY)
        assert found.rows == ()
        assert found.left_out == {"no_text": 3, "unknown_intent": 1, "same_text": 0, "contradicted": 0}


class TestLog:
    def test_label_that_holds_is_taken_from_the_log(self, log: WrittenLog) -> None:
        """Corrected later, outranked, repeated, without a prediction; under whichever version it was answered."""
        log.predict(*(prediction(i, text=f"text {i}", version=str(1 + i % 2)) for i in range(3)))
        for at, event in enumerate(
            [
                label("r0", "hello"),
                label("r0", "refund", "parcel", source="review"),
                label("r0", "hello", source="customer"),
                label("r1"),
                label("r9", "hello"),
            ]
        ):
            log.label(event, BEGAN + at)
        found = production_labels(log.path, TAXONOMY)
        assert [(row["text"], row["intents"], row["label_source"]) for row in found.rows] == [
            ("text 0", ["parcel", "refund"], "review"),
            ("text 1", [], "agent"),
        ]
        assert found.left_out["no_text"] == 1

    def test_only_the_latest_labels_are_read(self, log: WrittenLog) -> None:
        """So many of them, and none that is malformed."""
        log.write_labels([("r0", BEGAN, "{"), ("r0", BEGAN, "x" * 70_000)])
        for i in range(5):
            log.label(label(f"r{i}", "hello"), BEGAN + i)
        log.write_labels([("r9", BEGAN, b"\xff")])
        assert {one.request_id for one in read_labels(log.path, 4)} == {"r2", "r3", "r4"}
        assert len(read_labels(log.path, 100)) == 5

    def test_log_that_cannot_be_read_is_named(self, tmp_path: Path) -> None:
        """Nothing is created."""
        with pytest.raises(LogUnavailable, match=r"none\.sqlite"):
            production_labels(tmp_path / "none.sqlite", TAXONOMY)
        assert list(tmp_path.iterdir()) == []


class TestAction:
    def test_hook_is_given_the_labels_and_the_segment(self, log: WrittenLog, tmp_path: Path) -> None:
        """A file that is there, a folder of its own for what comes of it, and what the hook said in the result."""
        log.predict(*(prediction(i, text=f"text {i}") for i in range(3)))
        log.label(label("r1", "hello"), BEGAN)
        hook = FakeHook()
        request = request_of("retrain", segment="lang=mix")
        result = Retrain(log.path, tmp_path / "work", hook).run(request, WINDOW)
        (sent,) = hook.sent
        folder = tmp_path / "work" / "retrain" / request.key
        assert sent == {
            "production_labels": str(folder / "production_labels.jsonl"),
            "out": str(folder / "out"),
            "segment": "lang=mix",
        }
        assert [json.loads(line)["text"] for line in Path(sent["production_labels"]).read_text().splitlines()] == [
            "text 1"
        ]
        assert (result.outcome, result.detail["rows"], result.detail["version"]) == ("done", 1, "2")
        assert "1 labels of production" in result.words

    def test_asked_again_the_hook_is_given_the_same_file(self, log: WrittenLog, tmp_path: Path) -> None:
        """Labels that came since wait for the next retrain."""
        log.predict(*(prediction(i, text=f"text {i}") for i in range(3)))
        log.label(label("r1", "hello"), BEGAN)
        action = Retrain(log.path, tmp_path, FakeHook(failures=1))
        with pytest.raises(HookFailed):
            action.run(request_of("retrain"), WINDOW)
        log.label(label("r2", "hello"), BEGAN + 1)
        assert action.run(request_of("retrain"), WINDOW).detail["rows"] == 1
        assert action.run(request_of("retrain", ordinal=2), WINDOW).detail["rows"] == 2

    def test_without_labels_nothing_is_trained(self, log: WrittenLog, tmp_path: Path) -> None:
        """Unless the hook is said to have its own."""
        log.predict(prediction(0, text=None))
        log.label(label("r0", "hello"), BEGAN)
        hook = FakeHook()
        result = Retrain(log.path, tmp_path, hook).run(request_of("retrain"), WINDOW)
        assert (result.outcome, result.detail["left_out"]["no_text"], hook.sent) == ("failed", 1, [])
        assert Retrain(log.path, tmp_path, hook, minimum_labels=0).run(request_of("retrain"), WINDOW).outcome == "done"

    def test_log_that_cannot_be_read_now_is_tried_again(self, tmp_path: Path) -> None:
        """The hook is not asked."""
        hook = FakeHook()
        with pytest.raises(HookFailed, match=r"none\.sqlite"):
            Retrain(tmp_path / "none.sqlite", tmp_path, hook).run(request_of("retrain"), WINDOW)
        assert hook.sent == []
