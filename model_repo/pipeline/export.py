"""
Turn a trained checkpoint into what serves: ``python -m model_repo export``.

Writes model.onnx (the packed graph, in fp32, or in int8 where the network was trained to round), tokenizer.json (no
padding, cut at the limit) and engine.json, then reads them back and compares decisions with the trained network. The
same file serves ONNX Runtime and OpenVINO.
"""

import itertools
import json
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from tokenizers import Tokenizer

# The library reports its use to its makers unless told not to when it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort

from model_repo.contract.decision import decide
from model_repo.contract.engine import ENGINE_FILE, INPUTS, MODEL_FILE, OUTPUTS, TOKENIZER_FILE, EngineSpec
from model_repo.contract.membership import MEMBERSHIP_FILE
from model_repo.contract.outputs import ModelOutputs, concatenate
from model_repo.contract.packing import pack, rows
from model_repo.contract.policy import Policy
from model_repo.pipeline.network import RouterNetwork, load_checkpoint
from model_repo.pipeline.packed import PackedRouter
from model_repo.pipeline.quantised import steps_of, weight_scales
from model_repo.store import read_membership

OPSET = 17
"""The first with LayerNormalization as one operator, which both engines compute in fp32."""
SLOTS = 32
MAX_ROW_TOKENS = 256
HALF_PRECISION_ABOVE = 4096
"""Elements above which a weight is stored in half precision; norms and biases stay as they are."""

Utterances = Sequence[Sequence[int]]


class ParityLost(RuntimeError):
    """The artefact decides differently from the trained network more often than allowed."""


@dataclass(frozen=True)
class ExportReport:
    """How the artefact compares with the trained network, on texts it was not trained on."""

    n_texts: int
    decisions_equal: float
    """Share of texts with the same accepted intents, ood verdict and age verdict."""
    tops_equal: float
    """Share of texts with the same most probable intent."""
    max_logit_difference: float
    max_probability_difference: float
    model_mib: float
    """Size of model.onnx."""
    precision: str

    def to_json(self) -> dict[str, Any]:
        """For the manifest and the log."""
        return asdict(self)


def export(
    checkpoint: Path,
    out: Path,
    texts: Sequence[str],
    policy: Policy,
    *,
    max_tokens: int = 128,
    min_decisions_equal: float = 0.995,
) -> ExportReport:
    """
    Write the artefact folder and say how it compares on ``texts`` (at least 1,000 for a version that ships).

    Raises ParityLost when fewer than ``min_decisions_equal`` of the decisions are equal; 0 only reports.
    """
    trained = load_checkpoint(checkpoint)
    precision = "int8" if steps_of(trained.network) else "fp32"
    spec = EngineSpec(precision, SLOTS, max_tokens, max(MAX_ROW_TOKENS, max_tokens))
    out.mkdir(parents=True, exist_ok=True)
    write_graph(trained.network, spec, out / MODEL_FILE)
    store_in_half_precision(out / MODEL_FILE)
    tokenizer = write_tokenizer(trained.tokenizer_file, max_tokens, out / TOKENIZER_FILE)
    (out / ENGINE_FILE).write_text(json.dumps(spec.to_json(), indent=2) + "\n", encoding="utf-8")
    if trained.membership is not None:
        shutil.copyfile(checkpoint / MEMBERSHIP_FILE, out / MEMBERSHIP_FILE)

    utterances = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    trained_outputs = trained.served(run_network(trained.network, utterances))
    report = compare(
        trained_outputs, run_artefact(out, spec, utterances), policy, out / MODEL_FILE, precision=precision
    )
    if report.decisions_equal < min_decisions_equal:
        raise ParityLost(
            f"{report.decisions_equal:.2%} of {report.n_texts} decisions are equal, at least "
            f"{min_decisions_equal:.2%} must be"
        )
    return report


def write_graph(network: RouterNetwork, spec: EngineSpec, file: Path) -> None:
    """The packed graph, of any number of tokens; layers that round are stored in 8 bits, all else is fp32."""
    packed = PackedRouter(network, spec.slots).eval()
    row = pack([[1, 2, 3], [4, 5]], spec.slots, size=8)
    with warnings.catch_warnings(), torch.inference_mode():
        # The tracing exporter needs nothing besides onnx; torch announces that another will replace it.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            packed,
            tuple(torch.from_numpy(array.copy()) for array in row.arrays),
            str(file),
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_axes={name: {0: "tokens"} for name in INPUTS},
            opset_version=OPSET,
            dynamo=False,
        )
    store_in_eight_bits(file)


def store_in_eight_bits(file: Path) -> None:
    """
    Store the weights that rounded inputs are multiplied by as integers, with a step size for each output.

    Both engines multiply integers where both sides of a product come straight from a DequantizeLinear. Weights lie on
    their steps already (``PackedRouter``), so that nothing is lost.
    """
    model = onnx.load(file)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    rounded = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    nodes = []
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[0] in rounded:
            name = node.input[1]
            tensor = weights[name]
            weight = numpy_helper.to_array(tensor)
            scales = weight_scales(torch.from_numpy(weight.T.copy())).numpy()
            tensor.CopyFrom(numpy_helper.from_array(np.rint(weight / scales).astype(np.int8), name))
            model.graph.initializer.append(numpy_helper.from_array(scales, f"{name}.scales"))
            model.graph.initializer.append(
                numpy_helper.from_array(np.zeros_like(scales, dtype=np.int8), f"{name}.zeros")
            )
            parts = [name, f"{name}.scales", f"{name}.zeros"]
            nodes.append(onnx.helper.make_node("DequantizeLinear", parts, [f"{name}.values"], axis=1))
            node.input[1] = f"{name}.values"
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, file)


