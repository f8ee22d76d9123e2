"""Text -> token ids, as the model was trained to read them. Never raises on any string."""

import os
from pathlib import Path

# The library would start a thread pool for batches, which competes with inference for the cores.
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from tokenizers import Tokenizer


class UtteranceTokenizer:
    """
    The tokenizer.json of a model version. One instance may be used by several threads at once.

    Some tokenizer files pad to a fixed length or truncate elsewhere; both are overridden here.
    """

    def __init__(self, file: Path, max_tokens: int) -> None:
        """Raises ValueError naming the file when it is missing or not a tokenizer."""
        try:
            self._tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises a plain Exception
            raise ValueError(f"{file} is not a tokenizer: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)

    def encode(self, text: str) -> tuple[int, ...]:
        """2..max_tokens ids, specials included; what is longer is cut at the end. Lone surrogates read as U+FFFD."""
        try:
            return tuple(self._tokenizer.encode(text).ids)
        except (UnicodeEncodeError, TypeError):
            return tuple(self._tokenizer.encode(without_surrogates(text)).ids)


def without_surrogates(text: str) -> str:
    r"""
    The text with surrogate pairs joined and lone surrogates replaced, so that it can be written as UTF-8.

    >>> without_surrogates("a\ud83d\ude00b\ud800c")
    'a😀b�c'
    """
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
