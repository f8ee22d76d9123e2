"""
What serves, as ``deployment.json`` says it, and how one deployment follows from those before. The store does the I/O.

Here ``past`` is every deployment that is remembered, oldest first; the last one serves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from model_repo.contract.errors import BadManifest, NothingToRollBackTo
from model_repo.contract.tuning import NO_TUNING, Tuning

HISTORY_KEPT = 50


@dataclass(frozen=True)
class Alias:
    """What one role serves: a version under one revision of its policy."""

    version: str
    policy_revision: int
    policy_sha256: str

    @property
    def policy(self) -> str:
        """The policy's name, as answers and events carry it."""
        return f"{self.version}.{self.policy_revision}"


@dataclass(frozen=True)
class Deployment:
    """Which version serves. ``number`` grows by one with every change: a watcher compares it."""

    number: int
    champion: Alias
    changed: str
    """ISO 8601, in UTC."""
    reason: str
    tuning: Tuning = NO_TUNING
    reload: int = 0
    """Only grows. The same version with another count is opened anew."""
    restores: int | None = None
    """Set by a rollback: number of the deployment that is served again. The next rollback looks before that one, so
    that it never goes forward to what was rolled back from."""

    def to_json(self) -> dict[str, Any]:
        """As it stands in the file; what was never used is left out."""
        data = asdict(self) | {"tuning": self.tuning.to_json()}
        return {name: value for name, value in data.items() if name not in _OPTIONAL or value}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Deployment":
        """Inverse of ``to_json``; raises BadManifest, or BadTuning naming the limit."""
        try:
            restores = data.get("restores")
            return Deployment(
                number=int(data["number"]),
                champion=Alias(**data["champion"]),
                changed=str(data["changed"]),
                reason=str(data["reason"]),
                tuning=Tuning.from_json(data.get("tuning", {})),
                reload=int(data.get("reload", 0)),
                restores=None if restores is None else int(restores),
            )
        except KeyError as missing:
            raise BadManifest(f"the deployment lacks the field {missing}") from None
        except (TypeError, AttributeError) as wrong:
            raise BadManifest(f"the deployment has a field of the wrong type: {wrong}") from wrong


_OPTIONAL = ("tuning", "reload", "restores")


def promoted(past: Sequence[Deployment], champion: Alias) -> Deployment:
    """
    Another champion. Under another policy of the same version its tuning stays; another version begins without.

    ``number``, ``changed`` and ``reason`` are the store's to fill in, here and below.
    """
    if not past:
        return Deployment(0, champion, "", "")
    last = past[-1]
    if champion.version == last.champion.version:
        return replace(last, champion=champion)
    return replace(last, champion=champion, tuning=NO_TUNING, restores=None)


def rolled_back(past: Sequence[Deployment]) -> Deployment:
    """
    What ``rollback_target`` served, again. Raises NothingToRollBackTo.

    >>> one, two = Alias("1", 1, "aa"), Alias("2", 1, "bb")
    >>> past = [Deployment(1, one, "", "first"), Deployment(2, two, "", "better", Tuning(batch_tokens=48))]
    >>> back = rolled_back(past)
    >>> back.champion.version, back.restores, bool(back.tuning)
    ('1', 1, False)
    """
    target = rollback_target(past)
    if target is None:
        now = f"policy {past[-1].champion.policy}" if past else "nothing"
        raise NothingToRollBackTo(f"no earlier version or policy is remembered to go back to from {now}")
    back = promoted(past, target.champion)
    if target.champion.version == past[-1].champion.version:
        return back
    return replace(back, restores=_origin(target))


def rollback_target(past: Sequence[Deployment]) -> Deployment | None:
    """The latest deployment of another version before this one; without any, of an earlier policy revision."""
    if not past:
        return None
    now = past[-1]
    for earlier in reversed(past):
        if earlier.number < _origin(now) and earlier.champion.version != now.champion.version:
            return earlier
    for earlier in reversed(past):
        if earlier.champion.version != now.champion.version:
            continue
        if earlier.champion.policy_revision < now.champion.policy_revision:
            return earlier
    return None


def remembered(past: Sequence[Deployment]) -> Sequence[Deployment]:
    """The latest HISTORY_KEPT before the one that serves, and always the one that a rollback would go back to."""
    kept = list(past[:-1][-HISTORY_KEPT:])
    target = rollback_target(past)
    if target is not None and target not in kept:
        kept[0] = target
    return kept


def _origin(deployment: Deployment) -> int:
    """Number under which it first served."""
    return deployment.number if deployment.restores is None else deployment.restores
