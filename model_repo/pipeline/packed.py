"""
The packed graph: the utterances of a micro-batch end to end in one row, with nothing padded between them.

Positions restart at every utterance, a block-diagonal mask keeps utterances apart, and pooling is one
matrix product. The only free size is the number of tokens, so one graph (or a few static ones) covers
every mixture of lengths, and no long utterance slows short ones.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from model_repo.pipeline.network import RouterNetwork
from model_repo.pipeline.quantised import QuantisedLinear, Rounding

MASKED = -50.0
"""
Added to the score of a token of another utterance. Trained networks score such a token at most 16 above the best one
of its own utterance, so that e^-34 of attention passes at most, which is nothing beside 1 in fp32 (e^-16). A lower
number is no stricter and costs: from e^-87 on what softmax gives are denormals, on which a CPU is slow, and engines
give the last of them even for -10,000. That took a third of the time of a micro-batch of eight.
"""


class PackedRouter(nn.Module):
    """
    A trained network rewritten for packed rows. Shares the weights of ``network`` except those fused or rounded.

    ``slots`` is the number of utterances that one row can hold: outputs always have that many rows, and
    rows without a token are zeros pooled, to be dropped by the caller.
    """

    def __init__(self, network: RouterNetwork, slots: int) -> None:
        super().__init__()
        encoder = network.encoder
        self.embeddings = encoder.embeddings
        self.layers = nn.ModuleList(_PackedLayer(layer) for layer in encoder.transformer.layer)
        self.classifier = network.classifier
        self.age = network.age
        self.slots = slots

    def forward(self, token_ids: Tensor, positions: Tensor, segments: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """
        (T,) ids, positions from 0 within each utterance, and the slot of each token -> logits (S, K), age (S,), (S, H).

        A padding token carries the slot ``slots``: it is seen only by other padding and pooled nowhere.
        """
        apart = segments.unsqueeze(0) != segments.unsqueeze(1)
        bias = apart.to(torch.float32) * MASKED
        # A leading axis of one: a linear layer on three axes exports as MatMul, which engines quantise; Gemm they skip.
        hidden = self._embed(token_ids, positions).unsqueeze(0)
        for layer in self.layers:
            hidden = layer(hidden, bias)
        # On the inputs' device: a tracer that moves the graph to an accelerator has no CPU tensor to compare with.
        numbers = torch.arange(self.slots, dtype=segments.dtype, device=segments.device)
        membership = (segments.unsqueeze(0) == numbers.unsqueeze(1)).to(torch.float32)
        counts = membership.sum(dim=1, keepdim=True).clamp(min=1.0)
        embeddings = torch.matmul(membership, hidden.squeeze(0)) / counts
        return self.classifier(embeddings), self.age(embeddings).squeeze(-1), embeddings

    def _embed(self, token_ids: Tensor, positions: Tensor) -> Tensor:
        words = self.embeddings.word_embeddings(token_ids)
        return cast(Tensor, self.embeddings.LayerNorm(words + self.embeddings.position_embeddings(positions)))


class _PackedLayer(nn.Module):
    """One transformer block on (1, T, H), with query, key and value computed by one matrix product."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        attention = block.attention
        parts = (attention.q_lin, attention.k_lin, attention.v_lin)
        self.n_heads = int(attention.n_heads)
        self.head_size = int(attention.q_lin.out_features) // self.n_heads
        self.qkv = _fused(*parts)
        self.out = _fused(attention.out_lin)
        self.attention_norm = block.sa_layer_norm
        self.ffn_in = _fused(block.ffn.lin1)
        self.activation = block.ffn.activation
        self.ffn_out = _fused(block.ffn.lin2)
        self.ffn_norm = block.output_layer_norm

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        mixed = self.attention_norm(self._attend(hidden, bias) + hidden)
        widened = self.activation(self.ffn_in(mixed))
        return cast(Tensor, self.ffn_norm(self.ffn_out(widened) + mixed))

    def _attend(self, hidden: Tensor, bias: Tensor) -> Tensor:
        # Split at fixed places: `chunk` would have an engine compute them anew in every layer of every call.
        query, key, value = (
            part.reshape(-1, self.n_heads, self.head_size).transpose(0, 1)
            for part in self.qkv(hidden).split(self.n_heads * self.head_size, dim=-1)
        )
        affinity = torch.matmul(query * self.head_size**-0.5, key.transpose(1, 2)) + bias
        context = torch.matmul(functional.softmax(affinity, dim=-1), value)
        return cast(Tensor, self.out(context.transpose(0, 1).flatten(1).unsqueeze(0)))


def _fused(*layers: nn.Linear) -> nn.Module:
    """Layers of one input as one; where they round, the weights are rounded here, once, and the input each time."""
    if len(layers) == 1 and not isinstance(layers[0], QuantisedLinear):
        return layers[0]
    weights = [layer.rounded_weight() if isinstance(layer, QuantisedLinear) else layer.weight for layer in layers]
    fused = nn.Linear(layers[0].in_features, sum(layer.out_features for layer in layers))
    with torch.no_grad():
        fused.weight.copy_(torch.cat(weights))
        fused.bias.copy_(torch.cat([layer.bias for layer in layers]))
    steps = {layer.rounding.steps for layer in layers if isinstance(layer, QuantisedLinear)}
    if len(steps) > 1:
        raise ValueError(f"layers of one input round it differently: {steps}")
    return nn.Sequential(*map(Rounding, steps), fused)
