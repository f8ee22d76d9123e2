"""
Groups of utterances that look alike, among those that no known intent took: candidates for intents the taxonomy lacks.

A network trained to reject gathers all it rejects in a few directions of its embedding, so that plain cosine distances
see one heap. The principal directions of the utterances themselves, each brought to the same spread (whitening), take
those down to a few among many. There the cosine of two unrelated utterances is chance, about N(0, 1/d) in d directions,
and average linkage joins what is more alike than chance would have it; what finds no company stays unclustered.

Chosen by measuring (see ``bench_discovery``, the half that was chosen on). The leaves of HDBSCAN's tree did as well
with five new intents at once, but found one that comes alone in 18 of 30 draws, this in 29: with nothing to split from,
a dense place is not a leaf.

Pure: the generator is an argument. Memory: n^2 distances, 32 MB for 2,000 utterances.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import AgglomerativeClustering
from sklearn.decomposition import PCA

from model_repo.contract.errors import CannotMeasure
from model_repo.contract.outputs import FloatArray, IntArray

UNCLUSTERED = -1
DISSOLVED = 0.5
"""A cluster whose stability is below this is as likely an accident of the sample (Hennig 2007)."""
_HIGHEST_COSINE = 0.95
"""In very few directions chance alone would ask for more than 1."""


@dataclass(frozen=True)
class ClusterRules:
    """How clusters are looked for."""

    dimensions: int = 32
    """Principal directions kept, at most a quarter of the utterances. Fewer find more clusters, less pure."""
    smallest: int = 8
    """Utterances that make a cluster. Fewer show a new intent sooner, and more accidents."""
    smallest_share: float = 0.02
    """The same as a share of the utterances, when that is more: what is large is not cut into shades."""
    likeness: float = 2.8
    """Mean cosine that two groups need to be joined, in standard deviations of what chance gives. More finds less, and
    purer; 2.4 finds 0.87 of the withheld messages in place of 0.81, and 2 a good deal of noise."""
    resamples: int = 20
    """Subsamples that stability is measured on; each costs one more clustering."""
    resample_share: float = 0.8
    """Size of a subsample."""
    fewest: int = 50
    """With fewer utterances nothing is looked for."""

    def __post_init__(self) -> None:
        for name, least in {"dimensions": 1, "smallest": 2, "likeness": 0, "resamples": 1, "fewest": 8}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be >= {least}, got {getattr(self, name)}")
        if not (0.0 <= self.smallest_share < 1.0 and 0.0 < self.resample_share <= 1.0):
            raise ValueError("smallest_share must be in [0, 1) and resample_share in (0, 1]")

    def smallest_of(self, n: int) -> int:
        """Utterances that make a cluster among ``n``."""
        return max(self.smallest, round(self.smallest_share * n))


@dataclass(frozen=True)
class KnownIntents:
    """Where the intents of the taxonomy lie."""

    intents: tuple[str, ...]
    centroids: FloatArray
    """(k, H), one an intent, of length 1."""


@dataclass(frozen=True)
class Cluster:
    """One group."""

    rows: tuple[int, ...]
    """Which utterances, the nearest to the medoid first."""
    nearest_intent: str | None
    """The known intent that its mean points to most; None when none is known."""
    similarity: float
    """Cosine between that intent's centroid and the cluster's mean, -1..1; NaN when none is known."""
    stability: float
    """Mean over subsamples of the Jaccard similarity to the most similar cluster found there, 0..1 (Hennig 2007)."""


@dataclass(frozen=True)
class Clustering:
    """All groups, the largest first, and how many utterances are in none."""

    clusters: tuple[Cluster, ...]
    unclustered: int


def find_clusters(
    embeddings: NDArray[np.floating], known: KnownIntents, rules: ClusterRules, rng: np.random.Generator
) -> Clustering:
    """Clusters of ``embeddings``, (n, H); raises CannotMeasure for fewer than ``rules.fewest``."""
    n = len(embeddings)
    if n < rules.fewest:
        raise CannotMeasure(f"clusters need {rules.fewest} utterances or more, got {n}")
    directions = unit_rows(embeddings)
    points = whitened(directions, rules)
    labels = alike(points, rules.smallest_of(n), rules)
    stability = stability_of(directions, labels, rules, rng)
    clusters = [
        _cluster(directions, points, np.flatnonzero(labels == label), known, float(stability[label]))
        for label in range(int(labels.max()) + 1)
    ]
    clusters.sort(key=lambda cluster: (-len(cluster.rows), cluster.rows))
    return Clustering(tuple(clusters), int((labels == UNCLUSTERED).sum()))


def whitened(directions: FloatArray, rules: ClusterRules) -> FloatArray:
    """(n, d): the principal coordinates of the rows, of equal variance, each row scaled to length 1."""
    n, hidden = directions.shape
    most = max(1, min(rules.dimensions, hidden, n // 4))
    return unit_rows(PCA(most, whiten=True, svd_solver="full").fit_transform(directions))


def alike(points: FloatArray, smallest: int, rules: ClusterRules) -> IntArray:
    """(n,): the cluster of each row from 0, or UNCLUSTERED: average linkage, groups of ``smallest`` rows or more."""
    cosine = min(_HIGHEST_COSINE, rules.likeness / math.sqrt(points.shape[1]))
    finder = AgglomerativeClustering(
        n_clusters=None, distance_threshold=1.0 - cosine, metric="cosine", linkage="average"
    )
    groups = np.asarray(finder.fit_predict(points))
    large = np.flatnonzero(np.bincount(groups) >= smallest)
    numbers = np.full(int(groups.max()) + 1, UNCLUSTERED)
    numbers[large] = np.arange(len(large))
    return np.asarray(numbers[groups], dtype=np.int64)


def stability_of(directions: FloatArray, labels: IntArray, rules: ClusterRules, rng: np.random.Generator) -> FloatArray:
    """
    (clusters,), 0..1: how well each cluster is found again in subsamples, whitening included.

    Subsamples rather than bootstrap resamples: an utterance drawn twice would be company to itself.
    """
    n, n_clusters = len(labels), int(labels.max()) + 1
    size = max(2, round(rules.resample_share * n))
    smallest = max(2, round(rules.resample_share * rules.smallest_of(n)))
    similarities = np.full((rules.resamples, n_clusters), np.nan)
    for resample in range(rules.resamples if n_clusters else 0):
        drawn = np.sort(rng.choice(n, size=size, replace=False))
        again = alike(whitened(directions[drawn], rules), smallest, rules)
        similarities[resample] = best_jaccards(labels[drawn], again, n_clusters)
    # A cluster of which nothing was drawn says nothing; with any share worth drawing that is no cluster's lot always.
    return np.asarray(np.nan_to_num(np.nanmean(similarities, axis=0))) if n_clusters else np.empty(0)


def best_jaccards(labels: IntArray, again: IntArray, n_clusters: int) -> FloatArray:
    """
    For each cluster of ``labels`` the Jaccard similarity to the most similar one of ``again``; NaN for an empty one.

    >>> best_jaccards(np.array([0, 0, 0, 1, 1, -1]), np.array([0, 0, -1, -1, -1, -1]), 2).round(2).tolist()
    [0.67, 0.0]
    """
    mine = labels[:, None] == np.arange(n_clusters)
    theirs = again[:, None] == np.arange(max(1, int(again.max(initial=-1)) + 1))
    both = mine.T.astype(np.int64) @ theirs.astype(np.int64)
    either = mine.sum(axis=0)[:, None] + theirs.sum(axis=0)[None, :] - both
    best = (both / np.maximum(either, 1)).max(axis=1)
    return np.asarray(np.where(mine.any(axis=0), best, np.nan))


def known_intents(embeddings: NDArray[np.floating], intents: Sequence[str], fewest: int = 5) -> KnownIntents:
    """The mean direction of each intent, from one utterance a row; an intent with fewer rows is left out."""
    names = np.array(intents, dtype=object)
    counted = [name for name in sorted(set(intents)) if int((names == name).sum()) >= fewest]
    directions = unit_rows(embeddings)
    centroids = [directions[names == name].mean(axis=0) for name in counted]
    hidden = embeddings.shape[1]
    return KnownIntents(tuple(counted), unit_rows(np.array(centroids).reshape(-1, hidden)))


def unit_rows(rows: NDArray[np.floating]) -> FloatArray:
    """
    Each row scaled to length 1, as float64; a row of zeros stays.

    >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    wide = np.asarray(rows, dtype=np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.asarray(wide / np.where(lengths > 0.0, lengths, 1.0))


def _cluster(
    directions: FloatArray, points: FloatArray, rows: IntArray, known: KnownIntents, stability: float
) -> Cluster:
    nearness = points[rows] @ points[rows].T
    medoid = int(nearness.sum(axis=1).argmax())
    ordered = rows[np.argsort(-nearness[medoid], kind="stable")]
    intent, similarity = _nearest(directions[rows].mean(axis=0), known)
    return Cluster(tuple(int(row) for row in ordered), intent, similarity, stability)


def _nearest(mean: FloatArray, known: KnownIntents) -> tuple[str | None, float]:
    if not known.intents:
        return None, float("nan")
    cosines = known.centroids @ unit_rows(mean[None, :])[0]
    best = int(cosines.argmax())
    return known.intents[best], float(cosines[best])
