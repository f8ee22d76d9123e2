"""OpenVINO on the packed graph, for CPUs with matrix tiles (AMX), which multiply bfloat16 and 8-bit integers."""

import threading
from collections.abc import Sequence
from pathlib import Path

import openvino as ov

from model_repo.contract.engine import MODEL_FILE, EngineSpec
from model_repo.contract.outputs import ModelOutputs, concatenate
from model_repo.contract.packing import pack, rows
from service.backends.artefact import read_spec
from service.backends.protocol import checked
from service.errors import BackendFailed

ROW_SIZES = (16, 24, 32, 48, 64, 96, 128, 160, 192, 224, 256)
"""
Tokens a row is padded up to. The engine plans anew for every size it has not seen (4.6 ms instead of 1.5), so a
few sizes are all it ever sees, each warmed up. One graph of free size serves them: a static graph for each size
is no faster and keeps its own copy of the weights (about 60 MB each in fp32).
"""
_HINTS = {"bf16": "bf16", "fp32": "f32", "int8": "f32"}
"""What the engine calls it; of an int8 artefact, the precision of all but its products."""


class OpenVinoBackend:
    """One compiled graph, one infer request for each calling thread; ``workers`` calls run at once."""

    name = "openvino"

    def __init__(self, folder: Path, precision: str = "bf16", workers: int = 1, threads: int = 1) -> None:
        """
        ``precision`` is ``bf16`` or ``fp32``: that of an fp32 artefact; an int8 one has its own, and fp32 around its
        integers. Raises FileMissing or BadManifest for what is no artefact, BackendFailed when the engine refuses the
        file or would compute in another precision than asked: no silent fallback.
        """
        self.spec: EngineSpec = read_spec(folder)
        self.precision = precision = "int8" if self.spec.precision == "int8" else precision
        self._sizes = tuple(size for size in ROW_SIZES if size <= self.spec.max_row_tokens)
        self._local = threading.local()
        try:
            self._compiled: ov.CompiledModel | None = _compile(folder / MODEL_FILE, precision, workers, threads)
        except Exception as error:
            raise BackendFailed(f"openvino cannot load {folder / MODEL_FILE}: {error}") from error
        _check_precision(self._compiled, precision)

    def infer(self, utterances: Sequence[Sequence[int]]) -> ModelOutputs:
        """See Backend."""
        parts = [self._infer_row(row) for row in rows(utterances, self.spec.slots, self._sizes[-1])]
        return parts[0] if len(parts) == 1 else concatenate(parts)

    def warm_up(self) -> None:
        """See Backend. Plans are shared by the infer requests of all threads."""
        for size in self._sizes:
            length = min(size // 2, self.spec.max_tokens)
            self.infer([[1] * length] * (size // length))

    def close(self) -> None:
        """See Backend."""
        self._compiled = None
        self._local = threading.local()

    def _infer_row(self, utterances: Sequence[Sequence[int]]) -> ModelOutputs:
        tokens = sum(map(len, utterances))
        size = next(size for size in self._sizes if size >= tokens)
        row = pack(utterances, self.spec.slots, size)
        try:
            results = self._request().infer(list(row.arrays), share_inputs=True)
        except BackendFailed:
            raise
        except Exception as error:
            raise BackendFailed(f"openvino: {error}") from error
        count = len(utterances)
        return checked(ModelOutputs(results[0][:count], results[1][:count], results[2][:count]))

    def _request(self) -> ov.InferRequest:
        if self._compiled is None:
            raise BackendFailed("openvino: the backend is closed")
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._compiled.create_infer_request()
        return request


def _compile(file: Path, precision: str, workers: int, threads: int) -> ov.CompiledModel:
    settings = {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "NUM_STREAMS": workers,
        "INFERENCE_NUM_THREADS": workers * threads,
        # The server's threads share these cores; a pinned engine thread would wait for its own core.
        "ENABLE_CPU_PINNING": False,
    }
    core = ov.Core()
    return core.compile_model(core.read_model(file), "CPU", settings)


def _check_precision(compiled: ov.CompiledModel, precision: str) -> None:
    used = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if used != _HINTS[precision]:
        raise BackendFailed(f"openvino computes in {used} on this CPU, asked for {precision}")
