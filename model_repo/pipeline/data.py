"""
``python -m model_repo data --out runs/data [--data FOLDER] [--preset default]``: the labelled set of a version.

Writes ``train.jsonl``, ``validation.jsonl``, ``test.jsonl`` (one labelled utterance a line), ``taxonomy.json``,
``data_report.json`` and ``data_card.md``. The authored messages are split 80/10/10; their test tenth is *the* test,
their validation tenth chooses and calibrates. All else is training text, and nothing of it resembles what judges:
public sets, generated messages, and with ``--production-labels FILE`` what customers wrote.
"""

import hashlib
import json
import random
import tomllib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model_repo.contract.labels import OOD, LabelledUtterance, Taxonomy
from model_repo.pipeline.adapt import adapt
from model_repo.pipeline.composing import compose
from model_repo.pipeline.corrections import correct, read_corrections
from model_repo.pipeline.data_card import DataReport, count, render_card
from model_repo.pipeline.dataset import write_utterances
from model_repo.pipeline.generator import generate
from model_repo.pipeline.grammar import Grammar, read_grammar
from model_repo.pipeline.mixture import Mixture, check_labels, read_mixture
from model_repo.pipeline.settings import PRESETS
from model_repo.pipeline.sources import ADAPTED, DATA, Source, SourceRow, read_label_map, read_rows, read_sources
from model_repo.pipeline.splits import SPLITS, count_straddling, near_duplicate_groups, normalise, split

AUTHORED = "manga_authored"
SUPPLEMENT = "manga_supplement"
"""Authored messages that only train, so that the test stays the one that every version was judged on."""
DATA_VARIABLE = "MANGA_DATA"


def find_data_folder(option: Path | None, environment: Mapping[str, str]) -> Path | None:
    """The folder of public sets: the option, else the environment variable MANGA_DATA, else none."""
    named = option or (Path(environment[DATA_VARIABLE]) if environment.get(DATA_VARIABLE) else None)
    if named is not None and not named.is_dir():
        raise FileNotFoundError(f"no data folder {named} (--data or {DATA_VARIABLE})")
    return named


def build(
    data_folder: Path | None,
    out: Path,
    seed: int = 42,
    preset: str = "default",
    production: Sequence[LabelledUtterance] = (),
) -> DataReport:
    """
    Write the splits, the report and the card into ``out``.

    Public sets that are not in ``data_folder`` are named with the place where they are published, and left out.
    ``production`` goes before all that is generated or public: where texts are the same, its label holds.
    """
    taxonomy = read_taxonomy()
    mixture = read_mixture(preset)
    check_labels(mixture, taxonomy)
    grammar = read_grammar(DATA / "grammar")
    generated = generate(grammar, mixture.generator, seed) if mixture.generator else []
    _say(f"generated {len(generated):,} messages")
    if not mixture.authored:
        parts = split(generated, seed)
        live, fates = keep_production(production, generated, parts)
        additions = _Additions(live, [], {}, fates)
        return _write(out, mixture, seed, [*generated, *live], _and_train(parts, live), additions, 0, taxonomy)

    authored = read_authored()
    _say(f"splitting {len(authored):,} authored messages by voice and intent")
    parts = split(authored, seed)
    authored, corrected = correct(authored, parts, read_corrections())
    public = gather(mixture, data_folder, taxonomy, grammar, seed)
    composed = composed_messages(mixture, authored, parts, grammar, seed)
    live, fates = keep_production(production, authored, parts)
    supplement = read_authored(SUPPLEMENT) if mixture.supplement else []
    candidates = [*supplement, *generated, *composed, *public.utterances]
    held_out = [u.text for u, part in zip(authored, parts, strict=True) if part != "train"]
    _say(f"comparing {len(candidates):,} additions with {len(held_out):,} held-out messages")
    kept, dropped = keep_apart(candidates, [u.text for u in (*authored, *live)], held_out)
    additions = _Additions([*live, *kept], public.notes, public.dropped | dropped, fates)
    utterances = [*authored, *additions.utterances]
    return _write(
        out, mixture, seed, utterances, _and_train(parts, additions.utterances), additions, corrected, taxonomy
    )


