"""A model repository whose version is the tiny exported model: for tests that need a real engine."""

import shutil
from pathlib import Path

from model_repo.contract.engine import ENGINE_FILE, MODEL_FILE, TOKENIZER_FILE
from model_repo.contract.manifest import Manifest
from model_repo.store import Store, sha256_of
from tests.tiny_artefact import MAX_TOKENS, POLICY, TAXONOMY, tiny_artefact


def make_real_repository(root: Path) -> Store:
    """Version 1, promoted."""
    store = Store(root)
    folder = root / ".making"
    folder.mkdir(parents=True)
    _, artefact, _ = tiny_artefact()
    for name in (MODEL_FILE, TOKENIZER_FILE, ENGINE_FILE):
        shutil.copy(artefact / name, folder / name)
    files = {path.name: sha256_of(path) for path in folder.iterdir()}
    manifest = Manifest("1", TAXONOMY, "2026-01-31T09:00:00+00:00", "onnx", "fp32", MAX_TOKENS, 7, files)
    store.add_version(folder, manifest, POLICY)
    store.promote("1", 1, "made by a test")
    return store
