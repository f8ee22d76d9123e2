"""
The sidecar's commands: ``python -m monitoring tree`` draws the failure-mode tree as a mermaid chart.
"""

import argparse
import sys
from pathlib import Path

from monitoring.errors import BadFailureTree
from monitoring.failure_tree import DEFAULT_TREE, load, mermaid


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0, or 2 when the tree cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m monitoring", description="The sidecar of the router.")
    commands = parser.add_subparsers(dest="command", required=True)
    tree = commands.add_parser("tree", help="draw the failure-mode tree as a mermaid chart")
    tree.add_argument("--file", type=Path, default=DEFAULT_TREE, help="another tree (default: the project's)")
    chosen = parser.parse_args(arguments)
    try:
        sys.stdout.write(mermaid(load(chosen.file)))
    except BadFailureTree as wrong:
        sys.stderr.write(f"{wrong}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
