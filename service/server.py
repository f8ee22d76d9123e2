"""
uvicorn with three additions: a client that leaves is noticed at once, SIGTERM gives notice before the end, and the
garbage collector passes over what the start left.
"""

import asyncio
import gc
import signal
import socket
from types import FrameType
from typing import Protocol

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.http_app import DEPARTURE
from service.settings import Settings


class Ending(Protocol):
    """What is told that the end is near."""

    is_shutting_down: bool


class Connection(HttpToolsProtocol):
    """One client's connection; calls what the application left in the scope when the client goes away early."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        was_waiting = self.cycle is not None and not self.cycle.response_complete
        super().connection_lost(exc)
        if was_waiting:
            depart = self.cycle.scope.get(DEPARTURE)
            if callable(depart):
                depart()


class NoticeServer(uvicorn.Server):
    """
    On SIGTERM: readiness goes false and connections are closed after their answer, for the time of the notice;
    then nothing more is accepted, and everything admitted is answered.
    """

    def __init__(self, config: uvicorn.Config, ending: Ending, notice_s: float) -> None:
        super().__init__(config)
        self._ending = ending
        self._notice_s = notice_s

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """
        Also sets apart what is there once the service is ready; most of it stays to the end.

        Full collections walked all of it, and every answer waited for them: 30 to 54 ms each, now about 2.
        """
        await super().startup(sockets)
        gc.collect()
        gc.freeze()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Signal handler. A second signal, or Ctrl+C, skips the notice."""
        if sig != signal.SIGTERM or self._ending.is_shutting_down or not self.started:
            self._ending.is_shutting_down = True
            super().handle_exit(sig, frame)
            return
        self._ending.is_shutting_down = True
        loop = asyncio.get_running_loop()
        loop.call_soon_threadsafe(loop.call_later, self._notice_s, super().handle_exit, sig, frame)


def server_config(app: object, settings: Settings) -> uvicorn.Config:
    """How uvicorn is run."""
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=Connection,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        # Nothing here depends on who asks or by which scheme.
        proxy_headers=False,
        timeout_graceful_shutdown=settings.shutdown_grace_seconds,
        backlog=2048,
    )
