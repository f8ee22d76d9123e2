"""
Do the decisions survive the device's arithmetic? The gate between the trained network and a lower precision.

    python -m model_repo.pipeline.neuron_gate --run DIR --data DIR

runs it on the test split with matrix products emulated on the CPU: both factors rounded to bfloat16, sums in fp32.
That sizes the drift; it does not show what the compiler really does. The report is printed and written as JSON.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.utils._python_dispatch import TorchDispatchMode

from model_repo.contract.calibration_error import bin_counts, equal_width_edges, expected_calibration_error
from model_repo.contract.decision import Decisions, decide
from model_repo.contract.labels import LabelledUtterance
from model_repo.contract.outputs import BoolArray, FloatArray, ModelOutputs, concatenate
from model_repo.contract.packing import pack, rows
from model_repo.contract.policy import Policy
from model_repo.contract.ranking import auroc
from model_repo.pipeline.packed import PackedRouter

LABEL = "emulated bf16"


@dataclass(frozen=True)
class GateLimits:
    """What may change. Proposed numbers, to be tuned once a device has been measured."""

    decisions_equal: float = 0.995
    threshold_distance: float = 0.02
    """A decision may differ only where the reference was this near to a threshold, in probability."""
    probability: float = 0.02
    cosine: float = 0.999
    ood_auroc: float = 0.002
    ece: float = 0.002


@dataclass(frozen=True)
class GateReport:
    """The measured figures; ``failures`` names the limits that were broken."""

    label: str
    n: int
    decisions_equal: float
    furthest_from_threshold: float
    """Of the differing decisions, the largest distance of the reference from the nearest threshold; 0 without any."""
    max_probability_difference: float
    min_cosine: float | None
    """Of the embeddings; None where none were compared."""
    ood_auroc_difference: float | None
    """None without labels of both kinds."""
    ece_difference: float | None
    """Of the most probable intent on in-scope utterances, equal-width bins; None likewise."""
    failures: tuple[str, ...]

    @property
    def is_passed(self) -> bool:
        """No limit was broken."""
        return not self.failures


def gate(
    reference: ModelOutputs,
    candidate: ModelOutputs,
    policy: Policy,
    truth: BoolArray | None,
    label: str,
    limits: GateLimits | None = None,
) -> GateReport:
    """Compare two models' outputs of the same utterances. ``truth`` (n, K) are their intents, ood rows all False."""
    allowed = limits or GateLimits()
    if not (candidate.is_finite() and np.isfinite(candidate.embeddings).all()):
        return GateReport(label, len(candidate), 0.0, 1.0, 1.0, -1.0, None, None, ("an output is NaN or infinite",))
    before, after = decide(reference, policy), decide(candidate, policy)
    min_cosine = float(_cosines(reference.embeddings, candidate.embeddings).min())
    return gate_decisions(before, after, policy, truth, label, allowed, min_cosine)


def gate_decisions(
    before: Decisions,
    after: Decisions,
    policy: Policy,
    truth: BoolArray | None,
    label: str,
    limits: GateLimits | None = None,
    min_cosine: float | None = None,
) -> GateReport:
    """The same for decisions whose embeddings are not at hand, as those that the service answers."""
    allowed = limits or GateLimits()
    is_equal = (
        (before.is_accepted == after.is_accepted).all(axis=1)
        & (before.is_ood == after.is_ood)
        & (before.is_age_sensitive == after.is_age_sensitive)
    )
    distance = threshold_distances(before, policy)[~is_equal].max(initial=0.0)
    ranked = calibrated = None
    if truth is not None and 0 < (is_ood := np.asarray(~truth.any(axis=1))).sum() < len(truth):
        ranked = abs(float(auroc(before.energies, is_ood)) - float(auroc(after.energies, is_ood)))
        calibrated = abs(_ece(before, truth) - _ece(after, truth))
    report = GateReport(
        label=label,
        n=len(before),
        decisions_equal=float(is_equal.mean()),
        furthest_from_threshold=float(distance),
        max_probability_difference=float(np.abs(before.probabilities - after.probabilities).max()),
        min_cosine=min_cosine,
        ood_auroc_difference=ranked,
        ece_difference=calibrated,
        failures=(),
    )
    return replace(report, failures=_failures(report, allowed))


def threshold_distances(decisions: Decisions, policy: Policy) -> FloatArray:
    """
    How near each decision is to being another one, in units of probability.

    The nearest of: a probability to its threshold, the top two to each other, and the energy to the cut. Energy has
    no unit of probability; its distance is divided by four, since p(1 - p) <= 1/4 bounds how fast a logistic moves.
    """
    p = np.sort(decisions.probabilities, axis=1)
    to_threshold = np.abs(decisions.probabilities - np.asarray(policy.thresholds)).min(axis=1)
    runner_up = p[:, -1] - p[:, -2] if p.shape[1] > 1 else np.ones(len(p))
    to_cut = np.abs(decisions.energies - policy.energy_cut) / 4
    return np.minimum(np.minimum(to_threshold, runner_up), to_cut)


