"""Messages to send: the labelled ones of the repository, or any text file of one message a line."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

DEFAULT_FOLDER = Path(__file__).resolve().parents[1] / "model_repo" / "data" / "manga_authored"
FEWEST_TOKENS, MOST_TOKENS = 4, 40
"""Of the messages that benchmarks send."""


class NoMessages(ValueError):
    """The folder or file holds no message that can be sent."""


@dataclass(frozen=True)
class Message:
    """An utterance and what a person at the desk would make of it; ``intents`` is empty when it is ood."""

    text: str
    intents: tuple[str, ...]
    lang: str

    @property
    def main_label(self) -> str:
        """The main intent, or ``ood``."""
        return self.intents[0] if self.intents else "ood"


def read_messages(folder: Path) -> list[Message]:
    """Every record of the folder's ``*.jsonl``, in the order of the file names; raises NoMessages."""
    paths = sorted(folder.glob("*.jsonl"))
    lines = [line for path in paths for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines:
        raise NoMessages(f"no *.jsonl with messages in {folder}")
    return [_message(json.loads(line)) for line in lines]


def _message(record: dict[str, object]) -> Message:
    text, intents, lang = record.get("text"), record.get("intents"), record.get("lang", "en")
    if not isinstance(text, str) or not isinstance(intents, list) or not isinstance(lang, str):
        raise NoMessages(f"a message needs text, intents and lang, got {record!r}")
    return Message(text, tuple(str(intent) for intent in intents), lang)


def read_texts(source: Path) -> list[str]:
    """Texts of a folder of labelled messages, or the lines of a file; raises NoMessages."""
    if source.is_dir():
        return [message.text for message in read_messages(source)]
    if not source.is_file():
        raise NoMessages(f"neither a folder of *.jsonl nor a file of lines: {source}")
    texts = [line for line in source.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not texts:
        raise NoMessages(f"no line in {source}")
    return texts


def count_tokens(texts: Sequence[str], tokenizer_file: Path) -> list[int]:
    """Of each text, special tokens included."""
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return [len(encoding.ids) for encoding in tokenizer.encode_batch(list(texts))]


def within_tokens(
    texts: Sequence[str], tokenizer_file: Path, fewest: int = FEWEST_TOKENS, most: int = MOST_TOKENS
) -> list[str]:
    """The texts of ``fewest`` to ``most`` tokens, special tokens included; raises NoMessages when none is left."""
    counts = count_tokens(texts, tokenizer_file)
    kept = [text for text, count in zip(texts, counts, strict=True) if fewest <= count <= most]
    if not kept:
        raise NoMessages(f"no message of {fewest} to {most} tokens among {len(texts)}")
    return kept
