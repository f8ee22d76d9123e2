"""Drawn streams in an event log as the service writes it, and a model repository with the version they are of."""

import base64
from collections.abc import Callable
from pathlib import Path

from model_repo.contract.events import LABEL_SOURCES, LabelEvent, PredictionEvent
from model_repo.contract.labels import LANGUAGES
from model_repo.contract.manifest import Manifest
from model_repo.contract.policy import Policy
from model_repo.store import Store, sha256_of
from monitoring.drawn_streams import POLICY, QUIET, TAXONOMY, Change, DrawnStream
from monitoring.observations import StreamKey
from tests.monitoring.event_logs import WrittenLog


def make_repository(root: Path) -> Store:
    """Version 1 under the drawn streams' policy, promoted; its weights are no model."""
    store = Store(root)
    folder = root / ".making"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"weights")
    files = {"model.onnx": sha256_of(folder / "model.onnx")}
    manifest = Manifest("1", TAXONOMY, "2026-01-31T09:00:00+00:00", "fake", "none", 64, 42, files)
    store.add_version(folder, manifest, POLICY)
    store.promote("1", 1, "made by a test")
    return store


def serve(stream: DrawnStream, policy: Policy) -> None:
    """The stream is answered under another policy from now on."""
    stream.policy, stream.key = policy, StreamKey(policy.version, policy.name, "champion")


def write(
    log: WrittenLog,
    stream: DrawnStream,
    n: int,
    change: Change = QUIET,
    text_of: Callable[[str], str] = "about {}".format,
    filed_under: str | None = None,
) -> float:
    """
    The next n predictions, each with its label; when the last one was. ``text_of`` gets the true intent, or ood. Ood
    utterances with an even number are of something new where ``filed_under`` says which intent they are labelled with.
    """
    joined = stream.draw(n, change)
    vectors = dict(zip(joined.embeddings.numbers.tolist(), joined.embeddings.vectors, strict=True))
    predictions, labels = [], []
    for record in joined.labelled:
        number, at, truth = int(record["number"]), float(record["at"]), record["truth"]
        intents = tuple(name for name, is_true in zip(TAXONOMY.intents, truth, strict=False) if is_true)
        if filed_under is not None and not intents and number % 2 == 0:
            intents = (filed_under,)
        vector = vectors.get(number)
        event = PredictionEvent(
            request_id=f"drawn-{number}",
            at=at,
            version=stream.key.version,
            policy=stream.key.policy,
            role=stream.key.role,
            session_id=f"{record['channel'].decode()}:{number % 50}",
            text=text_of(intents[0] if intents else "ood"),
            n_tokens=int(record["n_tokens"]),
            lang=LANGUAGES[int(record["lang"])],
            logits=tuple(record["logits"].astype(float).tolist()),
            age_logit=-9.0,
            embedding=None if vector is None else base64.b64encode(vector.astype("<f2").tobytes()).decode(),
            top=TAXONOMY.intents[int(record["top"])],
            intents=()
            if record["is_ood"]
            else tuple(name for name, taken in zip(TAXONOMY.intents, record["accepted"], strict=True) if taken),
            confidence=float(record["confidence"]),
            energy=float(record["energy"]),
            is_ood=bool(record["is_ood"]),
            age_sensitive=False,
            tokenize_ms=float(record["tokenize_ms"]),
            queue_ms=float(record["queue_ms"]),
            inference_ms=float(record["inference_ms"]),
            total_ms=float(record["total_ms"]),
        )
        label = LabelEvent(event.request_id, intents, not intents, LABEL_SOURCES[int(record["source"])])
        predictions.append((event.request_id, at, event.to_body()))
        labels.append((event.request_id, at, label.to_body()))
    log.write_predictions(predictions)
    log.write_labels(labels)
    return float(joined.labelled["at"][-1])
