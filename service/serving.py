"""A version that answers: its engine, tokenizer, policy and batcher, opened together and closed together."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from model_repo.contract.engine import TOKENIZER_FILE
from model_repo.contract.labels import Taxonomy
from model_repo.contract.manifest import Manifest
from model_repo.contract.policy import Policy
from model_repo.contract.tuning import Tuning, lowered
from model_repo.store import LoadedVersion
from service.answers import Answer, Answering, EventContent, Utterance
from service.backends.protocol import Backend
from service.batch_policy import BatchLimits
from service.batcher import Batcher
from service.event_log import EventLog
from service.telemetry import Telemetry
from service.tokenizer import UtteranceTokenizer

BackendFactory = Callable[[Path, int], Backend]
"""Folder of a version and number of worker threads -> its engine. Blocks while it loads."""


@dataclass(frozen=True)
class Serving:
    """Everything that belongs to one version while it serves."""

    manifest: Manifest
    backend: Backend
    tokenizer: UtteranceTokenizer
    answering: Answering
    batcher: Batcher[Utterance, Answer]
    batch_limits: BatchLimits
    """What the settings say; ``batcher.limits`` are those in force."""

    @property
    def taxonomy(self) -> Taxonomy:
        """Of the version."""
        return self.manifest.taxonomy

    @property
    def policy(self) -> Policy:
        """The revision in force."""
        return self.answering.policy

    def take_policy(self, policy: Policy) -> None:
        """Decide by another revision from the next micro-batch on; raises BadPolicy when it is for other intents."""
        policy.check_fits(self.taxonomy)
        self.answering.policy = policy

    def take_tuning(self, tuning: Tuning) -> None:
        """Lower limits, or give them back to the settings, from the next micro-batch on. Blocks as ``limit`` does."""
        self.tokenizer.limit(lowered(self.manifest.max_tokens, tuning.max_tokens))
        self.batcher.limits = self.batch_limits.lowered_by(tuning)

    async def close(self, timeout_s: float) -> None:
        """Answer what waits, then let go of the engine."""
        await self.batcher.close(timeout_s)
        self.backend.close()


@dataclass(frozen=True)
class ServingPlan:
    """What a version needs of the process to be opened."""

    backend_factory: BackendFactory
    workers: int
    batch_limits: BatchLimits
    max_waiting: int
    content: EventContent
    event_log: EventLog
    telemetry: Telemetry

    def open(self, version: LoadedVersion, policy: Policy, tuning: Tuning) -> Serving:
        """Load the engine and warm it up; blocks for seconds. ``batcher.start`` is left to the event loop."""
        taxonomy = version.manifest.taxonomy
        policy.check_fits(taxonomy)
        tokenizer = UtteranceTokenizer(version.file(TOKENIZER_FILE), version.manifest.max_tokens)
        backend = self.backend_factory(version.folder, self.workers)
        backend.warm_up()
        answering = Answering(taxonomy, policy, self.content, self.event_log, self.telemetry)
        batcher: Batcher[Utterance, Answer] = Batcher(
            backend.infer, answering.finish, self.batch_limits, max_waiting=self.max_waiting, workers=self.workers
        )
        serving = Serving(version.manifest, backend, tokenizer, answering, batcher, self.batch_limits)
        serving.take_tuning(tuning)
        return serving
