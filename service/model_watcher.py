"""
Follows the deployment of the model repository: takes over another version, policy or tuning, or opens the same version
anew, without dropping a request.

A deployment is taken over whole or refused whole. What cannot be served is refused: the old version goes on, the
refusal is counted and logged. Only at start is there nothing to go on with, and the error is raised.
"""

import asyncio
import logging

from model_repo.contract.deployment import Deployment
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
        self._unreadable = ""
        """Why the deployment could not be read at the last look; empty when it could."""

    async def start(self) -> None:
        """Serve what is deployed; raises when that is missing or damaged, naming the file."""
        deployment = self._store.deployment()
        await self._take_version(deployment)
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
        except _REFUSALS as error:
            self._refuse_unreadable(str(error))
            return
        self._unreadable = ""
        if deployment.number != self._seen:
            await self._follow(deployment)
            self._seen = deployment.number

    async def stop(self) -> None:
        """Answer what waits and let go of the engine."""
        serving, self._engine.serving = self._engine.serving, None
        if serving is not None:
            await serving.close(DRAIN_S)

    def _refuse_unreadable(self, why: str) -> None:
        """Counted and logged once, however often it is looked at."""
        if why != self._unreadable:
            self._unreadable = why
            self._telemetry.record_swap("refused")
            log.error("the deployment cannot be read; serving goes on as it was: %s", why)

    async def _follow(self, deployment: Deployment) -> None:
        champion = deployment.champion
        try:
            outcomes = await self._take(deployment)
        except _REFUSALS as error:
            self._telemetry.record_swap("refused")
            log.error(
                "deployment %d is refused; serving goes on as it was: %s",
                deployment.number,
                error,
                extra={"version": champion.version, "policy_revision": champion.policy_revision},
            )
            return
        for outcome in outcomes:
            self._telemetry.record_swap(outcome)

    async def _take(self, deployment: Deployment) -> tuple[str, ...]:
        """Take over what is other than before, and say what that was."""
        serving, before = self._engine.serving, self._engine.deployment
        if serving is None or before is None or deployment.champion.version != before.champion.version:
            await self._take_version(deployment)
            return ("version",)
        if deployment.reload != before.reload:
            await self._take_version(deployment)
            return ("reload",)
        await self._take_numbers(deployment, serving)
        changes = {
            "policy": deployment.champion != before.champion,
            "tuning": deployment.tuning != before.tuning,
        }
        return tuple(outcome for outcome, has_changed in changes.items() if has_changed)

    async def _take_numbers(self, deployment: Deployment, serving: Serving) -> None:
        """Policy and tuning: the engine stays."""
        alias = deployment.champion
        policy = await asyncio.to_thread(self._store.policy, alias.version, alias.policy_revision, alias.policy_sha256)
        policy.check_fits(serving.taxonomy)
        await asyncio.to_thread(serving.take_tuning, deployment.tuning)
        serving.take_policy(policy)
        self._engine.take_over(deployment, serving)
        self._announce(serving, deployment)

    async def _take_version(self, deployment: Deployment) -> None:
        new = await asyncio.to_thread(self._open, deployment)
        new.batcher.start()
        old = self._engine.serving
        self._engine.take_over(deployment, new)
        self._announce(new, deployment)
        if old is not None:
            await old.close(DRAIN_S)

    def _open(self, deployment: Deployment) -> Serving:
        alias = deployment.champion
        version = self._store.load(alias.version)
        policy = self._store.policy(alias.version, alias.policy_revision, alias.policy_sha256)
        return self._plan.open(version, policy, deployment.tuning)

    def _announce(self, serving: Serving, deployment: Deployment) -> None:
        backend = serving.backend
        self._telemetry.record_model(serving.policy.version, serving.policy.name, backend.name, backend.precision)
        log.info(
            "serving version %s under policy %s",
            serving.policy.version,
            serving.policy.name,
            extra={
                "backend": backend.name,
                "precision": backend.precision,
                "deployment": deployment.number,
                "tuning": deployment.tuning.to_json(),
            },
        )
