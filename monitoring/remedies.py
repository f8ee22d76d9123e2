"""
What is asked of an action, and what came of it. Values that go to JSON and come back equal.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Protocol, Self

from monitoring.observations import StreamKey
from monitoring.signals import Signal, Verdict
from monitoring.windows import Window

ResultOutcome = Literal["done", "failed", "nothing_to_do"]
OUTCOMES: tuple[ResultOutcome, ...] = ("done", "failed", "nothing_to_do")


@dataclass(frozen=True)
class SignalRecord:
    """A signal as it is kept and sent: a number that is not finite is None, which JSON can carry."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    verdict: str
    reference: float | None
    threshold: float | None

    @classmethod
    def of_signal(cls, signal: Signal) -> Self:
        """A copy of what was measured."""
        value, low, high = (_finite(number) for number in (signal.value, signal.low, signal.high))
        reference, threshold = _finite(signal.reference), _finite(signal.threshold)
        return cls(signal.name, value, low, high, int(signal.n), str(signal.verdict), reference, threshold)

    def to_signal(self) -> Signal:
        """The signal again; what was not finite is NaN."""
        value, low, high, reference, threshold = (
            math.nan if number is None else number
            for number in (self.value, self.low, self.high, self.reference, self.threshold)
        )
        return Signal(self.name, value, low, high, self.n, Verdict(self.verdict), reference, threshold)

    def to_json(self) -> dict[str, Any]:
        """Every field by its name."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """What ``to_json`` gave."""
        return cls(**body)


@dataclass(frozen=True)
class Awaited:
    """Utterances of what is new that must have come before an action is asked for: of too few it could tell nothing."""

    action: str
    """As in ``failure_modes.toml``."""
    need: int
    """Utterances, with an embedding, that are enough."""
    have: int
    """About how many have come."""
    since: float
    """Unix time, seconds: when they began to come, as far as labels tell, else when the incident began."""
    until: float | None
    """Unix time from which the action is asked for with what there is; None when it was before, and is asked again."""
    precision: float
    """How often ood decisions were right in the reference; what they lack of that since then is new. Where ``signal``
    is the recall, how often utterances that are ood were decided so."""
    signal: str = "ood_precision"
    """Which of ``signals.OOD_SIGNALS`` fell. An older sidecar knew of one."""

    @property
    def is_short(self) -> bool:
        """Whether fewer have come than are enough."""
        return self.have < self.need

    @property
    def words(self) -> str:
        """
        How many of how many, for people.

        >>> Awaited("discover_intents", 80, 23, since=1767268800.0, until=None, precision=0.7).words
        'about 23 utterances of what is new since 2026-01-01 12:00 UTC, 80 are enough'
        """
        since = datetime.fromtimestamp(self.since, UTC)
        return f"about {self.have} utterances of what is new since {since:%Y-%m-%d %H:%M} UTC, {self.need} are enough"

    def to_json(self) -> dict[str, Any]:
        """Every field by its name."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """What ``to_json`` gave."""
        return cls(**body)


@dataclass(frozen=True)
class ActionRequest:
    """One action, asked for once; the same request may reach its action several times, always under the same key."""

    key: str
    """The idempotency key, as in ``ece_up-20260101T120000/2-swap_calibrator``: ASCII, fit for a path."""
    incident: str
    """Id of the incident."""
    action: str
    """As in ``failure_modes.toml``."""
    stream: StreamKey
    asked_at: float
    """Unix time, seconds."""
    path: tuple[str, ...]
    """Labels of the walk that asks for it."""
    evidence: tuple[SignalRecord, ...]
    segment: str | None
    """The worst one, as in ``lang=ja-en``."""
    awaited: Awaited | None = None
    """What had come when it was asked for, if it waited for anything."""

    def to_json(self) -> dict[str, Any]:
        """What commands and webhooks receive."""
        return {
            "key": self.key,
            "incident": self.incident,
            "action": self.action,
            "stream": asdict(self.stream),
            "asked_at": self.asked_at,
            "path": list(self.path),
            "evidence": [record.to_json() for record in self.evidence],
            "segment": self.segment,
            "awaited": None if self.awaited is None else self.awaited.to_json(),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """What ``to_json`` gave."""
        return cls(
            body["key"],
            body["incident"],
            body["action"],
            StreamKey(**body["stream"]),
            body["asked_at"],
            tuple(body["path"]),
            tuple(SignalRecord.from_json(record) for record in body["evidence"]),
            body["segment"],
            # Missing where an older sidecar asked.
            None if body.get("awaited") is None else Awaited.from_json(body["awaited"]),
        )


@dataclass(frozen=True)
class ActionResult:
    """What came of a request, for good: a failure that may pass is raised as HookFailed instead."""

    outcome: ResultOutcome
    """``failed`` is final; ``nothing_to_do`` is a success that changed nothing, as when it was done before."""
    words: str
    """One sentence for people."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """
    Files written, names, numbers with n and interval. Kept as JSON gives it back: tuples as lists, numbers that are not
    finite as None. ValueError for what JSON cannot carry, at the place where it was put in.
    """
    signals: tuple[SignalRecord, ...] = ()
    """Measured by the action, as ``ece_after_refit``, which the next walk asks for."""

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES:
            raise ValueError(f"an outcome is one of {', '.join(OUTCOMES)}, got {self.outcome!r}")
        object.__setattr__(self, "detail", json_able(self.detail))

    def to_json(self) -> dict[str, Any]:
        """Every field by its name."""
        return {
            "outcome": self.outcome,
            "words": self.words,
            "detail": self.detail,
            "signals": [record.to_json() for record in self.signals],
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """What ``to_json`` gave."""
        signals = tuple(SignalRecord.from_json(record) for record in body["signals"])
        return cls(body["outcome"], body["words"], body["detail"], signals)


class Action(Protocol):
    """Does what a leaf of the tree names."""

    def run(self, request: ActionRequest, window: Window) -> ActionResult:
        """
        Do it; may block, on a thread of its own. Called again with the same key after a failure or a kill, so what was
        done under that key is not to be done twice. Raises HookFailed to be tried again.

        ``window`` is of the request's stream, copied when it was started.
        """


class Hook(Protocol):
    """Carries a request out of the process: a command, a webhook, a pipeline."""

    def send(self, request: ActionRequest, parameters: Mapping[str, str]) -> ActionResult:
        """
        As ``Action.run``. ``parameters`` name what the action prepared, as the file of production labels. Called from
        several threads at once when several actions use the hook.
        """


def json_able(value: Any) -> Any:
    """
    The value as JSON gives it back; raises ValueError for what it cannot carry.

    >>> json_able({"interval": (0.1, float("nan")), "n": 3})
    {'interval': [0.1, None], 'n': 3}
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return _finite(value)
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return {name: json_able(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [json_able(inner) for inner in value]
    raise ValueError(f"not for JSON: {type(value).__name__} {value!r:.80}")


def _finite(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None
