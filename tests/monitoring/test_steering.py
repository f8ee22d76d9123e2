"""The remedies for latency, over a real model repository."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model_repo.contract.manifest import Manifest
from model_repo.contract.reference import ReferenceProfile, quantiles
from model_repo.contract.tuning import Tuning
from model_repo.store import REFERENCE, Store, sha256_of
from monitoring.errors import HookFailed
from monitoring.observations import StreamKey, prediction_dtype
from monitoring.remedies import ActionRequest, ActionResult
from monitoring.steering import ServiceLimits, Steering, Step, steering_actions
from monitoring.windows import Window
from tests.monitoring.event_logs import BEGAN, KEY, TAXONOMY
from tests.monitoring.labelled_windows import POLICY

MAX_TOKENS = 128


def add_version(store: Store, version: str, reference_lengths: np.ndarray | None = None) -> None:
    """With a reference profile of these lengths, or without any."""
    folder = store.root / f".making-{version}"
    folder.mkdir(parents=True)
    (folder / "model.bin").write_bytes(b"weights of " + version.encode())
    if reference_lengths is not None:
        profile = ReferenceProfile(
            len(reference_lengths), np.zeros(257), np.zeros(257), quantiles(reference_lengths), np.zeros(4, dtype=int),
            np.zeros((4, 4), dtype=int), np.zeros(3, dtype=int), np.zeros((0, 0)),
        )  # fmt: skip
        np.savez(folder / REFERENCE, allow_pickle=False, **profile.to_arrays())
    files = {path.name: sha256_of(path) for path in folder.iterdir()}
    manifest = Manifest(version, TAXONOMY, "2026-01-01T00:00:00+00:00", "onnx", "fp32", MAX_TOKENS, 42, files)
    store.add_version(folder, manifest, replace(POLICY, version=version))


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Store:
    """Version 1 serves; of the messages that it was calibrated on one in a hundred is longer than 40 tokens."""
    store = Store(tmp_path / "versions")
    add_version(store, "1", np.repeat([10, 40, 100], [500, 495, 5]))
    store.promote("1", 1, "first")
    return store


def window(*lengths: int) -> Window:
    """Predictions of so many tokens."""
    rows = np.zeros(len(lengths), dtype=prediction_dtype(len(TAXONOMY.intents)))
    rows["n_tokens"] = lengths
    return Window(KEY, TAXONOMY, rows, rows[:0], np.empty((0, 0), dtype=np.float16))


def request(action: str, ordinal: int = 1, stream: StreamKey = KEY) -> ActionRequest:
    """As an incident asks for it."""
    incident = "latency_up-20231114T221320"
    return ActionRequest(f"{incident}/{ordinal}-{action}", incident, action, stream, BEGAN, ("signals",), (), None)


def run(store: Store, asked: ActionRequest, seen: Window | None = None) -> ActionResult:
    """By what the tree's name stands for."""
    return steering_actions(store, ServiceLimits())[asked.action].run(asked, seen or window())


def test_tokenizer_is_capped_where_the_reference_ends_and_opened_anew(store: Store) -> None:
    """In one change, whose words tell how many of the current messages are cut."""
    result = run(store, request("tune_tokenizer"), window(*[20] * 90, *[128] * 10))
    assert result.outcome == "done"
    assert "at 40 tokens instead of 128" in result.words
    assert "10 of the current 100 are longer" in result.words
    assert result.detail == {
        "deployment": 2, "version": "1", "policy": "1.1", "reload": 1, "tuning": {"max_tokens": 40},
    }  # fmt: skip
    assert store.deployment().tuning == Tuning(max_tokens=40)


def test_without_a_reference_profile_the_current_lengths_say_where_to_cut(store: Store) -> None:
    """And too few of them say nothing."""
    add_version(store, "2")
    store.promote("2", 1, "no profile")
    asked = request("tune_tokenizer", stream=StreamKey("2", "2.1", "champion"))
    few = run(store, asked, window(*[20] * 199))
    assert (few.outcome, store.deployment().number) == ("nothing_to_do", 2)
    assert "199 current lengths; 200 are needed" in few.words
    result = run(store, asked, window(*[20] * 198, 60, 128))
    assert (result.outcome, result.detail["tuning"]) == ("done", {"max_tokens": 20})


def test_a_tokenizer_that_is_capped_already_is_left_alone(store: Store) -> None:
    """The next remedy of the tree is a reload anyway."""
    run(store, request("tune_tokenizer"))
    again = run(store, request("tune_tokenizer", ordinal=2))
    assert (again.outcome, store.deployment().number) == ("nothing_to_do", 2)
    assert "cut at 40 tokens already" in again.words


def test_batching_is_halved_then_admission_down_to_the_floor(store: Store) -> None:
    """One step a request; a cap of the tokenizer stays."""
    run(store, request("tune_tokenizer"))
    results = [run(store, request("tune_batching", ordinal)) for ordinal in range(2, 8)]
    assert [(result.outcome, result.detail["tuning"]) for result in results] == [
        ("done", {"max_tokens": 40, "batch_tokens": 48}),
        ("done", {"max_tokens": 40, "batch_tokens": 48, "max_in_flight": 32}),
        ("done", {"max_tokens": 40, "batch_tokens": 48, "max_in_flight": 16}),
        ("done", {"max_tokens": 40, "batch_tokens": 48, "max_in_flight": 8}),
        ("nothing_to_do", {"max_tokens": 40, "batch_tokens": 48, "max_in_flight": 8}),
        ("nothing_to_do", {"max_tokens": 40, "batch_tokens": 48, "max_in_flight": 8}),
    ]
    assert store.deployment().reload == 1


