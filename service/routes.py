"""The endpoints: HTTP to a call, a value to HTTP. They decide nothing."""

import time
from collections.abc import Mapping

import orjson

from service.engine import Engine
from service.event_log import EventLog
from service.http_app import TEXT, Endpoint, Lifetime, Reply
from service.openapi import openapi_document
from service.schemas import BATCH, FEEDBACK, ROUTE, parse
from service.settings import Settings
from service.telemetry import Telemetry


class Routes:
    """Handlers, each from the body to a reply; what they raise is told as a problem document."""

    def __init__(self, engine: Engine, event_log: EventLog, lifetime: Lifetime, telemetry: Telemetry) -> None:
        self._engine = engine
        self._event_log = event_log
        self._lifetime = lifetime
        self._telemetry = telemetry

    def endpoints(self, settings: Settings) -> Mapping[tuple[str, str], Endpoint]:
        """By method and path."""
        single, batch = settings.body_limit_bytes, settings.batch_body_limit_bytes
        return {
            ("POST", "/route"): Endpoint(self.route, body_limit=single),
            ("POST", "/route/batch"): Endpoint(self.route_batch, body_limit=batch),
            ("POST", "/feedback"): Endpoint(self.feedback, body_limit=single),
            ("GET", "/model"): Endpoint(self.model),
            ("GET", "/health/live"): Endpoint(self.live, is_open=True),
            ("GET", "/health/ready"): Endpoint(self.ready, is_open=True),
            ("GET", "/metrics"): Endpoint(self.metrics, is_open=True),
            ("GET", "/openapi.json"): Endpoint(self.openapi, is_open=True),
        }

    async def route(self, body: bytes) -> Reply:
        """``POST /route``."""
        began = time.perf_counter()
        request = parse(ROUTE, body)
        parsed = time.perf_counter()
        answer = await self._engine.route(request)
        answered = time.perf_counter()
        reply = Reply(200, orjson.dumps(answer))
        self._telemetry.record_translation(parsed - began, time.perf_counter() - answered)
        return reply

    async def route_batch(self, body: bytes) -> Reply:
        """``POST /route/batch``."""
        request = parse(BATCH, body)
        return Reply(200, orjson.dumps({"answers": await self._engine.route_batch(request.utterances)}))

    async def feedback(self, body: bytes) -> Reply:
        """``POST /feedback``."""
        label = parse(FEEDBACK, body).to_label()
        stored = await self._engine.add_label(label)
        return Reply(202, orjson.dumps({"request_id": label.request_id, "stored": stored}))

    async def live(self, _: bytes) -> Reply:
        """``GET /health/live``."""
        return Reply(200, b'{"status":"live"}')

    async def ready(self, _: bytes) -> Reply:
        """``GET /health/ready``: 503 until a version serves and from SIGTERM on."""
        status = "ready" if self._engine.is_ready else "not_ready"
        if self._lifetime.is_shutting_down:
            status = "shutting_down"
        log = self._event_log.state()
        state = {"status": "failing" if log.is_failing else "ok", "lost": log.lost, "waiting": log.waiting}
        return Reply(200 if status == "ready" else 503, orjson.dumps({"status": status, "event_log": state}))

    async def model(self, _: bytes) -> Reply:
        """``GET /model``."""
        return Reply(200, orjson.dumps(self._engine.describe()))

    async def metrics(self, _: bytes) -> Reply:
        """``GET /metrics``."""
        return Reply(200, self._telemetry.render(), TEXT)

    async def openapi(self, _: bytes) -> Reply:
        """``GET /openapi.json``."""
        serving = self._engine.serving
        return Reply(200, orjson.dumps(openapi_document(serving.taxonomy.intents if serving else ())))
