"""
The Inferentia2 artefact: one static program of the packed graph for each row size, and what makes it fit to load.

Shared by the stage that compiles and the backend that loads. What is installed is asked through arguments, so that
both can be told anything by a test.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any

from model_repo.contract.engine import INPUTS, OUTPUTS
from model_repo.contract.errors import BadManifest, ContractError

SCHEMA = 1
PROGRAMS_FOLDER = "neuron"
"""Inside the version's folder. Not among the version's digests: its own manifest names the version's files instead."""
PROGRAMS_FILE = "manifest.json"
GOLDEN_FILE = "golden.npz"

TARGET = "inf2"
RELEASE_LINE = "2.9.0.2."
"""Of torch-neuronx. From 2.13 on the same package name carries the native backend, which has no Inferentia2."""
PLACEHOLDER_MARK = "WRONG PACKAGE"
"""What the packages of that name on the public index raise when they are imported."""


class Refusal(StrEnum):
    """Why Inferentia is not used. Never a reason to compute on the CPU instead: the process does not serve."""

    NOT_INSTALLED = "not_installed"
    PLACEHOLDER = "placeholder"
    WRONG_RELEASE = "wrong_release"
    NO_DEVICE = "no_device"
    TOO_FEW_CORES = "too_few_cores"
    CORES_TAKEN = "cores_taken"
    ARTEFACT_MISSING = "artefact_missing"
    ARTEFACT_MISMATCH = "artefact_mismatch"
    PARITY_FAILED = "parity_failed"


class NeuronRefused(ContractError):
    """The programs cannot be made or must not be used; the message starts with the reason."""

    def __init__(self, reason: Refusal, detail: str) -> None:
        super().__init__(f"neuron: {reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class NeuronStack:
    """The imported libraries, of a release that compiles for Inferentia2."""

    torch: Any
    torch_neuronx: Any
    release: str
    """Of torch-neuronx."""


def probe(import_module: Callable[[str], Any], release_of: Callable[[str], str]) -> NeuronStack:
    """
    Import what Inferentia needs, or say why not: an installed package of that name proves nothing.

    ``release_of`` gives the release of an installed distribution. Raises NeuronRefused.
    """
    try:
        torch_neuronx = import_module("torch_neuronx")
        torch = import_module("torch")
    except (ImportError, OSError) as wrong:
        reason = Refusal.PLACEHOLDER if PLACEHOLDER_MARK in str(wrong) else Refusal.NOT_INSTALLED
        raise NeuronRefused(reason, f"cannot import torch_neuronx: {wrong}") from wrong
    if not callable(getattr(torch_neuronx, "trace", None)):
        raise NeuronRefused(Refusal.PLACEHOLDER, "the installed torch_neuronx has no function trace")
    release = release_of("torch-neuronx")
    if not release.startswith(RELEASE_LINE):
        raise NeuronRefused(Refusal.WRONG_RELEASE, f"torch-neuronx {release} is installed, {RELEASE_LINE}* is needed")
    return NeuronStack(torch, torch_neuronx, release)


@dataclass(frozen=True)
class ProgramFile:
    """One compiled row size."""

    size: int
    """Tokens of its row: the shape of each of its three int32 inputs."""
    file: str
    sha256: str


@dataclass(frozen=True)
class ProgramManifest:
    """What stands in manifest.json beside the programs."""

    programs: tuple[ProgramFile, ...]
    """By ascending size; the last holds at least ``max_tokens``."""
    slots: int
    max_tokens: int
    vocabulary: int
    """Token ids are below it."""
    sources: Mapping[str, str]
    """SHA-256 of the version's model and tokenizer, which the programs must not outlive."""
    golden_sha256: str
    releases: Mapping[str, str]
    """torch, torch-neuronx, neuronx-cc, transformers: what compiled."""
    compiler_args: str
    precision: str
    """Of the matrix products, as the compiler was asked: ``bf16``, ``tf32``, ``fp16`` or ``fp32``."""

    def __post_init__(self) -> None:
        sizes = [program.size for program in self.programs]
        if not sizes or any(low >= high for low, high in pairwise(sizes)):
            raise BadManifest(f"programs must have ascending sizes, got {sizes}")
        if sizes[-1] < self.max_tokens:
            raise BadManifest(f"programs end at {sizes[-1]} tokens, an utterance may have {self.max_tokens}")
        if self.slots < 1:
            raise BadManifest(f"slots must be >= 1, got {self.slots}")

    def to_json(self) -> dict[str, Any]:
        """As it stands on disk, with the shape and type of each input and output spelled out for a reader."""
        return {
            "schema": SCHEMA,
            "target": TARGET,
            "programs": [
                {
                    "size": program.size,
                    "file": program.file,
                    "sha256": program.sha256,
                    "inputs": {name: {"dtype": "int32", "shape": [program.size]} for name in INPUTS},
                    "outputs": {name: {"dtype": "float32", "rows": self.slots} for name in OUTPUTS},
                }
                for program in self.programs
            ],
            "slots": self.slots,
            "max_tokens": self.max_tokens,
            "vocabulary": self.vocabulary,
            "sources": dict(self.sources),
            "golden_sha256": self.golden_sha256,
            "releases": dict(self.releases),
            "compiler_args": self.compiler_args,
            "precision": self.precision,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "ProgramManifest":
        """Inverse of ``to_json``; raises BadManifest naming the field."""
        if data.get("schema") != SCHEMA or data.get("target") != TARGET:
            raise BadManifest(f"schema must be {SCHEMA} and target {TARGET}")
        try:
            return ProgramManifest(
                programs=tuple(ProgramFile(int(p["size"]), str(p["file"]), str(p["sha256"])) for p in data["programs"]),
                slots=int(data["slots"]),
                max_tokens=int(data["max_tokens"]),
                vocabulary=int(data["vocabulary"]),
                sources={str(name): str(digest) for name, digest in data["sources"].items()},
                golden_sha256=str(data["golden_sha256"]),
                releases={str(name): str(release) for name, release in data["releases"].items()},
                compiler_args=str(data["compiler_args"]),
                precision=str(data["precision"]),
            )
        except KeyError as missing:
            raise BadManifest(f"{PROGRAMS_FILE} lacks the field {missing}") from None
        except (TypeError, AttributeError) as wrong:
            raise BadManifest(f"{PROGRAMS_FILE} has a field of the wrong type: {wrong}") from wrong


def choose_size(tokens: int, seconds: Mapping[int, float]) -> int:
    """
    The program for a row of ``tokens``: of those that hold it, the one measured fastest, the smaller when equal.

    ``seconds`` maps each size to what a call took at warm-up. Raises ValueError when none holds it.

    >>> choose_size(20, {16: 0.1, 32: 0.3, 64: 0.2, 128: 0.5})
    64
    """
    fitting = [size for size in seconds if size >= tokens]
    if not fitting:
        raise ValueError(f"a row of {tokens} tokens exceeds every program: {sorted(seconds)}")
    return min(fitting, key=lambda size: (seconds[size], size))
