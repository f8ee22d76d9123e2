"""
Follows the deployment of the model repository: takes over another policy or version without dropping a request.

What cannot be served is refused: the old version goes on, the refusal is counted and logged. Only at start is there
nothing to go on with, and the error is raised.
"""

import asyncio
import logging

from model_repo.contract.deployment import Alias, Deployment
from model_repo.contract.errors import ContractError
from model_repo.store import Store
from service.engine import Engine
from service.errors import ServiceError
from service.serving import Serving, ServingPlan
from service.telemetry import Telemetry

log = logging.getLogger(__name__)

DRAIN_S = 30.0
"""How long the old version may take to answer what it holds."""

_REFUSALS = (ContractError, ServiceError, RuntimeError, ValueError, OSError)
"""What a version or an engine that cannot be used raises."""


class ModelWatcher:
    """Owns what the engine serves."""

    def __init__(self, store: Store, plan: ServingPlan, engine: Engine, telemetry: Telemetry) -> None:
        self._store = store
        self._plan = plan
        self._engine = engine
        self._telemetry = telemetry
        self._seen = 0
        """Number of the last deployment that was taken over or refused."""

    async def start(self) -> None:
        """Serve what is deployed; raises when that is missing or damaged, naming the file."""
        deployment = self._store.deployment()
        await self._take_version(deployment.champion)
        self._seen = deployment.number

    async def watch(self, every_s: float) -> None:
        """Look at the deployment for ever."""
        while True:
            await asyncio.sleep(every_s)
            await self.look()

    async def look(self) -> None:
        """Take over what changed since the last look; never raises for what is wrong with the repository."""
        try:
            deployment = await asyncio.to_thread(self._store.deployment)
            if deployment.number == self._seen:
                return
        except _REFUSALS as error:
            log.warning("the deployment cannot be read; serving goes on: %s", error)
            return
        await self._follow(deployment)
        self._seen = deployment.number

    async def stop(self) -> None:
        """Answer what waits and let go of the engine."""
        serving, self._engine.serving = self._engine.serving, None
        if serving is not None:
            await serving.close(DRAIN_S)

    async def _follow(self, deployment: Deployment) -> None:
        champion, serving = deployment.champion, self._engine.serving
        try:
            if serving is not None and serving.manifest.version == champion.version:
                await self._take_policy(serving, champion)
                outcome = "policy"
            else:
                await self._take_version(champion)
                outcome = "version"
        except _REFUSALS as error:
            self._telemetry.record_swap("refused")
            log.error(
                "deployment %d is refused; serving goes on as it was: %s",
                deployment.number,
                error,
                extra={"version": champion.version, "policy_revision": champion.policy_revision},
            )
            return
        self._telemetry.record_swap(outcome)

    async def _take_policy(self, serving: Serving, alias: Alias) -> None:
        policy = await asyncio.to_thread(self._store.policy, alias.version, alias.policy_revision, alias.policy_sha256)
        serving.take_policy(policy)
        self._announce(serving)

    async def _take_version(self, alias: Alias) -> None:
        new = await asyncio.to_thread(self._open, alias)
        new.batcher.start()
        old, self._engine.serving = self._engine.serving, new
        self._announce(new)
        if old is not None:
            await old.close(DRAIN_S)

    def _open(self, alias: Alias) -> Serving:
        version = self._store.load(alias.version)
        policy = self._store.policy(alias.version, alias.policy_revision, alias.policy_sha256)
        return self._plan.open(version, policy)

    def _announce(self, serving: Serving) -> None:
        backend = serving.backend
        self._telemetry.record_model(serving.policy.version, serving.policy.name, backend.name, backend.precision)
        log.info(
            "serving version %s under policy %s",
            serving.policy.version,
            serving.policy.name,
            extra={"backend": backend.name, "precision": backend.precision},
        )
