"""The real service, sidecar, Prometheus and Alertmanager on loopback ports, each until its block ends."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml  # type: ignore[import-untyped, unused-ignore]

from tests.deploy.programs import PROMETHEUS, ROOT, program
from tests.service.running import free_port

PATIENCE_S = 300.0
"""Until something that must come is given up; a busy machine is slow."""


@dataclass(frozen=True)
class Server:
    """A process that answers."""

    process: "subprocess.Popen[bytes]"
    port: int

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Without a path."""
        return f"http://{self.address}"

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()


def until(is_so: Callable[[], bool], what: str) -> None:
    """Look again and again; raises AssertionError naming what did not come."""
    give_up_at = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < give_up_at, f"not seen within {PATIENCE_S:.0f} s: {what}"
        time.sleep(0.1)


@contextmanager
def serving(
    name: str, command: Sequence[str], port: int, ready_path: str, folder: Path, settings: Mapping[str, str]
) -> Iterator[Server]:
    """A server, ready when the block begins; what it prints goes to ``folder``."""
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(command), cwd=ROOT, env={**os.environ, **settings}, stdout=output, stderr=output
        )
    server = Server(process, port)
    try:
        until(lambda: _is_ready(server, ready_path, log), f"{name} ready; it printed\n{log.read_text()[-2000:]}")
        yield server
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


@contextmanager
def router(folder: Path) -> Iterator[Server]:
    """The service on the version that ships."""
    port = free_port()
    settings = {
        "ROUTER_PORT": str(port),
        "ROUTER_EVENT_LOG_PATH": str(folder / "events.sqlite"),
        # A busy machine must not turn answers into refusals.
        "ROUTER_ADMISSION_TARGET_MS": "60000",
        "ROUTER_DEADLINE_MS": "60000",
        # One in ten would take ten times the messages until embeddings can be compared.
        "ROUTER_EMBEDDING_SAMPLE_RATIO": "1",
    }
    with serving("service", [sys.executable, "-m", "service"], port, "/health/ready", folder, settings) as server:
        yield server


@contextmanager
def sidecar(folder: Path, ready_path: str = "/health/ready", **further: str) -> Iterator[Server]:
    """The sidecar on the service's log."""
    port = free_port()
    settings = {
        "MONITOR_PORT": str(port),
        "MONITOR_EVENT_LOG_PATH": str(folder / "events.sqlite"),
        "MONITOR_STATE_PATH": str(folder / "monitor.sqlite"),
        "MONITOR_WORK_FOLDER": str(folder / "work"),
        "MONITOR_ASSESS_SECONDS": "0.5",
        "MONITOR_ACTIONS_ENABLED": "false",
        **further,
    }
    with serving("sidecar", [sys.executable, "-m", "monitoring"], port, ready_path, folder, settings) as server:
        yield server


@contextmanager
def alertmanager(folder: Path) -> Iterator[Server]:
    """With the project's configuration, but for the wait before the first notification."""
    port = free_port()
    command = [
        program("prometheus-alertmanager"),
        f"--config.file={PROMETHEUS / 'alertmanager.yml'}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    with serving("alertmanager", command, port, "/-/ready", folder, {}) as server:
        yield server


@contextmanager
def prometheus(
    folder: Path, targets: Mapping[str, Server], alerts_to: Server | None = None, waits: str | None = None
) -> Iterator["Asked"]:
    """
    With the project's configuration: every second, these targets by job, and ``waits`` in place of each alert's.
    """
    port = free_port()
    command = [
        program("prometheus"),
        f"--config.file={_configured(folder / 'prometheus', targets, alerts_to, waits)}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with serving("prometheus", command, port, "/-/ready", folder, {}) as server, httpx.Client(timeout=60) as client:
        yield Asked(server, client)


@dataclass(frozen=True)
class Asked:
    """A Prometheus and who asks it."""

    server: Server
    client: httpx.Client

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What an instant query returns; raises AssertionError with Prometheus' own words."""
        document = self._get("/api/v1/query", {"query": expression})
        result = document["result"]
        if document["resultType"] == "scalar":
            return [{"metric": {}, "value": result}]
        return list(result)

    def rules(self) -> list[dict[str, Any]]:
        """As evaluated last."""
        return [rule for group in self._get("/api/v1/rules", {})["groups"] for rule in group["rules"]]

    def targets(self) -> dict[str, str]:
        """Health by job."""
        return {one["labels"]["job"]: one["health"] for one in self._get("/api/v1/targets", {})["activeTargets"]}

    def firing(self) -> set[str]:
        """Names of the alerts."""
        return {one["metric"]["alertname"] for one in self.query('ALERTS{alertstate="firing"}')}

    def _get(self, path: str, parameters: Mapping[str, str]) -> Any:
        answer = self.client.get(self.server.url + path, params=parameters).json()
        assert answer["status"] == "success", (parameters, answer.get("error"))
        return answer["data"]


def _configured(folder: Path, targets: Mapping[str, Server], alerts_to: Server | None, waits: str | None) -> Path:
    shutil.copytree(PROMETHEUS / "rules", folder / "rules")
    if waits is not None:
        for path in (folder / "rules").iterdir():
            document = yaml.safe_load(path.read_text(encoding="utf-8"))
            for group in document["groups"]:
                for rule in group["rules"]:
                    if "for" in rule:
                        rule["for"] = waits
            path.write_text(yaml.safe_dump(document), encoding="utf-8")
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    for job in config["scrape_configs"]:
        job["static_configs"] = [{"targets": [targets[job["job_name"]].address]}]
    receivers = [] if alerts_to is None else [{"targets": [alerts_to.address]}]
    config["alerting"]["alertmanagers"] = [{"static_configs": receivers}]
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def _is_ready(server: Server, path: str, log: Path) -> bool:
    assert server.process.poll() is None, f"ended before it was ready:\n{log.read_text()[-2000:]}"
    try:
        return httpx.get(server.url + path, timeout=10).status_code == 200
    except httpx.TransportError:
        return False


def send_traffic(url: str, first: int, count: int) -> None:
    """
    ``count`` labelled messages of the authored set, from the one numbered ``first`` on: a third by ``/route``, the
    others in batches; then what was right, of each.
    """
    with httpx.Client(base_url=url, timeout=120) as client:
        bodies = [{"text": one["text"], "request_id": str(first + n)} for n, one in enumerate(_authored(first, count))]
        alone, together = bodies[: count // 3], bodies[count // 3 :]
        for body in alone:
            assert client.post("/route", json=body).status_code == 200
        for start in range(0, len(together), 64):
            batch = {"utterances": together[start : start + 64]}
            assert client.post("/route/batch", json=batch).status_code == 200
        for number, record in enumerate(_authored(first, count), start=first):
            truth = {"ood": True} if record["ood"] else {"intents": record["intents"]}
            label = {"request_id": str(number), "source": "agent", **truth}
            assert client.post("/feedback", json=label).status_code == 202


def _authored(first: int, count: int) -> list[dict[str, Any]]:
    """From every file a few."""
    files = sorted((ROOT / "model_repo" / "data" / "manga_authored").glob("*.jsonl"))
    columns = [path.read_text(encoding="utf-8").splitlines() for path in files]
    lines = [column[row] for row in range(max(map(len, columns))) for column in columns if row < len(column)]
    return [json.loads(line) for line in lines[first : first + count]]
