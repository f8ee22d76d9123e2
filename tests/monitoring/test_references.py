"""A reference gives every signal its number, and every followed signal a claim that its own stream does not refute."""

from dataclasses import replace

import numpy as np
import pytest

from monitoring.accuracy import error_reference
from monitoring.calibration import CALIBRATION_SIGNALS
from monitoring.drawn_streams import KEY, POLICY, QUIET, TAXONOMY, Change, DrawnSources, DrawnStream
from monitoring.label_join import StreamJoined
from monitoring.latency import LATENCY_SIGNALS, STAGES
from monitoring.reference_window import Reference, from_version, pin
from monitoring.references import (
    FEWEST_ROWS,
    FOLLOWED_SIGNALS,
    NO_REFERENCE,
    ReferenceNumbers,
    evidence_rows,
    reference_numbers,
)
from monitoring.rows import confidence_at, is_in_scope
from monitoring.sequential import start, update
from monitoring.signals import LABELLED_SIGNALS
from monitoring.unlabelled import FOLLOWED_SIGNALS as UNLABELLED_FOLLOWED
from monitoring.windows import Window
from tests.monitoring.watches import WATCHES

COSTS = DrawnSources().costs(TAXONOMY)


def pinned(stretch: StreamJoined, labelled: int) -> Reference:
    """All predictions of a stretch and so many of its labels."""
    vectors = stretch.embeddings.vectors
    window = Window(KEY, TAXONOMY, stretch.predictions, stretch.labelled[:labelled], vectors)
    return pin(window, np.random.default_rng(0))


def numbers_of(reference: Reference, temperature: float = 1.0) -> ReferenceNumbers:
    return reference_numbers(reference, temperature, TAXONOMY, COSTS, WATCHES, np.random.default_rng(0))


@pytest.fixture(scope="module")
def stretch() -> StreamJoined:
    """3,000 predictions, each with its label."""
    return DrawnStream(np.random.default_rng(1)).draw(3000)


@pytest.fixture(scope="module")
def numbers(stretch: StreamJoined) -> ReferenceNumbers:
    """Of all of them."""
    return numbers_of(pinned(stretch, 3000))


class TestNumbers:
    def test_every_signal_has_the_number_of_the_references_own_rows(
        self, stretch: StreamJoined, numbers: ReferenceNumbers
    ) -> None:
        """Shares, quantiles and counts are those of the stretch; none is missing; a reference has no delay."""
        scope = stretch.labelled[is_in_scope(stretch.labelled)]
        decided_ood = stretch.labelled[stretch.labelled["is_ood"]]
        true_ood = stretch.labelled[stretch.labelled["truth"][:, -1]]
        expected = {
            "accuracy": scope["is_correct"].mean(),
            "ood_precision": decided_ood["truth"][:, -1].mean(),
            "ood_recall": true_ood["is_ood"].mean(),
            "total_p95_ms": np.quantile(stretch.predictions["total_ms"], 0.95),
            "queue_p50_ms": np.quantile(stretch.predictions["queue_ms"], 0.5),
            "queue_share_of_delay": 0.0,
        }
        for name, value in expected.items():
            assert numbers.values[name] == pytest.approx(float(value), rel=1e-6), name
        assert set(numbers.values) == {*LABELLED_SIGNALS, *CALIBRATION_SIGNALS, *LATENCY_SIGNALS}
        assert np.isfinite(list(numbers.values.values())).all()
        slowest = stretch.predictions[stretch.predictions["total_ms"].argsort()[-150:]]
        assert numbers.tail_ms.tolist() == pytest.approx([float(slowest[f"{s}_ms"].mean()) for s in STAGES])

    def test_segments_are_those_of_the_labelled_rows(self, stretch: StreamJoined, numbers: ReferenceNumbers) -> None:
        """Each intent with its rows in scope."""
        scope = stretch.labelled[is_in_scope(stretch.labelled)]
        rows = scope[scope["truth"][:, 2]]
        segment = numbers.segments["intent=intent_2"]
        assert (segment.n, segment.correct) == (len(rows), int(rows["is_correct"].sum()))

    def test_numbers_are_at_the_temperature_the_reference_was_answered_under(self, stretch: StreamJoined) -> None:
        """The curve of errors, too: it is that of rows at that temperature."""
        at_two = numbers_of(pinned(stretch, 3000), temperature=2.0)
        scope = stretch.labelled[is_in_scope(stretch.labelled)]
        expected = error_reference(confidence_at(scope, 2.0), scope["is_correct"])
        assert at_two.errors is not None
        assert at_two.errors.curve.tolist() == expected.curve.tolist()
        assert at_two.values["ece"] > 0.05

    def test_version_has_neither_labels_nor_latencies(self, numbers: ReferenceNumbers) -> None:
        """Its profile is enough for what needs no label; nothing else gets a number or a claim."""
        assert numbers.profile is not None
        version = numbers_of(from_version(KEY, TAXONOMY, numbers.profile))
        assert set(version.claims) == set(UNLABELLED_FOLLOWED)
        assert np.isnan(list(version.values.values())).all()
        assert version.segments == {}
        assert NO_REFERENCE.claims == {}

    def test_signal_of_a_handful_of_rows_is_not_known(self, stretch: StreamJoined) -> None:
        """An ood precision of fewer rows than that is no number to be compared with."""
        few = int(np.flatnonzero(stretch.labelled["is_ood"])[FEWEST_ROWS - 1])
        few_numbers = numbers_of(pinned(stretch, few))
        assert np.isnan(few_numbers.values["ood_precision"])
        assert "ood_precision" not in few_numbers.claims
        assert np.isfinite(numbers_of(pinned(stretch, few + 1)).values["ood_precision"])
        few = int(np.flatnonzero(stretch.labelled["truth"][:, -1])[FEWEST_ROWS - 1])
        few_numbers = numbers_of(pinned(stretch, few))
        assert np.isnan(few_numbers.values["ood_recall"])
        assert "ood_recall" not in few_numbers.claims
        assert "ood_recall" in numbers_of(pinned(stretch, few + 1)).claims