def test_batching_starts_from_what_the_service_is_set_to(store: Store) -> None:
    """Half of 50 would be below the floor; at the floor admission is next."""
    asked = request("tune_batching"), request("tune_batching", 2)
    low = steering_actions(store, ServiceLimits(batch_tokens=50, max_in_flight=12))["tune_batching"]
    results = [low.run(one, window()).detail["tuning"] for one in asked]
    assert results == [{"batch_tokens": 32}, {"batch_tokens": 32, "max_in_flight": 8}]


def test_model_graph_is_opened_anew_and_then_the_previous_version_serves(store: Store) -> None:
    """Each once."""
    add_version(store, "2")
    store.promote("2", 1, "better")
    stream = StreamKey("2", "2.1", "champion")
    reloaded = run(store, request("reload_model_graph", 1, stream))
    assert (reloaded.outcome, reloaded.detail["reload"], reloaded.detail["version"]) == ("done", 1, "2")
    back = run(store, request("roll_back", 2, stream))
    assert (back.outcome, back.detail["version"]) == ("done", "1")
    assert back.words == "Version 1 serves again in the place of 2."
    assert store.deployment().champion.version == "1"


def test_without_a_previous_version_there_is_nothing_to_roll_back_to(store: Store) -> None:
    """An earlier policy of the same version is no faster."""
    store.add_policy(replace(POLICY, revision=2))
    store.promote("1", 2, "refit")
    result = run(store, request("roll_back", stream=StreamKey("1", "1.2", "champion")))
    assert (result.outcome, store.deployment().number) == ("nothing_to_do", 2)
    assert "No version before 1" in result.words


@pytest.mark.parametrize("action", ["tune_tokenizer", "tune_batching", "reload_model_graph", "roll_back"])
def test_the_same_request_is_done_once_and_told_the_same_way(store: Store, action: str) -> None:
    """Also when other things were done since, the version that it was about is gone, and the window is another."""
    add_version(store, "2", np.repeat([10, 40], 500))
    store.promote("2", 1, "better")
    asked = request(action, stream=StreamKey("2", "2.1", "champion"))
    first = run(store, asked, window(*[20] * 300))
    before = (store.root / "deployment.json").read_bytes()
    assert run(store, asked, window(*[90] * 300)) == first
    assert (store.root / "deployment.json").read_bytes() == before
    assert json.loads(before)["reason"] == f"{asked.key}: {first.words}"
    store.tune(Tuning(batch_utterances=4), "by hand")
    store.promote("1", 1, "by hand")
    assert run(store, asked, window()) == first
    assert store.deployment().reason == "by hand"


def test_a_key_that_begins_like_another_is_another(store: Store) -> None:
    """Ordinals 1 and 10 of one action: both are done."""
    assert run(store, request("reload_model_graph", 10)).detail["deployment"] == 2
    assert run(store, request("reload_model_graph", 1)).detail["deployment"] == 3


@pytest.mark.parametrize("action", ["tune_tokenizer", "tune_batching", "reload_model_graph", "roll_back"])
@pytest.mark.parametrize(
    "stream", [StreamKey("2", "2.1", "champion"), StreamKey("1", "1.2", "champion"), StreamKey("1", "1.1", "candidate")]
)
def test_what_no_longer_serves_is_not_steered(store: Store, action: str, stream: StreamKey) -> None:
    """Another version, another policy of it, or the same in another role."""
    result = run(store, request(action, stream=stream), window(*[20] * 300))
    assert (result.outcome, store.deployment().number) == ("nothing_to_do", 1)
    assert "Policy 1.1 serves by now" in result.words
    assert stream.name in result.words


def test_a_deployment_that_moves_meanwhile_is_decided_on_anew(store: Store) -> None:
    """Somebody promotes between the decision and the change: asked again, it is made on what serves then."""

    def while_deciding(then: Callable[[], object]) -> Steering:
        def decide(past: object, seen: object) -> Step:
            then()
            return Step("Opened anew.", lambda reason, number: store.reload(reason, expected=number))

        return Steering(store, decide)

    asked = request("reload_model_graph")
    with pytest.raises(HookFailed, match="deployment 2 serves"):
        while_deciding(lambda: store.tune(Tuning(batch_tokens=64), "by hand")).run(asked, window())
    assert store.deployment().reason == "by hand"
    assert while_deciding(lambda: None).run(asked, window()).detail["tuning"] == {"batch_tokens": 64}


def test_a_damaged_repository_fails_for_good_and_says_why(store: Store) -> None:
    """The version that would be opened is torn; then the deployment itself."""
    (store.root / "1" / "model.bin").write_bytes(b"torn")
    torn = run(store, request("reload_model_graph"))
    assert (torn.outcome, store.deployment().number) == ("failed", 1)
    assert "model.bin" in torn.words
    (store.root / "deployment.json").write_text("nonsense")
    assert run(store, request("tune_batching")).outcome == "failed"
