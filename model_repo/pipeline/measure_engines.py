"""
Which engine and precision serve best here: speed and decisions, side by side.

    python -m model_repo.pipeline.measure_engines --checkpoint DIR --policy FILE --texts FILE [--only NAME ...]

``--texts`` holds one utterance a line (or JSON lines with a ``text``), not used in training; the first 256 calibrate
the static precisions, the others are measured. Prints a table: milliseconds an utterance for calls of 1, 4 and 16
utterances of mixed length, on one thread, on two, and by two callers of one thread each; the median over repeats
that take turns, so that a slow minute hits every engine alike; and the share of decisions equal to the trained network.
A network that was trained in 8 bits has that precision alone, with and without an arena shared by the callers.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import torch

# The library reports its use to its makers unless told not to when it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort
from onnxruntime.quantization import QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.calibrate import CalibrationDataReader

from model_repo.contract.engine import INPUTS, OUTPUTS, EngineSpec
from model_repo.contract.outputs import ModelOutputs, concatenate
from model_repo.contract.packing import pack, rows
from model_repo.contract.policy import Policy
from model_repo.pipeline.export import MAX_ROW_TOKENS, SLOTS, compare, run_network, write_graph, write_tokenizer
from model_repo.pipeline.network import RouterNetwork, load_checkpoint
from model_repo.pipeline.quantised import steps_of

Utterances = Sequence[Sequence[int]]
Run = Callable[[Utterances], ModelOutputs]

CALL_SIZES = (1, 4, 16)
CALIBRATION_TEXTS = 256
OPENVINO_SIZES = (16, 24, 32, 48, 64, 96, 128, 160, 192, 224, 256)
LAYOUTS = {"1 thread": (1, 1), "2 threads": (2, 1), "2 callers": (1, 2)}
"""Title -> threads a call, calls at once."""


@dataclass(frozen=True)
class Variant:
    """One engine with one precision: opened for a number of threads a call and of calls at once."""

    name: str
    open: Callable[[int, int], Run]


def variants(network: RouterNetwork, calibration: Utterances, folder: Path) -> list[Variant]:
    """Write every graph into ``folder``; the caller keeps the folder while the variants are open."""
    packed, padded = folder / "packed.onnx", folder / "padded.onnx"
    if steps_of(network):
        spec = EngineSpec("int8", SLOTS, 128, MAX_ROW_TOKENS)
        write_graph(network, spec, packed)
        return [
            Variant("onnxruntime int8 trained packed", lambda threads, _: _open_onnx(packed, spec, threads)),
            Variant("the same, one arena for all", lambda threads, _: _open_onnx(packed, spec, threads, arena=True)),
            Variant(
                "openvino int8 trained packed",
                lambda threads, calls: _open_openvino(packed, spec, "f32", threads, calls),
            ),
        ]
    spec = EngineSpec("fp32", SLOTS, 128, MAX_ROW_TOKENS)
    write_graph(network, spec, packed)
    _write_padded(network, padded)
    dynamic, static = _quantise_onnx(packed, spec, calibration)
    padded_int8 = padded.with_name("padded-int8.onnx")
    quantize_dynamic(padded, padded_int8, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)
    openvino_int8 = _quantise_openvino(packed, spec, calibration)
    return [
        Variant("onnxruntime int8 padded", lambda threads, _: _open_padded(padded_int8, threads)),
        Variant("onnxruntime fp32 padded", lambda threads, _: _open_padded(padded, threads)),
        Variant("onnxruntime fp32 packed", lambda threads, _: _open_onnx(packed, spec, threads)),
        Variant("onnxruntime int8 dynamic packed", lambda threads, _: _open_onnx(dynamic, spec, threads)),
        Variant("onnxruntime int8 static packed", lambda threads, _: _open_onnx(static, spec, threads)),
        Variant("openvino f32 packed", lambda threads, calls: _open_openvino(packed, spec, "f32", threads, calls)),
        Variant("openvino bf16 packed", lambda threads, calls: _open_openvino(packed, spec, "bf16", threads, calls)),
        Variant(
            "openvino int8 packed", lambda threads, calls: _open_openvino(openvino_int8, spec, "f32", threads, calls)
        ),
    ]


def measure(run: Run, calls_at_once: int, utterances: Utterances, call_size: int) -> float:
    """Milliseconds an utterance; ``calls_at_once`` threads each take the next call when they are free."""
    calls = [utterances[start : start + call_size] for start in range(0, len(utterances), call_size)]
    with ThreadPoolExecutor(calls_at_once) as pool:
        begun = time.perf_counter()
        list(pool.map(run, calls))
        return (time.perf_counter() - begun) * 1e3 / len(utterances)


def speed_table(chosen: Sequence[Variant], utterances: Utterances, repeats: int) -> dict[tuple[str, str, int], float]:
    """(variant, layout, call size) -> median milliseconds an utterance. Engines take turns within each repeat."""
    times: dict[tuple[str, str, int], list[float]] = {}
    for layout, (threads, calls_at_once) in LAYOUTS.items():
        opened = [(variant.name, variant.open(threads, calls_at_once)) for variant in chosen]
        for repeat in range(repeats + 1):
            for name, run in opened:
                for size in CALL_SIZES:
                    taken = measure(run, calls_at_once, utterances[: 12 * max(size, 4)], size)
                    if repeat > 0:  # the first round warms up
                        times.setdefault((name, layout, size), []).append(taken)
    return {key: statistics.median(values) for key, values in times.items()}


def _write_padded(network: RouterNetwork, file: Path) -> None:
    example = torch.ones(2, 16, dtype=torch.long)
    torch.onnx.export(
        network,
        (example, example),
        str(file),
        input_names=["input_ids", "attention_mask"],
        output_names=list(OUTPUTS),
        dynamic_axes={name: {0: "batch", 1: "tokens"} for name in ("input_ids", "attention_mask")},
        opset_version=17,
        dynamo=False,
    )


def _quantise_onnx(packed: Path, spec: EngineSpec, calibration: Utterances) -> tuple[Path, Path]:
    """Weights in 7 bits: without VNNI the engine's 16-bit sums of 8-bit products overflow, silently."""
    dynamic, static = packed.with_name("dynamic.onnx"), packed.with_name("static.onnx")
    common: dict[str, Any] = {
        "weight_type": QuantType.QInt8,
        "per_channel": True,
        "reduce_range": True,
        "op_types_to_quantize": ["MatMul"],
        "extra_options": {"MatMulConstBOnly": True},
    }
    quantize_dynamic(packed, dynamic, **common)
    quantize_static(packed, static, _Calibration(spec, calibration), activation_type=QuantType.QUInt8, **common)
    return dynamic, static


