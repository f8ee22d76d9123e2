"""Near-duplicate groups, and a split that never lets one straddle: stratified, seeded, audited."""

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from sklearn.feature_extraction.text import HashingVectorizer

from model_repo.contract.labels import LabelledUtterance
from model_repo.contract.outputs import IntArray

SPLITS = ("train", "validation", "test")
JACCARD = 0.7
"""Two utterances that share this part of their character 4-grams are near-duplicates: at 0.7 "where is order 4411"
and "where is my order 9" still differ, and a message with one typo or another number does not."""


def normalise(text: str) -> str:
    """
    Fold what does not make two utterances different: case, width, accents' form, digits, punctuation, spaces.

    >>> normalise("Where's  order 4411?!")
    'where s order 0'
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"[\W_]+", " ", re.sub(r"\d+", "0", folded)).strip()


def near_duplicate_groups(texts: Sequence[str], block: int = 2000) -> IntArray:
    """
    (n,) group number of each text. Near-duplicates share one: Jaccard of character 4-grams >= JACCARD, or a chain.

    Exact all-pairs over sparse sets, ``block`` rows at a time: 12,500 texts take about 15 s.
    """
    grams = HashingVectorizer(analyzer="char_wb", ngram_range=(4, 4), n_features=2**20, binary=True, norm=None)
    sets = grams.transform([normalise(text) or text for text in texts]).astype(np.float32).tocsr()
    sizes = np.asarray(sets.sum(axis=1)).ravel()
    rows, columns = [], []
    transposed = sets.T.tocsc()
    for start in range(0, len(texts), block):
        shared = (sets[start : start + block] @ transposed).tocoo()
        union = sizes[start + shared.row] + sizes[shared.col] - shared.data
        close = shared.data >= JACCARD * union
        rows.append(start + shared.row[close])
        columns.append(shared.col[close])
    row, column = np.concatenate(rows), np.concatenate(columns)
    graph = sparse.coo_matrix((np.ones(len(row), dtype=np.int8), (row, column)), shape=(len(texts), len(texts)))
    return np.asarray(connected_components(graph, directed=False)[1])


def split(utterances: Sequence[LabelledUtterance], seed: int, tenths: tuple[int, int, int] = (8, 1, 1)) -> list[str]:
    """
    The split of each utterance, stratified by (group, main label); near-duplicates go together.

    Systematic sampling: groups of near-duplicates are ordered by stratum, shuffled within it, and dealt out in
    tens, so that every stratum is represented to within one utterance in each split.
    """
    rng = np.random.default_rng(seed)
    groups = near_duplicate_groups([u.text for u in utterances])
    first_of_group = np.unique(groups, return_index=True)[1]
    strata = [(utterances[i].group, utterances[i].main_label) for i in first_of_group]
    shuffled = rng.permutation(len(first_of_group))
    order = sorted(shuffled.tolist(), key=lambda g: strata[g])
    split_of_group = np.empty(len(first_of_group), dtype=np.int64)
    deal = np.repeat(np.arange(3), tenths)
    for start in range(0, len(order), 10):
        hand = rng.permutation(deal)
        for position, group in enumerate(order[start : start + 10]):
            split_of_group[group] = hand[position]
    return [SPLITS[split_of_group[g]] for g in groups]


def count_straddling(texts: Sequence[str], splits: Sequence[str]) -> int:
    """How many groups of near-duplicates have members in two splits: the audit; must be 0."""
    groups = near_duplicate_groups(texts)
    seen = {(g, s) for g, s in zip(groups.tolist(), splits, strict=True)}
    return len(seen) - len({g for g, _ in seen})
