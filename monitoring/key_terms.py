"""
What the utterances of a group say that others do not, for languages with and without spaces between words.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import CountVectorizer

from model_repo.contract.outputs import FloatArray

_RUN = re.compile(r"<[a-z]+>|[a-z0-9][a-z0-9'’]*|[\u30a0-\u30ff]+|[\u4e00-\u9fff々]+|[\u3040-\u309f]+")
"""A tag of the redaction, a Latin word, or a run of one Japanese script: katakana, kanji or hiragana."""
_TAG = "<"
_LATIN_OR_KATAKANA = re.compile(r"[a-z0-9\u30a0-\u30ff]")
_HIRAGANA = re.compile(r"[\u3040-\u309f]")
LONGEST_GRAM = 3
MOST_TERMS_SEEN = 50_000


def key_terms(groups: Sequence[Sequence[str]], everything: Sequence[str], most: int) -> list[tuple[str, ...]]:
    """
    The most telling terms of each group, the best first; fewer than ``most`` when there are not that many.

    Class-based TF-IDF (Grootendorst 2022) on shares of utterances: with p the share of the group's that hold a term and
    q the share of all, p log(p / q). So a word that is everywhere weighs nothing, without a list of such words in each
    language. A term is held by two utterances of the group at least. ``everything`` holds the groups as well.

    >>> key_terms([["book a flight", "a flight please"]], ["book a flight", "a flight please", "a joke", "hi"], 2)
    [('flight',)]
    """
    if not any(len(group) for group in groups):
        return [() for _ in groups]
    counter = CountVectorizer(analyzer=_distinct_terms, binary=True, max_features=MOST_TERMS_SEEN)
    try:
        counts = counter.fit_transform(everything).sum(axis=0)
    except ValueError:  # not one term in all the texts
        return [() for _ in groups]
    names = counter.get_feature_names_out()
    shares = np.asarray(counts, dtype=np.float64).ravel() / len(everything)
    return [_best(_counts(counter, group), len(group), shares, names, most) for group in groups]


def terms_of(text: str) -> Iterator[str]:
    """
    Words of three letters or more and pairs of words; of Japanese the katakana words, and the pieces of two and three
    characters of kanji.

    >>> list(terms_of("cancel my予約を"))
    ['cancel', 'cancel my', '予約']
    """
    runs = [run for run in _RUN.findall(text.casefold()) if not run.startswith(_TAG)]
    words = [run for run in runs if len(run) > 1 and _LATIN_OR_KATAKANA.match(run)]
    yield from (word for word in words if len(word) > 2 or not word.isascii())
    yield from (f"{first} {second}" for first, second in pairwise(words))
    for run in runs:
        if _LATIN_OR_KATAKANA.match(run) or _HIRAGANA.match(run):
            continue
        for length in range(2, LONGEST_GRAM + 1):
            yield from (run[start : start + length] for start in range(len(run) - length + 1))


def _distinct_terms(text: str) -> Iterable[str]:
    return set(terms_of(text))


def _counts(counter: CountVectorizer, group: Sequence[str]) -> FloatArray:
    """(terms,): utterances of the group that hold each."""
    return np.asarray(counter.transform(group).sum(axis=0), dtype=np.float64).ravel() if group else np.zeros(0)


def _best(counts: FloatArray, n: int, shares: FloatArray, names: NDArray[np.object_], most: int) -> tuple[str, ...]:
    if n == 0:
        return ()
    held = np.flatnonzero(counts >= 2)
    weights = counts[held] / n * np.log(counts[held] / n / shares[held])
    # By name where the weights are equal, so that the order is always the same.
    ranked = sorted(
        (-float(weight), str(names[term])) for weight, term in zip(weights, held, strict=True) if weight > 0
    )
    chosen: list[str] = []
    for _, name in ranked:
        # "card" beside "credit card" says nothing more.
        if not any(name in other or other in name for other in chosen):
            chosen.append(name)
        if len(chosen) == most:
            break
    return tuple(chosen)