class _Calibration(CalibrationDataReader):
    """Rows of the calibration utterances."""

    def __init__(self, spec: EngineSpec, utterances: Utterances) -> None:
        self._feeds = iter(_feeds(spec, utterances))

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)


def _feeds(spec: EngineSpec, utterances: Utterances) -> list[dict[str, Any]]:
    groups = rows(utterances, spec.slots, spec.max_row_tokens)
    packed = (pack(group, spec.slots, sum(map(len, group))) for group in groups)
    return [dict(zip(INPUTS, row.arrays, strict=True)) for row in packed]


def _quantise_openvino(packed: Path, spec: EngineSpec, calibration: Utterances) -> Path:
    import nncf

    file = packed.with_name("openvino-int8.xml")
    quantised = nncf.quantize(
        ov.Core().read_model(packed),
        nncf.Dataset(_feeds(spec, calibration)),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(calibration),
    )
    ov.save_model(quantised, file)
    return file


def _session(file: Path, threads: int, arena: bool = False) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.enable_cpu_mem_arena = arena
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_mem_pattern = False
    return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _open_padded(file: Path, threads: int) -> Run:
    session = _session(file, threads)

    def run(utterances: Utterances) -> ModelOutputs:
        ids = np.zeros((len(utterances), max(map(len, utterances))), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, utterance in enumerate(utterances):
            ids[row, : len(utterance)] = utterance
            mask[row, : len(utterance)] = 1
        return ModelOutputs(*session.run(OUTPUTS, {"input_ids": ids, "attention_mask": mask}))

    return run


def _open_onnx(file: Path, spec: EngineSpec, threads: int, arena: bool = False) -> Run:
    session = _session(file, threads, arena)

    def run_row(group: Utterances) -> ModelOutputs:
        row = pack(group, spec.slots, sum(map(len, group)))
        outputs = session.run(OUTPUTS, dict(zip(INPUTS, row.arrays, strict=True)))
        return ModelOutputs(*(output[: len(group)] for output in outputs))

    return _by_rows(run_row, spec)


def _open_openvino(file: Path, spec: EngineSpec, precision: str, threads: int, calls: int) -> Run:
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "NUM_STREAMS": calls,
        "INFERENCE_NUM_THREADS": threads * calls,
        "ENABLE_CPU_PINNING": False,
    }
    core = ov.Core()
    compiled = core.compile_model(core.read_model(file), "CPU", settings)

    def run_row(group: Utterances) -> ModelOutputs:
        tokens = sum(map(len, group))
        row = pack(group, spec.slots, next(size for size in OPENVINO_SIZES if size >= tokens))
        results = compiled.create_infer_request().infer(list(row.arrays))
        return ModelOutputs(*(results[index][: len(group)] for index in range(len(OUTPUTS))))

    return _by_rows(run_row, spec)


def _by_rows(run_row: Run, spec: EngineSpec) -> Run:
    return lambda utterances: concatenate(
        [run_row(group) for group in rows(utterances, spec.slots, spec.max_row_tokens)]
    )


def read_texts(file: Path) -> list[str]:
    """One utterance a line, or JSON lines with a ``text``."""
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [json.loads(line)["text"] if line.startswith("{") else line for line in lines]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="Speed and decisions of the engines that could serve a checkpoint.")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--policy", type=Path, required=True)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[], help="names of variants; all when left out")
    given = parser.parse_args()

    trained = load_checkpoint(given.checkpoint)
    policy = Policy.from_json(json.loads(given.policy.read_text(encoding="utf-8")), trained.taxonomy)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = write_tokenizer(trained.tokenizer_file, 128, Path(folder) / "tokenizer.json")
        utterances = [encoding.ids for encoding in tokenizer.encode_batch(read_texts(given.texts))]
        calibration, measured = utterances[:CALIBRATION_TEXTS], utterances[CALIBRATION_TEXTS:]
        every = variants(trained.network, calibration, Path(folder))
        chosen = [variant for variant in every if not given.only or variant.name in given.only]
        reference = run_network(trained.network, measured)
        for variant in chosen:
            run = variant.open(1, 1)
            served = concatenate([run(measured[start : start + 16]) for start in range(0, len(measured), 16)])
            report = compare(reference, served, policy, Path(folder) / "packed.onnx", precision=variant.name)
            print(f"{variant.name:32} decisions equal {report.decisions_equal:.2%} of {report.n_texts}")
        medians = speed_table(chosen, measured, given.repeats)
    for layout in LAYOUTS:
        for variant in chosen:
            cells = (f"{medians[variant.name, layout, size]:8.2f}" for size in CALL_SIZES)
            print(f"{layout:10} {variant.name:32} ms an utterance, calls of {CALL_SIZES}:", *cells)


if __name__ == "__main__":
    main()
