"""
Who may come in, so that what is admitted stays inside the latency budget; the rest is refused at the door, at once.

By Little's law the time inside is the number inside over the rate of answers, so bounding the number bounds the time.
The rate depends on the machine and the messages, so the bound is not computed but steered: every tenth of a second
the 95th percentile of the time inside is held against the target. Above it the bound shrinks in proportion, below it
the bound grows slowly: the fast-down, slow-up rule of congestion control.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from model_repo.contract.tuning import lowered
from service.errors import Overloaded

WINDOW_S = 0.1
"""Time between two adjustments. Shorter reacts to chance, longer lets a sudden overload last."""
WINDOW_ANSWERS = 20
"""Fewer answers say nothing of a 95th percentile; a window lasts until it has them."""
GROWTH = 0.1
"""A tenth a window: after an overload the full bound is back within about two seconds."""


@dataclass(frozen=True)
class AdmissionLimits:
    """Where the bound may move."""

    target_ms: float
    least: int
    most: int


class Admission:
    """Counts who is inside. Belongs to the event loop: no locks."""

    def __init__(self, limits: AdmissionLimits, record: Callable[[int, int], None]) -> None:
        """``record`` is told the number inside and the bound: after each window, and when the last one leaves."""
        self._settings = limits
        self._limits = limits
        self._record = record
        self.in_flight = 0
        self.limit = limits.most
        self._seconds: list[float] = []
        self._window_began = 0.0
        record(0, self.limit)

    @property
    def most(self) -> int:
        """How high the bound may go: what the settings say, or less where the deployment is tuned."""
        return self._limits.most

    def tune(self, most: int | None) -> None:
        """
        Lower how high the bound may go, at once; None gives it back to the settings. Never below ``least``.

        Those inside stay. A bound that was as high as it might be is so afterwards; a steered one grows by itself.
        """
        was_highest = self.limit == self._limits.most
        highest = max(self._settings.least, lowered(self._settings.most, most))
        self._limits = replace(self._settings, most=highest)
        self.limit = highest if was_highest else min(self.limit, highest)
        self._record(self.in_flight, self.limit)

    def enter(self, utterances: int = 1) -> None:
        """Admit utterances or raise Overloaded. Into an empty service comes a whole batch, whatever the bound."""
        if self.in_flight and self.in_flight + utterances > self.limit:
            raise Overloaded(f"{self.in_flight} utterances are inside, at most {self.limit} may be at this moment")
        self.in_flight += utterances

    def leave(self, utterances: int = 1) -> None:
        """Answered, failed or gone: the place is free."""
        self.in_flight -= utterances
        if self.in_flight == 0:
            self._record(0, self.limit)

    def observe(self, seconds: float, now: float) -> None:
        """An answer took this long inside. ``now`` is monotonic, in seconds."""
        self._seconds.append(seconds)
        if len(self._seconds) >= WINDOW_ANSWERS and now - self._window_began >= WINDOW_S:
            self.limit = next_limit(self.limit, percentile_95(self._seconds) * 1e3, self._limits)
            self._record(self.in_flight, self.limit)
            self._seconds.clear()
            self._window_began = now


def next_limit(limit: int, p95_ms: float, limits: AdmissionLimits) -> int:
    """
    The bound for the next window.

    >>> limits = AdmissionLimits(target_ms=10.0, least=4, most=64)
    >>> next_limit(64, 40.0, limits), next_limit(16, 9.0, limits), next_limit(4, 100.0, limits)
    (16, 18, 4)
    """
    steered = limit * limits.target_ms / p95_ms if p95_ms > limits.target_ms else math.ceil(limit * (1.0 + GROWTH))
    return max(limits.least, min(limits.most, int(steered)))


def percentile_95(values: Sequence[float]) -> float:
    """
    The smallest value that at least 95% do not exceed; ``values`` must not be empty.

    >>> percentile_95([float(k) for k in range(1, 101)])
    95.0
    """
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]
