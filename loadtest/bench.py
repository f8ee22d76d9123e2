"""
The highest constant rate inside the latency budget, ours beside a plain FastAPI + ONNX Runtime service.

    python -m loadtest.bench [--slo-ms 15 --slo-ms 50] [--baseline FOLDER] [--bodies FILE]

Starts both on loopback, measures them in turn, prints tables and writes bench.json to --out. ``--url`` measures a
server that already runs instead of starting ours. Without ``--baseline`` its model is made first (needs torch).
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from loadtest import make_baseline
from loadtest.baseline import baseline_running
from loadtest.bench_report import BenchResult, Figures, tables
from loadtest.contest import Contender, Terms, alone, at_rate, find_limits, overload
from loadtest.messages import DEFAULT_FOLDER, FEWEST_TOKENS, MOST_TOKENS, count_tokens, read_texts, within_tokens
from loadtest.server_process import ROOT, peak_memory_mib, service_running
from loadtest.wire import loopback_target


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    chosen = _parser().parse_args(arguments)
    chosen.out.mkdir(parents=True, exist_ok=True)
    baseline = chosen.baseline or make_baseline.ensure(chosen.architecture, chosen.checkpoint, chosen.var)
    texts = within_tokens(read_texts(chosen.bodies), baseline / "tokenizer.json")
    terms = Terms(texts, chosen.trial_s, chosen.trials, chosen.start, chosen.resolution, chosen.overload_s)
    mean = statistics.fmean(count_tokens(texts, baseline / "tokenizer.json"))
    print(f"{len(texts)} messages of {FEWEST_TOKENS} to {MOST_TOKENS} tokens, {mean:.1f} on average")
    print(f"baseline: {make_baseline.describe(baseline)}")
    with ExitStack() as servers:
        contenders, pids = [], {}
        if chosen.url:
            contenders.append(Contender("service", loopback_target(chosen.url)))
        else:
            settings = {"ROUTER_MODEL_REPO": str(chosen.model_repo)} if chosen.model_repo else {}
            ours = servers.enter_context(service_running(chosen.out, settings))
            contenders.append(Contender(ours.name, ours.target))
            pids[ours.name] = ours.process.pid
        if not chosen.skip_baseline:
            theirs = servers.enter_context(baseline_running(baseline, chosen.out))
            contenders.append(Contender(theirs.name, theirs.target))
            pids[theirs.name] = theirs.process.pid
        result = measure(contenders, pids, terms, chosen.slo_ms or [15.0], chosen.rate or [50.0, 200.0])
    print(tables(result))
    (chosen.out / "bench.json").write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="utf-8")


def measure(
    contenders: Sequence[Contender],
    pids: dict[str, int],
    terms: Terms,
    slos_ms: Sequence[float],
    rates: Sequence[float],
) -> BenchResult:
    """Everything that is printed; the first budget of ``slos_ms`` sets what twice the limit is."""
    clients = {contender.name: alone(contender, terms) for contender in contenders}
    fixed = {(contender.name, rate): at_rate(contender, terms, rate) for rate in rates for contender in contenders}
    limits = {slo_ms: dict(find_limits(contenders, terms, slo_ms, announce=print)) for slo_ms in slos_ms}
    figures = []
    for contender in contenders:
        name, slo_ms = contender.name, slos_ms[0]
        limit = limits[slo_ms][name]
        figures.append(
            Figures(
                name=name,
                limits={slo: limits[slo][name] for slo in slos_ms},
                alone=clients[name].latency,
                at_rates={rate: fixed[name, rate].latency for rate in rates},
                errors_at_rates={rate: fixed[name, rate].errors for rate in rates},
                overload=overload(contender, terms, limit, slo_ms) if limit else None,
                peak_memory_mib=peak_memory_mib(pids[name]) if name in pids else None,
            )
        )
    return BenchResult(tuple(figures))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slo-ms", type=float, action="append", help="latency budget; may be given again (15)")
    parser.add_argument(
        "--rate", type=float, action="append", help="fixed rate to report; may be given again (50, 200)"
    )
    parser.add_argument("--bodies", type=Path, default=DEFAULT_FOLDER, help="folder of *.jsonl, or file of lines")
    parser.add_argument("--url", help="measure this server instead of starting the service")
    parser.add_argument("--model-repo", type=Path, help="versions for the service (its own default)")
    parser.add_argument("--baseline", type=Path, help="folder with model.onnx and tokenizer.json")
    parser.add_argument("--skip-baseline", action="store_true", help="measure the service alone")
    parser.add_argument("--checkpoint", type=Path, help="trained checkpoint to export for the baseline")
    parser.add_argument("--architecture", choices=sorted(make_baseline.ARCHITECTURES), default="minilm")
    parser.add_argument("--trial-s", type=float, default=Terms.trial_s)
    parser.add_argument("--trials", type=int, default=Terms.trials)
    parser.add_argument("--start", type=float, default=Terms.start, help="first rate of the search")
    parser.add_argument("--resolution", type=float, default=Terms.resolution)
    parser.add_argument(
        "--overload-s", type=float, default=Terms.overload_s, help="length of the run at twice the limit"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench")
    parser.add_argument("--var", type=Path, default=ROOT / "var" / "baseline", help="where made baselines are kept")
    return parser


if __name__ == "__main__":
    main()
