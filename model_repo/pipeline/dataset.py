"""Labelled utterances on disk and as tensors: length-sorted batches that hold almost no padding."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from model_repo.contract.labels import LabelledUtterance, Taxonomy

MAX_TOKENS = 128
"""Longest utterance in tokens, specials included. The longest authored message has 108."""


def read_utterances(file: Path) -> list[LabelledUtterance]:
    """One labelled utterance a line; raises BadUtterance."""
    with file.open(encoding="utf-8") as lines:
        return [LabelledUtterance.from_json(json.loads(line)) for line in lines if line.strip()]


def read_taxonomy(data: Path) -> Taxonomy:
    """The taxonomy that the data stage wrote beside the splits."""
    return Taxonomy.from_json(json.loads((data / "taxonomy.json").read_text(encoding="utf-8")))


def write_utterances(file: Path, utterances: Sequence[LabelledUtterance]) -> None:
    """Inverse of ``read_utterances``."""
    lines = (json.dumps(u.to_json(), ensure_ascii=False) + "\n" for u in utterances)
    file.write_text("".join(lines), encoding="utf-8")


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, cut at MAX_TOKENS with the last special token kept."""
    return [
        ids if len(ids) <= MAX_TOKENS else [*ids[: MAX_TOKENS - 1], ids[-1]]
        for ids in (encoding.ids for encoding in tokenizer.encode_batch(list(texts)))
    ]


@dataclass(frozen=True)
class Batch:
    """Tensors of n utterances padded to the longest of them."""

    input_ids: Tensor
    attention_mask: Tensor
    targets: Tensor
    """(n, K): 1/m on each of the m true intents; all zero when ood."""
    is_ood: Tensor
    age: Tensor
    """(n,): 0, 1, or NaN where not known."""


@dataclass(frozen=True)
class TensorDataset:
    """Encoded utterances with their targets."""

    token_ids: list[list[int]]
    targets: Tensor
    is_ood: Tensor
    age: Tensor

    def __len__(self) -> int:
        return len(self.token_ids)

    def batch(self, rows: Sequence[int]) -> Batch:
        """The rows padded to their longest."""
        longest = max(len(self.token_ids[r]) for r in rows)
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        mask = torch.zeros(len(rows), longest, dtype=torch.long)
        for i, row in enumerate(rows):
            length = len(self.token_ids[row])
            ids[i, :length] = torch.tensor(self.token_ids[row])
            mask[i, :length] = 1
        index = torch.tensor(list(rows))
        return Batch(ids, mask, self.targets[index], self.is_ood[index], self.age[index])


def to_tensors(utterances: Sequence[LabelledUtterance], tokenizer: Tokenizer, taxonomy: Taxonomy) -> TensorDataset:
    """Encode utterances; raises BadTaxonomy for an intent the taxonomy lacks."""
    targets = torch.zeros(len(utterances), len(taxonomy.intents))
    for row, utterance in enumerate(utterances):
        for intent in utterance.intents:
            targets[row, taxonomy.index(intent)] = 1.0 / len(utterance.intents)
    ages = [float("nan") if u.age_sensitive is None else float(u.age_sensitive) for u in utterances]
    return TensorDataset(
        token_ids=encode(tokenizer, [u.text for u in utterances]),
        targets=targets,
        is_ood=torch.tensor([u.is_ood for u in utterances], dtype=torch.bool),
        age=torch.tensor(ages),
    )


def length_sorted_batches(lengths: Sequence[int], size: int, rng: np.random.Generator) -> Iterator[list[int]]:
    """
    Random batches of utterances of about the same length: shuffled, sorted within pools of 40 batches, dealt at random.

    >>> batches = list(length_sorted_batches([5, 1, 5, 1], 2, np.random.default_rng(0)))
    >>> sorted(sorted(b) for b in batches)
    [[0, 2], [1, 3]]
    """
    order = rng.permutation(len(lengths))
    pool = size * 40
    batches: list[list[int]] = []
    for start in range(0, len(order), pool):
        chunk = sorted(order[start : start + pool].tolist(), key=lambda r: lengths[r])
        batches.extend(chunk[i : i + size] for i in range(0, len(chunk), size))
    for i in rng.permutation(len(batches)):
        yield batches[i]
