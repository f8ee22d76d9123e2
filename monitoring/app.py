"""The composition root: builds every object of the process and passes it in. Reading it shows the whole wiring."""

import logging
import signal
import socket

import uvicorn
from fastapi import FastAPI

from model_repo.store import Store
from monitoring.clock import SteadyClock
from monitoring.http_app import http_app
from monitoring.journey import Journey
from monitoring.loop import Loop, Pace
from monitoring.monitor import Monitor
from monitoring.settings import MonitorSettings
from monitoring.snapshot import Watched
from monitoring.sources import StoreSources
from monitoring.state_file import StateFile
from monitoring.telemetry import Telemetry

log = logging.getLogger(__name__)

NO_PORT, DIED = 3, 4


def run(settings: MonitorSettings) -> int:
    """
    Watch until SIGTERM or Ctrl+C; the exit status: 0 when told to stop, 3 without the port, 4 when the loop died.

    Raises MonitoringError when the state, the tree or a hook refuses.
    """
    watched = Watched()
    telemetry = Telemetry(lambda: watched.snapshot)
    server = uvicorn.Server(_server_config(settings, http_app(watched, telemetry)))
    state = StateFile(settings.state_path)
    try:
        try:
            listener = server.config.bind_socket()
        except SystemExit:
            # Its reason is in the log.
            return NO_PORT
        journey, monitor = build(settings, state)

        def end() -> None:
            server.should_exit = True

        pace = Pace(settings.poll_seconds, settings.assess_seconds)
        loop = Loop(monitor, watched, telemetry, pace, SteadyClock(), end)
        loop.start()
        try:
            _serve(server, listener)
        finally:
            loop.stop()
            journey.close()
        return DIED if loop.has_died else 0
    finally:
        state.close()


def build(settings: MonitorSettings, state: StateFile) -> tuple[Journey, Monitor]:
    """Everything but threads and sockets."""
    sources = StoreSources(Store(settings.model_repo), settings.costs_file)
    journey = Journey(settings.event_log_path, state, sources.taxonomy)
    return journey, Monitor(journey)


def _server_config(settings: MonitorSettings, app: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )


def _serve(server: uvicorn.Server, listener: socket.socket) -> None:
    """Until a signal. uvicorn raises it once more after it has stopped, which must not cut the end short."""
    signal.signal(signal.SIGTERM, _raise_end)
    try:
        server.run(sockets=[listener])
    except (KeyboardInterrupt, SystemExit):
        log.info("told to stop")


def _raise_end(*_: object) -> None:
    raise SystemExit(0)
