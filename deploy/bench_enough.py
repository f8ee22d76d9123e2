"""
From how many rejected utterances of a new kind its clusters show it: ``python -m deploy.bench_enough``.

    --data DIR       public text (default: MANGA_DATA): multidogo/, clinc150/, label_map.json; without it only the club
    --version V      which version decides, under the first revision of its policy (default: the champion)
    --seed N         of the draws (default: 0)
    --club-seed N    of which utterances of the club are asked (default: 1)

New are the demonstration's club, seven intents of MultiDoGO, and CLINC150's half that the rules of ``clusters`` were
not chosen on. All go through the running service, and so do the demonstration's ordinary utterances. A draw takes n of
what was rejected of one kind, and the ordinary ones that came meanwhile, when one utterance in ``one_in`` is of that
kind, and as many ``before`` as the setting says. What no known intent took is clustered as discovery does it.

A kind is shown when it is most of one cluster at least. Prints in how many draws, and the mean share of the n that lies
in such clusters. It needs the environment of the pipeline, which reads the demonstration's utterances.
"""

import argparse
import base64
import itertools
import os
import random
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.demo_traffic import about_the_club, ordinary
from model_repo.contract.events import PredictionEvent
from model_repo.contract.outputs import BoolArray, IntArray
from model_repo.pipeline.data import DATA_VARIABLE, find_data_folder
from model_repo.store import Store
from monitoring.clusters import ClusterRules, KnownIntents, find_clusters
from monitoring.discovery import DiscoveryRules
from monitoring.embedded_events import EmbeddedEvent
from monitoring.replay_text import NEW, read_texts
from monitoring.service_replay import BATCH, ROOT, Asked, bodies_of
from monitoring.withheld_intents import clinc150, halves, is_unknown

Kind = tuple[str, str]
"""Where it is from, and the publisher's name of it."""

ORDINARY: Kind = ("ordinary", "")
CLUB, MULTIDOGO, CLINC150 = "club", "multidogo", "clinc150"
CLUB_UTTERANCES = 600
FEWEST_MULTIDOGO = 40
"""Held-out utterances without which an intent of MultiDoGO is too small to draw from."""
RULES = replace(DiscoveryRules().clusters, resamples=1)
"""How stable a cluster is does not tell whether it is there."""
TOLD_EVERY = 30 * BATCH
HEAD = "kind       intents  one in  before    n    shown in     in own clusters"


@dataclass(frozen=True)
class Setting:
    """One part of the table."""

    source: str
    one_in: int
    """Of so many utterances one is of the new kind."""
    before: int
    """Ordinary utterances of before the new kind came, among which it is looked for as well."""
    sizes: tuple[int, ...]
    """Rejected utterances of the new kind; a kind of which fewer were rejected is left out there."""
    draws: int
    """Of each kind."""


SETTINGS = (
    Setting(CLUB, 5, 0, (20, 30, 40, 50, 60, 80, 100), 10),
    Setting(CLUB, 10, 0, (20, 30, 40, 50, 60, 80, 100), 10),
    Setting(CLUB, 5, 6000, (80, 160, 250), 5),
    Setting(MULTIDOGO, 10, 0, (20, 30, 40), 5),
    Setting(CLINC150, 10, 0, (25,), 2),
)


@dataclass(frozen=True)
class Decided:
    """What the version made of n utterances of one kind."""

    embeddings: NDArray[np.float16]
    """(n, H)"""
    is_unrouted: BoolArray
    """(n,): decided ood, or labelled with none of the intents decided for, as far as there are labels."""


