"""Versions are served only when whole, and every change of what serves is numbered."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from model_repo.contract.errors import (
    BadManifest,
    BadTuning,
    DeploymentMoved,
    DigestMismatch,
    FileMissing,
    NothingToRollBackTo,
    VersionError,
    VersionNotFound,
)
from model_repo.contract.labels import Taxonomy
from model_repo.contract.manifest import Manifest
from model_repo.contract.policy import Policy
from model_repo.contract.tuning import NO_TUNING, Tuning
from model_repo.store import Store, sha256_of

TAXONOMY = Taxonomy(("refund", "hello"), frozenset({"refund"}))


def _policy(version: str, revision: int = 1, cut: float = -3.0) -> Policy:
    return Policy(version, revision, 1.2, (0.3, 0.4), 1.0, cut, 0.5, 0.95)


def _add(store: Store, version: str = "1") -> None:
    folder = store.root / ".incoming"
    folder.mkdir(parents=True)
    (folder / "model.bin").write_bytes(b"weights of " + version.encode())
    manifest = Manifest(
        version, TAXONOMY, "2026-01-01T00:00:00+00:00", "onnx", "fp32", 128, 42,
        files={"model.bin": sha256_of(folder / "model.bin")},
    )  # fmt: skip
    store.add_version(folder, manifest, _policy(version))


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "versions")
    _add(store)
    return store


def test_added_version_comes_back_whole_with_its_policy(store: Store) -> None:
    """What was put in comes out."""
    loaded = store.load("1")
    assert loaded.file("model.bin").read_bytes() == b"weights of 1"
    assert loaded.manifest.taxonomy == TAXONOMY
    assert store.policy("1", 1) == _policy("1")
    assert store.next_version() == "2"


def test_damaged_and_missing_files_are_named(store: Store) -> None:
    """One flipped byte, then no file at all, then no manifest."""
    file = store.root / "1" / "model.bin"
    file.write_bytes(b"weights of 2")
    with pytest.raises(DigestMismatch, match=r"model\.bin"):
        store.load("1")
    file.unlink()
    with pytest.raises(FileMissing, match=r"model\.bin"):
        store.load("1")
    (store.root / "1" / "manifest.json").write_text("{")
    with pytest.raises(BadManifest, match=r"manifest\.json"):
        store.load("1")


@pytest.mark.parametrize("name", ["7", "", "..", "../1"])
def test_version_that_is_not_there_is_refused(store: Store, name: str) -> None:
    """Also names that would leave the repository."""
    with pytest.raises(VersionNotFound):
        store.load(name)


def test_nothing_is_ever_overwritten(store: Store) -> None:
    """A second version 1 and a second policy 1.1 are refused; the first ones stay."""
    with pytest.raises(VersionError, match="exists"):
        _add(store)
    with pytest.raises(VersionError, match="exists"):
        store.add_policy(_policy("1", 1, cut=9.0))
    assert store.policy("1", 1).energy_cut == -3.0


def test_every_change_of_what_serves_has_the_next_number(store: Store) -> None:
    """Promotion, a policy revision, and back again."""
    assert store.promote("1", 1, "first").number == 1
    store.add_policy(_policy("1", 2, cut=-2.5))
    assert store.promote("1", 2, "refit").number == 2
    last = store.promote("1", 1, "rolled back")
    assert (last.number, last.champion.policy_revision) == (3, 1)
    assert store.deployment() == last


def test_promoted_policy_is_held_to_its_digest(store: Store) -> None:
    """A policy edited by hand after promotion is refused, naming its file."""
    alias = store.promote("1", 1, "first").champion
    file = store.root / "1" / "policies" / "1.json"
    file.write_text(file.read_text().replace("-3.0", "-9.0"))
    with pytest.raises(DigestMismatch, match=r"policies/1\.json"):
        store.policy("1", alias.policy_revision, alias.policy_sha256)


def test_damaged_deployment_state_is_named(store: Store) -> None:
    """Not JSON, then JSON of the wrong shape."""
    store.promote("1", 1, "first")
    file = store.root / "deployment.json"
    file.write_text("nonsense")
    with pytest.raises(BadManifest, match=r"deployment\.json"):
        store.deployment()
    file.write_text('{"schema": 1, "number": 1}')
    with pytest.raises(BadManifest, match=r"deployment\.json"):
        store.deployment()


def test_a_file_written_before_there_was_tuning_reads_as_before(store: Store) -> None:
    """No tuning, never reloaded; and the next change keeps it in the history."""
    store.promote("1", 1, "first")
    file = store.root / "deployment.json"
    data = json.loads(file.read_text())
    assert set(data) == {"schema", "number", "champion", "changed", "reason", "history"}
    deployment = store.deployment()
    assert (deployment.tuning, deployment.reload, deployment.restores) == (NO_TUNING, 0, None)
    store.reload("try again")
    assert [entry.reason for entry in store.history()] == ["first", "try again"]


def test_tuning_and_reload_are_numbered_and_remembered(store: Store) -> None:
    """Each change has its number and reason; the tuning is replaced as a whole; a reload counts up."""
    store.promote("1", 1, "first")
    store.tune(Tuning(batch_tokens=48), "the queue is slow")
    store.tune(Tuning(max_tokens=40), "the tokenizer is slow", reload=True)
    last = store.reload("the graph is slow")
    assert (last.number, last.reload, last.tuning, last.champion.version) == (4, 2, Tuning(max_tokens=40), "1")
    assert [(past.number, past.reload, past.tuning.to_json(), past.reason) for past in store.history()] == [
        (1, 0, {}, "first"),
        (2, 0, {"batch_tokens": 48}, "the queue is slow"),
        (3, 1, {"max_tokens": 40}, "the tokenizer is slow"),
        (4, 2, {"max_tokens": 40}, "the graph is slow"),
    ]
    assert store.tune(NO_TUNING, "well again").tuning == NO_TUNING


def test_tuning_outlives_a_policy_revision_and_ends_with_the_version(store: Store) -> None:
    """It was set for the engine of one version."""
    _add(store, "2")
    store.add_policy(_policy("1", 2))
    store.promote("1", 1, "first")
    store.tune(Tuning(batch_tokens=48), "the queue is slow")
    assert store.promote("1", 2, "refit").tuning == Tuning(batch_tokens=48)
    assert store.promote("2", 1, "better").tuning == NO_TUNING


def test_rollback_goes_to_the_previous_version_under_the_policy_that_served(store: Store) -> None:
    """Past policy revisions, reloads and tunings of the version that is left."""
    _add(store, "2")
    for version, revision in (("1", 2), ("2", 2)):
        store.add_policy(_policy(version, revision))
    store.promote("1", 1, "first")
    kept = store.promote("1", 2, "refit").champion
    store.promote("2", 1, "better")
    store.promote("2", 2, "refit")
    store.tune(Tuning(batch_tokens=48), "the queue is slow")
    back = store.roll_back("still slow")
    assert (back.number, back.champion, back.tuning, back.reason) == (6, kept, NO_TUNING, "still slow")
    assert store.deployment() == back


def test_a_second_rollback_does_not_go_forward_again(store: Store) -> None:
    """1, 2, back to 1, 3, back to 1: version 2 was left for a reason."""
    _add(store, "2")
    _add(store, "3")
    store.promote("1", 1, "first")
    store.promote("2", 1, "better")
    store.roll_back("worse")
    store.reload("still slow")
    with pytest.raises(NothingToRollBackTo):
        store.roll_back("once more")
    store.promote("3", 1, "another try")
    assert store.roll_back("worse").champion.version == "1"
    with pytest.raises(NothingToRollBackTo):
        store.roll_back("once more")
    store.promote("2", 1, "it was the machine")
    assert store.roll_back("it was not").champion.version == "1"


def test_without_another_version_rollback_goes_to_an_earlier_policy_revision(store: Store) -> None:
    """And with neither it says so, changing nothing."""
    with pytest.raises(VersionError, match="nothing"):
        store.roll_back("before anything serves")
    store.promote("1", 1, "first")
    store.add_policy(_policy("1", 2))
    store.promote("1", 2, "refit")
    assert store.roll_back("worse").champion.policy == "1.1"
    with pytest.raises(NothingToRollBackTo, match=r"policy 1\.1"):
        store.roll_back("once more")
    assert store.deployment().number == 3


def test_rollback_to_a_damaged_version_is_refused_and_changes_nothing(store: Store) -> None:
    """Its weights, then its policy."""
    _add(store, "2")
    store.promote("1", 1, "first")
    store.promote("2", 1, "better")
    policy = store.root / "1" / "policies" / "1.json"
    policy.write_text(policy.read_text().replace("-3.0", "-9.0"))
    with pytest.raises(DigestMismatch, match=r"policies/1\.json"):
        store.roll_back("slow")
    (store.root / "1" / "model.bin").write_bytes(b"torn")
    with pytest.raises(DigestMismatch, match=r"model\.bin"):
        store.roll_back("slow")
    assert store.deployment().number == 2


def test_a_damaged_version_is_not_reloaded(store: Store) -> None:
    """The service would refuse it; what serves goes on from memory."""
    store.promote("1", 1, "first")
    (store.root / "1" / "model.bin").write_bytes(b"torn")
    with pytest.raises(DigestMismatch, match=r"model\.bin"):
        store.reload("slow")
    assert store.deployment().number == 1


def test_the_version_to_go_back_to_is_never_forgotten(store: Store) -> None:
    """However many changes came after it; of those, the latest are remembered."""
    _add(store, "2")
    store.promote("1", 1, "first")
    store.promote("2", 1, "better")
    for number in range(80):
        store.reload(f"reload {number}")
    history = store.history()
    assert (len(history), history[0].number, history[1].number, history[-1].number) == (51, 1, 33, 82)
    assert store.roll_back("slow").champion.version == "1"


def test_a_change_decided_on_what_serves_no_more_is_refused(store: Store) -> None:
    """Of ten that were decided on the same deployment, one is made."""
    expected = store.promote("1", 1, "first").number

    def change(number: int) -> bool:
        try:
            store.tune(Tuning(batch_tokens=number), f"change {number}", expected=expected)
        except DeploymentMoved:
            return False
        return True

    with ThreadPoolExecutor(10) as pool:
        made = list(pool.map(change, range(1, 11)))
    assert made.count(True) == 1
    assert store.deployment().number == expected + 1


@pytest.mark.parametrize(
    "tuning",
    ['{"batch_tokens": 0}', '{"batch_tokens": true}', '{"max_tokens": 2}', '{"max_tokens": 40.5}', '{"x": 1}', "[]"],
)
def test_bad_tuning_in_the_file_is_refused_and_the_file_is_named(store: Store, tuning: str) -> None:
    """Zero, a truth value, less than the specials, a fraction, an unknown limit, no object."""
    store.promote("1", 1, "first")
    file = store.root / "deployment.json"
    file.write_text(file.read_text().replace('"history"', f'"tuning": {tuning}, "history"'))
    with pytest.raises(BadTuning, match=r"deployment\.json: tuning"):
        store.deployment()
