"""DistilBERT with mean pooling, a softmax head over the taxonomy and an age-sensitivity head, all in one pass."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import DistilBertModel

from model_repo.contract.labels import Taxonomy
from model_repo.contract.membership import MembershipHead
from model_repo.contract.outputs import ModelOutputs
from model_repo.pipeline.quantised import InputSteps, quantise_layers, steps_of
from model_repo.store import read_membership


class RouterNetwork(nn.Module):
    """
    What is trained. ``encoder`` is any DistilBERT; heads are linear on the mean of its last hidden states.

    The baseline reads the first token (DistilBertForSequenceClassification); the mean is the base
    override that goes with MiniLM, whose pre-training pooled that way.
    """

    def __init__(self, encoder: DistilBertModel, n_intents: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(encoder.config.dim, n_intents)
        self.age = nn.Linear(encoder.config.dim, 1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, bf16: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """
        (n, T) ids and mask -> logits (n, K), age logits (n,), embeddings (n, H), all in fp32.

        ``bf16`` multiplies in bfloat16 inside the encoder: for training, where its last digits do not count.
        """
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            hidden = self.encoder(input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        embeddings = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1.0)
        pooled = self.dropout(embeddings)
        return self.classifier(pooled), self.age(pooled).squeeze(-1), embeddings


@dataclass(frozen=True)
class Checkpoint:
    """A trained network with what is needed to use it."""

    network: RouterNetwork
    tokenizer_file: Path
    taxonomy: Taxonomy
    membership: MembershipHead | None
    """Attached to it, or none."""

    def served(self, outputs: ModelOutputs) -> ModelOutputs:
        """What is served of the network's own ``outputs``."""
        return outputs if self.membership is None else self.membership.applied(outputs)


def save_checkpoint(folder: Path, network: RouterNetwork, tokenizer_file: Path, taxonomy: Taxonomy) -> None:
    """Write encoder/, heads.safetensors, tokenizer.json, taxonomy.json and the steps of what rounds; no pickle."""
    folder.mkdir(parents=True, exist_ok=True)
    network.encoder.save_pretrained(folder / "encoder")
    heads = {k: v.contiguous() for k, v in network.state_dict().items() if not k.startswith("encoder.")}
    save_file(heads, folder / "heads.safetensors")
    (folder / "tokenizer.json").write_bytes(tokenizer_file.read_bytes())
    (folder / "taxonomy.json").write_text(json.dumps(taxonomy.to_json(), indent=2) + "\n", encoding="utf-8")
    steps = {name: asdict(of_inputs) for name, of_inputs in steps_of(network).items()}
    (folder / "steps.json").write_text(json.dumps(steps, indent=2) + "\n", encoding="utf-8")


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read what ``save_checkpoint`` wrote; the network is in evaluation mode."""
    taxonomy = Taxonomy.from_json(json.loads((folder / "taxonomy.json").read_text(encoding="utf-8")))
    encoder = DistilBertModel.from_pretrained(folder / "encoder")
    network = RouterNetwork(encoder, len(taxonomy.intents))
    network.load_state_dict(load_file(folder / "heads.safetensors"), strict=False)
    steps = json.loads((folder / "steps.json").read_text(encoding="utf-8"))
    quantise_layers(network, {name: InputSteps(**of_inputs) for name, of_inputs in steps.items()})
    return Checkpoint(network.eval(), folder / "tokenizer.json", taxonomy, read_membership(folder))
