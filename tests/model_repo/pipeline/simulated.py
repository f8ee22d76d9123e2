"""Outputs and labels of a made-up model: logits that say how likely each label is, sharpened by a known factor."""

import numpy as np

from model_repo.contract.decision import softmax
from model_repo.contract.labels import LANGUAGES, LabelledUtterance, Taxonomy
from model_repo.contract.outputs import ModelOutputs

TAXONOMY = Taxonomy(("track", "refund", "advice", "hello"), frozenset({"refund"}))


def simulated(
    n: int, seed: int, sharpening: float = 1.0, ood_share: float = 0.1, several_share: float = 0.0
) -> tuple[ModelOutputs, list[LabelledUtterance]]:
    """
    In-scope labels are drawn from softmax(logits / sharpening), so the right temperature is ``sharpening``.

    Some utterances also carry the runner-up; ood ones have logits near zero, hence a high energy. One in five is
    age-sensitive, with an age logit that mostly says so.
    """
    rng = np.random.default_rng(seed)
    classes = len(TAXONOMY.intents)
    is_ood = rng.random(n) < ood_share
    honest = rng.normal(size=(n, classes)) + 5.0 * np.eye(classes)[rng.integers(0, classes, n)]
    honest[is_ood] = rng.normal(size=(int(is_ood.sum()), classes)) * 0.3 - 1.0
    probabilities = softmax(honest)
    main = np.array([rng.choice(classes, p=row) for row in probabilities])
    has_second = rng.random(n) < several_share
    honest[has_second, probabilities.argsort(axis=1)[has_second, -2]] += 3.0
    is_sensitive = rng.random(n) < 0.2
    outputs = ModelOutputs(
        logits=(honest * sharpening).astype(np.float32),
        age_logits=(np.where(is_sensitive, 2.0, -2.0) + rng.normal(size=n)).astype(np.float32),
        embeddings=rng.normal(size=(n, 8)).astype(np.float32),
    )
    utterances = []
    for row in range(n):
        carried = [int(main[row])]
        second = int(probabilities[row].argsort()[-2])
        if has_second[row] and second != carried[0]:
            carried.append(second)
        utterances.append(
            LabelledUtterance(
                text=f"message {row}",
                intents=() if is_ood[row] else tuple(TAXONOMY.intents[k] for k in carried),
                is_ood=bool(is_ood[row]),
                age_sensitive=bool(is_sensitive[row]),
                lang=LANGUAGES[row % len(LANGUAGES)],
            )
        )
    return outputs, utterances
