"""Clusters of drawn embeddings: several intents that are known to the test, among noise."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from model_repo.contract.errors import CannotMeasure
from monitoring.clusters import (
    UNCLUSTERED,
    Clustering,
    ClusterRules,
    KnownIntents,
    alike,
    best_jaccards,
    find_clusters,
    known_intents,
    stability_of,
    unit_rows,
    whitened,
)

HIDDEN = 192
RULES = ClusterRules(resamples=5)
NOTHING_KNOWN = KnownIntents((), np.empty((0, HIDDEN)))


def drawn(
    seed: int, intents: int = 4, each: int = 25, noise: int = 150, nuisance: float = 2.0, within: float = 0.15
) -> tuple[np.ndarray, np.ndarray]:
    """
    Embeddings (n, HIDDEN) and their intent, -1 for noise. They differ most in a few directions that have nothing to do
    with the intent, such as how firmly they are rejected; beside these their spread falls from direction to direction.
    """
    rng = np.random.default_rng(seed)
    spread = 1.0 / np.sqrt(1.0 + np.arange(HIDDEN))
    centres = spread * rng.normal(0.0, 1.0, (intents, HIDDEN))
    truth = np.repeat([*range(intents), -1], [each] * intents + [noise])
    scattered = spread * rng.normal(0.0, 1.0, (len(truth), HIDDEN))
    own = np.where(truth[:, None] >= 0, centres[truth] + within * scattered, scattered)
    directions = unit_rows(rng.normal(0.0, 1.0, (3, HIDDEN)))
    embeddings = own + (4.0 + rng.normal(0.0, nuisance, (len(truth), 3))) @ directions
    order = rng.permutation(len(truth))
    return embeddings[order], truth[order]


def labels_of(clustering: Clustering, n: int) -> np.ndarray:
    labels = np.full(n, UNCLUSTERED)
    for number, cluster in enumerate(clustering.clusters):
        labels[list(cluster.rows)] = number
    return labels


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_is_clustered_matches_the_truth(seed: int) -> None:
    """Most of each intent is found, hardly any noise, and no two intents are mixed."""
    embeddings, truth = drawn(seed)
    found = find_clusters(embeddings, NOTHING_KNOWN, RULES, np.random.default_rng(0))
    labels = labels_of(found, len(truth))
    clustered = labels != UNCLUSTERED
    assert adjusted_rand_score(truth[clustered], labels[clustered]) >= 0.9
    assert clustered[truth >= 0].mean() >= 0.9
    assert clustered[truth < 0].mean() <= 0.05


def test_an_intent_that_comes_alone_is_found() -> None:
    """The usual case: traffic has one thing new in it, among ordinary noise."""
    embeddings, truth = drawn(1, intents=1, nuisance=1.0)
    found = find_clusters(embeddings, NOTHING_KNOWN, RULES, np.random.default_rng(0))
    largest = found.clusters[0]
    assert set(truth[list(largest.rows)]) == {0}
    assert len(largest.rows) >= 20
    assert largest.stability == max(cluster.stability for cluster in found.clusters)


def test_whitening_takes_the_strong_directions_down() -> None:
    """Without it the same embeddings are one heap, noise and all."""
    embeddings, truth = drawn(1)
    directions = unit_rows(embeddings)
    plain = alike(directions, 8, RULES)
    white = alike(whitened(directions, RULES), 8, RULES)
    assert plain.max() == 0
    assert (plain[truth < 0] == 0).mean() > 0.9
    assert white.max() == 3


def test_counts_and_order_add_up() -> None:
    """The largest first; every utterance is in one cluster, or counted as in none."""
    embeddings, _ = drawn(2)
    found = find_clusters(embeddings, NOTHING_KNOWN, RULES, np.random.default_rng(0))
    sizes = [len(cluster.rows) for cluster in found.clusters]
    rows = [row for cluster in found.clusters for row in cluster.rows]
    assert sizes == sorted(sizes, reverse=True)
    assert min(sizes) >= RULES.smallest
    assert len(set(rows)) == len(rows) == len(embeddings) - found.unclustered


def test_the_medoid_comes_first_and_the_edge_last() -> None:
    """Exemplars are taken from the front: they must be what the cluster is about."""
    embeddings, _ = drawn(3)
    points = whitened(unit_rows(embeddings), RULES)
    for cluster in find_clusters(embeddings, NOTHING_KNOWN, RULES, np.random.default_rng(0)).clusters:
        members = points[list(cluster.rows)]
        nearness = members @ members.T
        assert nearness[0].sum() == pytest.approx(nearness.sum(axis=1).max())
        assert (np.diff(nearness[0]) <= 1e-9).all()


def test_a_real_group_is_stable_and_an_accident_is_not() -> None:
    """Hennig's figure tells a tight group from noise that somebody called a cluster."""
    embeddings, truth = drawn(4, intents=2, nuisance=0.5)
    labels = np.where(truth == 0, 0, UNCLUSTERED)
    noise = np.flatnonzero(truth < 0)
    labels[np.random.default_rng(0).choice(noise, 20, replace=False)] = 1
    stable, accident = stability_of(unit_rows(embeddings), labels, RULES, np.random.default_rng(0))
    assert stable >= 0.75
    assert accident < 0.5


