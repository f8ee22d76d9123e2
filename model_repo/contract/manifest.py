"""What a model version folder holds, with digests. Anything not named here is not part of the version."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from model_repo.contract.errors import BadManifest
from model_repo.contract.labels import Taxonomy

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Manifest:
    """
    The record of how a version was made and of every file in it.

    ``files`` maps a path inside the folder to its SHA-256; policies are not among them, since new
    revisions are added later (each policy file carries its own digest in the deployment state).
    """

    version: str
    taxonomy: Taxonomy
    created: str
    """UTC, ISO 8601."""
    backend: str
    """Name of the engine that the weights are for, as in ``openvino``."""
    precision: str
    max_tokens: int
    """Longest utterance in tokens, specials included; longer ones are truncated by the tokenizer step."""
    seed: int
    files: Mapping[str, str]
    training: Mapping[str, Any] = field(default_factory=dict)
    """Preset, base checkpoint, library pins, data digests and counts."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """Every figure with its 95% interval, sample count and data."""

    def to_json(self) -> dict[str, Any]:
        """As it stands on disk."""
        return {
            "schema": SCHEMA_VERSION,
            "version": self.version,
            "taxonomy": self.taxonomy.to_json(),
            "created": self.created,
            "backend": self.backend,
            "precision": self.precision,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
            "files": dict(self.files),
            "training": dict(self.training),
            "metrics": dict(self.metrics),
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Manifest":
        """Inverse of ``to_json``; raises BadManifest naming the field."""
        if not isinstance(data, Mapping) or data.get("schema") != SCHEMA_VERSION:
            raise BadManifest(f"schema must be {SCHEMA_VERSION}")
        try:
            return Manifest(
                version=str(data["version"]),
                taxonomy=Taxonomy.from_json(data["taxonomy"]),
                created=str(data["created"]),
                backend=str(data["backend"]),
                precision=str(data["precision"]),
                max_tokens=int(data["max_tokens"]),
                seed=int(data["seed"]),
                files=dict(data["files"]),
                training=dict(data.get("training", {})),
                metrics=dict(data.get("metrics", {})),
            )
        except KeyError as missing:
            raise BadManifest(f"the manifest lacks the field {missing}") from None
        except (TypeError, ValueError) as wrong:
            raise BadManifest(f"the manifest has a field of the wrong type: {wrong}") from wrong