class TestClaims:
    def test_every_followed_signal_has_a_claim_and_rows(self, stretch: StreamJoined, numbers: ReferenceNumbers) -> None:
        """As many columns as the claim has streams."""
        rows = evidence_rows(numbers, WATCHES, stretch.predictions, stretch.labelled, TAXONOMY)
        assert set(numbers.claims) == set(rows) == FOLLOWED_SIGNALS
        for name, (values, _) in rows.items():
            assert values.shape[1] == len(numbers.claims[name].bounds), name

    def test_rows_are_those_that_the_signal_is_about(self, stretch: StreamJoined, numbers: ReferenceNumbers) -> None:
        """In scope, decided ood, labelled ood, or all; without labels nothing is said of what needs them."""
        rows = evidence_rows(numbers, WATCHES, stretch.predictions[:100], stretch.labelled[:500], TAXONOMY)
        labelled = stretch.labelled[:500]
        counts = {name: len(values) for name, (values, _) in rows.items()}
        assert counts["accuracy"] == counts["ece"] == int(is_in_scope(labelled).sum())
        assert counts["ood_precision"] == int(labelled["is_ood"].sum())
        assert counts["ood_recall"] == int(labelled["truth"][:, -1].sum())
        missed = labelled["truth"][:, -1] & ~labelled["is_ood"]
        assert rows["ood_recall"][0].sum() == missed.sum() > 0
        assert counts["total_p95_ms"] == counts["energy_ks"] == 100
        only = evidence_rows(numbers, WATCHES, stretch.predictions[:100], stretch.labelled[:0], TAXONOMY)
        assert set(only) == {"total_p95_ms", *UNLABELLED_FOLLOWED}
        assert evidence_rows(NO_REFERENCE, WATCHES, stretch.predictions, stretch.labelled, TAXONOMY) == {}

    def test_policy_revision_moves_the_calibration_and_not_the_accuracy(
        self, stretch: StreamJoined, numbers: ReferenceNumbers
    ) -> None:
        """The same messages answered at another temperature err no more often, but are surer of it."""
        revision = replace(POLICY, revision=2, temperature=0.5)
        answered = DrawnStream(np.random.default_rng(1), policy=revision).draw(3000)
        assert answered.labelled["logits"].tolist() == stretch.labelled["logits"].tolist()
        before = evidence_rows(numbers, WATCHES, stretch.predictions, stretch.labelled, TAXONOMY)
        after = evidence_rows(numbers, WATCHES, answered.predictions, answered.labelled, TAXONOMY)
        for rows_before, rows_after in zip(before["accuracy"], after["accuracy"], strict=True):
            np.testing.assert_array_equal(rows_before, rows_after)
        assert np.nanmean(after["ece"][0][:, 0]) > np.nanmean(before["ece"][0][:, 0]) + 0.01

    def test_few_ood_rows_of_a_reference_are_not_taken_at_their_word(self, stretch: StreamJoined) -> None:
        """A reference whose few ood decisions all happened to be right does not accuse the same stream later."""
        lucky = stretch.labelled[~stretch.labelled["is_ood"] | stretch.labelled["truth"][:, -1]]
        numbers = numbers_of(pinned(replace(stretch, labelled=lucky), 500))
        claim = numbers.claims["ood_precision"]
        assert numbers.values["ood_precision"] == 1.0
        assert claim.bounds[0] > 0.1
        is_right = np.random.default_rng(3).random((2000, 1)) < 0.93
        assert not update(start(claim), claim, 1.0 - is_right).has_detected

    def test_few_ood_rows_that_were_all_found_are_not_taken_at_their_word(self, stretch: StreamJoined) -> None:
        """Nor is a reference's recall; a fall that is larger than its error is found all the same."""
        lucky = stretch.labelled[stretch.labelled["is_ood"] | ~stretch.labelled["truth"][:, -1]]
        numbers = numbers_of(pinned(replace(stretch, labelled=lucky), 500))
        claim = numbers.claims["ood_recall"]
        assert numbers.values["ood_recall"] == 1.0
        assert claim.bounds[0] > 0.1
        rng = np.random.default_rng(3)
        assert not update(start(claim), claim, (rng.random((2000, 1)) < 0.07).astype(float)).has_detected
        assert update(start(claim), claim, (rng.random((150, 1)) < 0.5).astype(float)).has_detected

    def test_digest_tells_claims_apart(self, stretch: StreamJoined, numbers: ReferenceNumbers) -> None:
        """The same reference gives the same digest; other labels, another threshold or no claim another one."""
        again = numbers_of(pinned(stretch, 3000))
        fewer = numbers_of(pinned(stretch, 2000))
        watches = {**WATCHES, "total_p95_ms": replace(WATCHES["total_p95_ms"], rows_per_false_alarm=2e6)}
        reference = pinned(stretch, 3000)
        stricter = reference_numbers(reference, 1.0, TAXONOMY, COSTS, watches, np.random.default_rng(0))
        assert again.digest == numbers.digest
        assert len({one.digest for one in (numbers, fewer, stricter, NO_REFERENCE)}) == 4


