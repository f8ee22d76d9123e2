"""The network of the baseline, and its export to ONNX. Torch is needed here and nowhere else in this package."""

import json
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import DistilBertConfig, DistilBertModel

_OPSET = 17


class BaselineNetwork(nn.Module):
    """A DistilBERT, the mean of its last hidden states, and a linear layer over the intents."""

    def __init__(self, encoder: DistilBertModel, n_intents: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = nn.Linear(encoder.config.dim, n_intents)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(n, T) ids and mask -> (n, K) logits."""
        hidden = self.encoder(input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        logits: Tensor = self.classifier((hidden * mask).sum(1) / mask.sum(1))
        return logits


def random_network(config: DistilBertConfig, n_intents: int, seed: int) -> BaselineNetwork:
    """Untrained weights, the same for the same seed."""
    torch.manual_seed(seed)
    return BaselineNetwork(DistilBertModel(config), n_intents).eval()


def trained_network(checkpoint: Path) -> BaselineNetwork:
    """The weights of a checkpoint folder of the training stage; its age head is left out."""
    taxonomy = json.loads((checkpoint / "taxonomy.json").read_text(encoding="utf-8"))
    network = BaselineNetwork(DistilBertModel.from_pretrained(checkpoint / "encoder"), len(taxonomy["intents"]))
    heads = load_file(checkpoint / "heads.safetensors")
    network.classifier.load_state_dict({"weight": heads["classifier.weight"], "bias": heads["classifier.bias"]})
    return network.eval()


def export(network: BaselineNetwork, path: Path) -> None:
    """Write fp32 ONNX with free batch and length."""
    ids = torch.tensor([[101, 2073, 2003, 102], [101, 7592, 102, 0]])
    free = {0: "batch", 1: "tokens"}
    with warnings.catch_warnings():
        # Torch is pinned, and the older exporter needs no further package; tracing is sound, as the mask is an input.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        # The mask is gathered by row and key numbers, which are never negative.
        warnings.filterwarnings("ignore", "Exporting aten::index operator", UserWarning)
        torch.onnx.export(
            network,
            (ids, (ids != 0).long()),
            str(path),
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_axes={"input_ids": free, "attention_mask": free, "logits": {0: "batch"}},
            opset_version=_OPSET,
            dynamo=False,
        )
