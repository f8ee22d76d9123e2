"""What a version brings with it, read from the model repository: taxonomy, policies, reference profile, costs."""

import logging
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from model_repo.contract.costs import cost_matrix
from model_repo.contract.errors import BadCosts, ContractError
from model_repo.contract.labels import Taxonomy
from model_repo.contract.outputs import FloatArray
from model_repo.contract.policy import Policy
from model_repo.contract.reference import ReferenceProfile
from model_repo.store import Store

log = logging.getLogger(__name__)

ASK_AGAIN_S = 30.0
"""A version that is not there, or damaged, is looked for again after this: checking its digests reads all of it."""


class StoreSources:
    """Over one model repository; what never changes is read once. Used from one thread."""

    def __init__(self, store: Store, costs_file: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises BadCosts when the table cannot be read."""
        self._store = store
        self._clock = clock
        self._costs_file = costs_file
        self._cost_table = _read_costs(costs_file)
        self._taxonomies: dict[str, Taxonomy] = {}
        self._policies: dict[str, Policy] = {}
        self._profiles: dict[str, ReferenceProfile] = {}
        self._costs: dict[tuple[str, ...], FloatArray] = {}
        self._missing: dict[str, float] = {}
        """Versions that could not be loaded, and when that was."""

    def taxonomy(self, version: str) -> Taxonomy | None:
        """Of a version, or None for one that the repository does not hold whole; one that comes later is found."""
        if version in self._taxonomies:
            return self._taxonomies[version]
        asked_at = self._missing.get(version)
        if asked_at is not None and self._clock() < asked_at + ASK_AGAIN_S:
            return None
        try:
            taxonomy = self._store.load(version).manifest.taxonomy
        except (ContractError, OSError) as error:
            # Events name versions: a log of made-up names must not fill the memory.
            self._missing = {} if len(self._missing) > 1000 else self._missing
            self._missing[version] = self._clock()
            log.warning("events of version %s are not counted: %s", version, error)
            return None
        self._missing.pop(version, None)
        self._taxonomies[version] = taxonomy
        return taxonomy

    def deployment_number(self) -> int | None:
        """Grows with everything that changes about what serves; None while it cannot be read."""
        try:
            return self._store.deployment().number
        except (ContractError, OSError):
            return None

    def policy(self, version: str, policy_name: str) -> Policy:
        """By its name, as ``3.1``; raises ContractError. A revision is never overwritten."""
        if policy_name not in self._policies:
            revision = policy_name.removeprefix(f"{version}.")
            if not revision.isdigit():
                raise ContractError(f"{policy_name!r} is no policy of version {version!r}")
            self._policies[policy_name] = self._store.policy(version, int(revision))
        return self._policies[policy_name]

    def profile(self, version: str) -> ReferenceProfile:
        """Of a version; raises ContractError."""
        if version not in self._profiles:
            self._profiles[version] = self._store.reference(version)
        return self._profiles[version]

    def costs(self, taxonomy: Taxonomy) -> FloatArray:
        """
        (K + 1, K + 1), ood last; see ``costs.cost_matrix``.

        Under intents that the table does not fit every mistake costs 1, and a warning says so.
        """
        if taxonomy.intents not in self._costs:
            try:
                costs = cost_matrix(self._cost_table, taxonomy)
            except BadCosts as wrong:
                log.warning("%s does not fit: every mistake costs 1 (%s)", self._costs_file, wrong)
                costs = np.asarray(cost_matrix({}, taxonomy))
            self._costs[taxonomy.intents] = costs
        return self._costs[taxonomy.intents]


def _read_costs(file: Path) -> dict[str, object]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadCosts(f"{file} cannot be read: {error}") from error