@pytest.mark.parametrize(
    ("change", "signals"),
    [
        (Change(lost_accuracy=0.06), {"accuracy", "ece"}),
        (Change(sharpness=1.8), {"ece", "confidence_ks", "ood_recall"}),
        (Change(delay_ms=4.0), {"total_p95_ms"}),
        (Change(ood_share=0.2), {"ood_rate", "energy_ks", "prior_shift"}),
        (Change(moved_prior=0.1), {"prior_shift"}),
    ],
)
def test_change_refutes_its_claims_and_a_quiet_stream_none(
    numbers: ReferenceNumbers, change: Change, signals: set[str]
) -> None:
    """4,000 quiet rows raise nothing; 4,000 changed ones refute at least the claims that the change is about."""
    stream = DrawnStream(np.random.default_rng(7))
    evidence = {name: start(claim) for name, claim in numbers.claims.items()}
    for what in (QUIET, change):
        assert not any(held.has_detected for held in evidence.values())
        part = stream.draw(4000, what)
        for name, (values, bounds) in evidence_rows(
            numbers, WATCHES, part.predictions, part.labelled, TAXONOMY
        ).items():
            evidence[name] = update(evidence[name], numbers.claims[name], values, bounds)
    assert {name for name, held in evidence.items() if held.has_detected} >= signals
