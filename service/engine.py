"""The way of an utterance: admitted, tokenized and batched, decided, logged, answered."""

import asyncio
import secrets
import time
from collections.abc import Sequence

from model_repo.contract.deployment import Deployment
from model_repo.contract.events import LabelEvent
from service.admission import Admission
from service.answers import Answer, Utterance
from service.errors import FieldFault, ModelNotReady, ServiceError, UnknownIntent
from service.event_log import EventLog
from service.schemas import RouteRequest
from service.serving import Serving
from service.telemetry import Telemetry


class Engine:
    """Routes utterances through the version that serves, and stores labels. Belongs to the event loop."""

    def __init__(
        self, admission: Admission, event_log: EventLog, telemetry: Telemetry, *, deadline_s: float, batch_chunk: int
    ) -> None:
        self.serving: Serving | None = None
        """Set and replaced by the model watcher, as the deployment is."""
        self.deployment: Deployment | None = None
        """What was taken over last."""
        self._admission = admission
        self._event_log = event_log
        self._telemetry = telemetry
        self._deadline_s = deadline_s
        self._batch_chunk = batch_chunk

    def take_over(self, deployment: Deployment, serving: Serving) -> None:
        """Answer with this from the next request on, and admit as the deployment's tuning says."""
        self.deployment = deployment
        self.serving = serving
        self._admission.tune(deployment.tuning.max_in_flight)

    async def route(self, request: RouteRequest) -> Answer:
        """
        The answer to one utterance; its event is in the log by then.

        Raises Overloaded, ModelNotReady, DeadlinePassed, BackendFailed or ShuttingDown, with the request id.
        """
        began = time.perf_counter()
        serving = self._ready()
        self._admission.enter()
        try:
            answer = await self._answer(serving, request, began)
        finally:
            self._admission.leave()
        now = time.perf_counter()
        self._admission.observe(now - began, now)
        return answer

    async def route_batch(self, requests: Sequence[RouteRequest]) -> list[Answer]:
        """
        Answers in order. A few utterances wait at a time, so that a batch delays nobody by its whole length.

        Raises as ``route`` does, for the batch as a whole; events of the part that was answered stay in the log.
        """
        self._ready()
        chunk = min(self._batch_chunk, len(requests))
        self._admission.enter(chunk)
        try:
            answers: list[Answer] = []
            for start in range(0, len(requests), chunk):
                # Asked anew each time: the version may have been replaced meanwhile.
                serving, began = self._ready(), time.perf_counter()
                answers += await asyncio.gather(
                    *(self._answer(serving, request, began) for request in requests[start : start + chunk])
                )
            return answers
        finally:
            self._admission.leave(chunk)

    async def add_label(self, label: LabelEvent) -> bool:
        """Store a label; False when it was there already. Raises UnknownIntent or EventLogUnavailable."""
        known = self._ready().taxonomy.intents
        unknown = [intent for intent in label.intents if intent not in known]
        if unknown:
            raise UnknownIntent((FieldFault("intents", f"{len(unknown)} unknown; known: {', '.join(known)}"),))
        self._telemetry.record_label(label.source)
        return await asyncio.to_thread(self._event_log.add_label, label, time.time())

    @property
    def is_ready(self) -> bool:
        """A version is loaded, and its workers live."""
        return self.serving is not None and self.serving.batcher.is_working

    def describe(self) -> dict[str, object]:
        """What serves, as ``schemas.ModelAnswer`` describes it; raises ModelNotReady."""
        serving, deployment = self._ready(), self.deployment
        if deployment is None:
            raise ModelNotReady("no deployment is taken over yet")
        manifest, batch = serving.manifest, serving.batcher.limits
        return {
            "version": manifest.version,
            "policy": serving.policy.name,
            "role": "champion",
            "intents": list(manifest.taxonomy.intents),
            "high_risk": sorted(manifest.taxonomy.high_risk),
            "backend": serving.backend.name,
            "precision": serving.backend.precision,
            "max_tokens": manifest.max_tokens,
            "created": manifest.created,
            "deployment": deployment.number,
            "reload": deployment.reload,
            "tuning": deployment.tuning.to_json(),
            "limits": {
                "batch_tokens": batch.max_tokens,
                "batch_utterances": batch.max_utterances,
                "max_in_flight": self._admission.most,
                "max_tokens": serving.tokenizer.max_tokens,
            },
        }

    def _ready(self) -> Serving:
        if self.serving is None:
            raise ModelNotReady("no version is loaded yet")
        return self.serving

    async def _answer(self, serving: Serving, request: RouteRequest, began: float) -> Answer:
        request_id = request.request_id or secrets.token_hex(16)
        utterance = Utterance(request.text, request_id, request.session_id, began, serving.tokenizer.encode)
        try:
            return await serving.batcher.submit(utterance, self._deadline_s)
        except ServiceError as error:
            error.request_id = request_id
            raise
