"""Bootstrap intervals cover what they should, hold their value, and stay within their memory."""

from collections.abc import Callable

import numpy as np
import pytest

from model_repo.contract import calibration_error, metrics, ranking
from model_repo.contract.bootstrap import CHUNK_CELLS, Figure, Interval, Measure, bootstrap, resampled_weights
from model_repo.contract.calibration_error import BinCounts
from model_repo.contract.errors import CannotMeasure
from model_repo.contract.outputs import FloatArray

TRIALS, RESAMPLES = 300, 400


def test_interval_of_an_accuracy_covers_the_truth() -> None:
    """Over 300 seeded samples of 200 rows the 95% interval holds the true accuracy about 95% of the time."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(TRIALS):
        is_correct = rng.random(200) < 0.8
        figure = bootstrap({"accuracy": hit_rate(is_correct)}, 200, "simulated", rng, RESAMPLES)["accuracy"]
        held += figure.low <= 0.8 <= figure.high
    assert 0.91 <= held / TRIALS <= 0.985


def test_interval_of_an_auroc_covers_the_truth() -> None:
    """Two normals one standard deviation apart have AUROC Phi(1 / sqrt 2) = 0.7602."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(TRIALS):
        is_ood = np.arange(150) < 50
        score = rng.normal(size=150) + is_ood
        figure = bootstrap({"auroc": separation(score, is_ood)}, 150, "simulated", rng, RESAMPLES)["auroc"]
        held += figure.low <= 0.7602 <= figure.high
    assert 0.90 <= held / TRIALS <= 0.985


