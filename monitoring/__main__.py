"""
The sidecar's commands.

    python -m monitoring         watch until told to stop; settings come from the environment (docs/monitoring.md)
    python -m monitoring tree    draw the failure-mode tree as a mermaid chart
    python -m monitoring report  write an HTML report of a stretch of time

Exit status: 0 after a signal, 1 when the state is in use or cannot be gone on from, 2 for bad settings, a bad tree or a
bad hook, 3 without the port, 4 when the loop died.
"""

import argparse
import sys
from pathlib import Path

from model_repo.contract.errors import ContractError
from monitoring.errors import BadFailureTree, BadHook, BadSettings, MonitoringError
from monitoring.failure_tree import DEFAULT_TREE, load, mermaid
from monitoring.report_arguments import add_report_arguments


def main(arguments: list[str] | None = None) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m monitoring", description="The sidecar of the router.")
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("run", help="watch until told to stop (what is done without a command)")
    tree = commands.add_parser("tree", help="draw the failure-mode tree as a mermaid chart")
    tree.add_argument("--file", type=Path, default=DEFAULT_TREE, help="another tree (default: the project's)")
    report = commands.add_parser("report", help="write an HTML report of a stretch of time")
    add_report_arguments(report)
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "report":
            return _report(chosen)
        return _draw(chosen.file) if chosen.command == "tree" else _watch()
    except (BadSettings, BadFailureTree, BadHook) as wrong:
        sys.stderr.write(f"{wrong}\n")
        return 2
    except (MonitoringError, ContractError) as refused:
        sys.stderr.write(f"{refused}\n")
        return 1


def _draw(file: Path) -> int:
    sys.stdout.write(mermaid(load(file)))
    return 0


def _report(chosen: argparse.Namespace) -> int:
    # Imported here: the sidecar itself does without matplotlib.
    from monitoring.report import run_report

    return run_report(chosen)


def _watch() -> int:
    # Imported here, so that the other commands need nothing of it, and bad settings are told at once.
    from monitoring.json_logs import start_logging
    from monitoring.settings import read_settings

    settings = read_settings()
    start_logging(settings.log_level)
    from monitoring.app import run

    return run(settings)


if __name__ == "__main__":
    sys.exit(main())
