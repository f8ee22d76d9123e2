"""Small real classes that stand in for what is slow, large or hard to time."""

import threading
from collections.abc import Sequence

import numpy as np

from model_repo.contract.events import LabelEvent, PredictionEvent
from model_repo.contract.outputs import ModelOutputs
from service.errors import BackendFailed
from service.event_log import LogState, Maintained

UNKNOWN_ID, TWO_INTENTS_ID = 0, 1


class FakeBackend:
    """
    An engine without a model, whose logits follow from the token ids.

    The intent is the sum of the ids modulo the number of intents. An utterance of unknown tokens alone is ood; one
    with the token ``TWO_INTENTS_ID`` has the next intent too. The first token of the embedding is the sum itself.
    """

    name = "fake"
    precision = "none"

    def __init__(self, intents: int = 3) -> None:
        self._intents = intents
        self.batch_sizes: list[int] = []
        self.fails = False
        self.is_closed = False
        self.warm_ups = 0
        self.open_gate = threading.Event()
        """Cleared by a test to hold every batch inside the engine."""
        self.open_gate.set()
        self.has_entered = threading.Event()
        """Set when a batch has come in."""

    def infer(self, utterances: Sequence[Sequence[int]]) -> ModelOutputs:
        """See service.backends.protocol.Backend."""
        self.batch_sizes.append(len(utterances))
        self.has_entered.set()
        if not self.open_gate.wait(timeout=30):
            raise AssertionError("a test left the gate closed")
        if self.fails:
            raise BackendFailed("the fake engine was told to fail")
        logits = np.zeros((len(utterances), self._intents), dtype=np.float32)
        for row, token_ids in enumerate(utterances):
            if any(token_ids):
                logits[row, sum(token_ids) % self._intents] = 6.0
                if TWO_INTENTS_ID in token_ids:
                    logits[row, (sum(token_ids) + 1) % self._intents] = 5.8
        sums = np.array([[float(sum(token_ids)), 0.5] for token_ids in utterances], dtype=np.float32)
        return ModelOutputs(logits, np.full(len(utterances), -4.0, dtype=np.float32), sums)

    def warm_up(self) -> None:
        """Counted."""
        self.warm_ups += 1

    def close(self) -> None:
        """Noted."""
        self.is_closed = True


class FakeEventLog:
    """Keeps events and labels in memory."""

    def __init__(self) -> None:
        self.events: list[PredictionEvent] = []
        self.labels: list[LabelEvent] = []

    def append(self, events: Sequence[PredictionEvent]) -> None:
        """See service.event_log.EventLog."""
        self.events.extend(events)

    def add_label(self, label: LabelEvent, at: float) -> bool:
        """See service.event_log.EventLog."""
        is_new = label not in self.labels
        if is_new:
            self.labels.append(label)
        return is_new

    def state(self) -> LogState:
        """Always well."""
        return LogState(is_failing=False, lost=0, waiting=0)

    def maintain(self, now: float) -> Maintained:
        """Nothing to do."""
        return Maintained(deleted=0, log_bytes=0)

    def close(self) -> None:
        """Nothing to do."""
