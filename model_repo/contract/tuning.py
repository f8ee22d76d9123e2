"""
Limits that a deployment lowers below what the settings of the service say: the remedies for latency.

They travel in ``deployment.json``, so that the sidecar can set them without calling the service, and a person can see
and undo them.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from model_repo.contract.errors import BadTuning

DEFAULT_BATCH_TOKENS = 96
"""What a service computes together unless its settings say otherwise; a remedy halves from here."""
DEFAULT_MAX_IN_FLIGHT = 64
"""Most utterances inside a service at once unless its settings say otherwise; a remedy halves from here."""
FEWEST_MAX_TOKENS = 3
"""The two specials and one word piece: with fewer, nothing of the utterance is left."""


@dataclass(frozen=True)
class Tuning:
    """Each limit is None, which leaves it to the settings, or a number that holds where it is the lower one."""

    batch_tokens: int | None = None
    """Tokens computed together; >= 1."""
    batch_utterances: int | None = None
    """Utterances computed together; >= 1."""
    max_in_flight: int | None = None
    """Most utterances inside at once; >= 1. The service's least bound stays below it or is what holds."""
    max_tokens: int | None = None
    """Longest utterance in tokens, specials included; >= FEWEST_MAX_TOKENS. What is longer is cut at the end."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            least = FEWEST_MAX_TOKENS if name == "max_tokens" else 1
            # True is an int to Python, and no limit.
            if value is not None and (type(value) is not int or value < least):
                raise BadTuning(f"tuning: {name} must be a whole number >= {least}, got {value!r}")

    def __bool__(self) -> bool:
        """Whether it lowers anything."""
        return bool(self.to_json())

    def to_json(self) -> dict[str, int]:
        """
        What is lowered, and nothing else.

        >>> Tuning(batch_tokens=48).to_json()
        {'batch_tokens': 48}
        """
        return {name: value for name, value in asdict(self).items() if value is not None}

    @staticmethod
    def from_json(data: Any) -> "Tuning":
        """
        Inverse of ``to_json``; raises BadTuning naming the limit.

        >>> Tuning.from_json({"batch_token": 48})
        Traceback (most recent call last):
        model_repo.contract.errors.BadTuning: tuning has unknown limits: batch_token
        """
        if not isinstance(data, Mapping):
            raise BadTuning(f"tuning must be an object, got {type(data).__name__}")
        unknown = sorted(str(name) for name in set(data) - set(Tuning.__dataclass_fields__))
        if unknown:
            raise BadTuning(f"tuning has unknown limits: {', '.join(unknown)}")
        return Tuning(**data)


NO_TUNING = Tuning()


def lowered(setting: int, tuned: int | None) -> int:
    """
    The limit in force: what the settings say, or less.

    >>> lowered(96, None), lowered(96, 48), lowered(96, 200)
    (96, 48, 96)
    """
    return setting if tuned is None else min(setting, tuned)
