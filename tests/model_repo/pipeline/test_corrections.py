"""Corrections touch training labels only, and only those they were written for."""

from pathlib import Path

import pytest

from model_repo.contract.labels import LabelledUtterance
from model_repo.pipeline.corrections import BadCorrection, Correction, correct, read_corrections
from model_repo.pipeline.data import read_authored, read_taxonomy

FIX = {"wrap it": Correction("wrap it", ("faq",), ("checkout_help",), "gift wrap")}
MESSAGE = LabelledUtterance("wrap it", ("faq",), False)


def test_training_label_is_set_right() -> None:
    """And counted."""
    corrected, applied = correct([MESSAGE], ["train"], FIX)
    assert [u.intents for u in corrected] == [("checkout_help",)]
    assert applied == 1


@pytest.mark.parametrize("part", ["validation", "test"])
def test_label_that_judges_is_left_alone(part: str) -> None:
    """Whatever it says."""
    assert correct([MESSAGE], [part], FIX) == ([MESSAGE], 0)


def test_correction_of_another_label_or_of_no_message_is_refused() -> None:
    """A correction that went stale would otherwise stay unnoticed."""
    with pytest.raises(BadCorrection, match="expects"):
        correct([LabelledUtterance("wrap it", ("promotion",), False)], ["train"], FIX)
    with pytest.raises(BadCorrection, match="no authored message"):
        correct([LabelledUtterance("other", ("faq",), False)], ["train"], FIX)


def test_correction_that_changes_nothing_is_refused(tmp_path: Path) -> None:
    """It would be a claim without a consequence."""
    file = tmp_path / "corrections.toml"
    file.write_text('[[correction]]\ntext = "a"\nwas = ["faq"]\nintents = ["faq"]\nreason = "r"\n', encoding="utf-8")
    with pytest.raises(BadCorrection, match="changes nothing"):
        read_corrections(file)


def test_shipped_corrections_fit_the_shipped_messages() -> None:
    """Each names an authored message, the labels it has, and labels of the taxonomy."""
    authored = {u.text: u.intents for u in read_authored()}
    known = set(read_taxonomy().intents)
    for correction in read_corrections().values():
        assert authored[correction.text] == correction.was
        assert set(correction.intents) <= known
