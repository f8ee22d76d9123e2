"""A re-fit undoes a wrong temperature, or says that this is not the trouble; it is published once, in its place."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model_repo.contract.labels import Taxonomy
from model_repo.contract.policy import Policy
from model_repo.store import Store
from monitoring.errors import HookFailed
from monitoring.failure_tree import REFIT_SIGNAL
from monitoring.observations import Records, StreamKey
from monitoring.refit import RefitCalibrator, SwapCalibrator, proposal_name
from monitoring.remedies import ActionRequest, ActionResult, SignalRecord
from monitoring.signals import Verdict
from tests.monitoring.event_logs import TAXONOMY
from tests.monitoring.labelled_windows import (
    POLICY,
    changed_rows,
    labelled_rows,
    request_of,
    store_with_version,
    window_of,
)
from tests.monitoring.watches import WATCHES, signal_of

WATCH = WATCHES[REFIT_SIGNAL]
ECE = SignalRecord.of_signal(replace(signal_of("ece", Verdict.BREACHED, 0.05), reference=0.01))


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Store:
    return store_with_version(tmp_path)


def refit(store: Store, folder: Path, rows: Records, request: ActionRequest | None = None) -> ActionResult:
    """What a re-fit of these rows comes to."""
    request = request or request_of("refit_calibrator", ECE)
    return RefitCalibrator(store, WATCH, folder).run(request, window_of(rows))


def swap(store: Store, folder: Path, ordinal: int = 2) -> ActionResult:
    """What a swap comes to."""
    rows = labelled_rows(10, 0)
    return SwapCalibrator(store, folder).run(request_of("swap_calibrator", ordinal=ordinal), window_of(rows))


class TestRefit:
    def test_wrong_temperature_is_undone_and_judged_on_other_rows(self, store: Store, tmp_path: Path) -> None:
        """Logits twice as sharp as they should be: T near 2, and an ECE that has come back."""
        result = refit(store, tmp_path, labelled_rows(2000, 1, sharpening=2.0))
        (signal,) = result.signals
        assert (result.outcome, signal.name, signal.verdict) == ("done", REFIT_SIGNAL, "ok")
        assert result.detail["temperature"] == pytest.approx(2.0, rel=0.15)
        assert result.detail["ece_before"]["value"] > 0.03
        assert signal.value is not None
        assert signal.value < 0.02
        assert signal.n == result.detail["rows_judged"] >= WATCH.minimum_rows
        assert (signal.reference, signal.threshold) == (0.01, WATCH.threshold)

    def test_what_no_temperature_puts_right_persists(self, store: Store, tmp_path: Path) -> None:
        """Three labels in ten at random, of sure and unsure decisions alike, on a range of confidences."""
        result = refit(store, tmp_path, labelled_rows(4000, 2, wrong_share=0.3))
        assert [signal.verdict for signal in result.signals] == ["breached"]
        assert "persists" in result.words

    @pytest.mark.parametrize("are_right", [True, False])
    def test_labels_that_no_temperature_fits_are_not_followed_to_the_end(
        self, store: Store, tmp_path: Path, are_right: bool
    ) -> None:
        """Every top intent right wants certainty, none right wants none: that is no calibrator to publish."""
        rows = labelled_rows(2000, 3).copy()
        right = np.arange(rows["truth"].shape[1])[None, :] == rows["top"][:, None]
        elsewhere = np.roll(right[:, :-1], 1, axis=1)
        rows["truth"][:, :-1] = right[:, :-1] if are_right else elsewhere
        rows["truth"][:, -1] = False
        rows["is_correct"] = are_right
        result = refit(store, tmp_path, rows)
        assert [signal.verdict for signal in result.signals] == ["breached"]
        assert "ended at its bound" in result.words

    def test_accepted_intents_stay(self, store: Store, tmp_path: Path) -> None:
        """The revision changes what is said of the answers, hardly the answers, and never the ood verdict."""
        result = refit(store, tmp_path, labelled_rows(3000, 4, sharpening=1.8))
        assert result.detail["decisions_compared"] == 3000
        assert result.detail["decisions_changed"] <= 60
        proposed = json.loads((tmp_path / "refit" / "ece_up-20231114T221320.json").read_text(encoding="utf-8"))
        assert proposed["policy"]["energy_cut"] == POLICY.energy_cut
        assert proposed["policy"]["thresholds"] != POLICY.to_json(TAXONOMY)["thresholds"]

    def test_nothing_is_published_by_a_refit(self, store: Store, tmp_path: Path) -> None:
        """That is the swap's."""
        before = store.deployment()
        refit(store, tmp_path, labelled_rows(2000, 1, sharpening=2.0))
        assert store.deployment() == before
        assert [file.name for file in (store.root / "1" / "policies").iterdir()] == ["1.json"]

    def test_asked_again_it_comes_to_the_same(self, store: Store, tmp_path: Path) -> None:
        """Same rows, same key, same numbers."""
        rows = labelled_rows(1200, 5, sharpening=1.5)
        assert refit(store, tmp_path, rows) == refit(store, tmp_path, rows)

    def test_window_that_began_before_the_change_is_refitted_on_what_came_since(
        self, store: Store, tmp_path: Path
    ) -> None:
        """The window that an action is given is all that is held."""
        result = refit(store, tmp_path, changed_rows(6000, 1200))
        assert result.detail["temperature"] == pytest.approx(2.0, rel=0.15)
        assert [signal.verdict for signal in result.signals] == ["ok"]
        assert result.detail["rows_fitted"] + result.detail["rows_judged"] < 1500

    def test_too_few_labels_are_said(self, store: Store, tmp_path: Path) -> None:
        """With how many there are and how many are needed; what is ood counts for nothing."""
        rows = labelled_rows(700, 6)
        rows["truth"][:300] = False
        rows["truth"][:300, -1] = True
        result = refit(store, tmp_path, rows)
        assert (result.outcome, result.signals) == ("nothing_to_do", ())
        assert "each half needs 250" in result.words
        assert result.detail["rows_fitted"] + result.detail["rows_judged"] == 400
        assert not (tmp_path / "refit").exists()

    def test_request_without_a_reference_is_refused(self, store: Store, tmp_path: Path) -> None:
        """There would be nothing to come back to."""
        for evidence in ((), (replace(ECE, reference=None),), (replace(ECE, name="accuracy"),)):
            result = refit(store, tmp_path, labelled_rows(2000, 1), request_of("refit_calibrator", *evidence))
            assert (result.outcome, result.signals) == ("failed", ())

    def test_policy_that_is_gone_is_named(self, store: Store, tmp_path: Path) -> None:
        """Of a revision that the repository lacks, and of a name that is none."""
        window = window_of(labelled_rows(2000, 1))
        for policy in ("1.7", "next"):
            elsewhere = replace(window, key=StreamKey("1", policy, "champion"))
            result = RefitCalibrator(store, WATCH, tmp_path).run(request_of("refit_calibrator", ECE), elsewhere)
            assert result.outcome == "failed"
            assert ("7.json" if policy == "1.7" else "'next'") in result.words

    def test_folder_that_cannot_be_written_is_tried_again(self, store: Store, tmp_path: Path) -> None:
        """A full or missing disk passes."""
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(HookFailed, match="cannot be written"):
            refit(store, tmp_path / "file", labelled_rows(2000, 1, sharpening=2.0))


