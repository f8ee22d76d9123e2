"""A model repository with tiny versions, and the service over it: in this process, or in one of its own."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from model_repo.contract.labels import Taxonomy
from model_repo.contract.manifest import Manifest
from model_repo.contract.policy import Policy
from model_repo.store import Store, sha256_of
from service.app import Service, build
from service.http_app import HttpApp
from service.settings import Settings
from tests.doubles import TWO_INTENTS_ID, UNKNOWN_ID, FakeBackend

ROOT = Path(__file__).resolve().parents[2]
TAXONOMY = Taxonomy(("refund", "greeting", "order_tracking"), frozenset({"refund"}))
POLICY = Policy("1", 1, 1.0, (0.3, 0.3, 0.3), 1.0, -3.0, 0.5, 0.95)
"""The fake engine's ood energy is -log 3, its in-scope one about -6."""
OOD_TEXT, MULTI_TEXT, SINGLE_TEXT = "!!", "refund & hello", "hello"


def make_repository(root: Path, version: str = "1") -> Store:
    """A repository whose one version holds a tokenizer by characters and weights of a few bytes; promoted."""
    store = Store(root)
    add_version(store, version)
    store.promote(version, 1, "made by a test")
    return store


def add_version(store: Store, version: str) -> None:
    """A further version; it serves nothing yet."""
    folder = store.root / f".making-{version}"
    folder.mkdir(parents=True)
    _tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "model.onnx").write_bytes(b"weights of " + version.encode())
    files = {name: sha256_of(folder / name) for name in ("tokenizer.json", "model.onnx")}
    manifest = Manifest(version, TAXONOMY, "2026-01-31T09:00:00+00:00", "fake", "none", 64, 42, files)
    store.add_version(folder, manifest, replace(POLICY, version=version))


def _tokenizer() -> Tokenizer:
    known = {"[UNK]": UNKNOWN_ID, "&": TWO_INTENTS_ID}
    known |= {chr(code): code for code in range(ord("0"), ord("z") + 1) if chr(code).isalnum()}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    return tokenizer


def test_settings(folder: Path, **changes: Any) -> Settings:
    """Settings over ``folder``/repo, with the log beside it."""
    given = {
        "model_repo": folder / "repo",
        "event_log_path": folder / "events.sqlite",
        "inference_threads": 1,
        # A busy machine must not turn an answer into a 503 or a 504; tests of those set their own.
        "admission_target_ms": 60_000,
        "deadline_ms": 60_000,
    }
    return Settings(**{**given, **changes})


test_settings.__test__ = False  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Running:
    """The service inside this process."""

    client: httpx.AsyncClient
    app: HttpApp
    service: Service
    backend: FakeBackend
    folder: Path

    async def route(self, text: str, **fields: Any) -> httpx.Response:
        """``POST /route``."""
        return await self.client.post("/route", json={"text": text, **fields})


@asynccontextmanager
async def running(folder: Path, backend: FakeBackend | None = None, **changes: Any) -> AsyncIterator[Running]:
    """The whole service with a fake engine, called through ASGI; started and stopped as a server would."""
    if not (folder / "repo").exists():
        make_repository(folder / "repo")
    backend = backend or FakeBackend()
    app, service = build(test_settings(folder, **changes), lambda *_: backend)
    await service.start()
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://router") as client:
            yield Running(client, app, service, backend, folder)
    finally:
        backend.open_gate.set()
        await service.stop()


@dataclass(frozen=True)
class Process:
    """The service in a process of its own."""

    process: "subprocess.Popen[bytes]"
    port: int
    folder: Path

    def connect(self, timeout: float = 30.0) -> http.client.HTTPConnection:
        """A connection that stays open between requests."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def terminate(self) -> None:
        """SIGTERM."""
        self.process.send_signal(signal.SIGTERM)


def post(connection: http.client.HTTPConnection, path: str, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """Status and body."""
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    return response.status, json.loads(response.read())


@contextmanager
def process_running(folder: Path, **settings: str) -> Iterator[Process]:
    """``tests.service.fake_process`` until the block ends; ready when the block begins."""
    if not (folder / "repo").exists():
        make_repository(folder / "repo")
    environment = {
        **os.environ,
        "ROUTER_PORT": str(free_port()),
        "ROUTER_MODEL_REPO": str(folder / "repo"),
        "ROUTER_EVENT_LOG_PATH": str(folder / "events.sqlite"),
        # A busy machine must not turn an admitted request into a 504, whose event is in the log all the same.
        "ROUTER_DEADLINE_MS": "60000",
        "ROUTER_ADMISSION_TARGET_MS": "60000",
        **settings,
    }
    command = [sys.executable, "-m", "tests.service.fake_process"]
    with started(command, environment, folder, cwd=ROOT) as process:
        yield Process(process, int(environment["ROUTER_PORT"]), folder)


@contextmanager
def started(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, cwd: Path | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """A service process, ready when the block begins; its output goes to ``folder``. Raises AssertionError with it."""
    log = folder / "service.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=cwd or folder, env=environment, stdout=output, stderr=output)
    try:
        _await_ready(process, int(environment["ROUTER_PORT"]), log)
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def signal_and_wait(process: "subprocess.Popen[bytes]") -> int:
    """SIGTERM, then the exit status."""
    process.send_signal(signal.SIGTERM)
    return process.wait(timeout=60)


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_ready(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    while process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request("GET", "/health/ready")
            if connection.getresponse().status == 200:
                return
        except ConnectionError:
            # Not listening yet: ask again in a moment.
            if _ends_within(process, 0.05):
                break
        finally:
            connection.close()
    raise AssertionError(f"the service ended before it was ready:\n{log.read_text()}")


def _ends_within(process: "subprocess.Popen[bytes]", seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True
