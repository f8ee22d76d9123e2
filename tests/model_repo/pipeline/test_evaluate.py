"""The report gives every figure with its interval, count and data, for any taxonomy, and the pictures are written."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_repo.contract.bootstrap import Figure
from model_repo.contract.costs import cost_matrix
from model_repo.contract.errors import BadPolicy
from model_repo.contract.labels import LabelledUtterance, Taxonomy
from model_repo.contract.manifest import Manifest
from model_repo.contract.outputs import ModelOutputs
from model_repo.contract.policy import Policy
from model_repo.pipeline.evaluate import compare, evaluate, to_json
from model_repo.pipeline.measures import Judged, judge
from model_repo.pipeline.model_card import DataSource, Purpose, model_card
from model_repo.pipeline.plots import draw
from tests.model_repo.pipeline.simulated import TAXONOMY, simulated

POLICY = Policy("1", 1, 1.0, (0.2,) * 4, 1.0, -1.5, 0.5, 0.95)
RESAMPLES = 200


def judged_sample(n: int = 300, **changes: float) -> tuple[Judged, list[LabelledUtterance]]:
    """Simulated utterances with their decisions."""
    outputs, utterances = simulated(n, 0, several_share=0.2, **changes)
    return judge(outputs, POLICY, utterances, TAXONOMY), utterances


def report_of(judged: Judged, utterances: list[LabelledUtterance]) -> dict[str, Any]:
    """The report, few resamples."""
    return evaluate(judged, utterances, "simulated", np.random.default_rng(0), RESAMPLES)


def figures_of(report: Mapping[str, Any]) -> list[Figure]:
    """Every figure at whatever depth."""
    found: list[Figure] = []
    for value in report.values():
        found += [value] if isinstance(value, Figure) else figures_of(value)
    return found


class TestReport:
    def test_every_figure_has_an_interval_that_holds_it_a_count_and_its_data(self) -> None:
        """At every depth of the report."""
        figures = figures_of(report_of(*judged_sample()))
        assert len(figures) > 50
        for figure in figures:
            assert figure.low <= figure.value <= figure.high
            assert figure.n > 0
            assert figure.data.startswith("simulated")

    def test_measures_agree_with_their_definition(self) -> None:
        """Counted by hand from the decisions, one utterance at a time."""
        judged, utterances = judged_sample()
        overall = report_of(judged, utterances)["overall"]
        rows = range(len(utterances))
        named = [[TAXONOMY.intents[k] for k in judged.decisions.accepted(r)] for r in rows]
        top = [TAXONOMY.intents[k] for k in judged.decisions.top]
        known = [r for r in rows if not utterances[r].is_ood]
        refunds = [r for r in rows if "refund" in utterances[r].intents]
        by_hand = {
            "intents.accuracy": np.mean([top[r] in utterances[r].intents for r in known]),
            "served.exact_match": np.mean([set(named[r]) == set(utterances[r].intents) for r in rows]),
            "served.recall.refund": np.mean(["refund" in named[r] for r in refunds]),
            "ood.recall": np.mean([not named[r] for r in rows if utterances[r].is_ood]),
            "ood.in_scope_kept": np.mean([bool(named[r]) for r in known]),
        }
        for name, value in by_hand.items():
            assert overall[name].value == pytest.approx(value, abs=1e-12), name
        assert overall["served.recall.refund"].n == len(refunds)

    def test_slices_count_their_own_rows_and_small_ones_are_left_out(self) -> None:
        """A hundred utterances a language; no origin but the one there is."""
        report = report_of(*judged_sample())
        assert {name: figures["served.accuracy"].n for name, figures in report["by_language"].items()} == {
            "en": 100,
            "ja": 100,
            "mix": 100,
        }
        assert list(report["by_origin"]) == ["authored"]
        assert report_of(*judged_sample(45))["by_language"] == {}

    def test_gap_to_english_is_the_difference_of_the_accuracies(self) -> None:
        """With an interval of its own, wider than either."""
        report = report_of(*judged_sample())
        english, mixed = (report["by_language"][lang]["intents.accuracy"] for lang in ("en", "mix"))
        gap = report["minus_english"]["mix"]
        assert gap.value == pytest.approx(mixed.value - english.value)
        assert gap.high - gap.low > max(f.high - f.low for f in (english, mixed))

    def test_data_without_ood_has_no_ood_figures(self) -> None:
        """Left out, not invented; so are recalls of intents that nobody carries."""
        overall = report_of(*judged_sample(ood_share=0.0))["overall"]
        assert not [name for name in overall if name.startswith("ood.")]

    def test_json_keeps_every_figure(self) -> None:
        """Value, ends, count and data."""
        report = report_of(*judged_sample())
        written = to_json(report)["overall"]["ood.auroc"]
        assert Figure.from_json(written).value == pytest.approx(report["overall"]["ood.auroc"].value, abs=1e-6)

    def test_costs_change_the_business_error_alone(self) -> None:
        """Twice the cost of every mistake is twice the business error."""
        outputs, utterances = simulated(200, 1)
        reports = [
            report_of(judge(outputs, POLICY, utterances, TAXONOMY, cost_matrix({"default": c}, TAXONOMY)), utterances)
            for c in (1.0, 2.0)
        ]
        one, two = (report["overall"] for report in reports)
        assert two["served.business_error"].value == pytest.approx(2 * one["served.business_error"].value)
        assert one["served.accuracy"] == two["served.accuracy"]

    def test_policy_of_another_taxonomy_is_refused(self) -> None:
        """One threshold an intent, or nothing."""
        outputs, utterances = simulated(30, 2)
        with pytest.raises(BadPolicy, match="2 thresholds for 4 intents"):
            judge(outputs, Policy("1", 1, 1.0, (0.2, 0.2), 1.0, 0.0, 0.5, 0.95), utterances, TAXONOMY)


def test_published_figure_inside_the_interval_is_level() -> None:
    """Outside it the direction decides, and for an error lower is better."""
    figure = Figure(0.10, 0.08, 0.12, 1000, "clinc150 test")
    assert compare(0.11, figure).endswith("level")
    assert compare(0.20, figure).endswith("worse")
    assert compare(0.20, figure, higher_is_better=False).endswith("better")


class TestPictures:
    def test_each_is_a_small_png(self, tmp_path: Path) -> None:
        """Three files under 150 KB."""
        judged, _ = judged_sample()
        files = draw(judged, POLICY, "simulated", np.random.default_rng(0), tmp_path)
        assert sorted(f.name for f in files) == ["confusion.png", "ood_scores.png", "reliability.png"]
        for file in files:
            assert file.read_bytes().startswith(b"\x89PNG")
            assert file.stat().st_size < 150_000

    def test_without_ood_there_are_no_ood_scores(self, tmp_path: Path) -> None:
        """Nor for a hundred and fifty intents a name on every cell."""
        classes, rng = 150, np.random.default_rng(1)
        many = Taxonomy(tuple(f"intent {k}" for k in range(classes)))
        outputs = ModelOutputs(rng.normal(size=(200, classes)) * 3, np.zeros(200), np.zeros((200, 2)))
        utterances = [LabelledUtterance(f"message {r}", (many.intents[r % classes],), False) for r in range(200)]
        policy = Policy("1", 1, 1.0, (0.5,) * classes, 1.0, 99.0, 1.0, 0.95)
        judged = judge(outputs, policy, utterances, many)
        files = draw(judged, policy, "many intents", rng, tmp_path)
        assert sorted(f.name for f in files) == ["confusion.png", "reliability.png"]
        assert all(f.stat().st_size < 150_000 for f in files)


class TestModelCard:
    MANIFEST = Manifest("7", TAXONOMY, "2026-01-02T03:04:05Z", "openvino", "bf16", 128, 42, {}, {"base": "some-base"})
    PURPOSE = Purpose("Route messages.", "Anything else.", ("It reads no pictures.",), ("It may err.",), "the team")

    def card(self, licence: str = "CC BY 4.0", **training: object) -> str:
        """A card of the simulated report."""
        report = to_json(report_of(*judged_sample()))
        sources = [
            DataSource("set a", licence, "authored", "this repository", 1_000, "train"),
            DataSource("set b", "MIT", "live", "https://example.org/b", 50, "test"),
        ]
        manifest = replace(self.MANIFEST, training={**self.MANIFEST.training, **training})
        return model_card(manifest, report, sources, self.PURPOSE, ["make train"], ["reliability.png"])

    def test_has_the_published_sections_in_order(self) -> None:
        """Those of Mitchell et al. 2019, and how to reproduce."""
        titles = [line[3:] for line in self.card().splitlines() if line.startswith("## ")]
        assert titles == [
            "Model details",
            "Intended use",
            "Factors",
            "Metrics",
            "Evaluation data",
            "Training data",
            "Quantitative analyses",
            "Ethical considerations",
            "Caveats and limits",
            "How to reproduce",
        ]

    def test_names_every_source_licence_and_figure(self) -> None:
        """Nothing measured is left out, and what was recorded stands there."""
        card = self.card()
        report = report_of(*judged_sample())["overall"]
        for text in ("set a", "CC BY 4.0", "https://example.org/b", "some-base", "make train", *report):
            assert text in card

    def test_says_how_the_weights_came_about(self) -> None:
        """From one seed or several, and whether they were trained in 8 bits."""
        assert "(UTC), seed 42\n" in self.card()
        averaged = self.card(averaged_seeds=[1, 2], quantised={"epochs": 1})
        assert "(UTC), mean of the weights of seeds `1`, `2`, trained on in 8 bits\n" in averaged
        assert "(UTC), seed 42, rounded to 8 bits\n" in self.card(quantised={"epochs": 0})
        assert "(2 x 64 hidden units)" in self.card(membership={"seeds": [1, 2], "units": 64})
        assert "hidden units" not in self.card()

    def test_source_without_a_licence_is_refused_by_name(self) -> None:
        """A version is trained only on text whose licence is known."""
        with pytest.raises(ValueError, match="set a"):
            self.card(licence=" ")
