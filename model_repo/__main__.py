"""
The offline pipeline: a folder in, a folder out.

    python -m model_repo run --preset default            everything below, then a version that serves
    python -m model_repo run --production-labels FILE    the same, with what customers wrote in the training split
    python -m model_repo data --out DIR                  one labelled set
    python -m model_repo train --data DIR --out DIR      a checkpoint
    python -m model_repo average --runs DIR DIR ... --data DIR --out DIR    the mean of several runs' weights
    python -m model_repo quantise --run DIR --data DIR --out DIR    a run trained on in 8 bits
    python -m model_repo membership --run DIR --data DIR --out DIR  a run with a head that asks for each intent
    python -m model_repo version --data DIR --run DIR    calibrate, export, evaluate; into the repository
    python -m model_repo benchmark clinc150 --out DIR    the same on a public set
    python -m model_repo promote 2 --reason "..."        what serves
    python -m model_repo rollback --reason "..."         the previous version, or policy revision, serves again
    python -m model_repo reload --reason "..."           what serves is opened anew
    python -m model_repo tune --reason "..." [limits]    lower limits of the service, or give them back
    python -m model_repo compile-neuron --checkpoint DIR --version DIR   programs for Inferentia2
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from model_repo.contract.deployment import Deployment
from model_repo.contract.errors import BadUtterance, ContractError
from model_repo.contract.labels import LabelledUtterance
from model_repo.contract.tuning import Tuning
from model_repo.store import Store

VERSIONS = Path(__file__).parent / "versions"
DATA_VARIABLE = "MANGA_DATA"


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse and run one stage; a stage's own errors end the process with their message."""
    parser = argparse.ArgumentParser(
        prog="python -m model_repo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    stages = parser.add_subparsers(dest="stage", required=True)
    _data_parser(stages.add_parser("data", help="one labelled set in the record format"))
    _train_parser(stages.add_parser("train", help="train one network"))
    _average_parser(stages.add_parser("average", help="the mean of several runs' weights, as one run"))
    _quantise_parser(stages.add_parser("quantise", help="train a run on in 8 bits"))
    _membership_parser(stages.add_parser("membership", help="attach a head that asks for each intent by itself"))
    _version_parser(stages.add_parser("version", help="calibrate, export, evaluate; add to the repository"))
    _run_parser(stages.add_parser("run", help="every stage"))
    _benchmark_parser(stages.add_parser("benchmark", help="a public set with its own labels"))
    _promote_parser(stages.add_parser("promote", help="say which version serves"))
    _rollback_parser(stages.add_parser("rollback", help="serve the previous version or policy revision again"))
    _reload_parser(stages.add_parser("reload", help="have what serves opened anew"))
    _tune_parser(
        stages.add_parser("tune", help="lower limits of the service; without a limit, the settings hold again")
    )
    _compile_neuron_parser(stages.add_parser("compile-neuron", help="programs for Inferentia2, on any x86 host"))
    args = parser.parse_args(arguments)
    args.call(args)


def _data_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True)
    _add_sources(parser)
    _add_production(parser)
    _add_preset(parser)
    parser.set_defaults(call=_data)


def _train_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder that the data stage wrote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--stop-after", type=int, help="end this slice after so many epochs in all")
    _add_preset(parser)
    parser.set_defaults(call=_train)


def _average_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="folders that the train stage wrote")
    parser.add_argument("--data", type=Path, required=True, help="folder that they were trained on")
    parser.add_argument("--out", type=Path, required=True)
    parser.set_defaults(call=_average)


def _quantise_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", type=Path, required=True, help="folder that the train or average stage wrote")
    parser.add_argument("--data", type=Path, required=True, help="folder that it was trained on")
    parser.add_argument("--out", type=Path, required=True)
    _add_preset(parser)
    parser.set_defaults(call=_quantise)


def _membership_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", type=Path, required=True, help="folder that train, average or quantise wrote")
    parser.add_argument("--data", type=Path, required=True, help="folder that it was trained on")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--embedded-by", type=Path, help="the run that --run was quantised from: forty times as fast")
    _add_preset(parser)
    parser.set_defaults(call=_membership)


def _version_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder that the data stage wrote")
    parser.add_argument("--run", type=Path, required=True, help="folder that the train stage wrote")
    parser.add_argument("--out", type=Path, required=True, help="where the version is put together")
    parser.add_argument("--promote", action="store_true", help="let it serve at once")
    _add_repository(parser)
    _add_preset(parser)
    parser.set_defaults(call=_version)


