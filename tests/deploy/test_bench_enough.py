"""How many utterances show a new kind, measured on drawn embeddings; the real run takes the service, and minutes."""

import numpy as np

from deploy.bench_enough import CLUB, HEAD, RULES, Decided, Setting, came_by, in_own_clusters, line, n_in_own
from tests.monitoring.test_clusters import drawn


def test_a_new_kind_is_counted_in_clusters_of_which_it_is_most() -> None:
    """What lies in the clusters of others is not; nor is anything where there is too little to cluster."""
    embeddings, truth = drawn(1)
    assert 0.8 * 25 <= n_in_own(embeddings, truth == 0, RULES) <= 25
    assert n_in_own(embeddings, np.arange(len(truth)) == np.flatnonzero(truth == 0)[0], RULES) == 0
    assert n_in_own(embeddings[truth == 0], np.full(25, True), RULES) == 0


def test_ordinary_utterances_come_as_often_as_each_other_and_the_latest_are_taken() -> None:
    """Those that a known intent took are not clustered, and so not given."""
    usual = Decided(np.zeros((6, 4), dtype=np.float16), np.arange(6) % 2 == 0)
    every = came_by(usual, 24, 100, np.random.default_rng(3))
    assert np.bincount(every, minlength=6).tolist() == [4, 0, 4, 0, 4, 0]
    assert came_by(usual, 24, 5, np.random.default_rng(3)).tolist() == every[-5:].tolist()


def test_a_draw_is_the_same_whatever_else_is_measured() -> None:
    """A generator for each; a kind of which too few were rejected has no draws, and a row tells of how many."""
    embeddings, truth = drawn(2)
    usual = Decided(embeddings[truth < 0].astype(np.float16), np.full(150, True))
    kind = Decided(embeddings[truth == 0].astype(np.float16), np.arange(25) < 20)
    setting = Setting(CLUB, one_in=5, before=0, sizes=(20,), draws=2)
    found = in_own_clusters(kind, usual, 20, setting, seed=0)
    assert len(found) == 2
    assert found[:1] == in_own_clusters(kind, usual, 20, Setting(CLUB, 5, 0, (20,), 1), seed=0)
    assert in_own_clusters(kind, usual, 21, setting, seed=0) == []
    row = line(setting, 20, [0.5, 0.0])
    assert row.split() == ["club", "1", "5", "0", "20", "1", "of", "2", "0.25"]
    assert len(row) == len(HEAD)
