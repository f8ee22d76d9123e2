"""The plain service that ours is measured against, and the model made for it."""

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from loadtest import make_baseline
from loadtest.baseline import Classifier, baseline_running
from loadtest.make_baseline import Architecture, NotACheckpoint

TINY = Architecture(dim=16, hidden_dim=32, n_layers=1, n_heads=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model made the way the real one is."""
    made = tmp_path_factory.mktemp("baseline") / "tiny"
    make_baseline.make("tiny", TINY, None, made)
    return made


def test_a_made_folder_says_whose_weights_it_holds(folder: Path) -> None:
    """Random weights must not pass for trained ones."""
    assert make_baseline.describe(folder) == "random weights, tiny, seed 42"


def test_weights_are_int8_and_agree_with_the_network(folder: Path, tmp_path: Path) -> None:
    """Quantised for real, and the same model: logits within quantisation error of torch's."""
    import torch
    from transformers import DistilBertConfig

    from loadtest.baseline_network import export, random_network

    network = random_network(DistilBertConfig(dim=16, hidden_dim=32, n_layers=1, n_heads=2), 10, make_baseline.SEED)
    export(network, tmp_path / "fp32.onnx")
    ids = np.array([[101, 2073, 2003, 2026, 2344, 102]], dtype=np.int64)
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    with torch.no_grad():
        expected = network(torch.from_numpy(ids), torch.ones(ids.shape, dtype=torch.long)).numpy()
    full = onnxruntime.InferenceSession(str(tmp_path / "fp32.onnx")).run(["logits"], inputs)[0]
    small = onnxruntime.InferenceSession(str(folder / "model.onnx")).run(["logits"], inputs)[0]
    assert np.abs(full - expected).max() < 1e-5
    assert 0 < np.abs(small - expected).max() < 0.05
    assert (folder / "model.onnx").stat().st_size < 0.4 * (tmp_path / "fp32.onnx").stat().st_size


def test_padding_changes_no_answer_beyond_quantisation(folder: Path) -> None:
    """Padded or not, the mask keeps the padding out."""
    text = "where is my order"
    own_length, padded = (Classifier(folder, pad_to).probabilities(text) for pad_to in (None, 64))
    assert np.abs(own_length - padded).max() < 0.02


def test_every_caller_gets_an_answer_of_their_own(folder: Path, tmp_path: Path) -> None:
    """The id comes back, probabilities sum to 1, and bad input is refused."""
    with baseline_running(folder, tmp_path) as server:
        answer = post(server.url, {"text": "hello there", "request_id": "r-1"})
        with pytest.raises(urllib.error.HTTPError, match="422") as refusal:
            post(server.url, {"text": ""})
        refusal.value.close()
    assert answer["request_id"] == "r-1"
    assert sum(answer["probabilities"].values()) == pytest.approx(1.0)
    assert answer["top"]["probability"] == max(answer["probabilities"].values())


def test_an_incomplete_checkpoint_is_refused_by_file_name(tmp_path: Path) -> None:
    """The message says what is missing."""
    with pytest.raises(NotACheckpoint, match=r"encoder/config\.json"):
        make_baseline.make("tiny", TINY, tmp_path, tmp_path / "out")


def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    """The answer to a message; raises HTTPError."""
    data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(f"{url}/route", data, headers)) as response:
        answer: dict[str, Any] = json.load(response)
        return answer
