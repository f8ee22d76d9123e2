"""No near-duplicate straddles a split, and every stratum is in each."""

from collections import Counter

from model_repo.contract.labels import LabelledUtterance
from model_repo.pipeline.splits import count_straddling, near_duplicate_groups, split

_NOUNS = ("parcel", "coupon", "sword epic", "library card", "gift box", "volume nine", "night train", "cat cafe")
_VERBS = ("bring back", "look over", "forget about", "write down", "pay for", "laugh at", "hide under", "argue with")
_ENDS = ("before noon", "in the rain", "without a word", "for my uncle", "twice a week", "behind the school")


def _utterances() -> list[LabelledUtterance]:
    texts = [f"{verb} the {noun} {end}" for verb in _VERBS for noun in _NOUNS for end in _ENDS]
    return [LabelledUtterance(t, ("a" if i % 3 else "b",), False, group=f"voice{i % 2}") for i, t in enumerate(texts)]


def test_near_duplicates_share_a_group_and_others_do_not() -> None:
    """Another number, case or punctuation makes no difference; another request does."""
    texts = ["Where is order 4411?", "where is order 90210", "is the box set back in stock", "ほかの本もありますか"]
    groups = near_duplicate_groups(texts).tolist()
    assert groups[0] == groups[1]
    assert len(set(groups)) == 3


def test_split_is_seeded_stratified_and_free_of_straddling_groups() -> None:
    """The same seed gives the same split, another seed another; tenths hold in each stratum."""
    utterances = _utterances()
    texts = [u.text for u in utterances]
    parts = split(utterances, seed=42)
    assert parts == split(utterances, seed=42)
    assert parts != split(utterances, seed=7)
    assert count_straddling(texts, parts) == 0
    by_stratum = Counter((u.group, u.main_label, part) for u, part in zip(utterances, parts, strict=True))
    strata = {(group, label) for group, label, _ in by_stratum}
    assert all(by_stratum[(*stratum, part)] > 0 for stratum in strata for part in ("train", "validation", "test"))


def test_audit_counts_a_group_that_straddles() -> None:
    """The audit itself can fail: one pair put on both sides is counted."""
    texts = ["where is my order 1", "where is my order 2", "hello there"]
    assert count_straddling(texts, ["train", "test", "train"]) == 1
