"""
A version of random weights, as fast as a trained one of its sizes: for speed alone, its answers mean nothing.

    python -m model_repo.pipeline.random_version --architecture distilbert-base --out var/speed/distilbert-base
    python -m loadtest.bench --architecture distilbert-base --model-repo var/speed/distilbert-base

Tokenizer, taxonomy and policy are those of the champion of ``--like``; layers round to 8 bits as those of a quantised
version do.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import DistilBertConfig, DistilBertModel

from model_repo.contract.engine import TOKENIZER_FILE
from model_repo.contract.manifest import Manifest
from model_repo.pipeline.export import export
from model_repo.pipeline.network import RouterNetwork, save_checkpoint
from model_repo.pipeline.quantise import measured_steps
from model_repo.pipeline.quantised import quantise_layers
from model_repo.store import LoadedVersion, Store, sha256_of

SHIPPED = Path(__file__).parents[1] / "versions"
SEED = 42
ARCHITECTURES = {
    "minilm": DistilBertConfig(dim=384, hidden_dim=1536, n_layers=6, n_heads=12),
    "distilbert-base": DistilBertConfig(dim=768, hidden_dim=3072, n_layers=6, n_heads=12),
}


def random_version(config: DistilBertConfig, like: Store, out: Path) -> str:
    """Write a model repository to ``out`` that serves one version of the sizes of ``config``; gives its name."""
    champion = like.deployment().champion
    shipped = like.load(champion.version)
    taxonomy, max_tokens = shipped.manifest.taxonomy, shipped.manifest.max_tokens
    out.mkdir(parents=True, exist_ok=True)
    store = Store(out)
    policy = replace(like.policy(champion.version, champion.policy_revision), version=store.next_version(), revision=1)
    with TemporaryDirectory(dir=out) as scratch:
        checkpoint, folder = Path(scratch) / "checkpoint", Path(scratch) / "version"
        save_checkpoint(checkpoint, random_network(config, shipped), shipped.file(TOKENIZER_FILE), taxonomy)
        # Nothing is demanded of the decisions of random weights: the names of the intents do as texts to compare.
        report = export(checkpoint, folder, taxonomy.intents, policy, max_tokens=max_tokens, min_decisions_equal=0.0)
        manifest = Manifest(
            version=policy.version,
            taxonomy=taxonomy,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            backend="onnx",
            precision=report.precision,
            max_tokens=max_tokens,
            seed=SEED,
            files={file.name: sha256_of(file) for file in sorted(folder.iterdir())},
            training={"random_weights": config.to_diff_dict()},
        )
        store.add_version(folder, manifest, policy)
    store.promote(policy.version, policy.revision, "random weights, for speed alone")
    return policy.version


def random_network(config: DistilBertConfig, shipped: LoadedVersion) -> RouterNetwork:
    """Seeded weights over the vocabulary of ``shipped``, with steps measured on token ids drawn at random."""
    torch.manual_seed(SEED)
    vocabulary = Tokenizer.from_file(str(shipped.file(TOKENIZER_FILE))).get_vocab_size()
    sizes = DistilBertConfig.from_dict({**config.to_dict(), "vocab_size": vocabulary})
    network = RouterNetwork(DistilBertModel(sizes), len(shipped.manifest.taxonomy.intents)).eval()
    drawn = np.random.default_rng(SEED).integers(0, vocabulary, (200, 16)).tolist()
    quantise_layers(network, measured_steps(network, drawn))
    return network


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", choices=sorted(ARCHITECTURES), default="minilm")
    parser.add_argument("--like", type=Path, default=SHIPPED, help="model repository whose champion lends the rest")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    version = random_version(ARCHITECTURES[given.architecture], Store(given.like), given.out)
    print(f"{given.out}: version {version}, random weights, {given.architecture}")


if __name__ == "__main__":
    main()
