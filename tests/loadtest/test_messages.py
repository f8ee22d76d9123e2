"""Messages to send."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from loadtest.messages import (
    DEFAULT_FOLDER,
    Message,
    NoMessages,
    count_tokens,
    read_messages,
    read_texts,
    within_tokens,
)


def test_labelled_records_are_read_in_the_order_of_files(tmp_path: Path) -> None:
    """Record format of the taxonomy; a blank line is not a message."""
    (tmp_path / "w2.jsonl").write_text('{"text": "b", "intents": [], "ood": true, "lang": "mix"}\n\n', encoding="utf-8")
    (tmp_path / "w1.jsonl").write_text(
        '{"text": "a", "intents": ["faq", "promotion"], "ood": false}\n', encoding="utf-8"
    )
    first, second = read_messages(tmp_path)
    assert first == Message("a", ("faq", "promotion"), "en")
    assert (first.main_label, second.main_label) == ("faq", "ood")
    assert read_texts(tmp_path) == ["a", "b"]


@pytest.mark.parametrize(
    "record", ['{"intents": ["faq"]}', '{"text": 4, "intents": []}', '{"text": "a", "intents": "faq"}']
)
def test_a_record_without_its_fields_is_refused(tmp_path: Path, record: str) -> None:
    """The message shows the record."""
    (tmp_path / "w1.jsonl").write_text(record + "\n", encoding="utf-8")
    with pytest.raises(NoMessages, match="text, intents and lang"):
        read_messages(tmp_path)


def test_nothing_to_send_is_an_error(tmp_path: Path) -> None:
    """An empty folder, an empty file and a missing path are named."""
    (tmp_path / "empty.txt").write_text("\n", encoding="utf-8")
    for source in (tmp_path, tmp_path / "empty.txt", tmp_path / "missing"):
        with pytest.raises(NoMessages, match=str(source)):
            read_texts(source)


def test_messages_are_chosen_by_their_number_of_tokens(tmp_path: Path) -> None:
    """The tokenizer's own padding and truncation do not count."""
    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_padding(length=128)
    tokenizer.enable_truncation(3)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    texts = ["one", "two words", "three words here", "four words are here"]
    assert count_tokens(texts, tmp_path / "tokenizer.json") == [1, 2, 3, 4]
    assert within_tokens(texts, tmp_path / "tokenizer.json", 2, 3) == texts[1:3]
    with pytest.raises(NoMessages, match="4"):
        within_tokens(texts, tmp_path / "tokenizer.json", 9, 10)


def test_default_messages_are_part_of_the_repository() -> None:
    """A fresh clone can be load-tested."""
    messages = read_messages(DEFAULT_FOLDER)
    assert len(messages) > 10_000
    assert {message.lang for message in messages} >= {"en", "mix"}
