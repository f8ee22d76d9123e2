"""
What people use instead: a plain FastAPI + ONNX Runtime int8 service, one thread a call, no batching.

    python -m loadtest.baseline --folder FOLDER --port 8090

FOLDER holds model.onnx and tokenizer.json (``loadtest.make_baseline``). Every message is its own call at its own
length, the strongest form of this service; ``--pad-to`` pads each to a fixed length, as some tokenizer files ask.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, Field
from tokenizers import Tokenizer

# The library reports its use to its makers unless told not to when it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

from loadtest.server_process import Server, free_port, server_running

MODEL_FILE, TOKENIZER_FILE = "model.onnx", "tokenizer.json"
MOST_TOKENS = 128


class RouteRequest(BaseModel):
    """One message."""

    text: str = Field(min_length=1, max_length=2000)
    request_id: str | None = Field(default=None, max_length=64)


class RouteAnswer(BaseModel):
    """Its intents by probability; the same size of answer as the service's."""

    request_id: str | None
    top: dict[str, str | float]
    probabilities: dict[str, float]


class Classifier:
    """Tokenizer and model; a call runs on the thread that makes it."""

    def __init__(self, folder: Path, pad_to: int | None) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
        self._tokenizer.enable_truncation(MOST_TOKENS)
        if pad_to is None:
            self._tokenizer.no_padding()
        else:
            self._tokenizer.enable_padding(length=pad_to)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(folder / MODEL_FILE), options, providers=["CPUExecutionProvider"]
        )

    def probabilities(self, text: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Softmax over the intents."""
        encoding = self._tokenizer.encode(text)
        inputs = {
            "input_ids": np.array([encoding.ids], dtype=np.int64),
            "attention_mask": np.array([encoding.attention_mask], dtype=np.int64),
        }
        logits = self._session.run(["logits"], inputs)[0][0].astype(np.float64)
        exponentials = np.exp(logits - logits.max())
        return np.asarray(exponentials / exponentials.sum())


def create_app(folder: Path, pad_to: int | None = None) -> FastAPI:
    """The application: ``POST /route`` on the thread pool of the framework, and ``GET /health/ready``."""
    classifier = Classifier(folder, pad_to)
    app = FastAPI()

    @app.get("/health/ready")
    def ready() -> dict[str, str]:
        return {"status": "ready"}

    @app.post("/route")
    def route(request: RouteRequest) -> RouteAnswer:
        probabilities = classifier.probabilities(request.text)
        named = {f"intent_{k}": float(p) for k, p in enumerate(probabilities)}
        top = int(probabilities.argmax())
        return RouteAnswer(
            request_id=request.request_id,
            top={"intent": f"intent_{top}", "probability": float(probabilities[top])},
            probabilities=named,
        )

    return app


@contextmanager
def baseline_running(folder: Path, log_folder: Path) -> Iterator[Server]:
    """The baseline in a process of its own, on a free port, until the block ends."""
    port = free_port()
    command = [sys.executable, "-m", "loadtest.baseline", "--folder", str(folder.resolve()), "--port", str(port)]
    with server_running("baseline", command, {}, port, log_folder) as server:
        yield server


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, default=8090)
    parser.add_argument("--pad-to", type=int, help="pad every message to this many tokens")
    chosen = parser.parse_args(arguments)
    app = create_app(chosen.folder, chosen.pad_to)
    uvicorn.run(app, host="127.0.0.1", port=chosen.port, access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
