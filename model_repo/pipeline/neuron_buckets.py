"""
Which static shapes to compile for Inferentia, chosen from real lengths:

    python -m model_repo.pipeline.neuron_buckets --tokenizer FILE

Two families are compared at the same number of programs. The grid pads each utterance to a sequence length and each
batch to 1 or 4 rows. The packed family lays the utterances of a micro-batch end to end in one row and pads that row.
Shapes are chosen on every other authored message and counted on the rest.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from model_repo.contract.outputs import FloatArray
from model_repo.contract.packing import rows

TEXTS = Path(__file__).resolve().parents[1] / "data" / "manga_authored"
GRID_ROWS = 4
"""Rows of the larger batch. AWS's table gives batch 4 95% of batch 16's rate at a quarter of its latency."""
SLOTS = 32
WAITING = (1, 2, 4, 8, 16)
"""Utterances that wait together: from an idle service to a busy one, each counted alike."""
STEP = 8
"""Shapes are multiples of it."""
DRAWS = 50
"""Orders in which utterances come, of each number waiting: a choice from one order is another with the next."""
CALL_MS, TOKEN_MS = 0.25, 0.0026
"""
A call costs about CALL_MS + TOKEN_MS a token on one core: a line through AWS's DistilBERT-base figures at sequence 128
(batch 1: 0.58 ms, 4: 1.58, 16: 6.01; releases 2.22 to 2.27). Theirs, not measured here; they only weigh calls against
padding, and the printed table gives both apart.
"""


@dataclass(frozen=True)
class Work:
    """What a family computes for the same utterances."""

    tokens: int
    """Computed, padding included."""
    calls: int

    def __add__(self, other: "Work") -> "Work":
        return Work(self.tokens + other.tokens, self.calls + other.calls)

    @property
    def core_ms(self) -> float:
        """By the line through AWS's figures."""
        return self.calls * CALL_MS + self.tokens * TOKEN_MS


NOTHING = Work(0, 0)


def optimal_edges(demand: FloatArray, count: int, step: int = 1) -> tuple[int, ...]:
    """
    At most ``count`` edges, multiples of ``step``, that minimise expected padding: each value pays its next edge.

    ``demand[v]`` is the weight of value v, for v from 0; the last edge holds the largest value that has weight.
    Dynamic programming over the candidate edges: O(count n^2) for n candidates.

    >>> optimal_edges(np.array([0, 5.0, 0, 0, 6.0, 0, 0, 1.0]), 2)
    (4, 7)
    >>> optimal_edges(np.array([0, 5.0, 0, 0, 5.0, 0, 0, 1.0]), 3)
    (1, 4, 7)
    """
    if count < 1 or step < 1:
        raise ValueError(f"count and step must be >= 1, got {count} and {step}")
    largest = int(np.flatnonzero(demand).max(initial=0))
    edges = np.arange(step, max(largest, 1) + step, step)
    below = np.concatenate([[0.0], np.cumsum(demand)[np.minimum(edges, demand.size - 1)]])
    # cost[i, j]: everything above edge i and up to edge j is padded to edge j; edge 0 is "none below".
    cost = np.where(
        np.arange(edges.size + 1)[:, None] < np.arange(edges.size + 1)[None, :],
        (below[None, :] - below[:, None]) * np.concatenate([[0], edges])[None, :],
        np.inf,
    )
    best = cost[0].copy()
    came_from = []
    for _ in range(min(count, edges.size) - 1):
        through = np.minimum(best[:, None] + cost, np.inf)
        before = through.argmin(axis=0)
        improved = through[before, np.arange(edges.size + 1)]
        # Fewer edges than allowed may be enough: 0 says that this one needs none before it.
        came_from.append(np.where(improved < best, before, -1))
        best = np.minimum(improved, best)
    return _trace(came_from, edges)


def _trace(came_from: Sequence[np.ndarray], edges: np.ndarray) -> tuple[int, ...]:
    chosen, at = [edges.size], edges.size
    for before in reversed(came_from):
        if before[at] >= 0:
            at = int(before[at])
            chosen.append(at)
    return tuple(int(edges[index - 1]) for index in reversed(chosen))


def padding_cost(demand: FloatArray, edges: Sequence[int]) -> float:
    """What ``optimal_edges`` minimises: the sum of each value's weight times its next edge."""
    values = np.flatnonzero(demand)
    return float((demand[values] * np.asarray(edges)[np.searchsorted(edges, values)]).sum())


def packed_work(lengths: Sequence[int], sizes: Sequence[int], slots: int = SLOTS) -> Work:
    """Utterances that wait together, packed in order of arrival."""
    total = NOTHING
    for tokens in row_tokens(lengths, sizes[-1], slots):
        total += Work(next(size for size in sizes if size >= tokens), 1)
    return total


def row_tokens(lengths: Sequence[int], max_row_tokens: int, slots: int = SLOTS) -> list[int]:
    """
    Tokens of each packed row.

    >>> row_tokens([10, 20, 30], 40)
    [30, 30]
    """
    return [sum(map(len, group)) for group in rows([range(length) for length in lengths], slots, max_row_tokens)]


def grid_work(lengths: Sequence[int], sequences: Sequence[int], batch: int = GRID_ROWS) -> Work:
    """
    The same utterances on the grid {1, batch} x sequences, cut in the way that costs least (sorted, then exact search).

    >>> grid_work([10, 12, 60], (16, 64))
    Work(tokens=128, calls=2)
    """
    padded = [next(s for s in sequences if s >= length) for length in sorted(lengths)]

    @cache
    def best(start: int) -> Work:
        if start == len(padded):
            return NOTHING
        single = Work(padded[start], 1) + best(start + 1)
        together = (
            Work(batch * padded[min(start + n, len(padded)) - 1], 1) + best(min(start + n, len(padded)))
            for n in range(2, batch + 1)
        )
        return min((single, *together), key=lambda work: work.core_ms)

    return best(0)


