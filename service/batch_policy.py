"""Which of the waiting utterances go into the next micro-batch: a pure function of their lengths."""

from collections.abc import Sequence
from dataclasses import dataclass

from model_repo.contract.tuning import DEFAULT_BATCH_TOKENS, Tuning, lowered


@dataclass(frozen=True)
class BatchLimits:
    """What one micro-batch may hold."""

    max_tokens: int = DEFAULT_BATCH_TOKENS
    """
    Tokens computed together. Everyone in a micro-batch waits for all of it, so lower is a shorter wait and more
    calls; past the point where one call keeps a core busy, more tokens gain no throughput.
    """
    max_utterances: int = 32
    """Slots of one packed row."""

    def __post_init__(self) -> None:
        for name in ("max_tokens", "max_utterances"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")

    def lowered_by(self, tuning: Tuning) -> "BatchLimits":
        """
        Where the tuning of a deployment is lower, that.

        >>> BatchLimits(max_tokens=96, max_utterances=32).lowered_by(Tuning(batch_tokens=48, batch_utterances=64))
        BatchLimits(max_tokens=48, max_utterances=32)
        """
        return BatchLimits(
            lowered(self.max_tokens, tuning.batch_tokens), lowered(self.max_utterances, tuning.batch_utterances)
        )

    @property
    def look_ahead(self) -> int:
        """How many of the oldest waiting utterances a choice examines: bounds its cost in a long queue."""
        return 4 * self.max_utterances


def choose(lengths: Sequence[int], limits: BatchLimits) -> list[int]:
    """
    Indices, ascending, of the waiting utterances to take; ``lengths`` are in tokens, in order of arrival.

    The oldest is always taken, whatever its length, so nobody starves. After it, in order of arrival, those that
    still fit the token budget: a long utterance is passed over by short ones behind it until it is the oldest.

    >>> choose([10, 90, 10, 10], BatchLimits(max_tokens=40, max_utterances=8))
    [0, 2, 3]
    >>> choose([90, 10], BatchLimits(max_tokens=40, max_utterances=8))
    [0]
    >>> choose([], BatchLimits())
    []
    """
    if not lengths:
        return []
    chosen = [0]
    left = limits.max_tokens - lengths[0]
    for index in range(1, min(len(lengths), limits.look_ahead)):
        if len(chosen) == limits.max_utterances or left <= 0:
            break
        if lengths[index] <= left:
            chosen.append(index)
            left -= lengths[index]
    return chosen
