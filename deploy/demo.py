"""
The whole system at work, in a few minutes: ``make demo``, or ``python -m deploy.demo [--out DIR]``.

Starts the service and the sidecar on a copy of the model repository, sends labelled messages over HTTP, and breaks
two things: somebody publishes a policy revision with a wrong temperature, and customers begin to write about
something new. Prints when each was diagnosed, what was done, and when the signals came back. Exit status 1 when any
of that did not happen in its time.

Windows are smaller here than in production, and every message gets its label at once: a demonstration is not to take
a day. What is sent is in ``demo_traffic``.
"""

import argparse
import asyncio
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from deploy.demo_traffic import SEED, Labelled, about_the_club, ordinary, shuffled_for_ever
from model_repo.store import Store

VERSIONS = Path(__file__).resolve().parents[1] / "model_repo" / "versions"
CALLERS, MESSAGES_A_SECOND = 4, 40.0
"""Well below what two cores hold beside everything else here: latency is not what is shown."""
WRONG_TEMPERATURE = 0.4
"""Of the version's own: the model is then far too sure of itself."""
CLUB_SHARE = 0.2
"""Of the messages, while the club is what people write about."""
READY_S, PHASE_S = 60.0, 600.0
WINDOWS = {
    "MONITOR_PIN_PREDICTIONS": "2000",
    "MONITOR_PIN_LABELLED": "1500",
    "MONITOR_WINDOW_PREDICTIONS": "1500",
    "MONITOR_WINDOW_LABELLED": "1000",
    "MONITOR_ASSESS_SECONDS": "1",
    "MONITOR_POLL_SECONDS": "0.2",
    "MONITOR_DISCOVERY_LONGEST_WAIT_SECONDS": "120",
    "ROUTER_EMBEDDING_SAMPLE_RATIO": "1",
}


class DemoFailed(Exception):
    """Something did not happen; the message says what was waited for."""


@dataclass(frozen=True)
class Row:
    """A line of the closing table; times in seconds from the break, None for what did not happen."""

    what: str
    messages: int
    """Sent from the break to the diagnosis."""
    diagnosed_s: float
    remedies: str
    recovered_s: float