@pytest.mark.parametrize("gap", [0.0, 0.08])
def test_interval_of_an_ece_covers_the_truth(gap: float) -> None:
    """A true ECE of zero, where percentiles always fail, about nine times in ten; a true one of 0.08 as it should."""
    rng = np.random.default_rng(2)
    held = []
    for _ in range(TRIALS // 2):
        confidence, is_correct = miscalibrated(gap, rng)
        figure = bootstrap({"ece": ece(confidence, is_correct, "plug_in")}, 400, "simulated", rng, RESAMPLES)["ece"]
        held.append(figure.low <= gap <= figure.high)
    assert np.mean(held) >= (0.82 if gap == 0.0 else 0.92)


def test_percentiles_of_an_ece_miss_a_calibrated_model() -> None:
    """Why the ECE has an interval of its own: noise raises every resample above zero."""
    rng = np.random.default_rng(3)
    confidence, is_correct = miscalibrated(0.0, rng)
    measures = {kind: ece(confidence, is_correct, kind) for kind in ("percentile", "plug_in")}
    figures = bootstrap(measures, 400, "simulated", rng, RESAMPLES)
    assert figures["percentile"].low > 0.0
    assert figures["plug_in"].low == 0.0
    assert figures["plug_in"].low <= figures["plug_in"].value <= figures["plug_in"].high


def test_interval_of_the_debiased_squared_error_covers_the_truth() -> None:
    """Eight points of overconfidence everywhere are a squared error of 0.0064."""
    rng = np.random.default_rng(4)
    held = []
    for _ in range(TRIALS // 2):
        confidence, is_correct = miscalibrated(0.08, rng)
        measure = ece(confidence, is_correct, "centred", calibration_error.debiased_squared_error)
        figure = bootstrap({"squared": measure}, 400, "simulated", rng, RESAMPLES)["squared"]
        held.append(figure.low <= 0.0064 <= figure.high)
    assert np.mean(held) >= 0.88


def test_debiased_error_is_reported_with_the_interval_of_its_plug_in() -> None:
    """The estimate is the figure's value, and the interval is widened to hold it."""
    hits = np.arange(50) < 25
    plain = Measure(lambda w: metrics.accuracy(hits, w), 50)
    below = Measure(plain.of, 50, estimate=-0.1)
    figures = bootstrap({"plain": plain, "below": below}, 50, "simulated", np.random.default_rng(5), 500)
    assert (figures["below"].value, figures["below"].low) == (-0.1, -0.1)
    assert figures["below"].high == figures["plain"].high


def hit_rate(is_correct: np.ndarray) -> Measure:
    """Accuracy."""
    return Measure(lambda w: metrics.accuracy(is_correct, w), len(is_correct))


def separation(score: np.ndarray, is_ood: np.ndarray) -> Measure:
    """AUROC."""
    return Measure(lambda w: ranking.auroc(score, is_ood, w), len(score))


def miscalibrated(gap: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """400 confidences and outcomes that are right ``gap`` less often than said."""
    confidence = 0.4 + 0.6 * rng.random(400)
    return confidence, rng.random(400) < confidence - gap


def ece(
    confidence: np.ndarray,
    is_correct: np.ndarray,
    interval: Interval,
    error: Callable[[BinCounts], FloatArray] = calibration_error.expected_calibration_error,
) -> Measure:
    """A calibration error in 15 bins of equal width."""
    edges = calibration_error.equal_width_edges()
    return Measure(
        lambda w: error(calibration_error.bin_counts(confidence, is_correct, edges, w)), len(confidence), interval
    )


class TestResamples:
    def test_every_resample_draws_as_many_rows_as_there_are(self) -> None:
        """Chunks add up to the resamples asked for; no chunk holds more cells than the bound."""
        rows = 3_000
        chunks = list(resampled_weights(rows, 1_500, np.random.default_rng(4)))
        assert sum(len(chunk) for chunk in chunks) == 1_500
        assert len(chunks) > 1
        assert max(chunk.size for chunk in chunks) <= CHUNK_CELLS
        assert all((chunk.sum(axis=1) == rows).all() for chunk in chunks)

    def test_weights_have_the_moments_of_a_multinomial(self) -> None:
        """Mean 1, variance 1 - 1/n."""
        weights = np.concatenate(list(resampled_weights(10, 40_000, np.random.default_rng(5))))
        assert weights.mean(axis=0) == pytest.approx(np.ones(10), abs=0.03)
        assert weights.var(axis=0) == pytest.approx(np.full(10, 0.9), abs=0.04)

    def test_same_seed_gives_the_same_figure(self) -> None:
        """And another seed nearly the same one."""
        hits = np.arange(100) < 70
        measure = {"accuracy": Measure(lambda w: metrics.accuracy(hits, w), 100)}
        one, two, other = (
            bootstrap(measure, 100, "simulated", np.random.default_rng(s), 2_000)["accuracy"] for s in (6, 6, 7)
        )
        assert one == two
        assert other.low == pytest.approx(one.low, abs=0.02)


class TestDegenerateInput:
    def test_no_rows_are_refused(self) -> None:
        """A bootstrap of nothing says so."""
        with pytest.raises(CannotMeasure, match="at least one row"):
            bootstrap({}, 0, "nothing", np.random.default_rng(0))

    def test_measure_that_is_never_defined_names_itself_and_its_data(self) -> None:
        """NaN on the data is an error with the measure's name."""
        measure = Measure(lambda w: np.full(len(w), np.nan), 3)
        with pytest.raises(CannotMeasure, match="odd is not defined on three rows"):
            bootstrap({"odd": measure}, 3, "three rows", np.random.default_rng(0), 10)

    def test_resamples_without_a_value_are_left_out(self) -> None:
        """A recall of a rare label still gets an interval."""
        accepted, carried = np.array([True, False, True, True]), np.array([True, True, False, False])
        measure = Measure(lambda w: metrics.recall(accepted, carried, w), 2)
        figure = bootstrap({"recall": measure}, 4, "four rows", np.random.default_rng(0), 500)["recall"]
        assert (figure.value, figure.low, figure.high) == (0.5, 0.0, 1.0)


def test_figure_survives_json() -> None:
    """To six decimals; a missing field is named."""
    figure = Figure(0.123456, 0.1, 0.2, 1_234, "test")
    assert Figure.from_json(figure.to_json()) == figure
    with pytest.raises(CannotMeasure, match="'n'"):
        Figure.from_json({"value": 1.0, "low": 1.0, "high": 1.0, "data": "test"})
