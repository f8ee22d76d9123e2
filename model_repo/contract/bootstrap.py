"""A figure is a value with its 95% interval, its sample count and its data; intervals by the bootstrap."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from model_repo.contract.errors import CannotMeasure
from model_repo.contract.outputs import FloatArray

RESAMPLES = 10_000
"""The ends of an interval then move by about 2% of its width from one seed to another."""
LEVEL = 0.95
CHUNK_CELLS = 2_000_000
"""Weights held at once (16 MB): more does not go faster, and a measure makes a few copies of them."""

BIAS_AT_ZERO = 1.0 / (math.sqrt(2.0) - 1.0)
"""What a plug-in error's bias is of the bias its resamples show, when the true error is zero (see Measure.interval)."""

Interval = Literal["percentile", "plug_in", "centred"]


@dataclass(frozen=True)
class Figure:
    """One measured number. Without its interval, count and data it would not be a result."""

    value: float
    low: float
    high: float
    n: int
    """Rows that the measure is about, not rows of the file."""
    data: str
    """What it was measured on, as in ``manga test``."""

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}] (n = {self.n:,}, {self.data})"

    def to_json(self) -> dict[str, Any]:
        """As it stands in a manifest: six decimals."""
        ends = {name: round(getattr(self, name), 6) for name in ("value", "low", "high")}
        return {**ends, "n": self.n, "data": self.data}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Figure":
        """Inverse of ``to_json``, to six decimals; raises CannotMeasure naming the missing field."""
        try:
            return Figure(
                float(data["value"]), float(data["low"]), float(data["high"]), int(data["n"]), str(data["data"])
            )
        except KeyError as missing:
            raise CannotMeasure(f"a figure lacks the field {missing}") from None


@dataclass(frozen=True)
class Measure:
    """What to measure on each resample."""

    of: Callable[[FloatArray], FloatArray]
    """Weights (B, rows) -> (B,) values; NaN where a resample cannot give one."""
    n: int
    """Rows that it is about."""
    interval: Interval = "percentile"
    """
    ``percentile``: quantiles of the resamples, for a measure that is about unbiased.
    ``centred``: their distances from their own mean, reflected at the value; for a debiased measure, whose
    resamples are biased all the same.
    ``plug_in``: for a sum of absolute gaps such as the ECE, which noise only raises. When the gaps are noise alone,
    of standard deviation s, the bias is E|N(0, s^2)|, and resamples, which add noise once more, show sqrt 2 - 1 of
    it; when they are large both vanish. So the lower end is corrected by the largest bias there can be, the upper
    end by none.
    In simulations of 400 and 1,200 rows it holds a true ECE of 0 nine times in ten and of 0.02 or 0.08 at least
    as often as it should; percentiles never hold a true ECE of 0.
    """
    estimate: float | None = None
    """The value to report, when it is not what ``of`` gives: a debiased error has the interval of its plug-in."""


def bootstrap(
    measures: Mapping[str, Measure], rows: int, data: str, rng: np.random.Generator, resamples: int = RESAMPLES
) -> dict[str, Figure]:
    """
    Measure everything on the same resamples of ``rows`` rows; returns a figure for each measure.

    A resample that gives NaN is left out of that measure's interval. A proportion that is 0 or 1 on the data gets
    an interval without width: its ``n`` then says how much it means. Costs about 1 s for 1,250 rows and one measure.

    >>> hits = np.array([1.0, 1.0, 1.0, 0.0])
    >>> figures = bootstrap({"mean": Measure(lambda w: w @ hits / 4, n=4)}, 4, "four rows", np.random.default_rng(0))
    >>> print(figures["mean"])
    0.7500 [0.2500, 1.0000] (n = 4, four rows)
    """
    if rows < 1:
        raise CannotMeasure("a bootstrap needs at least one row, got none")
    values = {name: float(measure.of(np.ones((1, rows)))[0]) for name, measure in measures.items()}
    parts: dict[str, list[FloatArray]] = {name: [] for name in measures}
    for weights in resampled_weights(rows, resamples, rng):
        for name, measure in measures.items():
            parts[name].append(measure.of(weights))
    return {
        name: _figure(name, values[name], np.concatenate(parts[name]), measure, data)
        for name, measure in measures.items()
    }


def resampled_weights(rows: int, resamples: int, rng: np.random.Generator) -> Iterator[FloatArray]:
    """
    Multinomial weights, (chunk, rows) at a time: how often each row was drawn; each resample sums to ``rows``.

    >>> [weights.sum(axis=1).tolist() for weights in resampled_weights(3, 2, np.random.default_rng(0))]
    [[3.0, 3.0]]
    """
    chunk = max(1, CHUNK_CELLS // rows)
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        # Drawing rows and counting them is the same distribution as rng.multinomial, many times faster.
        drawn = rng.integers(0, rows, size=(size, rows)) + rows * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * rows).reshape(size, rows).astype(np.float64)


def _figure(name: str, value: float, resampled: FloatArray, measure: Measure, data: str) -> Figure:
    known = resampled[~np.isnan(resampled)]
    if np.isnan(value) or len(known) == 0:
        raise CannotMeasure(f"{name} is not defined on {data} ({measure.n} rows)")
    tail = (1.0 - LEVEL) / 2.0
    low, high = (float(q) for q in np.quantile(known, [tail, 1.0 - tail]))
    centre = float(known.mean())
    if measure.interval == "centred":
        low, high = value + centre - high, value + centre - low
    elif measure.interval == "plug_in":
        bias, reach = max(0.0, centre - value), max(high - centre, centre - low)
        low, high = max(0.0, value - BIAS_AT_ZERO * bias - reach), value + reach
    reported = value if measure.estimate is None else measure.estimate
    return Figure(reported, min(low, reported), max(high, reported), measure.n, data)
