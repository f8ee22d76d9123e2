"""What the batcher needs of an inference engine."""

from collections.abc import Sequence
from typing import Protocol

from model_repo.contract.outputs import ModelOutputs
from service.errors import BackendFailed


class Backend(Protocol):
    """One loaded model. Every method but ``close`` may be called from several threads at once."""

    @property
    def name(self) -> str:
        """The engine, as in ``onnxruntime``."""

    @property
    def precision(self) -> str:
        """What the matrix products are computed in on this CPU, as in ``fp32``; ``GET /model`` states it."""

    def infer(self, utterances: Sequence[Sequence[int]]) -> ModelOutputs:
        """
        One row of outputs for each utterance's token ids, in order; blocks the calling thread.

        Any number of utterances, each of 1..max_tokens ids. Raises BackendFailed.
        """

    def warm_up(self) -> None:
        """One call for each shape, so that no customer waits for a first one. Raises BackendFailed."""

    def close(self) -> None:
        """Give the memory back; no call may be running or follow."""


def checked(outputs: ModelOutputs) -> ModelOutputs:
    """The outputs themselves; raises BackendFailed when a logit is NaN or infinite."""
    if not outputs.is_finite():
        raise BackendFailed(f"a logit of a batch of {len(outputs)} is NaN or infinite")
    return outputs