def store_in_half_precision(file: Path) -> None:
    """
    Store the large weights as fp16: half the file, the same fp32 arithmetic. Raises ValueError beyond the fp16 range.

    A weight is cast to fp32 where it is used, which engines do once, when they load. Of an embedding table the looked
    up rows are cast instead, so that the table (half of the weights) stays small in memory too.
    """
    model = onnx.load(file)
    tables = {node.input[0] for node in model.graph.node if node.op_type == "Gather"}
    halved = set()
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < HALF_PRECISION_ABOVE:
            continue
        name, weight = tensor.name, numpy_helper.to_array(tensor)
        if np.abs(weight).max() > np.finfo(np.float16).max:
            raise ValueError(f"weight {name} reaches {np.abs(weight).max()}, beyond half precision")
        tensor.CopyFrom(numpy_helper.from_array(weight.astype(np.float16), name + ".half"))
        halved.add(name)
        if name not in tables:
            casts.append(_cast(name + ".half", name))
    nodes = [*casts, *_with_cast_lookups(model.graph.node, tables & halved)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, file)


def _with_cast_lookups(nodes: Iterable[onnx.NodeProto], tables: set[str]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        if node.op_type == "Gather" and node.input[0] in tables:
            rows_name = node.output[0]
            node.input[0] += ".half"
            node.output[0] += ".half"
            yield node
            yield _cast(node.output[0], rows_name)
        else:
            yield node


def _cast(source: str, target: str) -> onnx.NodeProto:
    return onnx.helper.make_node("Cast", [source], [target], to=onnx.TensorProto.FLOAT)


def write_tokenizer(source: Path, max_tokens: int, file: Path) -> Tokenizer:
    """The tokenizer with padding off and the limit set; returned ready to use."""
    tokenizer = Tokenizer.from_file(str(source))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    tokenizer.save(str(file), pretty=False)
    return tokenizer


def read_artefact_spec(folder: Path) -> EngineSpec:
    """The sizes the artefact in ``folder`` was exported with."""
    return EngineSpec.from_json(json.loads((folder / ENGINE_FILE).read_text(encoding="utf-8")))


def run_network(network: RouterNetwork, utterances: Utterances) -> ModelOutputs:
    """The trained network on utterances of one length at a time: the reference, with nothing padded or packed."""
    by_length = sorted(range(len(utterances)), key=lambda index: len(utterances[index]))
    parts = []
    for _, group in itertools.groupby(by_length, key=lambda index: len(utterances[index])):
        ids = torch.tensor([list(utterances[index]) for index in group])
        with torch.inference_mode():
            outputs = network(ids, torch.ones_like(ids))
        parts.append(ModelOutputs(*(output.numpy() for output in outputs)))
    together, order = concatenate(parts), np.argsort(by_length)
    return ModelOutputs(together.logits[order], together.age_logits[order], together.embeddings[order])


def run_artefact(folder: Path, spec: EngineSpec, utterances: Utterances) -> ModelOutputs:
    """What the artefact serves: its graph, and its membership head where it has one."""
    outputs, membership = run_graph(folder, spec, utterances), read_membership(folder)
    return outputs if membership is None else membership.applied(outputs)


def run_graph(folder: Path, spec: EngineSpec, utterances: Utterances) -> ModelOutputs:
    """The graph on ONNX Runtime, in full rows of mixed lengths as a busy server would run them."""
    session = ort.InferenceSession(str(folder / MODEL_FILE), providers=["CPUExecutionProvider"])
    parts = []
    for group in rows(utterances, spec.slots, spec.max_row_tokens):
        row = pack(group, spec.slots, sum(map(len, group)))
        outputs = session.run(OUTPUTS, dict(zip(INPUTS, row.arrays, strict=True)))
        parts.append(ModelOutputs(*(output[: len(group)] for output in outputs)))
    return concatenate(parts)


def compare(
    trained: ModelOutputs, served: ModelOutputs, policy: Policy, model_file: Path, *, precision: str
) -> ExportReport:
    """Decisions and probabilities of the same utterances by both."""
    before, after = decide(trained, policy), decide(served, policy)
    equal = (
        (before.is_accepted == after.is_accepted).all(axis=1)
        & (before.is_ood == after.is_ood)
        & (before.is_age_sensitive == after.is_age_sensitive)
    )
    return ExportReport(
        n_texts=len(trained),
        decisions_equal=float(equal.mean()),
        tops_equal=float((before.top == after.top).mean()),
        max_logit_difference=float(np.abs(trained.logits - served.logits).max()),
        max_probability_difference=float(np.abs(before.probabilities - after.probabilities).max()),
        model_mib=model_file.stat().st_size / 2**20,
        precision=precision,
    )