def main(arguments: list[str] | None = None) -> int:
    """Prints a line for each number of utterances."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.bench_enough", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help=f"folder of public text (default: {DATA_VARIABLE})")
    parser.add_argument("--model-repo", type=Path, default=ROOT / "model_repo" / "versions", help="model repository")
    parser.add_argument("--version", help="which version decides (default: the champion)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    parser.add_argument("--club-seed", type=int, default=1, help="of the club's utterances (default: 1)")
    chosen = parser.parse_args(arguments)
    version = chosen.version or Store(chosen.model_repo).deployment().champion.version
    texts = new_kinds(find_data_folder(chosen.data, os.environ), chosen.club_seed)
    came_before = ordinary()
    with tempfile.TemporaryDirectory() as folder:
        repository = repository_of(version, chosen.model_repo, Path(folder) / "versions")
        events = events_of({ORDINARY: [one.text for one in came_before], **texts}, Path(folder), repository)
    usual = decided(events[ORDINARY], [one.intents for one in came_before])
    kinds = {kind: decided(events[kind], [None] * len(events[kind])) for kind in texts}
    say(f"version {version}; no known intent took {usual.is_unrouted.sum()} of {len(usual.is_unrouted)} ordinary ones")
    say(HEAD)
    for setting in SETTINGS:
        new = [of for kind, of in kinds.items() if kind[0] == setting.source]
        for n in setting.sizes:
            found = [share for kind in new for share in in_own_clusters(kind, usual, n, setting, chosen.seed)]
            if found:
                say(line(setting, n, found))
    return 0


def new_kinds(data: Path | None, club_seed: int) -> dict[Kind, list[str]]:
    """The utterances of each."""
    club = [one.text for one in random.Random(club_seed).sample(about_the_club(), CLUB_UTTERANCES)]
    if data is None:
        return {(CLUB, ""): club}
    multidogo: dict[Kind, list[str]] = {}
    for text in read_texts(data, []):
        if text.part.startswith(f"{NEW}{MULTIDOGO} "):
            multidogo.setdefault((MULTIDOGO, text.part), []).append(text.text)
    withheld, _ = clinc150(data)
    unknown = [intent for intent in halves(sorted(withheld))["held-out"] if is_unknown(data, intent)]
    return {
        (CLUB, ""): club,
        **{kind: texts for kind, texts in multidogo.items() if len(texts) >= FEWEST_MULTIDOGO},
        **{(CLINC150, intent): [one.asked.text for one in withheld[intent]] for intent in unknown},
    }


def in_own_clusters(kind: Decided, usual: Decided, n: int, setting: Setting, seed: int) -> list[float]:
    """
    For each draw, the share of ``n`` rejected utterances of the kind that lies in clusters of which it is most.

    0 where it is not shown; no draws when fewer were rejected. A draw has a generator of its own: what else is measured
    does not change it.
    """
    if kind.is_unrouted.sum() < n:
        return []
    found = []
    for draw in range(setting.draws):
        rng = np.random.default_rng([seed, draw, n])
        new = kind.embeddings[rng.choice(np.flatnonzero(kind.is_unrouted), n, replace=False)]
        came = n / kind.is_unrouted.mean() * (setting.one_in - 1)
        stream = came_by(usual, setting.before + int(came), DiscoveryRules().most_utterances - n, rng)
        embeddings = np.concatenate([new, usual.embeddings[stream]])
        found.append(n_in_own(embeddings, np.arange(len(embeddings)) < n, RULES) / n)
    return found


def came_by(usual: Decided, n: int, most: int, rng: np.random.Generator) -> IntArray:
    """Of ``n`` ordinary utterances, each as often as any other, the latest ``most`` that no known intent took."""
    rounds = -(-n // len(usual.is_unrouted))
    order = np.concatenate([rng.permutation(len(usual.is_unrouted)) for _ in range(rounds)])[:n]
    return np.asarray(order[usual.is_unrouted[order]][-most:])


def n_in_own(embeddings: NDArray[np.floating], is_new: BoolArray, rules: ClusterRules) -> int:
    """Of the rows that are new, those in clusters of which more than half is new; 0 with too few rows to cluster."""
    if len(embeddings) < rules.fewest:
        return 0
    known = KnownIntents((), np.empty((0, embeddings.shape[1])))
    clusters = find_clusters(embeddings, known, rules, np.random.default_rng(0)).clusters
    new = [(int(is_new[list(cluster.rows)].sum()), len(cluster.rows)) for cluster in clusters]
    return sum(count for count, size in new if 2 * count > size)


def line(setting: Setting, n: int, found: Sequence[float]) -> str:
    """One row of the table."""
    shown = f"{sum(share > 0.0 for share in found)} of {len(found)}"
    return (
        f"{setting.source:<10}{len(found) // setting.draws:>8}{setting.one_in:>8}{setting.before:>8}{n:>5}"
        f"{shown:>12}{np.mean(found):>20.2f}"
    )


def repository_of(version: str, model_repo: Path, folder: Path) -> Path:
    """A model repository in ``folder`` in which that version serves, under the first revision of its policy."""
    Store(model_repo).load(version)
    folder.mkdir()
    (folder / version).symlink_to((model_repo / version).absolute())
    Store(folder).promote(version, 1, "to be measured")
    return folder


def events_of(texts: Mapping[Kind, Sequence[str]], folder: Path, model_repo: Path) -> dict[Kind, list[PredictionEvent]]:
    """What the service decides on them, in the same order; its log lies in ``folder``."""
    everything = [Asked(f"r{n}", text) for n, text in enumerate(itertools.chain.from_iterable(texts.values()))]

    def tell(n: int) -> None:
        if n % TOLD_EVERY == 0 or n == len(everything):
            say(f"{n} of {len(everything)} utterances are decided")

    bodies = bodies_of(everything, folder, model_repo, tell)
    events = (PredictionEvent.from_body(bodies[one.request_id]) for one in everything)
    return {kind: list(itertools.islice(events, len(of))) for kind, of in texts.items()}


def decided(events: Sequence[PredictionEvent], labels: Sequence[tuple[str, ...] | None]) -> Decided:
    """As discovery reads them, with these labels; empty says ood, None that there is none."""
    read = [
        EmbeddedEvent(event.request_id, event.at, event.text, event.lang, event.intents, label)
        for event, label in zip(events, labels, strict=True)
    ]
    vectors = [np.frombuffer(base64.b64decode(event.embedding or ""), dtype="<f2") for event in events]
    return Decided(np.stack(vectors), np.array([event.is_unrouted for event in read]))


def say(words: str) -> None:
    """At once: the whole takes minutes."""
    sys.stdout.write(words + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