class Traffic:
    """Callers that post one message after another, and its label after the answer."""

    def __init__(self, service: httpx.AsyncClient, usual: Sequence[Labelled]) -> None:
        self._service = service
        self._rng = random.Random(SEED)
        self._usual = shuffled_for_ever(usual, self._rng)
        self._club = shuffled_for_ever(about_the_club(), self._rng)
        self.club_share = 0.0
        """Changes what is sent from now on."""
        self.sent = 0
        self.failed = 0

    async def run(self) -> None:
        """For ever."""
        await asyncio.gather(*(self._call() for _ in range(CALLERS)))

    async def _call(self) -> None:
        due = time.monotonic()
        while True:
            # After a pause nothing is caught up on: a burst would be another break.
            due = max(due + CALLERS / MESSAGES_A_SECOND, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
            message = self._next()
            answer = await self._service.post("/route", json={"text": message.text})
            self.sent += 1
            if answer.status_code != 200:
                self.failed += 1
                continue
            label: dict[str, Any] = {"intents": list(message.intents)} if message.intents else {"ood": True}
            body = {"request_id": answer.json()["request_id"], "source": "agent", **label}
            await self._service.post("/feedback", json=body)

    def _next(self) -> Labelled:
        is_about_the_club = self._rng.random() < self.club_share
        return next(self._club if is_about_the_club else self._usual)


class Watcher:
    """Asks the sidecar once a second, and tells what is new."""

    def __init__(self, sidecar: httpx.AsyncClient, traffic: Traffic) -> None:
        self._sidecar = sidecar
        self._traffic = traffic
        self._began = time.monotonic()
        self._told: set[str] = set()

    def tell(self, words: str) -> None:
        """A line with the time and how many messages were sent so far."""
        print(f"{time.monotonic() - self._began:7.1f} s  {self._traffic.sent:6,} messages  {words}", flush=True)

    async def until(self, what: str, holds: Callable[[dict[str, Any], list[dict[str, Any]]], bool]) -> None:
        """Wait for it; raises DemoFailed after PHASE_S."""
        deadline = time.monotonic() + PHASE_S
        while time.monotonic() < deadline:
            try:
                status = (await self._sidecar.get("/status")).json()
                incidents = (await self._sidecar.get("/incidents")).json()["incidents"]
            except httpx.TransportError as error:
                raise DemoFailed(f"the sidecar did not answer while waiting for {what}: {error!r}") from error
            for incident in reversed(incidents):
                self._tell_incident(incident)
            if holds(status, incidents):
                return
            await asyncio.sleep(1.0)
        raise DemoFailed(f"within {PHASE_S:.0f} s there was no {what}")

    def _tell_incident(self, incident: dict[str, Any]) -> None:
        name = incident["id"]
        evidence = ", ".join(
            f"{s['name']} {s['value']:.3f} [{s['low']:.3f}, {s['high']:.3f}] n {s['n']}, reference {s['reference']:.3f}"
            for s in incident["evidence"]
            if s["verdict"] == "breached" and s["value"] is not None
        )
        self._once(f"{name}/began", f"INCIDENT  {' > '.join(incident['path'])}; {evidence}")
        for remedy in incident["remedies"]:
            self._once(remedy["key"], f"  asked    {remedy['action']} ({name})")
            if remedy["result"] is not None:
                result = remedy["result"]
                self._once(f"{remedy['key']}/result", f"  {result['outcome']:<8} {remedy['action']}: {result['words']}")
        if (awaited := incident["awaited"]) is not None:
            words = f"  waiting  {awaited['action']}: about {awaited['have']} utterances of what is new"
            self._once(f"{name}/{awaited['need']}", f"{words}, {awaited['need']} are enough ({name})")
        if incident["status"] != "open":
            self._once(f"{name}/{incident['status']}", f"  {incident['status'].upper()}  {name}")

    def _once(self, key: str, words: str) -> None:
        if key not in self._told:
            self._told.add(key)
            self.tell(words)


async def run(folder: Path) -> list[Row]:
    """The three acts; raises DemoFailed."""
    store = Store(folder / "versions")
    async with live(folder) as (service, sidecar):
        traffic = Traffic(service, ordinary())
        watcher = Watcher(sidecar, traffic)
        sending = asyncio.create_task(traffic.run())
        try:
            watcher.tell("ordinary traffic, each message with its label")
            await watcher.until("pinned reference", lambda status, _: _is_pinned(status))
            watcher.tell("the first stretch of production is pinned: from here on everything is compared with it")
            quiet_until = traffic.sent + 1500
            await watcher.until("further 1,500 quiet messages", lambda *_: traffic.sent >= quiet_until)
            rows = [await _miscalibrated(store, traffic, watcher)]
            rows.append(await _new_intent(traffic, watcher))
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        watcher.tell(f"{traffic.failed} of {traffic.sent:,} requests were not answered with 200")
    return rows


async def _miscalibrated(store: Store, traffic: Traffic, watcher: Watcher) -> Row:
    serving = store.deployment().champion
    policy = store.policy(serving.version, serving.policy_revision)
    revision = serving.policy_revision + 1
    store.add_policy(replace(policy, revision=revision, temperature=policy.temperature * WRONG_TEMPERATURE))
    store.promote(serving.version, revision, "a temperature typed wrong")
    watcher.tell(f"BREAK  policy {serving.version}.{revision} is published with a temperature that is far too low")
    row = await _see("miscalibration", "ece_up", traffic, watcher)
    champion = store.deployment().champion
    watcher.tell(f"now serving policy {champion.version}.{champion.policy_revision}")
    return row


async def _new_intent(traffic: Traffic, watcher: Watcher) -> Row:
    traffic.club_share = CLUB_SHARE
    watcher.tell(f"BREAK  {CLUB_SHARE:.0%} of the messages are now about a loyalty club that no version knows")

    def end() -> None:
        traffic.club_share = 0.0
        watcher.tell("a person has read the clusters; the campaign for the club ends, and so do messages about it")

    return await _see("a new intent", "ood_precision_down", traffic, watcher, end)


async def _see(
    what: str, branch: str, traffic: Traffic, watcher: Watcher, after_the_remedy: Callable[[], None] | None = None
) -> Row:
    """From the break to the recovery of the incident that it leads to."""
    began, sent = time.time(), traffic.sent
    found: list[dict[str, Any]] = []
    seen_after: list[int] = []

    def is_diagnosed(_: dict[str, Any], incidents: list[dict[str, Any]]) -> bool:
        found[:] = [one for one in incidents if one["branch"] == branch and one["began_at"] >= began]
        if found and not seen_after:
            seen_after.append(traffic.sent - sent)
        return bool(found) and any(remedy["result"] is not None for remedy in found[0]["remedies"])

    await watcher.until(f"remedy for {branch}", is_diagnosed)
    if after_the_remedy is not None:
        after_the_remedy()
    name = found[0]["id"]

    def is_recovered(_: dict[str, Any], incidents: list[dict[str, Any]]) -> bool:
        found[:] = [one for one in incidents if one["id"] == name]
        return bool(found) and found[0]["status"] == "recovered"

    await watcher.until(f"recovery of {name}", is_recovered)
    incident = found[0]
    actions = ", ".join(remedy["action"] for remedy in incident["remedies"])
    return Row(what, seen_after[0], incident["began_at"] - began, actions, incident["ended_at"] - began)


def _is_pinned(status: dict[str, Any]) -> bool:
    return any(one["reference"] == "production" for one in status["assessments"])


@asynccontextmanager
async def live(folder: Path) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """Clients of a service and a sidecar that work in this folder, as ``make serve`` starts them."""
    shutil.copytree(VERSIONS, folder / "versions")
    service_port, sidecar_port = _free_ports()
    environment = {
        **os.environ,
        **WINDOWS,
        "ROUTER_PORT": str(service_port),
        "MONITOR_PORT": str(sidecar_port),
        "ROUTER_MODEL_REPO": str(folder / "versions"),
        "MONITOR_MODEL_REPO": str(folder / "versions"),
        "ROUTER_EVENT_LOG_PATH": str(folder / "events.sqlite"),
        "MONITOR_EVENT_LOG_PATH": str(folder / "events.sqlite"),
        "MONITOR_STATE_PATH": str(folder / "monitor.sqlite"),
        "MONITOR_WORK_FOLDER": str(folder / "monitor"),
        # A retrain takes an hour: here its request is only looked at.
        "MONITOR_RETRAIN_COMMAND": f"{sys.executable} -c 'import sys; print(len(sys.stdin.read()), file=sys.stderr)'",
    }
    processes = _start(environment, folder / "processes.log")
    try:
        async with _client(service_port) as service, _client(sidecar_port) as sidecar:
            await _ready(processes, service, sidecar)
            yield service, sidecar
    finally:
        processes.send_signal(signal.SIGTERM)
        processes.wait(60)


def _start(environment: dict[str, str], output: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "deploy.side_by_side"]
    with output.open("wb") as log:
        return subprocess.Popen(command, env=environment, stderr=log, stdout=log)  # noqa: S603 - our own command


async def _ready(processes: "subprocess.Popen[bytes]", *clients: httpx.AsyncClient) -> None:
    deadline = time.monotonic() + READY_S
    for client in clients:
        while True:
            if processes.poll() is not None or time.monotonic() > deadline:
                raise DemoFailed("service and sidecar did not start; see processes.log")
            try:
                if (await client.get("/health/ready")).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.2)


