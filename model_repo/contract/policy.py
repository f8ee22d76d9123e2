"""The numbers that turn logits into a decision. They travel with the model version, never in the environment."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model_repo.contract.errors import BadPolicy
from model_repo.contract.labels import Taxonomy

MAX_INTENTS = 3
"""At most this many intents are accepted for one utterance (design section 3a)."""


@dataclass(frozen=True)
class Policy:
    """
    One revision of the decision numbers of one model version.

    A policy is named ``<version>.<revision>``, as in ``3.1``; a new revision replaces only
    these numbers, the weights stay.
    """

    version: str
    revision: int
    temperature: float
    """Divides the logits before the softmax; > 0, fitted by NLL on the calibration split."""
    thresholds: tuple[float, ...]
    """Per intent, in the order of the taxonomy: an intent at or above it is accepted too. In (0, 1]."""
    energy_temperature: float
    """T_e of the energy score; > 0."""
    energy_cut: float
    """An utterance with an energy above it is ood."""
    age_threshold: float
    """Probability at or above which a request counts as age-sensitive. In (0, 1]."""
    in_scope_retention: float
    """Share of in-scope calibration utterances that the cut keeps; in (0, 1)."""

    def __post_init__(self) -> None:
        _require(self.revision >= 1, "revision", self.revision, ">= 1")
        _require(0 < self.temperature < 1000, "temperature", self.temperature, "in (0, 1000)")
        _require(0 < self.energy_temperature < 1000, "energy_temperature", self.energy_temperature, "in (0, 1000)")
        _require(abs(self.energy_cut) < 1e6, "energy_cut", self.energy_cut, "finite")
        _require(0 < self.age_threshold <= 1, "age_threshold", self.age_threshold, "in (0, 1]")
        _require(0 < self.in_scope_retention < 1, "in_scope_retention", self.in_scope_retention, "in (0, 1)")
        for threshold in self.thresholds:
            _require(0 < threshold <= 1, "thresholds", threshold, "in (0, 1]")

    @property
    def name(self) -> str:
        """As answers and events carry it: ``<version>.<revision>``."""
        return f"{self.version}.{self.revision}"

    def check_fits(self, taxonomy: Taxonomy) -> None:
        """Raise BadPolicy unless there is one threshold an intent."""
        if len(self.thresholds) != len(taxonomy.intents):
            raise BadPolicy(
                f"policy {self.name} has {len(self.thresholds)} thresholds for {len(taxonomy.intents)} intents"
            )

    def to_json(self, taxonomy: Taxonomy) -> dict[str, Any]:
        """As it stands on disk: thresholds are keyed by intent, so that a person can read them."""
        return {
            "version": self.version,
            "revision": self.revision,
            "temperature": self.temperature,
            "thresholds": dict(zip(taxonomy.intents, self.thresholds, strict=True)),
            "energy_temperature": self.energy_temperature,
            "energy_cut": self.energy_cut,
            "age_threshold": self.age_threshold,
            "in_scope_retention": self.in_scope_retention,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any], taxonomy: Taxonomy) -> "Policy":
        """Inverse of ``to_json``; raises BadPolicy naming the field that is missing or of the wrong intents."""
        try:
            by_intent = data["thresholds"]
            if set(by_intent) != set(taxonomy.intents):
                odd = sorted(set(by_intent) ^ set(taxonomy.intents))
                raise BadPolicy(f"thresholds and taxonomy differ in: {', '.join(odd)}")
            return Policy(
                version=str(data["version"]),
                revision=int(data["revision"]),
                temperature=float(data["temperature"]),
                thresholds=tuple(float(by_intent[intent]) for intent in taxonomy.intents),
                energy_temperature=float(data["energy_temperature"]),
                energy_cut=float(data["energy_cut"]),
                age_threshold=float(data["age_threshold"]),
                in_scope_retention=float(data["in_scope_retention"]),
            )
        except KeyError as missing:
            raise BadPolicy(f"the policy lacks the field {missing}") from None
        except (TypeError, AttributeError) as wrong:
            raise BadPolicy(f"the policy has a field of the wrong type: {wrong}") from wrong


def _require(holds: bool, field: str, got: float, allowed: str) -> None:
    # NaN fails every comparison, so it is refused here as well.
    if not holds:
        raise BadPolicy(f"{field} must be {allowed}, got {got}")
