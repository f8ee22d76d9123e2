"""Labels of production go into training alone; what judges them stays apart, and a wrong line ends the run."""

import json
from pathlib import Path
from typing import Any

import pytest

from model_repo.__main__ import main
from model_repo.contract.errors import BadUtterance
from model_repo.contract.labels import LabelledUtterance, Taxonomy
from model_repo.pipeline.data import build, keep_production
from model_repo.pipeline.dataset import read_utterances
from model_repo.pipeline.production import read_production

TAXONOMY = Taxonomy(("refund", "hello"))
ROW: dict[str, Any] = {"text": "hi there", "intents": ["hello"], "ood": False, "age_sensitive": None, "lang": "en"}


def file_of(folder: Path, *rows: object) -> Path:
    """One line a row; text is written as it is."""
    file = folder / "labels.jsonl"
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    file.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return file


def live(text: str, *intents: str) -> LabelledUtterance:
    """A message of production."""
    return LabelledUtterance(text, intents, not intents, None, source="production", origin="live")


class TestReading:
    def test_rows_are_read_as_messages_of_customers(self, tmp_path: Path) -> None:
        """Main intent first; what says nothing of age leaves it unknown; fields for people are passed over."""
        ood = {"text": "天気は?", "intents": [], "ood": True, "lang": "ja", "request_id": "r7", "source": "agent"}
        several = {**ROW, "intents": ["hello", "refund"], "age_sensitive": True, "lang": "mix"}
        read = read_production(file_of(tmp_path, several, "", ood), TAXONOMY)
        assert [(u.text, u.intents, u.is_ood, u.age_sensitive, u.lang) for u in read] == [
            ("hi there", ("hello", "refund"), False, True, "mix"),
            ("天気は?", (), True, None, "ja"),
        ]
        assert {(u.source, u.origin) for u in read} == {("production", "live")}

    @pytest.mark.parametrize(
        ("row", "says"),
        [
            ("{", "not JSON"),
            ("[]", "must be a JSON object, got list"),
            ({**ROW, "text": "  "}, "text must be a text that is not blank"),
            ({**ROW, "text": None}, "text must be a text that is not blank, got None"),
            ({**ROW, "text": "x" * 2001}, "text must have at most 2000 characters, got 2001"),
            ({k: v for k, v in ROW.items() if k != "intents"}, "intents must be a list of intents, got None"),
            ({**ROW, "intents": "hello"}, "intents must be a list of intents, got 'hello'"),
            ({**ROW, "intents": ["hello", "parcel"]}, "intents must be of the taxonomy (refund, hello), got 'parcel'"),
            ({**ROW, "intents": [["hello"]]}, "intents must be of the taxonomy"),
            ({**ROW, "intents": ["hello", "hello"]}, "intents names an intent twice"),
            ({**ROW, "ood": True}, "ood must be true exactly when intents is empty"),
            ({**ROW, "ood": 0}, "ood must be true exactly when intents is empty"),
            ({**ROW, "lang": "fr"}, "lang must be one of en, ja, mix, got 'fr'"),
            ({**ROW, "age_sensitive": 1}, "age_sensitive must be true, false or null, got 1"),
        ],
    )
    def test_wrong_row_is_refused_with_its_line_and_field(self, row: object, says: str, tmp_path: Path) -> None:
        """Also when every other row is well."""
        with pytest.raises(BadUtterance) as refused:
            read_production(file_of(tmp_path, ROW, row, ROW), TAXONOMY)
        assert str(refused.value).startswith("labels.jsonl, line 2: ")
        assert says in str(refused.value)

    def test_file_that_is_no_text_is_refused(self, tmp_path: Path) -> None:
        """With its name."""
        file = tmp_path / "labels.jsonl"
        file.write_bytes(b"\xff\xfe{}")
        with pytest.raises(BadUtterance, match=r"labels\.jsonl is not UTF-8"):
            read_production(file, TAXONOMY)


class TestKeeping:
    JUDGED = (
        live("is there an app for old phones", "hello"),
        live("how long does a parcel to norway take please", "hello"),
        live("do you take cheques from abroad", "hello"),
    )
    PARTS = ("train", "validation", "test")

    def test_what_resembles_what_judges_is_left_out_and_counted(self) -> None:
        """The same text, one with a typo, a repetition; the label of the split holds over production's."""
        production = [
            live("How long does a parcel to Norway take, please?", "refund"),
            live("how long does a parcel to norway take pleases", "refund"),
            live("do you take chequess from abroad", "refund"),
            live("is there an app for old phones?", "refund"),
            live("where is my money", "refund"),
            live("Where is my money?!", "refund"),
        ]
        kept, fates = keep_production(production, self.JUDGED, self.PARTS)
        assert [u.text for u in kept] == ["where is my money"]
        assert fates == {"read": 6, "added": 1, "duplicates": 3, "near_duplicates_of_held_out": 2}

    def test_without_labels_nothing_is_counted(self) -> None:
        """The card then says nothing of them."""
        assert keep_production([], self.JUDGED, self.PARTS) == ([], {})


class TestStage:
    def test_only_training_grows(self, tmp_path: Path) -> None:
        """By what is new; validation and test are to the byte what they are without."""
        plain = build(None, tmp_path / "plain", preset="smoke")
        judged = read_utterances(tmp_path / "plain" / "test.jsonl")[0]
        rows = [live(f"customer number {word} would like a word", "faq") for word in ("seven", "eleven")]
        report = build(None, tmp_path / "grown", preset="smoke", production=[*rows, live(judged.text, "faq")])
        assert report.production == {"read": 3, "added": 2, "duplicates": 1, "near_duplicates_of_held_out": 0}
        assert report.splits["train"].by_source["production"] == 2
        assert report.splits["train"].total == plain.splits["train"].total + 2
        assert report.near_duplicates_crossing_splits == 0
        assert not report.ships
        for part in ("validation.jsonl", "test.jsonl"):
            assert report.sha256[part] == plain.sha256[part]
        card = (tmp_path / "grown" / "data_card.md").read_text(encoding="utf-8")
        assert "labels of production, for the training split alone: 3 read, 2 added" in card
        recorded = json.loads((tmp_path / "grown" / "data_report.json").read_text(encoding="utf-8"))
        assert recorded["production"] == report.production

    @pytest.mark.parametrize(("rows", "status"), [(("{",), 65), (None, 66)])
    def test_wrong_file_ends_the_command_for_good(
        self, rows: tuple[str, ...] | None, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """With a status that a hook does not try again, before anything is made."""
        file = tmp_path / "labels.jsonl" if rows is None else file_of(tmp_path, *rows)
        for stage in ("data", "run"):
            with pytest.raises(SystemExit) as ended:
                main([stage, "--preset", "smoke", "--out", str(tmp_path / "out"), "--production-labels", str(file)])
            assert ended.value.code == status
            assert "labels.jsonl" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
