"""A version that brings a membership head: its logits are laid out from what the engine gives."""

from collections.abc import Sequence
from pathlib import Path

from model_repo.contract.membership import MEMBERSHIP_FILE, MembershipHead
from model_repo.contract.outputs import ModelOutputs
from model_repo.store import read_membership
from service.backends.protocol import Backend
from service.errors import BackendFailed


class MembershipBackend:
    """See Backend. Takes about 50 microseconds for an utterance, and 110 for 16, on top of the engine's time."""

    def __init__(self, engine: Backend, head: MembershipHead) -> None:
        """The engine is closed with this."""
        self.name, self.precision = engine.name, engine.precision
        self._engine = engine
        self._head = head

    def infer(self, utterances: Sequence[Sequence[int]]) -> ModelOutputs:
        """See Backend."""
        outputs = self._engine.infer(utterances)
        try:
            return self._head.applied(outputs)
        except ValueError as wrong:
            raise BackendFailed(f"{MEMBERSHIP_FILE} is of another model: {wrong}") from wrong

    def warm_up(self) -> None:
        """See Backend. Also shows a head of another model before any customer does."""
        self._engine.warm_up()
        self.infer([[0]])

    def close(self) -> None:
        """See Backend."""
        self._engine.close()


def with_membership(engine: Backend, folder: Path) -> Backend:
    """The engine itself for a version without a head; raises BadManifest for one that cannot be read."""
    head = read_membership(folder)
    return engine if head is None else MembershipBackend(engine, head)
