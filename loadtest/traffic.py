"""
Seeded traffic: labelled messages drawn so that the mix has the shares of real traffic.

Weights are found by raking (iterative proportional fitting, Deming and Stephan 1940): messages keep their own text and
the weighted shares of main intent, of several intents and of mixed language all meet their targets at once.
"""

import random
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loadtest.messages import Message

DEFAULT_MIX = Path(__file__).resolve().parent / "presets" / "traffic.toml"
MIXED_LANGUAGE = "mix"
_TOLERANCE = 1e-6


class BadMix(ValueError):
    """The traffic mix is not one, or the messages cannot give it."""


@dataclass(frozen=True)
class TrafficMix:
    """Shares of traffic, and how people send it."""

    priors: Mapping[str, float]
    """Share of each main intent, ``ood`` included; sums to 1."""
    multi_intent: float
    """Share of messages with two intents or more."""
    mixed_language: float
    """Share of messages that mix two languages."""
    duplicate: float
    """Chance that a message is sent a second time, as an impatient person does."""
    burst: float
    """Chance that a burst begins: messages with no pause between them."""
    burst_length: int
    """Messages of a burst."""
    pause_s: float
    """Mean pause between messages of one person, exponential."""

    def __post_init__(self) -> None:
        if abs(sum(self.priors.values()) - 1.0) > 1e-9:
            raise BadMix(f"priors must sum to 1, got {sum(self.priors.values()):.6f}")
        shares = {**self.priors, "multi_intent": self.multi_intent, "mixed_language": self.mixed_language}
        for name, share in {**shares, "duplicate": self.duplicate, "burst": self.burst}.items():
            if not 0.0 <= share < 1.0:
                raise BadMix(f"{name} must be at least 0 and below 1, got {share}")
        if self.burst_length < 2 or self.pause_s <= 0:
            raise BadMix(f"a burst has two messages or more and a pause is positive, got {self}")


def read_mix(path: Path = DEFAULT_MIX) -> TrafficMix:
    """The mix in a TOML file; raises BadMix for a key that is unknown or missing."""
    try:
        return TrafficMix(**tomllib.loads(path.read_text(encoding="utf-8")))
    except TypeError as error:
        raise BadMix(f"{path.name}: {error}") from error


@dataclass(frozen=True)
class Planned:
    """A message and the pause after it, in seconds."""

    text: str
    pause_s: float


def weigh(messages: Sequence[Message], mix: TrafficMix, rounds: int = 500) -> NDArray[np.float64]:
    """
    Probability of drawing each message, so that the weighted shares are the mix's; sums to 1.

    Raises BadMix when a share has no message to be drawn from, or when the shares contradict each other.
    """
    labels = np.array([message.main_label for message in messages])
    unknown = set(labels.tolist()) - set(mix.priors)
    if unknown:
        raise BadMix(f"messages of intents without a prior: {', '.join(sorted(unknown))}")
    targets = [(labels == label, share) for label, share in mix.priors.items()]
    for name, members, share in (
        ("multi_intent", np.array([len(message.intents) > 1 for message in messages]), mix.multi_intent),
        ("mixed_language", np.array([message.lang == MIXED_LANGUAGE for message in messages]), mix.mixed_language),
    ):
        if members.all() and share < 1.0:
            raise BadMix(f"{name}: every message has it, {share:.0%} should")
        targets += [(members, share), (~members, 1.0 - share)]
    for members, share in targets:
        if share > 0 and not members.any():
            raise BadMix(f"a share of {share:.0%} has no message to be drawn from; priors: {', '.join(mix.priors)}")
    weights = np.full(len(messages), 1.0 / len(messages))
    for _ in range(rounds):
        for members, share in targets:
            held = weights[members].sum()
            weights[members] *= share / held if held > 0 else 0.0
        if max(abs(weights[members].sum() - share) for members, share in targets) < _TOLERANCE:
            return np.asarray(weights / weights.sum())
    raise BadMix("the shares contradict each other: no weighting of these messages meets them all")


def traffic(
    messages: Sequence[Message], weights: NDArray[np.float64], mix: TrafficMix, rng: random.Random
) -> Iterator[Planned]:
    """What one person sends, without end; the same ``rng`` sends the same."""
    cumulative = np.cumsum(weights).tolist()
    burst_left = 0
    text = ""
    while True:
        if not text or rng.random() >= mix.duplicate:
            text = rng.choices(messages, cum_weights=cumulative)[0].text
        if burst_left == 0 and rng.random() < mix.burst:
            burst_left = mix.burst_length
        burst_left = max(0, burst_left - 1)
        yield Planned(text, 0.0 if burst_left else rng.expovariate(1.0 / mix.pause_s))
