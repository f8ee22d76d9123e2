"""Reading the compiled programs of a version: digests first, since programs are executable content."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model_repo.contract.engine import MODEL_FILE, TOKENIZER_FILE
from model_repo.contract.errors import BadManifest, FileMissing
from model_repo.contract.neuron import (
    GOLDEN_FILE,
    PROGRAMS_FILE,
    NeuronRefused,
    ProgramManifest,
    Refusal,
)
from model_repo.contract.outputs import ModelOutputs
from model_repo.store import sha256_of


@dataclass(frozen=True)
class Golden:
    """Utterances with what the trained network gives for each alone, in fp32 on a CPU."""

    utterances: tuple[tuple[int, ...], ...]
    outputs: ModelOutputs


@dataclass(frozen=True)
class Programs:
    """A folder of programs whose every digest has been checked."""

    folder: Path
    manifest: ProgramManifest
    golden: Golden


def read_programs(version: Path, folder: Path) -> Programs:
    """
    The programs in ``folder``, compiled from the version in ``version``.

    Raises NeuronRefused: artefact_missing for what is not there, artefact_mismatch for what is damaged or of
    another version, with the file.
    """
    try:
        manifest = ProgramManifest.from_json(json.loads((folder / PROGRAMS_FILE).read_text(encoding="utf-8")))
        for name in (MODEL_FILE, TOKENIZER_FILE):
            _check(version / name, manifest.sources.get(name, "nothing"))
        for program in manifest.programs:
            _check(folder / program.file, program.sha256)
        _check(folder / GOLDEN_FILE, manifest.golden_sha256)
    except (FileNotFoundError, FileMissing) as missing:
        raise NeuronRefused(Refusal.ARTEFACT_MISSING, f"{missing}; run `python -m model_repo compile-neuron`") from None
    except (BadManifest, ValueError) as wrong:
        if isinstance(wrong, NeuronRefused):
            raise
        raise NeuronRefused(Refusal.ARTEFACT_MISMATCH, f"{folder / PROGRAMS_FILE}: {wrong}") from wrong
    return Programs(folder, manifest, _read_golden(folder / GOLDEN_FILE))


def check_release(manifest: ProgramManifest, installed: str) -> None:
    """Raises NeuronRefused when another release of torch-neuronx compiled the programs than the one that runs."""
    compiled = manifest.releases.get("torch-neuronx", "unknown")
    if compiled != installed:
        raise NeuronRefused(
            Refusal.WRONG_RELEASE, f"torch-neuronx {compiled} compiled the programs, {installed} is installed"
        )


def _check(file: Path, expected: str) -> None:
    got = sha256_of(file)
    if got != expected:
        raise NeuronRefused(
            Refusal.ARTEFACT_MISMATCH,
            f"{file}: SHA-256 is {got[:12]}..., the programs' manifest says {expected[:12]}...",
        )


def _read_golden(file: Path) -> Golden:
    with np.load(file, allow_pickle=False) as arrays:
        ends = np.cumsum(arrays["lengths"])
        flat = arrays["token_ids"]
        utterances = tuple(
            tuple(flat[end - length : end].tolist()) for end, length in zip(ends, arrays["lengths"], strict=True)
        )
        outputs = ModelOutputs(arrays["logits"], arrays["age_logits"], arrays["embeddings"])
    return Golden(utterances, outputs)
