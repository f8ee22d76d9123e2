"""A tiny random model, exported once a test run: the real pipeline from checkpoint to artefact."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import DistilBertConfig, DistilBertModel

from model_repo.contract.labels import Taxonomy
from model_repo.contract.policy import Policy
from model_repo.pipeline.export import ExportReport, export
from model_repo.pipeline.network import RouterNetwork, save_checkpoint
from model_repo.pipeline.quantise import measured_steps
from model_repo.pipeline.quantised import quantise_layers

TAXONOMY = Taxonomy(("order_tracking", "refund", "greeting"), frozenset({"refund"}))
POLICY = Policy("1", 1, 1.0, (0.4, 0.4, 0.4), 1.0, 0.0, 0.5, 0.95)
TEXTS = (
    "where is my order",
    "hello",
    "give me the money back please",
    "is volume twelve of the fox series in stock, and does it ship before the holidays?",
    "本はどこ ですか",
    "hi hi hi",
)
MAX_TOKENS = 48


@cache
def tiny_artefact(is_quantised: bool = False) -> tuple[Path, Path, ExportReport]:
    """(checkpoint folder, artefact folder, report); random weights, so decisions mean nothing but are all different."""
    folder = Path(mkdtemp(prefix="tiny-artefact-"))
    network = quantised_network() if is_quantised else tiny_network()
    save_checkpoint(folder / "checkpoint", network, _tokenizer_file(folder), TAXONOMY)
    report = export(folder / "checkpoint", folder / "artefact", TEXTS, POLICY, max_tokens=MAX_TOKENS)
    return folder / "checkpoint", folder / "artefact", report


def tiny_network(seed: int = 7) -> RouterNetwork:
    """Two layers of 32, weights drawn wide enough that different utterances give clearly different logits."""
    torch.manual_seed(seed)
    config = DistilBertConfig(
        vocab_size=120, max_position_embeddings=64, dim=32, n_layers=2, n_heads=4, hidden_dim=64, initializer_range=0.4
    )
    network = RouterNetwork(DistilBertModel(config), len(TAXONOMY.intents)).eval()
    for head in (network.classifier, network.age):
        torch.nn.init.normal_(head.weight, std=0.7)
    return network


def quantised_network() -> RouterNetwork:
    """The same, whose blocks round to steps that were measured on a few utterances."""
    network = tiny_network()
    utterances = [[2, *range(start, start + 12), 3] for start in range(4, 100, 8)]
    quantise_layers(network, measured_steps(network, utterances))
    return network


def _tokenizer_file(folder: Path) -> Path:
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "order", "where", *letters, *(f"##{letter}" for letter in letters)]
    tokenizer = Tokenizer(models.WordPiece({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    # As in the MiniLM checkpoint: padded to a fixed length unless told not to.
    tokenizer.enable_padding(length=64)
    tokenizer.save(str(folder / "source.json"))
    return folder / "source.json"
