"""
Assemble a version from a training run and take it into the model repository.

calibrate -> export -> evaluate (the exported artefact, not the network it came from) -> manifest, card -> store.
"""

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from model_repo.contract.engine import TOKENIZER_FILE, EngineSpec
from model_repo.contract.labels import Taxonomy
from model_repo.contract.manifest import Manifest
from model_repo.contract.policy import Policy
from model_repo.pipeline import calibrate, composing, evaluate, generator, production
from model_repo.pipeline.data import AUTHORED, SUPPLEMENT
from model_repo.pipeline.dataset import read_utterances
from model_repo.pipeline.export import ExportReport, export, read_artefact_spec, run_artefact
from model_repo.pipeline.model_card import DataSource, Purpose, model_card
from model_repo.pipeline.settings import PRESETS
from model_repo.pipeline.sources import Source, read_sources
from model_repo.pipeline.train import save_outputs
from model_repo.store import Store, sha256_of

PINNED = ("torch", "transformers", "tokenizers", "numpy", "onnx", "onnxruntime")
CARD = "model_card.md"
MIN_DECISIONS_EQUAL = 0.995
"""Parity that a version which ships must reach."""
OWN_LICENCE = "free for any purpose"
OWN_ORIGINS = {
    AUTHORED: "authored",
    SUPPLEMENT: "authored",
    generator.SOURCE: "synthetic",
    composing.SOURCE: "synthetic",
}
CUSTOMERS_LICENCE = "customers' own, not for publication"
"""Who wrote the text that lives in this repository."""


@dataclass(frozen=True)
class VersionSettings:
    """What the assembly needs besides the run and its data."""

    min_decisions_equal: float
    """Parity that the exported artefact must reach."""
    seed: int
    commands: Sequence[str]
    """What makes the version again, for the card."""


def make_version(
    run: Path, data: Path, out: Path, store: Store, taxonomy: Taxonomy, settings: VersionSettings
) -> tuple[Manifest, Policy]:
    """
    Write the version folder ``out`` from ``run`` (a training run) and add it to the store under the next number.

    Raises ParityLost when the artefact decides differently from the network; nothing is added then.
    """
    version = store.next_version()
    policy = calibrate.run(run, data, taxonomy, version, out, settings.seed)
    texts = [u.text for part in ("validation", "test") for u in read_utterances(data / f"{part}.jsonl")]
    parity = export(run / "checkpoint", out, texts, policy, min_decisions_equal=settings.min_decisions_equal)
    print(f"export: {parity.decisions_equal:.2%} of {parity.n_texts:,} decisions equal, {parity.model_mib:.1f} MiB")
    report = _evaluate_artefact(data, out, taxonomy, policy, settings)
    manifest = _manifest(version, run, out, taxonomy, parity, report)
    _write_card(manifest, report, data, out, settings)
    (out / "policy.json").unlink()
    manifest = Manifest(**{**manifest.__dict__, "files": _digests(out)})
    store.add_version(out, manifest, policy)
    return manifest, policy


def _evaluate_artefact(
    data: Path, out: Path, taxonomy: Taxonomy, policy: Policy, settings: VersionSettings
) -> dict[str, Any]:
    tokenizer = Tokenizer.from_file(str(out / TOKENIZER_FILE))
    utterances = read_utterances(data / "test.jsonl")
    ids = [encoding.ids for encoding in tokenizer.encode_batch([u.text for u in utterances])]
    served = out.parent / f"{out.name}-outputs"
    served.mkdir(exist_ok=True)
    save_outputs(served / "outputs_test.npz", run_artefact(out, read_artefact_spec(out), ids))
    return evaluate.run(served, data, taxonomy, policy, PRESETS / "costs.toml", test_name(data), out, settings.seed)


def _manifest(
    version: str,
    run: Path,
    out: Path,
    taxonomy: Taxonomy,
    parity: ExportReport,
    report: Mapping[str, Any],
) -> Manifest:
    spec: EngineSpec = read_artefact_spec(out)
    trained = json.loads((run / "train.json").read_text(encoding="utf-8"))
    return Manifest(
        version=version,
        taxonomy=taxonomy,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        backend="onnx",
        precision=spec.precision,
        max_tokens=spec.max_tokens,
        seed=int(trained["seed"]),
        files={},
        training={
            "base": trained["preset"]["train"]["base"],
            "preset": trained["preset"],
            "n_train": trained["n_train"],
            **{
                key: trained[key] for key in ("averaged_seeds", "products", "quantised", "membership") if key in trained
            },
            "data_sha256": trained["data_sha256"],
            "epochs": trained["epochs"],
            "libraries": {name: installed_version(name) for name in PINNED},
            "parity": parity.to_json(),
        },
        metrics=report,
    )


def _write_card(
    manifest: Manifest, report: Mapping[str, Any], data: Path, out: Path, settings: VersionSettings
) -> None:
    purpose = tomllib.loads((PRESETS / "purpose.toml").read_text(encoding="utf-8"))
    card = model_card(
        manifest,
        report,
        card_sources(json.loads((data / "data_report.json").read_text(encoding="utf-8"))),
        Purpose(**{**purpose, "limits": tuple(purpose["limits"]), "ethics": tuple(purpose["ethics"])}),
        settings.commands,
        sorted(p.name for p in out.glob("*.png")),
    )
    (out / CARD).write_text(card, encoding="utf-8")


def test_name(data: Path) -> str:
    """What the figures are measured on, by the sources of the test split, as in ``manga_authored test``."""
    report = json.loads((data / "data_report.json").read_text(encoding="utf-8"))
    return " + ".join(report["splits"]["test"]["by_source"]) + " test"


def card_sources(data_report: Mapping[str, Any]) -> list[DataSource]:
    """Every source of each split with its licence and row count, from the data stage's report."""
    known = read_sources()
    uses = {"train": "train", "validation": "choosing and calibrating", "test": "test"}
    rows = []
    for part, use in uses.items():
        for name, count in data_report["splits"][part]["by_source"].items():
            rows.append(_card_source(name, known.get(name), count, use))
    return rows


def _card_source(name: str, public: Source | None, rows: int, use: str) -> DataSource:
    if public is not None:
        return DataSource(name, public.licence, public.origin, public.repository, rows, use)
    if name == production.SOURCE:
        return DataSource(name, CUSTOMERS_LICENCE, production.ORIGIN, "the event log of who trained it", rows, use)
    return DataSource(name, OWN_LICENCE, OWN_ORIGINS[name], "this repository", rows, use)


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in the folder, by relative path."""
    return {str(p.relative_to(folder)): sha256_of(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def digest_of_version(manifest: Manifest) -> str:
    """One SHA-256 over all file digests of a version: what a release note quotes."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(manifest.files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
