"""Windows of a made-up model whose calibration is known, and a version of it in a model repository."""

from pathlib import Path

import numpy as np

from model_repo.contract.decision import accept, energy, softmax
from model_repo.contract.manifest import Manifest
from model_repo.contract.policy import Policy
from model_repo.store import Store, sha256_of
from monitoring.observations import Records, labelled_dtype, prediction_dtype
from monitoring.remedies import ActionRequest, SignalRecord
from monitoring.windows import Window
from tests.monitoring.event_logs import BEGAN, KEY, TAXONOMY

POLICY = Policy("1", 1, 1.0, (0.2, 0.25, 0.3), 1.0, 50.0, 0.5, 0.95)
"""Nothing is ood under it."""


def labelled_rows(n: int, seed: int, sharpening: float = 1.0, wrong_share: float = 0.0) -> Records:
    """
    Decisions of ``POLICY`` with labels drawn from softmax(logits / sharpening), so that the right temperature is
    ``sharpening``; of ``wrong_share`` the label is drawn at random, which no temperature can put right.
    """
    rng = np.random.default_rng(seed)
    classes = len(TAXONOMY.intents)
    honest = (
        rng.normal(size=(n, classes)) * 1.5
        + rng.uniform(2.0, 6.0, (n, 1)) * np.eye(classes)[rng.integers(0, classes, n)]
    )
    label = (softmax(honest).cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    is_wrong = rng.random(n) < wrong_share
    label[is_wrong] = rng.integers(0, classes, int(is_wrong.sum()))
    rows = np.zeros(n, dtype=labelled_dtype(classes))
    rows["number"] = np.arange(1, n + 1)
    rows["at"], rows["label_at"] = BEGAN + np.arange(n), BEGAN + n
    rows["logits"] = honest * sharpening
    probabilities = softmax(rows["logits"], POLICY.temperature)
    rows["confidence"], rows["top"] = probabilities.max(axis=1), probabilities.argmax(axis=1)
    rows["energy"] = energy(rows["logits"])
    rows["accepted"] = accept(probabilities, np.asarray(POLICY.thresholds))
    rows["truth"][np.arange(n), label] = True
    rows["is_labelled"] = True
    rows["is_correct"] = rows["top"] == label
    return rows


def changed_rows(before: int, after: int) -> Records:
    """Rows at their right temperature, and then rows twice as sharp."""
    rows = np.concatenate([labelled_rows(before, 7), labelled_rows(after, 8, sharpening=2.0)])
    rows["number"] = np.arange(len(rows))
    return rows


def window_of(rows: Records) -> Window:
    """All of them, predictions and labels."""
    predictions = np.zeros(len(rows), dtype=prediction_dtype(len(TAXONOMY.intents)))
    for name in predictions.dtype.names or ():
        predictions[name] = rows[name]
    return Window(KEY, TAXONOMY, predictions, rows, np.empty((0, 0), dtype=np.float16))


def request_of(action: str, *evidence: SignalRecord, ordinal: int = 1, segment: str | None = None) -> ActionRequest:
    """As an incident that began at ``BEGAN`` asks for it."""
    incident = "ece_up-20231114T221320"
    key = f"{incident}/{ordinal}-{action}"
    return ActionRequest(key, incident, action, KEY, BEGAN, ("signals",), evidence, segment)


def store_with_version(root: Path) -> Store:
    """Version 1 under ``POLICY``, serving."""
    store = Store(root / "versions")
    folder = store.root / ".incoming"
    folder.mkdir(parents=True)
    (folder / "model.bin").write_bytes(b"weights")
    manifest = Manifest(
        "1", TAXONOMY, "2026-01-01T00:00:00+00:00", "onnx", "fp32", 128, 42,
        files={"model.bin": sha256_of(folder / "model.bin")},
    )  # fmt: skip
    store.add_version(folder, manifest, POLICY)
    store.promote("1", 1, "first")
    return store
