"""The composition root: builds every object of the process and passes it in. Reading it shows the whole wiring."""

import asyncio
import functools
import logging
import os
import time
from collections.abc import Coroutine
from pathlib import Path

from model_repo.store import Store
from service.admission import Admission, AdmissionLimits
from service.answers import EventContent
from service.backends.choice import open_backend
from service.backends.protocol import Backend
from service.batch_policy import BatchLimits
from service.engine import Engine
from service.event_log import EventLog, Retention, SqliteEventLog
from service.http_app import HttpApp
from service.model_watcher import ModelWatcher
from service.routes import Routes
from service.serving import BackendFactory, ServingPlan
from service.settings import Settings
from service.telemetry import Telemetry

log = logging.getLogger(__name__)


class Service:
    """The life of the process: what runs beside the requests, and the end of it."""

    def __init__(self, watcher: ModelWatcher, event_log: EventLog, telemetry: Telemetry, settings: Settings) -> None:
        self.is_shutting_down = False
        """Set when the end is near: readiness goes false while requests are still answered."""
        self.watcher = watcher
        """Looks at the deployment by itself; may be told to look now."""
        self._event_log = event_log
        self._telemetry = telemetry
        self._settings = settings
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Serve the deployed version, then follow the deployment and keep the log in bounds."""
        await self.watcher.start()
        self._spawn(self.watcher.watch(self._settings.model_poll_seconds), "model watcher")
        self._spawn(self._maintain_log(), "event log maintenance")

    async def stop(self) -> None:
        """After the last request."""
        self.is_shutting_down = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.watcher.stop()
        await asyncio.to_thread(self._event_log.close)

    def _spawn(self, work: Coroutine[object, object, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(_report_death)
        self._tasks.append(task)

    async def _maintain_log(self) -> None:
        while True:
            await asyncio.sleep(self._settings.retention_poll_seconds)
            try:
                done = await asyncio.to_thread(self._event_log.maintain, time.time())
                self._telemetry.record_retention(done.deleted, done.log_bytes)
            except Exception as error:
                log.warning("the event log was not maintained: %s", error)


def _report_death(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("the task %r died: %s", task.get_name(), error, exc_info=error)


def build(settings: Settings, backend_factory: BackendFactory | None = None) -> tuple[HttpApp, Service]:
    """The application and its life; ``backend_factory`` stands in for the engine that the settings name."""
    telemetry = Telemetry()
    event_log = SqliteEventLog(
        settings.event_log_path,
        Retention(settings.retention_days * 86_400, settings.retention_mib * 2**20),
        backlog=settings.event_backlog,
        lock_wait_ms=settings.event_lock_wait_ms,
        record=telemetry.record_events,
    )
    admission = Admission(
        AdmissionLimits(settings.admission_target_ms, settings.min_in_flight, settings.max_in_flight),
        telemetry.record_admission,
    )
    engine = Engine(
        admission,
        event_log,
        telemetry,
        deadline_s=settings.deadline_ms / 1e3,
        batch_chunk=settings.batch_chunk,
    )
    plan = ServingPlan(
        backend_factory or functools.partial(_open_named, settings),
        workers=settings.inference_threads,
        batch_limits=BatchLimits(settings.batch_tokens, settings.batch_utterances),
        # Admission bounds what waits; the batcher's own bound must never be the one that refuses.
        max_waiting=settings.max_in_flight + settings.batch_chunk,
        content=EventContent(settings.store_text, settings.embedding_sample_ratio),
        event_log=event_log,
        telemetry=telemetry,
    )
    watcher = ModelWatcher(Store(settings.model_repo), plan, engine, telemetry)
    service = Service(watcher, event_log, telemetry, settings)
    routes = Routes(engine, event_log, service, telemetry)
    app = HttpApp(
        routes.endpoints(settings),
        service,
        telemetry,
        api_keys=settings.api_keys,
        body_timeout_s=settings.body_timeout_seconds,
    )
    return app, service


def _open_named(settings: Settings, folder: Path, workers: int) -> Backend:
    cores = os.cpu_count() or 1
    return open_backend(folder, settings.engine, workers, settings.engine_threads or max(1, cores // workers))
