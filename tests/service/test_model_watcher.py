"""A deployment that changes under a running service."""

import asyncio
from dataclasses import replace
from itertools import islice
from pathlib import Path

import httpx
import pytest

from model_repo.contract.errors import DigestMismatch, FileMissing
from model_repo.contract.tuning import NO_TUNING, Tuning
from model_repo.store import Store
from service.app import build
from tests.doubles import FakeBackend
from tests.service.running import POLICY, Running, add_version, make_repository, running, test_settings

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


def model_of(answer: httpx.Response) -> dict[str, object]:
    """What of ``GET /model`` the deployment steers."""
    return {name: answer.json()[name] for name in ("deployment", "reload", "tuning", "limits")}


SETTINGS_LIMITS = {"batch_tokens": 96, "batch_utterances": 32, "max_in_flight": 64, "max_tokens": 64}


@pytest.mark.asyncio
async def test_tuning_holds_at_once_and_its_end_restores_the_settings(tmp_path: Path) -> None:
    """Batches, admission and tokenizer; told by /model; the engine stays. What is higher than set changes nothing."""
    async with running(tmp_path) as service:
        watcher, store, client = service.service.watcher, Store(tmp_path / "repo"), service.client
        assert model_of(await client.get("/model")) == {
            "deployment": 1, "reload": 0, "tuning": {}, "limits": SETTINGS_LIMITS,
        }  # fmt: skip
        tuning = Tuning(batch_tokens=24, batch_utterances=500, max_in_flight=16, max_tokens=12)
        store.tune(tuning, "slow")
        await watcher.look()
        assert model_of(await client.get("/model")) == {
            "deployment": 2,
            "reload": 0,
            "tuning": tuning.to_json(),
            "limits": {"batch_tokens": 24, "batch_utterances": 32, "max_in_flight": 16, "max_tokens": 12},
        }
        held = await _held_in_the_engine(service)
        sent = [asyncio.create_task(service.route("hello hello hello")) for _ in range(20)]
        refused = [(await answer).status_code for answer in islice(asyncio.as_completed(sent), 5)]
        service.backend.open_gate.set()
        answered = [(await answer).status_code for answer in (held, *sent)]
        assert (refused, answered.count(200)) == ([503] * 5, 16)
        # The one that was held, then two at a time: 12 tokens each, of the 17 that the text has.
        assert service.backend.batch_sizes == [1, *[2] * 7, 1]
        store.tune(NO_TUNING, "well again")
        await watcher.look()
        assert model_of(await client.get("/model"))["limits"] == SETTINGS_LIMITS
        metrics = (await client.get("/metrics")).text
    assert 'router_model_swaps_total{outcome="tuning"} 2.0' in metrics
    assert "router_admission_limit_utterances 64.0" in metrics
    assert service.backend.warm_ups == 1


async def _held_in_the_engine(service: Running) -> "asyncio.Task[httpx.Response]":
    """A request that keeps the engine busy until the gate opens."""
    service.backend.open_gate.clear()
    held = asyncio.create_task(service.route("hello"))
    await asyncio.to_thread(service.backend.has_entered.wait, 30)
    return held


@pytest.mark.asyncio
async def test_a_reload_opens_the_same_version_anew_under_its_policy_and_tuning(tmp_path: Path) -> None:
    """What the old engine holds is answered by it; then it is closed. A policy and a tuning stay in force."""
    store = make_repository(tmp_path / "repo")
    backends = [FakeBackend(), FakeBackend()]
    old, new = backends
    opened = iter(backends)
    app, service = build(test_settings(tmp_path), lambda *_: next(opened))
    await service.start()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://router") as client:
        old.open_gate.clear()
        held = [asyncio.create_task(client.post("/route", json={"text": "hello"})) for _ in range(4)]
        await asyncio.to_thread(old.has_entered.wait, 30)
        store.tune(Tuning(max_tokens=12), "slow", reload=True)
        swap = asyncio.create_task(service.watcher.look())
        async with asyncio.timeout(30):
            while (await client.get("/model")).json()["reload"] != 1:  # noqa: ASYNC110 - the event is the answer
                await asyncio.sleep(0)
        after = await client.post("/route", json={"text": "hello"})
        assert not old.is_closed
        old.open_gate.set()
        assert {(await request).status_code for request in held} == {200}
        await swap
        assert model_of(await client.get("/model"))["limits"] == {**SETTINGS_LIMITS, "max_tokens": 12}
        assert 'router_model_swaps_total{outcome="reload"} 1.0' in (await client.get("/metrics")).text
    await service.stop()
    assert (after.status_code, new.batch_sizes, new.warm_ups) == (200, [1], 1)
    assert old.is_closed


@pytest.mark.asyncio
async def test_a_policy_and_a_tuning_between_two_looks_are_both_taken(tmp_path: Path) -> None:
    """Each is counted."""
    async with running(tmp_path) as service:
        store = Store(tmp_path / "repo")
        store.add_policy(replace(POLICY, revision=2))
        store.promote("1", 2, "refit")
        store.tune(Tuning(batch_tokens=48), "slow")
        await service.service.watcher.look()
        model = (await service.client.get("/model")).json()
        metrics = (await service.client.get("/metrics")).text
    assert (model["policy"], model["tuning"], model["deployment"]) == ("1.2", {"batch_tokens": 48}, 3)
    assert 'router_model_swaps_total{outcome="policy"} 1.0' in metrics
    assert 'router_model_swaps_total{outcome="tuning"} 1.0' in metrics


@pytest.mark.asyncio
async def test_a_deployment_is_refused_whole(tmp_path: Path) -> None:
    """Its policy was edited after promotion: its tuning is not taken either."""
    async with running(tmp_path) as service:
        store = Store(tmp_path / "repo")
        store.add_policy(replace(POLICY, revision=2))
        store.promote("1", 2, "refit")
        policy = store.root / "1" / "policies" / "2.json"
        policy.write_text(policy.read_text().replace("0.95", "0.96"))
        store.tune(Tuning(batch_tokens=48), "slow")
        await service.service.watcher.look()
        model = (await service.client.get("/model")).json()
    assert (model["policy"], model["tuning"], model["deployment"]) == ("1.1", {}, 1)


@pytest.mark.asyncio
async def test_bad_tuning_is_refused_once_and_serving_goes_on(tmp_path: Path) -> None:
    """However often it is looked at; a good one is taken afterwards."""
    async with running(tmp_path) as service:
        watcher, store = service.service.watcher, Store(tmp_path / "repo")
        good = store.tune(Tuning(batch_tokens=48), "slow")
        file = store.root / "deployment.json"
        whole = file.read_text()
        file.write_text(whole.replace('"batch_tokens": 48', '"batch_tokens": -48'))
        await watcher.look()
        await watcher.look()
        assert 'router_model_swaps_total{outcome="refused"} 1.0' in (await service.client.get("/metrics")).text
        assert (await service.route("hello")).status_code == 200
        assert (await service.client.get("/model")).json()["tuning"] == {}
        file.write_text(whole)
        await watcher.look()
        assert (await service.client.get("/model")).json()["deployment"] == good.number


@pytest.mark.asyncio
async def test_a_deployment_that_changes_nothing_is_taken_over_and_not_counted(tmp_path: Path) -> None:
    """Promoted again with another reason."""
    async with running(tmp_path) as service:
        number = Store(tmp_path / "repo").promote("1", 1, "said again").number
        await service.service.watcher.look()
        assert (await service.client.get("/model")).json()["deployment"] == number
        assert "router_model_swaps_total{" not in (await service.client.get("/metrics")).text
