"""Text -> token ids, as the model was trained to read them. Never raises on any string."""

import os
from pathlib import Path

# The library would start a thread pool for batches, which competes with inference for the cores.
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from tokenizers import Encoding, Tokenizer

FIRST_LOOK = 4
"""Characters a token that are read of a long text at first; English has about 4.5 a token, Japanese under 2."""


class UtteranceTokenizer:
    """
    The tokenizer.json of a model version. One instance may be used by several threads at once.

    Some tokenizer files pad to a fixed length or truncate elsewhere; both are overridden here.
    """

    def __init__(self, file: Path, max_tokens: int) -> None:
        """Raises ValueError naming the file when it is missing or not a tokenizer."""
        try:
            tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises a plain Exception
            raise ValueError(f"{file} is not a tokenizer: {error}") from error
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_tokens)
        self._in_force = tokenizer, max_tokens

    @property
    def max_tokens(self) -> int:
        """Longest result; what is longer is cut at the end."""
        return self._in_force[1]

    def limit(self, max_tokens: int) -> None:
        """Cut at another length from the next utterance on. Blocks for tens of milliseconds when it is another."""
        tokenizer, before = self._in_force
        if max_tokens != before:
            # A copy: the library refuses to change one that another thread is using.
            changed = Tokenizer.from_str(tokenizer.to_str())
            changed.enable_truncation(max_tokens)
            self._in_force = changed, max_tokens

    def encode(self, text: str) -> tuple[int, ...]:
        """2..max_tokens ids, specials included; what is longer is cut at the end. Lone surrogates read as U+FFFD."""
        tokenizer, max_tokens = self._in_force
        try:
            return _encode(tokenizer, max_tokens, text)
        except (UnicodeEncodeError, TypeError):
            return _encode(tokenizer, max_tokens, without_surrogates(text))


def _encode(tokenizer: Tokenizer, max_tokens: int, text: str) -> tuple[int, ...]:
    """The library reads a text to its end before it cuts, 1 to 6 ms for 2,000 characters: show it the beginning."""
    characters = FIRST_LOOK * max_tokens
    while characters < len(text):
        encoding = tokenizer.encode(text[:characters])
        if _is_settled(encoding):
            return tuple(encoding.ids)
        characters *= 4
    return tuple(tokenizer.encode(text).ids)


def _is_settled(encoding: Encoding) -> bool:
    """Whether a further word followed what was kept: then what comes after the beginning changes nothing in it."""
    if not encoding.overflowing:
        return False
    kept = max((word for word in encoding.word_ids if word is not None), default=-1)
    return any(word is not None and word > kept for word in encoding.overflowing[-1].word_ids)


def without_surrogates(text: str) -> str:
    r"""
    The text with surrogate pairs joined and lone surrogates replaced, so that it can be written as UTF-8.

    >>> without_surrogates("a\ud83d\ude00b\ud800c")
    'a😀b�c'
    """
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
