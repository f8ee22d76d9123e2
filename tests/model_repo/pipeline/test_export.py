"""An exported artefact is complete, decides as the trained network did, and says so."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from tokenizers import Tokenizer

from model_repo.contract.engine import ENGINE_FILE, MODEL_FILE, TOKENIZER_FILE, EngineSpec
from model_repo.contract.outputs import ModelOutputs
from model_repo.pipeline.export import ParityLost, compare, export, store_in_half_precision
from tests.tiny_artefact import MAX_TOKENS, POLICY, TEXTS, tiny_artefact


def test_artefact_holds_exactly_what_serving_needs() -> None:
    """Weights, tokenizer and engine sizes; nothing else, nothing pickled."""
    _, artefact, _ = tiny_artefact()
    assert {path.name for path in artefact.iterdir()} == {MODEL_FILE, TOKENIZER_FILE, ENGINE_FILE}
    spec = EngineSpec.from_json(json.loads((artefact / ENGINE_FILE).read_text(encoding="utf-8")))
    assert (spec.precision, spec.max_tokens) == ("fp32", MAX_TOKENS)


def test_decisions_equal_the_trained_network() -> None:
    """On every text, and the report carries the count."""
    _, _, report = tiny_artefact()
    assert report.n_texts == len(TEXTS)
    assert report.decisions_equal == report.tops_equal == 1.0
    assert 0 < report.max_logit_difference < 0.02


def test_tokenizer_neither_pads_nor_exceeds_the_limit() -> None:
    """Though the source pads to 64, an utterance keeps its own length; a long one is cut at max_tokens."""
    _, artefact, _ = tiny_artefact()
    tokenizer = Tokenizer.from_file(str(artefact / TOKENIZER_FILE))
    assert len(tokenizer.encode("order").ids) == 3
    assert len(tokenizer.encode("order " * 500).ids) == MAX_TOKENS


def test_export_raises_when_decisions_differ(tmp_path: Path) -> None:
    """A demand that the artefact cannot meet stops the stage, naming both shares."""
    checkpoint, _, _ = tiny_artefact()
    with pytest.raises(ParityLost, match=r"100\.00% of 6 decisions are equal, at least 101\.00% must be"):
        export(checkpoint, tmp_path, TEXTS, POLICY, max_tokens=MAX_TOKENS, min_decisions_equal=1.01)


@pytest.mark.parametrize(
    ("field", "row", "value"),
    [("logits", 0, [0.0, 0.0, 9.0]), ("logits", 1, [-9.0, -9.0, -9.0]), ("age_logits", 2, 9.0)],
)
def test_another_intent_ood_verdict_or_age_verdict_is_another_decision(field: str, row: int, value: object) -> None:
    """Each part of a decision counts in the comparison."""
    trained = ModelOutputs(np.full((4, 3), [9.0, 0.0, 0.0]), np.full(4, -9.0), np.zeros((4, 2)))
    changed = getattr(trained, field).copy()
    changed[row] = value
    _, artefact, _ = tiny_artefact()
    report = compare(
        trained, dataclasses.replace(trained, **{field: changed}), POLICY, artefact / MODEL_FILE, precision="fp32"
    )
    assert report.decisions_equal == 0.75


def test_weight_beyond_half_precision_is_refused(tmp_path: Path) -> None:
    """Rather than stored as infinity."""
    weight = onnx.numpy_helper.from_array(np.full((64, 128), 1e6, dtype=np.float32), "w")
    edges = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [64, 128]) for name in ("x", "y")]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "w"], ["y"])], "g", edges[:1], edges[1:], [weight]
    )
    onnx.save(onnx.helper.make_model(graph), tmp_path / MODEL_FILE)
    with pytest.raises(ValueError, match=r"weight w reaches 1000000\.0"):
        store_in_half_precision(tmp_path / MODEL_FILE)