def keep_production(
    production: Sequence[LabelledUtterance], judged: Sequence[LabelledUtterance], parts: Sequence[str]
) -> tuple[list[LabelledUtterance], dict[str, int]]:
    """
    The production labels that go into the training split, with how many were read, added and left out, and why; no
    counts when none was read. ``judged`` are the utterances that are split, whose labels hold where texts are the same.
    """
    if not production:
        return [], {}
    held_out = [u.text for u, part in zip(judged, parts, strict=True) if part != "train"]
    kept, dropped = keep_apart(production, [u.text for u in judged], held_out)
    fates = {"read": len(production), "added": len(kept), **dropped}
    _say(f"labels of production: {', '.join(f'{n:,} {fate}' for fate, n in fates.items())}")
    return kept, fates


def _and_train(parts: Sequence[str], additions: Sequence[LabelledUtterance]) -> list[str]:
    return [*parts, *["train"] * len(additions)]


def read_taxonomy(file: Path = PRESETS / "taxonomy.toml") -> Taxonomy:
    """The taxonomy of the default version."""
    return Taxonomy.from_json(tomllib.loads(file.read_text(encoding="utf-8")))


def read_authored(name: str = AUTHORED) -> list[LabelledUtterance]:
    """Every message of an authored set in file order; its group is its voice, the name of its file."""
    utterances = []
    for file in sorted((DATA / name).glob("*.jsonl")):
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                row = {**json.loads(line), "source": name, "origin": "authored", "group": file.stem}
                utterances.append(LabelledUtterance.from_json(row))
    return utterances


def composed_messages(
    mixture: Mixture, authored: Sequence[LabelledUtterance], parts: Sequence[str], grammar: Grammar, seed: int
) -> list[LabelledUtterance]:
    """What the mixture has put together; of the training split alone, since half of a held-out message judges too."""
    if mixture.composed is None:
        return []
    trained = [u for u, part in zip(authored, parts, strict=True) if part == "train"]
    composed = compose(trained, mixture.composed, grammar.slots, seed)
    _say(f"composed {len(composed):,} messages of the {mixture.composed.count:,} asked for")
    return composed


@dataclass(frozen=True)
class _Additions:
    """Training text beside the authored messages, with what there is to say about the rest."""

    utterances: list[LabelledUtterance]
    notes: list[str]
    """Sets left out, and why."""
    dropped: dict[str, int]
    production: dict[str, int] = field(default_factory=dict)
    """Labels of production by what became of them."""


def gather(mixture: Mixture, folder: Path | None, taxonomy: Taxonomy, grammar: Grammar, seed: int) -> _Additions:
    """What the mixture takes from each public set that is there and whose licence lets it in."""
    known, label_map = read_sources(), read_label_map(taxonomy)
    utterances: list[LabelledUtterance] = []
    notes: list[str] = []
    for name, caps in mixture.sources.items():
        source = known[name]
        refusal = _refusal(source, mixture, folder)
        if refusal or folder is None:
            notes.append(refusal)
            _say(refusal)
            continue
        rng = random.Random(f"{seed} {name}")
        by_label: dict[str, dict[str, list[LabelledUtterance]]] = defaultdict(lambda: defaultdict(list))
        for row in read_rows(source, folder, label_map):
            adapted = adapt(name, row, label_map[name].get(ADAPTED, ""), grammar, rng)
            if adapted is not None and adapted.target in caps:
                by_label[adapted.target][row.label].append(_utterance(adapted, source))
        taken = [u for target, cap in caps.items() for u in spread(by_label[target], cap, rng)]
        utterances.extend(taken)
        _say(f"{name}: {len(taken):,} messages ({source.licence})")
    return _Additions(utterances, notes, {})


