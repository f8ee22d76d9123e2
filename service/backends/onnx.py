"""ONNX Runtime on the packed graph: one session, any number of tokens, no padding."""

import os
from collections.abc import Sequence
from pathlib import Path

# Read when the library is loaded: no reports to its makers, which are on by default since 1.29, and no thread pool of
# OpenMP spinning beside the server.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import onnxruntime as ort

from model_repo.contract.engine import INPUTS, MODEL_FILE, OUTPUTS, EngineSpec
from model_repo.contract.outputs import ModelOutputs, concatenate
from model_repo.contract.packing import pack, rows
from service.backends.artefact import read_spec
from service.backends.protocol import checked
from service.errors import BackendFailed

_WARM_UP_LENGTHS = (4, 12, 28, 60, 128)


class OnnxBackend:
    """
    One session that every worker thread calls; each call computes on ``threads`` threads.

    With ``threads`` = 1 the calling thread does all the work and the session owns no thread at all. With more,
    the others sleep between calls rather than spin: spinning cost 0.8 of a core at 25 requests a second.
    """

    name = "onnxruntime"

    def __init__(self, folder: Path, threads: int = 1) -> None:
        """Raises FileMissing or BadManifest for what is no artefact, BackendFailed when the engine refuses the file."""
        self.spec: EngineSpec = read_spec(folder)
        self.precision = self.spec.precision
        try:
            self._session: ort.InferenceSession | None = ort.InferenceSession(
                str(folder / MODEL_FILE), _options(threads), providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise BackendFailed(f"onnxruntime cannot load {folder / MODEL_FILE}: {error}") from error

    def infer(self, utterances: Sequence[Sequence[int]]) -> ModelOutputs:
        """See Backend."""
        parts = [self._infer_row(row) for row in rows(utterances, self.spec.slots, self.spec.max_row_tokens)]
        return parts[0] if len(parts) == 1 else concatenate(parts)

    def warm_up(self) -> None:
        """See Backend. The graph has no fixed shapes: a few lengths touch every kernel."""
        for length in _WARM_UP_LENGTHS:
            if length <= self.spec.max_tokens:
                self.infer([[1] * length])
        self.infer([[1] * 8] * min(self.spec.slots, self.spec.max_row_tokens // 8))

    def close(self) -> None:
        """See Backend."""
        self._session = None

    def _infer_row(self, utterances: Sequence[Sequence[int]]) -> ModelOutputs:
        row = pack(utterances, self.spec.slots, sum(map(len, utterances)))
        inputs = dict(zip(INPUTS, row.arrays, strict=True))
        if self._session is None:
            raise BackendFailed("onnxruntime: the backend is closed")
        try:
            logits, age_logits, embeddings = self._session.run(OUTPUTS, inputs)
        except Exception as error:
            raise BackendFailed(f"onnxruntime: {error}") from error
        count = len(utterances)
        return checked(ModelOutputs(logits[:count], age_logits[:count], embeddings[:count]))


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # One arena for all calling threads hands a core the buffers that the other has just written: two threads took 20
    # to 50% more time an utterance. malloc keeps those of each thread apart, at 4% for one thread alone.
    options.enable_cpu_mem_arena = False
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # One plan of the memory is kept for each row length otherwise, hundreds of them.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    return options
