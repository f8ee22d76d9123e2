"""Which engine this CPU gets. What was chosen is stated by ``GET /model``, never silent."""

from pathlib import Path
from typing import Literal

from service.backends.artefact import read_spec
from service.backends.membership import with_membership
from service.backends.protocol import Backend

Engine = Literal["auto", "onnxruntime", "openvino", "neuron"]


def open_backend(
    folder: Path,
    engine: Engine = "auto",
    workers: int = 1,
    threads: int = 1,
    cpu_flags: frozenset[str] | None = None,
) -> Backend:
    """
    The model of an artefact folder, ready to warm up, for ``workers`` threads that call it at once; each call is
    computed on ``threads`` cores.

    ``auto`` takes OpenVINO for an fp32 artefact where the CPU has AMX tiles (one core of a Xeon with them, eight
    messages a call: 0.74 ms an utterance in bfloat16 against 2.5 for ONNX Runtime in fp32), and ONNX Runtime else. Of
    an int8 artefact that takes 0.71 there against OpenVINO's 0.75, of a message alone 1.1 against 1.7; and the artefact
    was checked on it, where OpenVINO decides 1 utterance in 110 otherwise. Naming an engine takes that one or fails.
    Raises FileMissing, BadManifest, BackendFailed, or NeuronRefused with the reason.
    """
    return with_membership(_open_engine(folder, engine, workers, threads, cpu_flags), folder)


def _open_engine(folder: Path, engine: Engine, workers: int, threads: int, cpu_flags: frozenset[str] | None) -> Backend:
    flags = read_cpu_flags() if cpu_flags is None else cpu_flags
    # Engines are imported here, since each costs start-up time and memory that the other would not use.
    if engine == "neuron":
        from service.backends.neuron import open_neuron

        return open_neuron(folder)
    if engine == "openvino" or (engine == "auto" and has_matrix_tiles(flags) and read_spec(folder).precision == "fp32"):
        from service.backends.openvino import OpenVinoBackend

        return OpenVinoBackend(folder, precision="bf16", workers=workers, threads=threads)
    from service.backends.onnx import OnnxBackend

    return OnnxBackend(folder, threads)


def has_matrix_tiles(cpu_flags: frozenset[str]) -> bool:
    """
    Whether bfloat16 is multiplied by AMX tiles.

    >>> has_matrix_tiles(frozenset({"avx2", "amx_tile", "amx_bf16"})), has_matrix_tiles(frozenset({"avx2"}))
    (True, False)
    """
    return {"amx_tile", "amx_bf16"} <= cpu_flags


def read_cpu_flags(file: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Feature flags of the first CPU; empty where the system does not tell (not Linux, or not x86)."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    return next((frozenset(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), frozenset())
