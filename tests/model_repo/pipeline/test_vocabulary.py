"""Japanese word pieces take unused rows and start from the meaning of their gloss."""

from pathlib import Path

import torch
from tokenizers import Tokenizer

from model_repo.pipeline.base_model import EMBEDDED, load_base
from model_repo.pipeline.vocabulary import add_word_pieces, read_glosses, unknown_characters


def test_glossed_characters_are_known_and_start_at_their_gloss(tmp_path: Path) -> None:
    """The character for send was [UNK]; now it has a row that starts as the mean of 'send' and 'ship'."""
    encoder, file = load_base(EMBEDDED)
    before = encoder.embeddings.word_embeddings.weight.detach().clone()
    old = Tokenizer.from_file(str(file))
    assert "[UNK]" in old.encode("送").tokens
    used = add_word_pieces(encoder, file, ["☆ new ☆", "☆ old"], tmp_path / "tokenizer.json")
    new = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert used > 500
    assert "[UNK]" not in new.encode("送返☆").tokens
    gloss = [old.token_to_id(word) for word in read_glosses()["送"].split()]
    vector = encoder.embeddings.word_embeddings.weight[new.token_to_id("送")]
    assert torch.allclose(vector, before[gloss].mean(0))


def test_english_is_written_as_before(tmp_path: Path) -> None:
    """Only unused rows change hands: the ids of an English utterance stay, and so do their vectors."""
    encoder, file = load_base(EMBEDDED)
    before = encoder.embeddings.word_embeddings.weight.detach().clone()
    old = Tokenizer.from_file(str(file))
    old.no_padding()
    add_word_pieces(encoder, file, [], tmp_path / "tokenizer.json")
    new = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    ids = old.encode("where's volume 12 of the box set?").ids
    assert new.encode("where's volume 12 of the box set?").ids == ids
    assert torch.equal(encoder.embeddings.word_embeddings.weight[ids], before[ids])


def test_characters_met_equally_often_have_one_order(tmp_path: Path) -> None:
    """Runs of two seeds must have one vocabulary, or their weights cannot be averaged; a set is read in any order."""
    encoder, file = load_base(EMBEDDED)
    add_word_pieces(encoder, file, [], tmp_path / "tokenizer.json")
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    rare = "⠞⠓⠊⠑⠗⠕⠝⠟"
    found = unknown_characters(tokenizer, [rare, rare[::-1], "⠿", "⠿", "⠿"])
    assert found == ["⠿", *sorted(rare)]
