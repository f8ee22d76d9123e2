"""A corpus without text: logits drawn from a model that is known, in all parts that a real one has."""

import numpy as np

from model_repo.contract.labels import Taxonomy
from model_repo.contract.outputs import ModelOutputs
from model_repo.contract.policy import Policy
from monitoring.replay_changes import Replay
from monitoring.replay_streams import TRAFFIC, quiet
from monitoring.replay_text import CLINC150, CUT, HINT3, MULTIDOGO, NEW, OWN, Corpus

TAXONOMY = Taxonomy(tuple(TRAFFIC), frozenset({"order_tracking"}))
POLICY = Policy("1", 1, 1.0, (0.4,) * 10, 1.0, -7.0, 0.5, 0.95)
SIZES = {OWN: 2_200, CUT: 2_200, HINT3: 100, CLINC150: 100, MULTIDOGO: 100, f"{NEW}hint3_x BARTER": 40}

SPREAD, STANDING_OUT = 1.0, 3.3
"""Of the logits before they are scaled so that the model is calibrated on what is not cut."""


def made_up_corpus() -> Corpus:
    """Ood in ``own`` too; a cut message stands where the whole one does, and the model errs more on it."""
    rng = np.random.default_rng(3)
    parts = np.repeat(list(SIZES), list(SIZES.values()))
    main = rng.integers(0, 10, len(parts))
    main[: SIZES[OWN]] = np.arange(SIZES[OWN]) % 11
    main[np.isin(parts, (CLINC150, MULTIDOGO, f"{NEW}hint3_x BARTER"))] = 10
    main[parts == CUT] = main[parts == OWN]
    logits = rng.normal(0.0, SPREAD, (len(parts), 10))
    in_scope = np.flatnonzero(main < 10)
    logits[in_scope, main[in_scope]] += np.where(parts[in_scope] == CUT, 0.5, STANDING_OUT)
    logits *= STANDING_OUT / SPREAD**2
    truth = np.zeros((len(parts), 11), dtype=bool)
    truth[np.arange(len(parts)), main] = True
    embeddings = rng.normal(0.0, 1.0, (len(parts), 8)) + np.eye(11)[main][:, :8]
    return Corpus(
        taxonomy=TAXONOMY,
        parts=parts,
        main=main,
        filed=np.where(main == 10, 3, main),
        truth=truth,
        lang=np.zeros(len(parts), dtype=np.int64),
        n_tokens=rng.integers(3, 30, len(parts)),
        outputs=ModelOutputs(logits, np.full(len(parts), -9.0), embeddings),
    )


def made_up_replay() -> Replay:
    """With latencies of a few milliseconds."""
    corpus = made_up_corpus()
    latencies = np.random.default_rng(4).gamma(2.0, 1.0, (1_000, 3))
    return Replay(corpus, POLICY, latencies, quiet(corpus, POLICY))
