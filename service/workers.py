"""Runs the service: in this process, or in several that share the port and the event log."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType

from service.backends.protocol import Backend
from service.json_logs import start_logging
from service.settings import Settings

FAILED = 3

BackendFactory = Callable[[Path, int], Backend]
"""As in ``serving``, which must not be imported here: it loads what belongs to the workers."""


def run(settings: Settings, backend_factory: BackendFactory | None = None) -> int:
    """Serve until SIGTERM or Ctrl+C; the exit status, 0 when it was told to stop. See ``app.build``."""
    if settings.workers == 1:
        return serve(settings, backend_factory)
    with tempfile.TemporaryDirectory(prefix="router-metrics-") as folder:
        # Read by prometheus_client when it is imported, in each worker.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        return _run_workers(settings, backend_factory)


def serve(settings: Settings, backend_factory: BackendFactory | None, listener: socket.socket | None = None) -> int:
    """One worker; on ``listener`` when several share it."""
    # Imported in the worker, since this loads the engine's libraries and makes the metrics.
    from service.app import build
    from service.server import NoticeServer, server_config

    # For the time before uvicorn takes the signal over; it raises it once more after it has stopped.
    signal.signal(signal.SIGTERM, _end)
    try:
        app, service = build(settings, backend_factory)
        server = NoticeServer(server_config(app, settings), service, settings.shutdown_notice_seconds)
        server.run(sockets=[listener] if listener else None)
    except KeyboardInterrupt:
        return 0
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _run_workers(settings: Settings, backend_factory: BackendFactory | None) -> int:
    """All workers end when one of them does: a service that limps is worse than one that is started again."""
    listener = socket.create_server((settings.host, settings.port), backlog=2048)
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_work, args=(settings, backend_factory, listener)) for _ in range(settings.workers)
    ]
    for worker in workers:
        worker.start()
    told = _forward_signals(workers)
    multiprocessing.connection.wait([worker.sentinel for worker in workers])
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join()
    return 0 if told else FAILED


def _work(settings: Settings, backend_factory: BackendFactory | None, listener: socket.socket) -> None:
    start_logging(settings.log_level)
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()
    raise SystemExit(serve(settings, backend_factory, listener))


def _end_with_parent() -> None:
    """A worker whose parent was killed must not hold the port for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


def _forward_signals(workers: Sequence[BaseProcess]) -> list[int]:
    """Pass SIGTERM on, and Ctrl+C where no terminal does; the list fills with the signals that came."""
    told: list[int] = []

    def forward(number: int, _: FrameType | None) -> None:
        told.append(number)
        for worker in workers:
            worker.terminate()

    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, forward)
    return told


def _end(*_: object) -> None:
    raise SystemExit(0)
