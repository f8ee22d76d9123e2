"""A deployment that changes under a running service."""

import asyncio
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from model_repo.contract.errors import DigestMismatch, FileMissing
from model_repo.store import Store
from service.app import build
from tests.doubles import FakeBackend
from tests.service.running import POLICY, add_version, make_repository, running, test_settings

FAST = 0.01


async def await_metric(client: httpx.AsyncClient, line: str) -> None:
    """Return when /metrics holds the line."""
    async with asyncio.timeout(30):
        while line not in (await client.get("/metrics")).text:  # noqa: ASYNC110 - the event is in the metrics
            await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_a_new_policy_decides_from_then_on_with_the_same_weights(tmp_path: Path) -> None:
    """No engine is opened for it."""
    async with running(tmp_path, model_poll_seconds=FAST) as service:
        assert (await service.route("hello")).json()["decision"] == "single"
        store = Store(tmp_path / "repo")
        store.add_policy(replace(POLICY, revision=2, energy_cut=-100.0))
        store.promote("1", 2, "a stricter cut")
        await await_metric(service.client, 'router_model_swaps_total{outcome="policy"} 1.0')
        answer = (await service.route("hello")).json()
        metrics = (await service.client.get("/metrics")).text
    assert (answer["decision"], answer["model"]["policy"]) == ("ood", "1.2")
    assert service.backend.warm_ups == 1
    assert 'policy="1.1",precision="none",version="1"} 0.0' in metrics
    assert 'policy="1.2",precision="none",version="1"} 1.0' in metrics


@pytest.mark.asyncio
async def test_a_new_version_takes_over_without_dropping_a_request(tmp_path: Path) -> None:
    """Requests that the old version holds are answered by it; the next ones by the new."""
    store = make_repository(tmp_path / "repo")
    old, new = FakeBackend(), FakeBackend()
    opened = iter([old, new])
    app, service = build(test_settings(tmp_path), lambda *_: next(opened))
    await service.start()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://router") as client:
        old.open_gate.clear()
        held = [asyncio.create_task(client.post("/route", json={"text": "hello"})) for _ in range(4)]
        await asyncio.to_thread(old.has_entered.wait, 30)
        add_version(store, "2")
        store.promote("2", 1, "better")
        swap = asyncio.create_task(service.watcher.look())
        await await_metric(client, 'version="2"} 1.0')
        after = (await client.post("/route", json={"text": "hello"})).json()
        old.open_gate.set()
        before = [(await request).json() for request in held]
        await swap
    await service.stop()
    assert [answer["model"]["version"] for answer in before] == ["1"] * 4
    assert after["model"]["version"] == "2"
    assert new.warm_ups == 1
    assert old.is_closed


@pytest.mark.asyncio
async def test_a_damaged_new_version_is_refused_and_the_old_one_goes_on(tmp_path: Path) -> None:
    """Counted once, however often the deployment is looked at; a later good one is taken."""
    async with running(tmp_path) as service:
        watcher, store = service.service.watcher, Store(tmp_path / "repo")
        add_version(store, "2")
        add_version(store, "3")
        _promote_torn(store, "2")
        await watcher.look()
        await watcher.look()
        assert 'router_model_swaps_total{outcome="refused"} 1.0' in (await service.client.get("/metrics")).text
        assert (await service.route("hello")).json()["model"]["version"] == "1"
        store.promote("3", 1, "whole")
        await watcher.look()
        assert (await service.route("hello")).json()["model"]["version"] == "3"


def _promote_torn(store: Store, version: str) -> None:
    """The store itself checks before it promotes: here the weights are torn afterwards."""
    store.promote(version, 1, "better")
    weights = store.root / version / "model.onnx"
    weights.write_bytes(b"torn")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("file", "error"),
    [("1/model.onnx", FileMissing), ("1/policies/1.json", FileMissing), ("deployment.json", FileMissing)],
)
async def test_at_start_a_missing_file_is_named(tmp_path: Path, file: str, error: type[Exception]) -> None:
    """There is nothing to go on with."""
    make_repository(tmp_path / "repo")
    (tmp_path / "repo" / file).unlink()
    _, service = build(test_settings(tmp_path), lambda *_: FakeBackend())
    with pytest.raises(error, match=file):
        await service.start()
    await service.stop()


@pytest.mark.asyncio
async def test_at_start_an_edited_policy_is_refused(tmp_path: Path) -> None:
    """The deployment vouches for the policy's digest."""
    make_repository(tmp_path / "repo")
    policy = tmp_path / "repo" / "1" / "policies" / "1.json"
    policy.write_text(policy.read_text().replace("0.95", "0.96"))
    _, service = build(test_settings(tmp_path), lambda *_: FakeBackend())
    with pytest.raises(DigestMismatch, match=r"1\.json"):
        await service.start()
    await service.stop()
