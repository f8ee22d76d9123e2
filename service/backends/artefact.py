"""What the export stage writes beside the weights for the engine to read: sizes of the graph and how it was checked."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODEL_FILE = "model.onnx"
TOKENIZER_FILE = "tokenizer.json"
ENGINE_FILE = "engine.json"


class BadArtefact(ValueError):
    """An artefact folder that lacks a file or a field."""


@dataclass(frozen=True)
class EngineSpec:
    """The sizes that the graph was exported with."""

    weights: str
    """How weights are stored and multiplied: ``fp32`` (stored in half precision) or ``int8``."""
    slots: int
    """Utterances that one row holds: rows of every output."""
    max_tokens: int
    """Longest utterance, specials included."""
    max_row_tokens: int
    """Most tokens to lay in one row; a larger batch is cut. At least ``max_tokens``."""

    def to_json(self) -> dict[str, Any]:
        """As it stands in engine.json."""
        return dict(self.__dict__)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "EngineSpec":
        """Inverse of ``to_json``; raises BadArtefact naming the field."""
        try:
            spec = EngineSpec(
                weights=str(data["weights"]),
                slots=int(data["slots"]),
                max_tokens=int(data["max_tokens"]),
                max_row_tokens=int(data["max_row_tokens"]),
            )
        except (KeyError, TypeError, ValueError) as wrong:
            raise BadArtefact(f"{ENGINE_FILE} lacks a field or has one of the wrong type: {wrong}") from wrong
        if not 1 <= spec.max_tokens <= spec.max_row_tokens or spec.slots < 1:
            raise BadArtefact(f"{ENGINE_FILE}: need slots >= 1 and 1 <= max_tokens <= max_row_tokens, got {spec}")
        return spec


def read_spec(folder: Path) -> EngineSpec:
    """The spec of an artefact folder; raises BadArtefact naming the file that is missing or malformed."""
    for name in (MODEL_FILE, TOKENIZER_FILE, ENGINE_FILE):
        if not (folder / name).is_file():
            raise BadArtefact(f"{folder} has no {name}")
    try:
        data = json.loads((folder / ENGINE_FILE).read_text(encoding="utf-8"))
    except ValueError as wrong:
        raise BadArtefact(f"{ENGINE_FILE} is not JSON: {wrong}") from wrong
    return EngineSpec.from_json(data)