class TestSwap:
    @pytest.fixture(name="folder")
    def _folder(self, store: Store, tmp_path: Path) -> Path:
        """After a re-fit that recovered."""
        refit(store, tmp_path, labelled_rows(2000, 1, sharpening=2.0))
        return tmp_path

    def test_proposal_is_published_and_serves(self, store: Store, folder: Path) -> None:
        """The next revision, with the proposed numbers to the last digit."""
        result = swap(store, folder)
        champion = store.deployment().champion
        assert (result.outcome, result.detail["policy"], champion.policy) == ("done", "1.2", "1.2")
        proposed = json.loads((folder / "refit" / "ece_up-20231114T221320.json").read_text(encoding="utf-8"))
        assert store.policy("1", 2, champion.policy_sha256) == Policy.from_json(proposed["policy"], TAXONOMY)
        assert store.deployment().reason == "re-fitted calibrator, ece_up-20231114T221320"

    def test_asked_again_it_publishes_nothing_more(self, store: Store, folder: Path) -> None:
        """By redelivery and under another ordinal."""
        swap(store, folder)
        number = store.deployment().number
        assert [swap(store, folder, ordinal).outcome for ordinal in (2, 2, 3)] == ["done"] * 3
        assert store.deployment().number == number
        assert len(list((store.root / "1" / "policies").iterdir())) == 2

    def test_revision_left_by_a_try_that_was_cut_off_is_taken(self, store: Store, folder: Path) -> None:
        """Killed between the writing of the policy and its promotion; another revision came in between."""
        proposed = json.loads((folder / "refit" / "ece_up-20231114T221320.json").read_text(encoding="utf-8"))
        store.add_policy(replace(POLICY, revision=2, energy_cut=7.0))
        store.add_policy(replace(Policy.from_json(proposed["policy"], TAXONOMY), revision=3))
        assert swap(store, folder).detail["policy"] == "1.3"
        assert len(list((store.root / "1" / "policies").iterdir())) == 3

    def test_revision_that_was_taken_back_is_not_pushed_again(self, store: Store, folder: Path) -> None:
        """A person's rollback outranks a redelivery."""
        swap(store, folder)
        store.promote("1", 1, "back")
        result = swap(store, folder)
        assert result.outcome == "nothing_to_do"
        assert "1.1 has replaced it" in result.words
        assert store.deployment().champion.policy == "1.1"

    def test_deployment_that_moved_on_is_left_alone(self, store: Store, folder: Path) -> None:
        """To another policy of the version; the numbers were not fitted in its place."""
        store.add_policy(replace(POLICY, revision=2, energy_cut=7.0))
        store.promote("1", 2, "cut")
        result = swap(store, folder)
        assert (result.outcome, store.deployment().champion.policy) == ("nothing_to_do", "1.2")
        assert "1.2 serves now" in result.words

    def test_swap_without_a_refit_fails_for_good(self, store: Store, tmp_path: Path) -> None:
        """No proposal, then a damaged one, then one of other intents."""
        assert swap(store, tmp_path).outcome == "failed"
        file = tmp_path / proposal_name(request_of("swap_calibrator"))
        file.parent.mkdir()
        file.write_text("{")
        assert "damaged" in swap(store, tmp_path).words
        policy = replace(POLICY, thresholds=(0.5, 0.5)).to_json(Taxonomy(("other", "intents")))
        file.write_text(json.dumps({"based_on": "1.1", "policy": policy}))
        assert "differ" in swap(store, tmp_path).words
        assert store.deployment().champion.policy == "1.1"