def _failures(report: GateReport, allowed: GateLimits) -> tuple[str, ...]:
    at_least = (("decisions_equal", allowed.decisions_equal), ("min_cosine", allowed.cosine))
    at_most = (
        ("furthest_from_threshold", allowed.threshold_distance),
        ("max_probability_difference", allowed.probability),
        ("ood_auroc_difference", allowed.ood_auroc),
        ("ece_difference", allowed.ece),
    )
    low = [
        f"{name} is {getattr(report, name):.5f}, at least {limit} it must be"
        for name, limit in at_least
        if (found := getattr(report, name)) is not None and found < limit
    ]
    high = [
        f"{name} is {getattr(report, name):.5f}, at most {limit} it may be"
        for name, limit in at_most
        if (getattr(report, name) or 0.0) > limit
    ]
    return (*low, *high)


def _ece(decisions: Decisions, truth: BoolArray) -> float:
    inside = truth.any(axis=1)
    is_correct = truth[np.arange(len(truth)), decisions.top]
    bins = bin_counts(decisions.probabilities.max(axis=1)[inside], is_correct[inside], equal_width_edges())
    return float(expected_calibration_error(bins))


def _cosines(left: FloatArray, right: FloatArray) -> FloatArray:
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return np.asarray((left * right).sum(axis=1) / np.maximum(norms, 1e-12))


class Bfloat16Products(TorchDispatchMode):
    """Within it every matrix product rounds both factors to bfloat16 and sums in fp32; ``rounded`` counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.rounded = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        aten = torch.ops.aten
        if func in (aten.mm.default, aten.bmm.default):
            args = tuple(_rounded(factor) for factor in args)
            self.rounded += 1
        elif func is aten.addmm.default:
            args = (args[0], _rounded(args[1]), _rounded(args[2]))
            self.rounded += 1
        return func(*args, **(kwargs or {}))


def _rounded(factor: torch.Tensor) -> torch.Tensor:
    return factor.to(torch.bfloat16).to(torch.float32)


def run_emulated(graph: PackedRouter, utterances: Sequence[Sequence[int]], row_tokens: int = 256) -> ModelOutputs:
    """The packed graph in full rows, with emulated bfloat16 products."""
    parts = []
    # Not inference_mode: there a linear layer reaches the mode whole, and its product would stay in fp32.
    with torch.no_grad(), Bfloat16Products() as mode:
        for group in rows(utterances, graph.slots, row_tokens):
            row = pack(group, graph.slots, sum(map(len, group)))
            outputs = graph(*(torch.from_numpy(array) for array in row.arrays))
            parts.append(ModelOutputs(*(output[: len(group)].numpy() for output in outputs)))
    if mode.rounded == 0:
        raise RuntimeError("no matrix product was rounded: the emulation is dead")
    return concatenate(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module; exit status 1 when a limit is broken."""
    from model_repo.pipeline import calibrate
    from model_repo.pipeline.dataset import read_taxonomy, read_utterances
    from model_repo.pipeline.export import run_network
    from model_repo.pipeline.network import load_checkpoint
    from model_repo.pipeline.train import load_outputs
    from model_repo.pipeline.truth import truth_of

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder that the train stage wrote")
    parser.add_argument("--data", type=Path, required=True, help="folder that the data stage wrote")
    parser.add_argument("--report", type=Path, help="where to write the report as JSON")
    args = parser.parse_args(arguments)
    taxonomy = read_taxonomy(args.data)
    validation, test = (read_utterances(args.data / f"{part}.jsonl") for part in ("validation", "test"))
    fitted = load_outputs(args.run / "outputs_validation.npz")
    lengths = np.ones(len(validation), dtype=np.int64)
    policy, _ = calibrate.calibrate(fitted, validation, lengths, taxonomy, "0", np.random.default_rng(0))
    checkpoint = load_checkpoint(args.run / "checkpoint")
    ids = _encode(checkpoint.tokenizer_file, test)
    reference = checkpoint.served(run_network(checkpoint.network, ids))
    candidate = checkpoint.served(run_emulated(PackedRouter(checkpoint.network, 32).eval(), ids))
    report = gate(reference, candidate, policy, truth_of(test, taxonomy).targets, LABEL)
    text = json.dumps(asdict(report), indent=2)
    print(text)
    if args.report:
        args.report.write_text(text + "\n", encoding="utf-8")
    return 0 if report.is_passed else 1


def _encode(tokenizer_file: Path, utterances: Sequence[LabelledUtterance]) -> list[list[int]]:
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.no_padding()
    tokenizer.enable_truncation(128)
    return [encoding.ids for encoding in tokenizer.encode_batch([u.text for u in utterances])]


if __name__ == "__main__":
    raise SystemExit(main())