def spread(
    by_label: Mapping[str, Sequence[LabelledUtterance]], cap: int, rng: random.Random
) -> list[LabelledUtterance]:
    """At most ``cap`` utterances, one from each of the publisher's labels in turn: no label drowns the others."""
    shuffled = [rng.sample(list(by_label[label]), len(by_label[label])) for label in sorted(by_label)]
    longest = max((len(rows) for rows in shuffled), default=0)
    in_turn = [rows[i] for i in range(longest) for rows in shuffled if i < len(rows)]
    return in_turn[:cap]


def keep_apart(
    candidates: Sequence[LabelledUtterance], authored: Sequence[str], held_out: Sequence[str]
) -> tuple[list[LabelledUtterance], dict[str, int]]:
    """The candidates without repetitions, and without near-duplicates of what judges; with the counts of both."""
    seen = {normalise(text) or text for text in authored}
    fresh: list[LabelledUtterance] = []
    for utterance in candidates:
        key = normalise(utterance.text) or utterance.text
        if key not in seen:
            seen.add(key)
            fresh.append(utterance)
    groups = near_duplicate_groups([*(u.text for u in fresh), *held_out])
    judged = set(groups[len(fresh) :].tolist())
    kept = [u for u, group in zip(fresh, groups.tolist(), strict=False) if group not in judged]
    return kept, {"duplicates": len(candidates) - len(fresh), "near_duplicates_of_held_out": len(fresh) - len(kept)}


def _refusal(source: Source, mixture: Mixture, folder: Path | None) -> str:
    """Why a set stays out, or nothing."""
    if not source.ships and not mixture.unshippable:
        return f"{source.name} left out: {source.licence}, {source.reason}"
    if folder is None or not (folder / source.name).is_dir():
        return f"{source.name} is missing; published in the repository {source.repository} ({source.licence})"
    return ""


def _utterance(row: SourceRow, source: Source) -> LabelledUtterance:
    is_ood = row.target == OOD
    return LabelledUtterance(
        text=row.text,
        intents=() if is_ood else (row.target,),
        is_ood=is_ood,
        age_sensitive=False if source.age_known else None,
        lang=row.lang,
        source=source.name,
        origin=source.origin,
        group=source.name,
    )


def _write(
    out: Path,
    mixture: Mixture,
    seed: int,
    utterances: Sequence[LabelledUtterance],
    parts: Sequence[str],
    additions: _Additions,
    corrected: int,
    taxonomy: Taxonomy,
) -> DataReport:
    """Audit, write and report."""
    _say(f"auditing {len(utterances):,} messages for near-duplicates across splits")
    straddling = count_straddling([u.text for u in utterances], parts)
    out.mkdir(parents=True, exist_ok=True)
    by_split = {s: [u for u, part in zip(utterances, parts, strict=True) if part == s] for s in SPLITS}
    for name, rows in by_split.items():
        write_utterances(out / f"{name}.jsonl", rows)
    _write_json(out / "taxonomy.json", taxonomy.to_json())
    report = DataReport(
        preset=mixture.name,
        seed=seed,
        ships=not (mixture.unshippable or additions.production),
        splits={name: count(rows) for name, rows in by_split.items()},
        left_out=additions.notes,
        dropped=additions.dropped,
        corrected=corrected,
        near_duplicates_crossing_splits=straddling,
        sha256={f"{name}.jsonl": digest(out / f"{name}.jsonl") for name in SPLITS},
        production=additions.production,
    )
    _write_json(out / "data_report.json", report.to_json())
    (out / "data_card.md").write_text(render_card(report, read_sources()), encoding="utf-8")
    _say(report.summary())
    return report


def _write_json(file: Path, value: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def digest(file: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _say(line: str) -> None:
    print(f"data: {line}", flush=True)
