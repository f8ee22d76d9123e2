"""
Load test: every shape against the service, a verdict each, and an exit code.

    python -m loadtest [--shape steady --shape spike] [--url http://127.0.0.1:8080] [--scale-users 0.5] [--p95-ms 15]

Starts the service of this checkout when no ``--url`` is given. Writes a report page (SHAPE.html) and the verdict
(SHAPE.json) of each shape to --out. Exit code 0 when every verdict is kept, 1 otherwise. Unknown options go to Locust.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from loadtest.server_process import ROOT, service_running
from loadtest.shapes import DEFAULT_SHAPES, read_shapes
from loadtest.wire import loopback_target

LOCUSTFILE = Path(__file__).resolve().parent / "locustfile.py"


class RunFailed(RuntimeError):
    """Locust ended without a verdict."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    chosen, for_locust = _parser().parse_known_args(arguments)
    known = read_shapes(chosen.shapes)
    names = chosen.shape or list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"--shape must be one of {', '.join(known)}, got {', '.join(unknown)}")
    chosen.out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as servers:
        if chosen.url:
            loopback_target(chosen.url)
            url = chosen.url
        else:
            server = servers.enter_context(service_running(chosen.out, {}))
            url = server.url
            print(f"service ready after {server.ready_after_s:.1f} s", flush=True)
        codes = [_run(name, url, chosen.out, ["--shapes", str(chosen.shapes), *for_locust]) for name in names]
    return max(codes)


def _run(shape: str, url: str, out: Path, options: Sequence[str]) -> int:
    verdict, page = out / f"{shape}.json", out / f"{shape}.html"
    verdict.unlink(missing_ok=True)
    command = [sys.executable, "-m", "locust", "--locustfile", str(LOCUSTFILE), "--headless", "--only-summary"]
    command += ["--host", url, "--html", str(page), "--stop-timeout", "5", "--loglevel", "WARNING"]
    command += ["--load-shape", shape, "--verdict", str(verdict), *options]
    with (out / f"{shape}.log").open("w", encoding="utf-8") as log:
        code = subprocess.run(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, check=False).returncode  # noqa: S603
    if not verdict.exists():
        raise RunFailed(f"locust ended with {code}:\n{(out / f'{shape}.log').read_text(encoding='utf-8')[-2000:]}")
    print(f"{shape}: {json.loads(verdict.read_text(encoding='utf-8'))['line']}\n  report: {page}", flush=True)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", help="a service that already runs on this machine")
    parser.add_argument("--shape", action="append", help="may be given again; every shape of --shapes otherwise")
    parser.add_argument("--shapes", type=Path, default=DEFAULT_SHAPES, help="TOML file of load shapes")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "loadtest")
    return parser


if __name__ == "__main__":
    sys.exit(main())