def _client(port: int) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30.0)


def _free_ports() -> tuple[int, int]:
    """Two that are free at this moment."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1]), int(other.getsockname()[1])


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 when each break was diagnosed, acted on and recovered from."""
    parser = argparse.ArgumentParser(prog="python -m deploy.demo", description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, help="new folder for log, state and queues (default: a temporary one)")
    chosen = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="demo-")) if chosen.out is None else chosen.out
    try:
        folder.mkdir(parents=True, exist_ok=chosen.out is None)
    except OSError as wrong:
        print(f"--out must be a folder that can be made: {wrong}", file=sys.stderr)
        return 2
    try:
        rows = asyncio.run(run(folder))
    except DemoFailed as failed:
        print(f"FAILED: {failed}; log, state and queues are in {folder}", file=sys.stderr)
        return 1
    print(f"\n{'what was broken':<16} {'diagnosed':>10} {'messages':>9} {'recovered':>10}  remedies")
    for row in rows:
        print(f"{row.what:<16} {row.diagnosed_s:>8.1f} s {row.messages:>9,} {row.recovered_s:>8.1f} s  {row.remedies}")
    print(f"\nlog, state and queues are in {folder}; a report of them: python -m monitoring report --help")
    return 0


if __name__ == "__main__":
    sys.exit(main())