def counts_of(values: Iterable[int], size: int) -> FloatArray:
    """How often each value in 0..size occurs."""
    return np.bincount(np.fromiter(values, dtype=np.int64), minlength=size + 1).astype(np.float64)


def groups_of(lengths: Sequence[int], rng: np.random.Generator) -> dict[int, list[list[int]]]:
    """For each number that waits together, all lengths cut into groups of that many, in a drawn order."""
    made = {}
    for n in WAITING:
        order = rng.permutation(np.asarray(lengths))
        made[n] = [part.tolist() for part in np.split(order[: order.size // n * n], order.size // n)]
    return made


def choose_packed(lengths: Sequence[int], programs: int, max_row_tokens: int, rng: np.random.Generator) -> list[int]:
    """Row sizes for utterances of these lengths; the largest is ``max_row_tokens``."""
    demand = np.zeros(max_row_tokens + 1)
    for _ in range(DRAWS):
        for groups in groups_of(lengths, rng).values():
            tokens = counts_of((t for group in groups for t in row_tokens(group, max_row_tokens)), max_row_tokens)
            # Each state of the service weighs the same, however many rows its groups need.
            demand += tokens / tokens.sum()
    demand[max_row_tokens] += 1e-9
    return list(optimal_edges(demand, programs, STEP))


def compare(lengths: Sequence[int], programs: int, max_tokens: int, max_row_tokens: int, seed: int) -> str:
    """The printed report: the chosen shapes, and what each family computes on lengths it was not chosen on."""
    rng = np.random.default_rng(seed)
    fitted, counted = lengths[::2], lengths[1::2]
    demand = counts_of(fitted, max_tokens)
    demand[max_tokens] += 1e-9
    sequences = optimal_edges(demand, programs // 2, STEP)
    sizes = choose_packed(fitted, programs, max_row_tokens, rng)
    fixed = [32, 64, max_tokens]
    spread = [max_row_tokens * (i + 1) // programs // STEP * STEP for i in range(programs)]
    families: dict[str, Callable[[Sequence[int]], Work]] = {
        f"grid {{1, {GRID_ROWS}}} x {fixed}": lambda group: grid_work(group, fixed),
        f"grid {{1, {GRID_ROWS}}} x {list(sequences)}, chosen": lambda group: grid_work(group, sequences),
        f"packed {spread}, evenly spread": lambda group: packed_work(group, spread),
        f"packed {sizes}, chosen": lambda group: packed_work(group, sizes),
    }
    return _report(groups_of(counted, rng), families)


def _report(groups: dict[int, list[list[int]]], families: dict[str, Callable[[Sequence[int]], Work]]) -> str:
    lines = []
    totals: dict[str, list[int]] = {}
    for name, work_of in families.items():
        lines.append(f"{name}\n  waiting  computed/real tokens  calls/utterance  core ms/utterance (AWS's line)")
        for n, parts in groups.items():
            total = sum((work_of(part) for part in parts), NOTHING)
            totals.setdefault(name, []).append(total.tokens)
            real, utterances = sum(map(sum, parts)), n * len(parts)
            lines.append(
                f"  {n:>7}  {total.tokens / real:>20.2f}  {total.calls / utterances:>15.3f}"
                f"  {total.core_ms / utterances:>17.3f}"
            )
    *others, chosen = totals
    for other in others:
        saved = (
            f"{n}: {1 - ours / theirs:.0%}"
            for n, ours, theirs in zip(groups, totals[chosen], totals[other], strict=True)
        )
        lines.append(f"{chosen} saves of {other}, by number waiting: {', '.join(saved)}")
    return "\n".join(lines)


def token_lengths(tokenizer: Path, texts: Path = TEXTS, max_tokens: int = 128) -> list[int]:
    """Lengths of the authored messages in tokens, specials included, in the order of the files."""
    reader = Tokenizer.from_file(str(tokenizer))
    reader.no_padding()
    reader.enable_truncation(max_tokens)
    return [len(encoding.ids) for encoding in reader.encode_batch(authored_texts(texts))]


def authored_texts(texts: Path = TEXTS) -> list[str]:
    """Every message of a folder of JSON lines, or of one such file."""
    return [
        str(json.loads(line)["text"])
        for file in (sorted(texts.glob("*.jsonl")) if texts.is_dir() else [texts])
        for line in file.read_text(encoding="utf-8").splitlines()
        if line.strip()
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer.json of a version or checkpoint")
    parser.add_argument("--texts", type=Path, default=TEXTS)
    parser.add_argument("--programs", type=int, default=6)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--max-row-tokens", type=int, default=256)
    parser.add_argument("--seed", type=int, default=42)
    args = parser.parse_args(arguments)
    lengths = token_lengths(args.tokenizer, args.texts, args.max_tokens)
    quantiles = ", ".join(f"{q}%: {int(np.percentile(lengths, q))}" for q in (50, 95, 99, 100))
    print(f"{len(lengths)} utterances, mean {np.mean(lengths):.1f} tokens, {quantiles}")
    print(compare(lengths, args.programs, args.max_tokens, args.max_row_tokens, args.seed))


if __name__ == "__main__":
    main()
