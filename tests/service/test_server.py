"""The server on a real socket, in this process."""

import asyncio
import contextlib
import gc
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.app import Service, build
from service.server import NoticeServer, server_config
from tests.doubles import FakeBackend
from tests.service.running import free_port, make_repository, test_settings


@contextlib.asynccontextmanager
async def listening(folder: Path, backend: FakeBackend) -> AsyncIterator[tuple[int, Service]]:
    """Port of a service that listens."""
    make_repository(folder / "repo")
    settings = test_settings(folder, port=free_port())
    app, service = build(settings, lambda *_: backend)
    server = NoticeServer(server_config(app, settings), service, notice_s=0.0)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn offers no event
        await asyncio.sleep(0)
    try:
        yield settings.port, service
    finally:
        backend.open_gate.set()
        server.should_exit = True
        await serving


async def send(port: int, path: str, body: dict[str, str] | None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection with a request under way; GET without a body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = b"" if body is None else json.dumps(body).encode()
    method = "GET" if body is None else "POST"
    head = f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    await writer.drain()
    return reader, writer


async def answer(port: int, path: str, body: dict[str, str] | None = None) -> str:
    """All that the server sends."""
    reader, writer = await send(port, path, body)
    text = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    return text


@pytest.mark.asyncio
async def test_full_collections_pass_over_what_the_start_left(tmp_path: Path) -> None:
    """Walking it would hold up every answer; thousands of objects are set apart before the first one."""
    gc.unfreeze()
    async with listening(tmp_path, FakeBackend()):
        assert gc.get_freeze_count() > 1000
    gc.unfreeze()


@pytest.mark.asyncio
async def test_a_client_that_hangs_up_takes_no_batch_slot(tmp_path: Path) -> None:
    """It waits behind a held batch and closes its socket: the engine never sees its utterance."""
    backend = FakeBackend()
    async with listening(tmp_path, backend) as (port, _):
        backend.open_gate.clear()
        first = asyncio.create_task(answer(port, "/route", {"text": "hello"}))
        await asyncio.to_thread(backend.has_entered.wait, 30)
        _, writer = await send(port, "/route", {"text": "goodbye"})
        await answer(port, "/health/live")
        writer.close()
        await writer.wait_closed()
        async with asyncio.timeout(60):
            while "router_departed_total 1.0" not in await answer(port, "/metrics"):
                pass
        backend.open_gate.set()
        assert (await first).startswith("HTTP/1.1 200")
    assert sum(backend.batch_sizes) == 1


@pytest.mark.asyncio
async def test_what_is_not_http_is_refused_and_the_service_goes_on(tmp_path: Path) -> None:
    """A malformed request line gets 400 from the server itself."""
    async with listening(tmp_path, FakeBackend()) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\x16\x03\x01 hello\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400")
        writer.close()
        await writer.wait_closed()
        text = await answer(port, "/route", {"text": "hello"})
    assert text.startswith("HTTP/1.1 200")
    assert "server:" not in text.lower()
