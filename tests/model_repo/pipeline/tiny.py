"""A DistilBERT of two layers and sixty words, and utterances it can learn: for tests of whole stages."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import DistilBertConfig, DistilBertModel

from model_repo.contract.labels import LabelledUtterance, Taxonomy
from model_repo.pipeline.dataset import write_utterances
from model_repo.pipeline.losses import LossWeights
from model_repo.pipeline.settings import MembershipSettings, Preset, QuantiseSettings, TrainSettings

TAXONOMY = Taxonomy(("refund", "delivery", "greeting"), frozenset({"refund"}))
_WORDS = {
    "refund": ["give", "my", "money", "back", "please", "torn", "cover"],
    "delivery": ["where", "is", "the", "parcel", "late", "courier", "street"],
    "greeting": ["hello", "good", "morning", "thanks", "friend", "bye", "evening"],
    "ood": ["boil", "seven", "eggs", "planet", "tax", "guitar", "soccer"],
}


def write_base(folder: Path) -> Path:
    """A DistilBERT checkpoint folder with random weights (seeded)."""
    torch.manual_seed(0)
    vocab = ["[PAD]", "[unused0]", "[unused1]", "[unused2]", "[UNK]", "[CLS]", "[SEP]", "ship"]
    vocab += sorted({word for words in _WORDS.values() for word in words})
    config = DistilBertConfig(
        vocab_size=len(vocab), max_position_embeddings=32, n_layers=2, n_heads=2, dim=16, hidden_dim=32
    )
    DistilBertModel(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(vocab)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    cls, sep = ("[CLS]", vocab.index("[CLS]")), ("[SEP]", vocab.index("[SEP]"))
    tokenizer.post_processor = processors.BertProcessing(sep, cls)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def write_data(folder: Path) -> Path:
    """A labelled set of 160, 40 and 40 utterances."""
    for name, n, offset in (("train", 160, 0), ("validation", 40, 160), ("test", 40, 200)):
        write_utterances(folder / f"{name}.jsonl", utterances(n, offset))
    return folder


def tiny_preset(base: Path, epochs: int, seeds: tuple[int, ...] = (1,)) -> Preset:
    """What learns such utterances in a few epochs."""
    settings = TrainSettings(
        base=str(base),
        epochs=epochs,
        batch_size=8,
        seeds=seeds,
        head_learning_rate=1e-2,
        encoder_learning_rate=1e-2,
        layer_decay=0.9,
        warmup=0.1,
        weight_decay=0.0,
        dropout=0.1,
        japanese_word_pieces=False,
    )
    loss = LossWeights(0.5, 0.0, 0.5, 2.0, 0.3, choice_share=0.9, choice_margin=1.0, others=1.0)
    quantise = QuantiseSettings(1, 1e-3, 1e-3, min_decisions_equal=0.995)
    membership = MembershipSettings(
        units=16, seeds=(1, 2), epochs=30, learning_rate=1e-2, weight_decay=0.0, dropout=0.1, reserve=0.1
    )
    return Preset("test", settings, loss, quantise, membership)


def utterances(n: int, offset: int = 0) -> list[LabelledUtterance]:
    """``n`` utterances of the three intents and ood in turn, no two alike for different ``offset``."""
    made = []
    for i in range(offset, offset + n):
        label = list(_WORDS)[i % 4]
        words = _WORDS[label]
        text = f"{words[i % 7]} {words[(i // 7) % 7]} {words[(i // 49) % 7]}"
        is_ood = label == "ood"
        made.append(LabelledUtterance(text, () if is_ood else (label,), is_ood, age_sensitive=i % 8 == 0, group="a"))
    return made
