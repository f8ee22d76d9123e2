"""Any string becomes token ids, within the limit, the same from every thread."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from model_repo.contract.engine import TOKENIZER_FILE
from service.tokenizer import UtteranceTokenizer
from tests.tiny_artefact import MAX_TOKENS, tiny_artefact

CLS, SEP = 2, 3


def tokenizer(max_tokens: int = MAX_TOKENS) -> UtteranceTokenizer:
    """Of the tiny artefact."""
    return UtteranceTokenizer(tiny_artefact()[1] / TOKENIZER_FILE, max_tokens)


def test_specials_enclose_the_pieces() -> None:
    """As in training."""
    assert tokenizer().encode("order where") == (CLS, 4, 5, SEP)


def test_long_utterance_is_cut_at_the_limit_and_still_closed() -> None:
    """The last id is the separator."""
    ids = tokenizer(max_tokens=10).encode("order " * 100)
    assert (len(ids), ids[-1]) == (10, SEP)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " " * 2000,
        "\x00",
        "a\x00b",
        "\ud800",
        "ok \udfff ok",
        "\ud83d\ude00",
        "😀🎌🔥",
        "\u202eחֲנוּת مرحبا",
        "本" * 2000,
        "\u200b\ufeff",
    ],
    ids=["empty", "blank", "nul", "nul-inside", "lone-high", "lone-low", "pair", "emoji", "rtl", "long", "invisible"],
)
def test_awkward_text_is_read(text: str) -> None:
    """At least the two specials, at most the limit."""
    ids = tokenizer().encode(text)
    assert 2 <= len(ids) <= MAX_TOKENS
    assert (ids[0], ids[-1]) == (CLS, SEP)


def test_lone_surrogate_reads_as_the_replacement_character() -> None:
    """And spoils nothing around it."""
    assert tokenizer().encode("order \ud800") == tokenizer().encode("order \ufffd")


@given(st.text(st.characters(), max_size=200))
def test_any_string_is_read(text: str) -> None:
    """Surrogates included."""
    assert 2 <= len(tokenizer().encode(text)) <= MAX_TOKENS


@given(st.text("order whea.,!é漫のn \t\x1c\u0301\U0001f600", min_size=40, max_size=400), st.integers(3, 12))
def test_reading_only_the_beginning_of_a_long_text_gives_the_same_ids(text: str, max_tokens: int) -> None:
    """As the library gives when it reads the text to its end before it cuts."""
    library = Tokenizer.from_file(str(tiny_artefact()[1] / TOKENIZER_FILE))
    library.no_padding()
    library.enable_truncation(max_tokens)
    assert tokenizer(max_tokens).encode(text) == tuple(library.encode(text).ids)


def test_another_limit_holds_from_the_next_utterance_on() -> None:
    """Lowered and given back, while other threads are reading: the library itself would refuse that."""
    shared, text = tokenizer(), "order where " * 50
    with ThreadPoolExecutor(4) as pool:
        reading = [pool.submit(shared.encode, text) for _ in range(400)]
        shared.limit(10)
        lowered = shared.encode(text)
        shared.limit(MAX_TOKENS)
        lengths = {len(read.result()) for read in reading}
    assert (len(lowered), lowered[-1]) == (10, SEP)
    assert lengths <= {10, MAX_TOKENS}
    assert len(shared.encode(text)) == shared.max_tokens == MAX_TOKENS


def test_threads_share_one_tokenizer() -> None:
    """The same ids as one thread alone."""
    shared, texts = tokenizer(), ["order " * (n % 9) + "where" for n in range(200)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(shared.encode, texts)) == [shared.encode(text) for text in texts]


@pytest.mark.parametrize("content", [None, "not json", "{}"])
def test_unreadable_file_is_named(tmp_path: Path, content: str | None) -> None:
    """Missing or damaged."""
    file = tmp_path / TOKENIZER_FILE
    if content is not None:
        file.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"tokenizer\.json is not a tokenizer"):
        UtteranceTokenizer(file, 16)
