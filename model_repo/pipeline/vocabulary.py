"""
Japanese for an English vocabulary: unused word pieces become Japanese ones whose vectors start from English glosses.

The embedded base writes one fifth of a Japanese message as [UNK], among it the characters for send, return and buy.
Its vocabulary holds 994 rows that nothing uses. Each is given a Japanese word piece, and its vector is the mean of
the vectors of an English gloss, so that fine-tuning starts from a meaning instead of from noise.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import DistilBertModel

GLOSSES = Path(__file__).parents[1] / "data" / "japanese_glosses.tsv"
_IDEOGRAPH = re.compile(r"[㐀-鿿豈-﫿]")


def read_glosses(file: Path = GLOSSES) -> dict[str, str]:
    """Japanese word or character -> English words."""
    rows = (line.split("\t", 1) for line in file.read_text(encoding="utf-8").splitlines() if line)
    return dict(rows)


def add_word_pieces(encoder: DistilBertModel, tokenizer_file: Path, texts: Iterable[str], out: Path) -> int:
    """
    Give the unused rows to glossed words, then to the characters of ``texts`` that are unknown twice or more.

    Writes the new tokenizer to ``out`` (padding and truncation off), changes the encoder's word vectors in
    place, and gives the number of rows used. A gloss also replaces the vector of a piece that exists.
    """
    data = json.loads(tokenizer_file.read_text(encoding="utf-8"))
    data["padding"] = data["truncation"] = None
    tokenizer = Tokenizer.from_str(json.dumps(data))
    vocab: dict[str, int] = data["model"]["vocab"]
    unused = [piece for piece in vocab if piece.startswith("[unused")]
    vectors = encoder.embeddings.word_embeddings.weight
    n_free = len(unused)
    with torch.no_grad():
        for piece, vector in _new_vectors(tokenizer, vocab, vectors.detach().clone(), texts):
            if piece not in vocab:
                if not unused:
                    break
                vocab[piece] = vocab.pop(unused.pop(0))
            vectors[vocab[piece]] = vector
    out.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    return n_free - len(unused)


def _new_vectors(
    tokenizer: Tokenizer, vocab: dict[str, int], vectors: Tensor, texts: Iterable[str]
) -> Iterable[tuple[str, Tensor]]:
    """Pieces in order of worth, each with its starting vector."""
    for word, gloss in read_glosses().items():
        ids = tokenizer.encode(gloss, add_special_tokens=False).ids
        vector = vectors[ids].mean(0)
        piece = tokenizer.normalizer.normalize_str(word).strip()
        yield piece, vector
        if not _IDEOGRAPH.match(piece):
            # An ideograph is always a word of its own; a kana word is also met inside a longer run.
            yield "##" + piece, vector
    unknown = vectors[vocab["[UNK]"]]
    for piece in unknown_characters(tokenizer, texts):
        yield piece, unknown


def unknown_characters(tokenizer: Tokenizer, texts: Iterable[str]) -> list[str]:
    """Single characters that make a word of ``texts`` unknown, most frequent first, met twice or more."""
    counts: Counter[str] = Counter()
    vocab = tokenizer.get_vocab()
    for text in texts:
        for char in set(tokenizer.normalizer.normalize_str(text)):
            if char.isprintable() and not char.isspace() and char not in vocab:
                counts[char] += 1
    # Of equal ones by code point: the rows they get must not depend on the order in which a set is read.
    return [char for char, count in sorted(counts.items(), key=lambda one: (-one[1], one[0])) if count >= 2]
