"""Signals of labels: their numbers are the published ones, their verdicts need evidence and a change that matters."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import f1_score, log_loss

from model_repo.contract.bootstrap import Measure
from model_repo.contract.errors import CannotMeasure
from monitoring.sequential import start, update
from monitoring.signals import (
    LABELLED_SIGNALS,
    LabelledRows,
    Verdict,
    Watch,
    labelled_signals,
    mean_claim,
    mean_signal,
    mean_values,
    measured_signal,
)
from tests.monitoring.watches import DETECTED, NOTHING, WATCHES

WATCH = Watch("down", threshold=0.01, tolerated=0.005, minimum_rows=100, rows_per_false_alarm=20_000)


def labelled_rows(n: int, seed: int = 0, intents: int = 4) -> LabelledRows:
    """Calibrated decisions with single labels, one in ten of them ood, half of which are decided so."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(intents, 0.3), n)
    labels = (probabilities.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    is_out = rng.random(n) < 0.1
    is_ood = np.where(is_out, rng.random(n) < 0.5, rng.random(n) < 0.05)
    targets = np.eye(intents, dtype=bool)[labels] & ~is_out[:, None]
    top = probabilities.argmax(axis=1)
    accepted = np.eye(intents, dtype=bool)[top] & ~is_ood[:, None]
    return LabelledRows(probabilities, top, is_ood, accepted, targets, rng.random(n))


class TestNumbers:
    def test_every_labelled_signal_is_measured_as_elsewhere(self) -> None:
        """Macro-F1 and NLL agree with scikit-learn, Brier and the shares with their definitions, to 1e-6."""
        rows = labelled_rows(800)
        references = dict.fromkeys(LABELLED_SIGNALS, 0.5)
        signals = labelled_signals(rows, WATCHES, references, {}, np.random.default_rng(0))
        got = {signal.name: signal for signal in signals}
        assert tuple(got) == LABELLED_SIGNALS
        scope, true = rows.is_in_scope, np.where(rows.is_in_scope, rows.targets.argmax(axis=1), 4)
        decided = np.where(rows.is_ood, 4, rows.top)
        inside, labels = rows.probabilities[scope], true[scope]
        expected = {
            "accuracy": np.mean(rows.top[scope] == labels),
            "macro_f1": f1_score(true, decided, average="macro"),
            "brier": np.mean(np.sum((inside - np.eye(4)[labels]) ** 2, axis=1)),
            "nll": log_loss(labels, inside, labels=range(4)),
            "business_error": rows.costs.mean(),
            "ood_precision": np.mean(~scope[rows.is_ood]),
            "ood_recall": np.mean(rows.is_ood[~scope]),
        }
        for name, value in expected.items():
            assert got[name].value == pytest.approx(float(value), abs=1e-6), name
            assert got[name].low <= got[name].value <= got[name].high
        assert got["ood_precision"].n == int(rows.is_ood.sum())

    def test_window_without_labels_measures_nothing_and_says_so(self) -> None:
        """Every labelled signal of no rows is inconclusive, with no number."""
        references = dict.fromkeys(LABELLED_SIGNALS, 0.5)
        none = labelled_rows(5)
        empty = LabelledRows(*(getattr(none, name)[:0] for name in LabelledRows.__dataclass_fields__))
        for signal in labelled_signals(empty, WATCHES, references, {}, np.random.default_rng(0)):
            assert (signal.verdict, signal.n) == (Verdict.INCONCLUSIVE, 0)
            assert np.isnan(signal.value)


class TestVerdicts:
    def test_too_few_rows_never_fire(self) -> None:
        """A window below its minimum is inconclusive, whatever the evidence and the value."""
        signal = mean_signal("accuracy", np.zeros(99, dtype=bool), WATCH, 0.9, DETECTED)
        assert signal.verdict is Verdict.INCONCLUSIVE

    def test_estimate_without_evidence_is_no_breach(self) -> None:
        """A window three points down by chance does not fire while the stream's evidence is silent."""
        signal = mean_signal("accuracy", np.repeat([True, False], [261, 39]), WATCH, 0.9, NOTHING)
        assert signal.value == pytest.approx(0.87)
        assert signal.verdict is Verdict.OK

    def test_evidence_with_an_estimate_gives_a_breach_and_recovery_an_ok(self) -> None:
        """After detection the verdict follows the window: breached, held near the threshold, ok when back."""
        values = {0.87: Verdict.BREACHED, 0.8925: Verdict.INCONCLUSIVE, 0.90: Verdict.OK}
        for value, verdict in values.items():
            rows = np.repeat([True, False], [round(value * 400), 400 - round(value * 400)])
            assert mean_signal("accuracy", rows, WATCH, 0.9, DETECTED).verdict is verdict

    def test_window_alone_needs_its_whole_strict_interval_beyond_what_is_tolerated(self) -> None:
        """Without a followed stream, 5 points down in 200 rows is too little to tell, 30 points is not."""
        for wrong, verdict in ((30, Verdict.OK), (80, Verdict.BREACHED)):
            rows = np.repeat([True, False], [200 - wrong, wrong])
            assert mean_signal("accuracy", rows, WATCH, 0.9).verdict is verdict

    def test_either_direction_is_followed(self) -> None:
        """A rate that must not move is refuted from above and from below."""
        watch = replace(WATCH, worse="either", threshold=0.03, tolerated=0.015)
        claim = mean_claim(watch, 0.2)
        assert claim.bounds.tolist() == pytest.approx([0.215, 0.815])
        for share in (0.0, 1.0):
            assert update(start(claim), claim, mean_values(watch, np.full(200, share))).has_detected

    def test_followed_mean_is_found_to_fall(self) -> None:
        """Eight points down from 92% is found within 1,000 rows, after a quiet start."""
        claim = mean_claim(WATCH, 0.92)
        rng = np.random.default_rng(5)
        evidence = update(start(claim), claim, mean_values(WATCH, rng.random(3000) < 0.92))
        assert not evidence.has_detected
        evidence = update(evidence, claim, mean_values(WATCH, rng.random(1000) < 0.84))
        assert evidence.has_detected

    def test_measure_that_is_no_mean_is_judged_by_a_stricter_interval(self) -> None:
        """A change outside the 95% interval but inside that of all looks is no breach."""
        watch = Watch("up", threshold=0.1, tolerated=0.0, minimum_rows=100, rows_per_false_alarm=1e6)
        values = np.random.default_rng(6).normal(0.0, 1.0, 400)
        values += 0.13 - values.mean()
        measure = Measure(lambda weights: np.asarray(weights @ values / weights.sum(axis=-1)), 400)
        close = measured_signal("nll", measure, 400, watch, 0.0, np.random.default_rng(0))
        assert close.low > 0.0
        assert close.verdict is Verdict.OK
        values += 0.2
        assert measured_signal("nll", measure, 400, watch, 0.0, np.random.default_rng(0)).verdict is Verdict.BREACHED

    @pytest.mark.parametrize("change", [{"worse": "left"}, {"tolerated": 0.5}, {"minimum_rows": 0}])
    def test_watch_that_makes_no_sense_is_refused(self, change: dict[str, object]) -> None:
        """The message names the field."""
        fields = {"worse": "up", "threshold": 0.1, "tolerated": 0.0, "minimum_rows": 10} | change
        with pytest.raises(CannotMeasure, match=next(iter(change))):
            Watch(**fields)  # type: ignore[arg-type]