def _run_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, help="default: runs/<preset>")
    parser.add_argument("--seeds", type=int, nargs="+", help="default: those of the preset")
    parser.add_argument("--repository", type=Path, help="default: <out>/versions, so that nothing that serves changes")
    _add_sources(parser)
    _add_production(parser)
    _add_preset(parser)
    parser.set_defaults(call=_run)


def _benchmark_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", choices=["clinc150", "mixsnips", "hint3_curekart", "hint3_sofmattress"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--limit", type=int, help="train on so many utterances only; the report says so")
    _add_sources(parser)
    parser.add_argument("--preset", default="benchmark")
    parser.set_defaults(call=_benchmark)


def _promote_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("version")
    parser.add_argument("--policy-revision", type=int, default=1)
    parser.add_argument("--reason", required=True)
    _add_repository(parser)
    parser.set_defaults(call=_promote)


def _rollback_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", required=True)
    _add_repository(parser)
    parser.set_defaults(call=_rollback)


def _reload_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", required=True)
    _add_repository(parser)
    parser.set_defaults(call=_reload)


def _tune_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch-tokens", type=int, help="tokens computed together")
    parser.add_argument("--batch-utterances", type=int, help="utterances computed together")
    parser.add_argument("--max-in-flight", type=int, help="most utterances inside at once")
    parser.add_argument("--max-tokens", type=int, help="longest utterance; what is longer is cut")
    parser.add_argument("--reload", action="store_true", help="open what serves anew as well")
    parser.add_argument("--reason", required=True)
    _add_repository(parser)
    parser.set_defaults(call=_tune)


def _compile_neuron_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder `checkpoint` of the training run")
    parser.add_argument("--version", type=Path, required=True, help="folder of the version that was made from it")
    parser.add_argument("--out", type=Path, help="default: neuron/ in the version's folder; never overwritten")
    parser.add_argument("--texts", type=Path, help="JSON lines that golden utterances are drawn from")
    parser.add_argument("--sizes", type=int, nargs="+", help="row sizes in tokens; default: those of neuron_buckets")
    parser.add_argument("--auto-cast", choices=["none", "matmult", "all"], default="matmult")
    parser.add_argument("--auto-cast-type", choices=["bf16", "fp16", "tf32"], default="bf16")
    parser.set_defaults(call=_compile_neuron)


def _add_sources(parser: argparse.ArgumentParser) -> None:
    default = os.environ.get(DATA_VARIABLE)
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(default) if default else None,
        help=f"folder of the public sets (default: {DATA_VARIABLE}); without it the stage says what is missing",
    )


def _add_production(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--production-labels",
        type=Path,
        help="JSON lines of labelled utterances of production, for the training split alone; a wrong line ends the run",
    )


def _add_preset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="default", help="default, smoke, or a TOML file")


