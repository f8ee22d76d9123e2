"""Versions are served only when whole, and every change of what serves is numbered."""

from pathlib import Path

import pytest

from model_repo.contract.errors import BadManifest, DigestMismatch, FileMissing, VersionError, VersionNotFound
from model_repo.contract.labels import Taxonomy
from model_repo.contract.manifest import Manifest
from model_repo.contract.policy import Policy
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
