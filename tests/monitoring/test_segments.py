"""A fall in one segment is laid to it, a broad one is not, and many segments raise no false one."""

import numpy as np
import pytest

from model_repo.contract.errors import CannotMeasure
from model_repo.contract.outputs import BoolArray
from monitoring.segments import SegmentReference, concentration_signal, segment_findings, worst_segment
from monitoring.signals import Verdict
from tests.monitoring.watches import WATCHES

REFERENCES = {f"intent={name}": SegmentReference(correct=276, n=300) for name in "abcdefgh"}
ACCURACY, CONCENTRATION = WATCHES["accuracy"], WATCHES["segment_concentration"]


def window(n: int, accuracy: dict[str, float], seed: int) -> tuple[BoolArray, dict[str, BoolArray]]:
    """n rows spread over eight intents, right with a chance of 92% unless said."""
    rng = np.random.default_rng(seed)
    intents = rng.choice(list("abcdefgh"), n)
    chances = np.array([accuracy.get(intent, 0.92) for intent in intents])
    return rng.random(n) < chances, {f"intent={name}": intents == name for name in "abcdefgh"}


class TestFindings:
    def test_corrupted_segment_is_named_and_holds_the_excess(self) -> None:
        """One of eight intents at 55% is found, alone, and the excess is concentrated in it."""
        is_correct, members = window(2000, {"c": 0.55}, seed=1)
        findings = segment_findings(is_correct, members, REFERENCES, 0.92, ACCURACY)
        assert [finding.name for finding in findings if finding.is_worse] == ["intent=c"]
        assert worst_segment(findings, CONCENTRATION) == "intent=c"
        assert findings[0].accuracy.verdict is Verdict.BREACHED
        signal = concentration_signal(findings, is_correct, 0.92, CONCENTRATION)
        assert signal.verdict is Verdict.BREACHED
        assert signal.low <= signal.value <= signal.high

    def test_broad_fall_is_laid_to_no_segment(self) -> None:
        """Every intent down by eight points: no one of them holds most of the excess."""
        is_correct, members = window(3000, dict.fromkeys("abcdefgh", 0.84), seed=2)
        findings = segment_findings(is_correct, members, REFERENCES, 0.92, ACCURACY)
        assert concentration_signal(findings, is_correct, 0.92, CONCENTRATION).verdict is Verdict.OK
        assert any(finding.is_worse for finding in findings)
        assert worst_segment(findings, CONCENTRATION) is None

    def test_quiet_windows_name_hardly_a_segment(self) -> None:
        """Of 40 quiet windows of 1,000 rows, 320 segments in all, three at most have one named."""
        named = 0
        for seed in range(40):
            is_correct, members = window(1000, {}, seed)
            named += any(
                finding.is_worse for finding in segment_findings(is_correct, members, REFERENCES, 0.92, ACCURACY)
            )
        assert named <= 3

    def test_large_segment_is_not_blamed_for_being_large(self) -> None:
        """Nine rows in ten share a language; a broad fall is not laid to it, nor is that of one intent."""
        references = REFERENCES | {"lang=en": SegmentReference(1987, 2160), "lang=ja": SegmentReference(221, 240)}
        is_english = np.random.default_rng(5).random(3000) < 0.9
        languages = {"lang=en": is_english, "lang=ja": ~is_english}
        for accuracy, verdict in ((dict.fromkeys("abcdefgh", 0.84), Verdict.OK), ({"c": 0.5}, Verdict.BREACHED)):
            is_correct, members = window(3000, accuracy, seed=6)
            findings = segment_findings(is_correct, members | languages, references, 0.92, ACCURACY)
            assert concentration_signal(findings, is_correct, 0.92, CONCENTRATION).verdict is verdict
            assert worst_segment(findings, CONCENTRATION) != "lang=en"

    def test_no_excess_holds(self) -> None:
        """A window as good as the reference has no excess to lay anywhere."""
        is_correct, members = window(1000, dict.fromkeys("abcdefgh", 1.0), seed=3)
        findings = segment_findings(is_correct, members, REFERENCES, 0.92, ACCURACY)
        assert worst_segment(findings, CONCENTRATION) is None
        assert concentration_signal(findings, is_correct, 0.92, CONCENTRATION).verdict is Verdict.INCONCLUSIVE

    def test_segment_without_rows_or_reference_is_borne(self) -> None:
        """An empty segment is inconclusive; one that the reference lacks is held to its dimension's accuracy."""
        is_correct, _ = window(400, {}, seed=4)
        members = {"intent=new": np.ones(400, dtype=bool), "intent=a": np.zeros(400, dtype=bool)}
        findings = {
            finding.name: finding for finding in segment_findings(is_correct, members, REFERENCES, 0.92, ACCURACY)
        }
        assert findings["intent=new"].accuracy.reference == pytest.approx(0.92)
        assert findings["intent=a"].accuracy.verdict is Verdict.INCONCLUSIVE
        assert segment_findings(is_correct, {}, REFERENCES, 0.92, ACCURACY) == []

    def test_dimension_without_reference_is_refused(self) -> None:
        """There is nothing to compare a channel with, rather than a guess."""
        everyone = np.ones(3, dtype=bool)
        with pytest.raises(CannotMeasure, match="channel"):
            segment_findings(everyone, {"channel=web": everyone}, REFERENCES, 0.92, ACCURACY)
