"""``python -m model_repo <stage>``: a folder in, a folder out."""

import argparse
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m model_repo", description=__doc__)
    stages = parser.add_subparsers(dest="stage", required=True)
    train = stages.add_parser("train")
    train.add_argument("--data", type=Path, required=True)
    train.add_argument("--out", type=Path, required=True)
    train.add_argument("--preset", default="default")
    train.add_argument("--seed", type=int, default=42)
    args = parser.parse_args()
    import json
    from model_repo.contract.labels import Taxonomy
    from model_repo.pipeline.settings import read_preset
    from model_repo.pipeline import train as t
    tax = Taxonomy.from_json(json.loads((args.data / "taxonomy.json").read_text()))
    t.train(args.data, args.out, tax, read_preset(args.preset), args.seed)


if __name__ == "__main__":
    main()
