"""
Versions on disk, digests, deployment state. Every change is atomic and numbered.

    <root>/
      deployment.json            number, champion (version, policy revision and its digest), history
      <version>/manifest.json    what is in the folder, with the SHA-256 of each file
      <version>/policies/<revision>.json
      <version>/...              weights, tokenizer, reference profile, model card, figures
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from model_repo.contract.errors import BadManifest, DigestMismatch, FileMissing, VersionError, VersionNotFound
from model_repo.contract.manifest import Manifest
from model_repo.contract.policy import Policy
from model_repo.contract.reference import ReferenceProfile

DEPLOYMENT = "deployment.json"
MANIFEST = "manifest.json"
REFERENCE = "reference.npz"
HISTORY_KEPT = 50


@dataclass(frozen=True)
class Alias:
    """What one role serves: a version under one revision of its policy."""

    version: str
    policy_revision: int
    policy_sha256: str


@dataclass(frozen=True)
class Deployment:
    """Which version serves. ``number`` grows by one with every change: a watcher compares it."""

    number: int
    champion: Alias
    changed: str
    reason: str


@dataclass(frozen=True)
class LoadedVersion:
    """A version whose files have all been found and hold what the manifest says."""

    folder: Path
    manifest: Manifest

    def file(self, name: str) -> Path:
        """Path of a file of the version; raises FileMissing for one the manifest does not name."""
        if name not in self.manifest.files:
            raise FileMissing(f"version {self.manifest.version} has no file {name!r}")
        return self.folder / name


class Store:
    """The model repository in one folder. Readers need no lock; writers take one."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def deployment(self) -> Deployment:
        """What serves now; raises FileMissing or BadManifest naming the file."""
        data = _read_json(self.root / DEPLOYMENT)
        try:
            return Deployment(
                number=int(data["number"]),
                champion=Alias(**data["champion"]),
                changed=str(data["changed"]),
                reason=str(data["reason"]),
            )
        except (KeyError, TypeError, ValueError) as wrong:
            raise BadManifest(f"{self.root / DEPLOYMENT} is damaged: {wrong!r}") from wrong

    def versions(self) -> list[str]:
        """Every version folder, oldest number first."""
        found = [p.parent.name for p in self.root.glob(f"*/{MANIFEST}")]
        return sorted(found, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name))

    def load(self, version: str) -> LoadedVersion:
        """
        Check every file of a version against its digest, then give it.

        Raises VersionNotFound, BadManifest, FileMissing or DigestMismatch, each naming the file.
        """
        folder = self.root / version
        if "/" in version or version in ("", ".", "..") or not folder.is_dir():
            raise VersionNotFound(
                f"no version {version!r} in {self.root}; known: {', '.join(self.versions()) or 'none'}"
            )
        manifest_file = folder / MANIFEST
        try:
            manifest = Manifest.from_json(_read_json(manifest_file))
        except BadManifest as wrong:
            raise BadManifest(f"{manifest_file}: {wrong}") from wrong
        if manifest.version != version:
            raise BadManifest(f"{manifest_file} is of version {manifest.version!r}, not {version!r}")
        for name, expected in manifest.files.items():
            _check_digest(folder / name, expected)
        return LoadedVersion(folder, manifest)

    def policy(self, version: str, revision: int, sha256: str | None = None) -> Policy:
        """One policy revision of a version; raises FileMissing, DigestMismatch or BadPolicy."""
        file = self._policy_file(version, revision)
        if sha256 is not None:
            _check_digest(file, sha256)
        manifest = Manifest.from_json(_read_json(self.root / version / MANIFEST))
        return Policy.from_json(_read_json(file), manifest.taxonomy)

    def reference(self, version: str) -> ReferenceProfile:
        """The version's reference profile."""
        with np.load(self.load(version).file(REFERENCE), allow_pickle=False) as arrays:
            return ReferenceProfile.from_arrays(arrays)

    def next_version(self) -> str:
        """The number after the highest one there is, as a string; ``1`` in an empty repository."""
        return str(1 + max((int(v) for v in self.versions() if v.isdigit()), default=0))

    def add_version(self, folder: Path, manifest: Manifest, policy: Policy) -> None:
        """
        Take a prepared folder in as a new version, with the first revision of its policy.

        ``folder`` must lie on the file system of the repository: the move is one rename. Raises VersionError
        when the version exists. It serves nothing until it is promoted.
        """
        policy.check_fits(manifest.taxonomy)
        with self._lock():
            target = self.root / manifest.version
            if target.exists():
                raise VersionError(f"version {manifest.version!r} exists already and is never overwritten")
            (folder / "policies").mkdir(exist_ok=True)
            _write_json(folder / "policies" / f"{policy.revision}.json", policy.to_json(manifest.taxonomy))
            _write_json(folder / MANIFEST, manifest.to_json())
            folder.rename(target)

    def add_policy(self, policy: Policy) -> None:
        """Write a further revision of a version's policy; raises VersionError when it exists."""
        manifest = self.load(policy.version).manifest
        policy.check_fits(manifest.taxonomy)
        with self._lock():
            file = self._policy_file(policy.version, policy.revision)
            if file.exists():
                raise VersionError(f"policy {policy.name} exists already and is never overwritten")
            _write_json(file, policy.to_json(manifest.taxonomy))

    def promote(self, version: str, policy_revision: int, reason: str) -> Deployment:
        """Make a version under a policy revision the champion, after checking all its digests; atomic."""
        self.load(version)
        self.policy(version, policy_revision)
        digest = sha256_of(self._policy_file(version, policy_revision))
        with self._lock():
            file = self.root / DEPLOYMENT
            before: Mapping[str, Any] = _read_json(file) if file.exists() else {"number": 0, "history": []}
            deployment = Deployment(
                number=int(before["number"]) + 1,
                champion=Alias(version, policy_revision, digest),
                changed=datetime.now(UTC).isoformat(timespec="seconds"),
                reason=reason,
            )
            past = {k: v for k, v in before.items() if k not in ("history", "schema")}
            history = [*before.get("history", []), *([past] if past["number"] else [])]
            _write_json(file, {"schema": 1, **asdict(deployment), "history": history[-HISTORY_KEPT:]})
            return deployment

    def _policy_file(self, version: str, revision: int) -> Path:
        return self.root / version / "policies" / f"{revision}.json"

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def sha256_of(file: Path) -> str:
    """Hex SHA-256 of a file; raises FileMissing."""
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except FileNotFoundError:
        raise FileMissing(f"{file} is missing") from None


def _check_digest(file: Path, expected: str) -> None:
    got = sha256_of(file)
    if got != expected:
        raise DigestMismatch(f"{file} is damaged: SHA-256 is {got[:12]}..., the record says {expected[:12]}...")


def _read_json(file: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileMissing(f"{file} is missing") from None
    except ValueError as wrong:
        raise BadManifest(f"{file} is not JSON: {wrong}") from wrong
    if not isinstance(data, dict):
        raise BadManifest(f"{file} must hold a JSON object, got {type(data).__name__}")
    return data


def _write_json(file: Path, data: Mapping[str, Any]) -> None:
    """Whole or not at all: a reader never sees half a file."""
    new = file.with_name(f".{file.name}.{os.getpid()}")
    with new.open("w", encoding="utf-8") as opened:
        opened.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")
        opened.flush()
        os.fsync(opened.fileno())
    new.replace(file)