def _add_repository(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repository", type=Path, default=VERSIONS)


# The stages import torch and its friends only when they are called: `--help` and `promote` need neither.


def _data(args: argparse.Namespace) -> None:
    from model_repo.pipeline.data import build

    build(args.data, args.out, preset=args.preset, production=_production(args.production_labels))


def _production(file: Path | None) -> list[LabelledUtterance]:
    """Labels of production; what cannot be read ends the process with a status that says that trying again is vain."""
    from model_repo.pipeline.data import read_taxonomy
    from model_repo.pipeline.production import read_production

    if file is None:
        return []
    try:
        return read_production(file, read_taxonomy())
    except FileNotFoundError as missing:
        status, refused = os.EX_NOINPUT, str(missing)
    except BadUtterance as wrong:
        status, refused = os.EX_DATAERR, str(wrong)
    print(refused, file=sys.stderr)
    raise SystemExit(status)


def _train(args: argparse.Namespace) -> None:
    from model_repo.pipeline.dataset import read_taxonomy
    from model_repo.pipeline.settings import read_preset
    from model_repo.pipeline.train import OtherRun, train

    taxonomy, preset = read_taxonomy(args.data), read_preset(args.preset)
    try:
        train(args.data, args.out, taxonomy, preset, args.seed, args.stop_after)
    except OtherRun as refused:
        raise SystemExit(str(refused)) from None


def _average(args: argparse.Namespace) -> None:
    from model_repo.pipeline.average import CannotAverage, average

    try:
        average(args.runs, args.data, args.out)
    except CannotAverage as refused:
        raise SystemExit(str(refused)) from None


def _quantise(args: argparse.Namespace) -> None:
    from model_repo.pipeline.quantise import CannotQuantise, quantise
    from model_repo.pipeline.settings import read_preset
    from model_repo.pipeline.train import OtherRun

    try:
        quantise(args.run, args.data, args.out, read_preset(args.preset))
    except (CannotQuantise, OtherRun) as refused:
        raise SystemExit(str(refused)) from None


def _membership(args: argparse.Namespace) -> None:
    from model_repo.pipeline.membership import NoMembership, attach
    from model_repo.pipeline.settings import read_preset

    try:
        attach(args.run, args.data, args.out, read_preset(args.preset), args.embedded_by)
    except NoMembership as refused:
        raise SystemExit(str(refused)) from None


def _version(args: argparse.Namespace) -> None:
    from model_repo.pipeline.dataset import read_taxonomy
    from model_repo.pipeline.version import MIN_DECISIONS_EQUAL, VersionSettings, digest_of_version, make_version

    store = Store(args.repository)
    seed = int(json.loads((args.run / "train.json").read_text(encoding="utf-8"))["seed"])
    settings = VersionSettings(MIN_DECISIONS_EQUAL, seed, (f"make train PRESET={args.preset}",))
    manifest, policy = make_version(args.run, args.data, args.out, store, read_taxonomy(args.data), settings)
    print(f"version {manifest.version}: digest {digest_of_version(manifest)}")
    if args.promote:
        print(store.promote(manifest.version, policy.revision, "first version of its run"))


def _run(args: argparse.Namespace) -> None:
    from model_repo.pipeline.data import build
    from model_repo.pipeline.dataset import read_taxonomy
    from model_repo.pipeline.run import run
    from model_repo.pipeline.settings import read_preset
    from model_repo.pipeline.train import OtherRun

    preset = read_preset(args.preset)
    out = args.out or Path("runs") / preset.name
    data = out / "data"
    command = f"make train PRESET={preset.name}"
    if args.production_labels:
        command = f"python -m model_repo run --preset {preset.name} --production-labels {args.production_labels.name}"
    build(args.data, data, preset=args.preset, production=_production(args.production_labels))
    store = Store(args.repository or out / "versions")
    try:
        version = run(data, out, store, read_taxonomy(data), preset, args.seeds or preset.train.seeds, command)
    except OtherRun as refused:
        raise SystemExit(str(refused)) from None
    print(f"version {version} is in {store.root}")


def _benchmark(args: argparse.Namespace) -> None:
    from model_repo.pipeline.benchmark import benchmark
    from model_repo.pipeline.settings import read_preset

    if args.data is None:
        raise SystemExit(f"benchmark needs the folder of the public sets: --data or {DATA_VARIABLE}")
    benchmark(args.name, args.data, args.out, read_preset(args.preset), args.seed, args.limit)


def _promote(args: argparse.Namespace) -> None:
    print(Store(args.repository).promote(args.version, args.policy_revision, args.reason))


def _rollback(args: argparse.Namespace) -> None:
    _report(lambda: Store(args.repository).roll_back(args.reason))


def _reload(args: argparse.Namespace) -> None:
    _report(lambda: Store(args.repository).reload(args.reason))


def _tune(args: argparse.Namespace) -> None:
    def tune() -> Deployment:
        tuning = Tuning(args.batch_tokens, args.batch_utterances, args.max_in_flight, args.max_tokens)
        return Store(args.repository).tune(tuning, args.reason, reload=args.reload)

    _report(tune)


def _report(change: Callable[[], Deployment]) -> None:
    """What serves after a change; a refused one ends the process with its message."""
    try:
        print(json.dumps(change().to_json(), indent=2, ensure_ascii=False))
    except ContractError as refused:
        raise SystemExit(str(refused)) from None


def _compile_neuron(args: argparse.Namespace) -> None:
    from model_repo.contract.neuron import PROGRAMS_FOLDER, NeuronRefused
    from model_repo.pipeline import compile_neuron as stage
    from model_repo.pipeline.neuron_buckets import TEXTS, authored_texts

    try:
        stack = stage.import_stack()
    except NeuronRefused as refused:
        raise SystemExit(str(refused)) from None
    settings = stage.CompileSettings(
        args.checkpoint,
        args.version,
        args.out or args.version / PROGRAMS_FOLDER,
        tuple(args.sizes or stage.SIZES),
        args.auto_cast,
        args.auto_cast_type,
        has_device=any(Path("/dev").glob("neuron*")),
    )
    try:
        manifest = stage.compile_programs(settings, stack, authored_texts(args.texts or TEXTS))
    except (stage.RoundedNetwork, stage.WrongCheckpoint, FileExistsError) as refused:
        raise SystemExit(str(refused)) from None
    print(f"{len(manifest.programs)} programs in {settings.out}, by torch-neuronx {stack.release}")


if __name__ == "__main__":
    main()