def test_stability_without_clusters_is_empty() -> None:
    """Nothing found is nothing to measure, not an error."""
    embeddings, truth = drawn(5)
    nothing = np.full(len(truth), UNCLUSTERED)
    assert stability_of(unit_rows(embeddings), nothing, RULES, np.random.default_rng(0)).shape == (0,)


def test_jaccard_takes_the_most_similar_cluster() -> None:
    """A cluster that is split is as similar as its larger half; one of which nothing was drawn says nothing."""
    labels = np.array([0, 0, 0, 0, 2, 2, -1])
    again = np.array([1, 1, 1, 0, 2, 2, 2])
    one, nothing, other = best_jaccards(labels, again, 3)
    assert one == pytest.approx(3 / 4)
    assert np.isnan(nothing)
    assert other == pytest.approx(2 / 3)


def test_the_nearest_known_intent_comes_with_its_cosine() -> None:
    """By the mean of the cluster, in the space of the embeddings themselves."""
    embeddings, truth = drawn(6, nuisance=0.2)
    own = embeddings[truth == 1]
    known = known_intents(np.vstack([own, -own]), ["refund"] * len(own) + ["hello"] * len(own))
    found = find_clusters(embeddings, known, RULES, np.random.default_rng(0))
    mine = next(cluster for cluster in found.clusters if truth[cluster.rows[0]] == 1)
    mean = unit_rows(embeddings)[list(mine.rows)].mean(axis=0)
    centroid = unit_rows(own).mean(axis=0)
    expected = mean @ centroid / np.linalg.norm(mean) / np.linalg.norm(centroid)
    assert mine.nearest_intent == "refund"
    assert mine.similarity == pytest.approx(expected)


def test_without_known_intents_none_is_nearest() -> None:
    """A new version has decided nothing yet."""
    embeddings, _ = drawn(1)
    found = find_clusters(embeddings, NOTHING_KNOWN, RULES, np.random.default_rng(0))
    assert all(cluster.nearest_intent is None and np.isnan(cluster.similarity) for cluster in found.clusters)


def test_an_intent_with_few_rows_has_no_centroid() -> None:
    """The mean of two utterances says where those two lie."""
    known = known_intents(np.eye(8), ["refund"] * 6 + ["hello"] * 2)
    assert known.intents == ("refund",)
    assert np.linalg.norm(known.centroids, axis=1) == pytest.approx(1.0)


def test_no_rows_at_all_make_no_known_intents() -> None:
    """As when everything is rejected."""
    assert known_intents(np.empty((0, 5)), []).intents == ()


def test_too_few_utterances_are_refused() -> None:
    """What a handful of utterances shows is not to be told from chance."""
    with pytest.raises(CannotMeasure, match="50 utterances or more, got 49"):
        find_clusters(np.ones((49, HIDDEN)), NOTHING_KNOWN, RULES, np.random.default_rng(0))


def test_utterances_all_alike_do_no_harm() -> None:
    """One text sent a hundred times: no direction has any spread."""
    found = find_clusters(np.ones((100, HIDDEN), dtype=np.float16), NOTHING_KNOWN, RULES, np.random.default_rng(0))
    assert sum(len(cluster.rows) for cluster in found.clusters) + found.unclustered == 100


def test_the_same_generator_gives_the_same_clusters() -> None:
    """Asked again, people find the file they know."""
    embeddings, _ = drawn(7)
    first, second = (
        find_clusters(embeddings.astype(np.float16), NOTHING_KNOWN, RULES, np.random.default_rng(0)) for _ in range(2)
    )
    assert [cluster.rows for cluster in first.clusters] == [cluster.rows for cluster in second.clusters]
    assert [cluster.stability for cluster in first.clusters] == [cluster.stability for cluster in second.clusters]


def test_a_large_sample_asks_for_larger_clusters() -> None:
    """Two in a hundred, once that is more than eight."""
    assert [ClusterRules().smallest_of(n) for n in (50, 400, 1000)] == [8, 8, 20]


@pytest.mark.parametrize(
    "change", [{"smallest": 1}, {"resamples": 0}, {"resample_share": 0.0}, {"smallest_share": 1.0}, {"fewest": 2}]
)
def test_rules_that_make_no_sense_are_refused(change: dict[str, float]) -> None:
    """At the door, with the name."""
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(RULES, **change)  # type: ignore[arg-type]
