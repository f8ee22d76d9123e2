"""What the export stage tells a serving engine about the graph it wrote."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from model_repo.contract.errors import BadManifest

MODEL_FILE = "model.onnx"
TOKENIZER_FILE = "tokenizer.json"
ENGINE_FILE = "engine.json"

INPUTS = ("token_ids", "positions", "segments")
OUTPUTS = ("logits", "age_logits", "embeddings")


@dataclass(frozen=True)
class EngineSpec:
    """The sizes that the packed graph was exported with."""

    precision: str
    """What the matrix products are computed in where the engine does not choose: ``fp32`` or ``int8``."""
    slots: int
    """Utterances that one row holds: rows of every output."""
    max_tokens: int
    """Longest utterance, specials included."""
    max_row_tokens: int
    """Most tokens to lay in one row; a larger batch is cut. At least ``max_tokens``."""

    def __post_init__(self) -> None:
        if not 1 <= self.max_tokens <= self.max_row_tokens:
            raise BadManifest(f"max_tokens must be in 1..max_row_tokens ({self.max_row_tokens}), got {self.max_tokens}")
        if self.slots < 1:
            raise BadManifest(f"slots must be >= 1, got {self.slots}")

    def to_json(self) -> dict[str, Any]:
        """As it stands in engine.json."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "EngineSpec":
        """Inverse of ``to_json``; raises BadManifest naming the field."""
        try:
            return EngineSpec(
                precision=str(data["precision"]),
                slots=int(data["slots"]),
                max_tokens=int(data["max_tokens"]),
                max_row_tokens=int(data["max_row_tokens"]),
            )
        except KeyError as missing:
            raise BadManifest(f"{ENGINE_FILE} lacks the field {missing}") from None
        except (TypeError, ValueError) as wrong:
            raise BadManifest(f"{ENGINE_FILE} has a field of the wrong type or range: {wrong}") from wrong
