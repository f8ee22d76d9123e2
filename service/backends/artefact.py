"""Reading what the export stage wrote beside the weights."""

import json
from pathlib import Path

from model_repo.contract.engine import ENGINE_FILE, MODEL_FILE, TOKENIZER_FILE, EngineSpec
from model_repo.contract.errors import BadManifest, FileMissing


def read_spec(folder: Path) -> EngineSpec:
    """The spec of an artefact folder; raises FileMissing or BadManifest, naming the file."""
    for name in (MODEL_FILE, TOKENIZER_FILE, ENGINE_FILE):
        if not (folder / name).is_file():
            raise FileMissing(f"{folder} has no {name}")
    try:
        data = json.loads((folder / ENGINE_FILE).read_text(encoding="utf-8"))
    except ValueError as wrong:
        raise BadManifest(f"{folder / ENGINE_FILE} is not JSON: {wrong}") from wrong
    return EngineSpec.from_json(data)
