"""How the highest rate that holds is looked for: geometric steps up to the first failure, then bisection. Pure."""

from dataclasses import dataclass, replace

LOWEST_RATE = 1.0


@dataclass(frozen=True)
class RateSearch:
    """What is known so far, in requests a second; a new one comes from each trial."""

    start: float
    factor: float = 1.6
    resolution: float = 0.05
    """The search ends when the lowest failure is within this share of the highest success."""
    held: float = 0.0
    failed: float | None = None

    def next_rate(self) -> float | None:
        """
        The rate to try next; None when the search is over.

        >>> RateSearch(100.0).next_rate(), RateSearch(100.0, held=100.0).next_rate()
        (100.0, 160.0)
        >>> RateSearch(100.0, held=100.0, failed=160.0).next_rate(), RateSearch(100.0, failed=100.0).next_rate()
        (126.0, 62.0)
        >>> RateSearch(100.0, held=100.0, failed=104.0).next_rate() is None
        True
        """
        if self.failed is None:
            return _whole(self.held * self.factor if self.held else self.start)
        if not self.held:
            return _whole(self.failed / self.factor) if self.failed > LOWEST_RATE else None
        if self.failed - self.held <= self.held * self.resolution or self.failed - self.held <= 1.0:
            return None
        # The geometric mean halves what is left in relative terms.
        return _whole((self.held * self.failed) ** 0.5)

    def after(self, rate: float, has_held: bool) -> "RateSearch":
        """What is known once ``rate`` was tried."""
        if has_held:
            return replace(self, held=max(self.held, rate))
        return replace(self, failed=rate if self.failed is None else min(self.failed, rate))


def _whole(rate: float) -> float:
    return max(LOWEST_RATE, float(round(rate)))
