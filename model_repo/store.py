"""
Versions on disk, digests, deployment state. Every change is atomic and numbered.

    <root>/
      deployment.json            number, champion (version, policy revision and its digest), tuning, reload, history
      <version>/manifest.json    what is in the folder, with the SHA-256 of each file
      <version>/policies/<revision>.json
      <version>/...              weights, tokenizer, reference profile, model card, figures
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from model_repo.contract.deployment import Alias, Deployment, promoted, remembered, rolled_back
from model_repo.contract.errors import (
    BadManifest,
    BadTuning,
    DeploymentMoved,
    DigestMismatch,
    FileMissing,
    VersionError,
    VersionNotFound,
)
from model_repo.contract.manifest import Manifest
from model_repo.contract.membership import MEMBERSHIP_FILE, MembershipHead
from model_repo.contract.policy import Policy
from model_repo.contract.reference import ReferenceProfile
from model_repo.contract.tuning import Tuning

DEPLOYMENT = "deployment.json"
MANIFEST = "manifest.json"
REFERENCE = "reference.npz"


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
        """What serves now; raises FileMissing, BadManifest or BadTuning naming the file."""
        return self._parsed(_read_json(self.root / DEPLOYMENT))

    def history(self) -> tuple[Deployment, ...]:
        """Every deployment that is remembered, oldest first: the last one serves. Raises as ``deployment`` does."""
        data = _read_json(self.root / DEPLOYMENT)
        return tuple(self._parsed(entry) for entry in (*data.get("history", ()), data))

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

    # Changes of what serves. Each is atomic, numbered and remembered with its reason. ``expected`` is the number of the
    # deployment that a change was decided on: it raises DeploymentMoved when that serves no more.

    def promote(self, version: str, policy_revision: int, reason: str, *, expected: int | None = None) -> Deployment:
        """Make a version under a policy revision the champion, after checking all its digests."""
        self.load(version)
        self.policy(version, policy_revision)
        alias = Alias(version, policy_revision, sha256_of(self._policy_file(version, policy_revision)))
        return self._change(reason, expected, lambda past: promoted(past, alias))

    def reload(self, reason: str, *, expected: int | None = None) -> Deployment:
        """Have what serves opened anew, after checking all its digests."""
        return self._change(reason, expected, self._reloaded)

    def tune(self, tuning: Tuning, reason: str, *, reload: bool = False, expected: int | None = None) -> Deployment:
        """Replace the tuning as a whole; NO_TUNING gives every limit back to the settings. May reload as well."""

        def tuned(past: Sequence[Deployment]) -> Deployment:
            return replace(self._reloaded(past) if reload else _serving(past), tuning=tuning)

        return self._change(reason, expected, tuned)

    def roll_back(self, reason: str, *, expected: int | None = None) -> Deployment:
        """
        Serve the previous version again, or an earlier policy revision when there was no other version.

        Checks all its digests. Never goes forward to what was rolled back from. Raises NothingToRollBackTo.
        """

        def back(past: Sequence[Deployment]) -> Deployment:
            deployment = rolled_back(past)
            champion = deployment.champion
            self.load(champion.version)
            self.policy(champion.version, champion.policy_revision, champion.policy_sha256)
            return deployment

        return self._change(reason, expected, back)

    def _reloaded(self, past: Sequence[Deployment]) -> Deployment:
        serving = _serving(past)
        self.load(serving.champion.version)
        return replace(serving, reload=serving.reload + 1)

    def _change(
        self, reason: str, expected: int | None, change: Callable[[Sequence[Deployment]], Deployment]
    ) -> Deployment:
        file = self.root / DEPLOYMENT
        with self._lock():
            past = self.history() if file.exists() else ()
            number = past[-1].number if past else 0
            if expected not in (None, number):
                raise DeploymentMoved(f"deployment {number} serves, but the change was decided on {expected}")
            changed = datetime.now(UTC).isoformat(timespec="seconds")
            new = replace(change(past), number=number + 1, changed=changed, reason=reason)
            history = [deployment.to_json() for deployment in remembered((*past, new))]
            _write_json(file, {"schema": 1, **new.to_json(), "history": history})
            return new

    def _parsed(self, data: Mapping[str, Any]) -> Deployment:
        try:
            return Deployment.from_json(data)
        except BadTuning as wrong:
            raise BadTuning(f"{self.root / DEPLOYMENT}: {wrong}") from wrong
        except ValueError as wrong:
            raise BadManifest(f"{self.root / DEPLOYMENT} is damaged: {wrong}") from wrong

    def _policy_file(self, version: str, revision: int) -> Path:
        return self.root / version / "policies" / f"{revision}.json"

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _serving(past: Sequence[Deployment]) -> Deployment:
    if not past:
        raise VersionError("nothing serves yet; promote a version first")
    return past[-1]


def read_membership(folder: Path) -> MembershipHead | None:
    """The head of a version's folder, or of a checkpoint; None where it has none. Raises BadManifest."""
    file = folder / MEMBERSHIP_FILE
    if not file.is_file():
        return None
    try:
        # Opened here: of a file that is no archive numpy would leave it open.
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            return MembershipHead.from_arrays(arrays)
    except (ValueError, OSError, EOFError, BadZipFile) as wrong:
        raise BadManifest(f"{file} cannot be read: {wrong}") from wrong


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
