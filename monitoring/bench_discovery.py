"""
How well new-intent discovery finds intents that the model does not know: ``python -m monitoring.bench_discovery``.

    --data DIR        public text: clinc150/, ms_chitchat_en/, manga_authored/, label_map.json
    --withheld N      intents that are new at once (default: 5)
    --in-scope FILE   labelled messages of the model's own taxonomy (default: 1,250 of DIR/manga_authored)

Each draw withholds intents of CLINC150: their test messages (30 each), which no version was trained on, arrive
among in-scope messages and, in every other draw, 100 ordinary ood messages (CLINC150's out-of-scope test) and 100 of
small talk. All go through the running service with an embedding on every event; the action then reads a log of those.

The rules of ``clusters`` were chosen on other intents: CLINC150's are split in two halves, and by default the draws
come from the half that was not looked at (``--half chosen-on`` gives the other). A version trained with CLINC150 among
its ood text has seen some messages of every intent there as ood, never as an intent of its own, and version 1 is such.

Adjusted Rand is over all that is clustered, whatever it is; truth is the publisher's label. Intervals: 95%, bootstrap
over the messages of a draw, and over the draws for the means.
"""

import argparse
import json
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model_repo.contract.bootstrap import Figure, Measure, bootstrap
from model_repo.contract.events import SQLITE_SCHEMA
from model_repo.contract.labels import Taxonomy
from model_repo.contract.outputs import FloatArray, IntArray
from model_repo.store import Store
from monitoring.clusters import DISSOLVED
from monitoring.discovery import DiscoverIntents, DiscoveryRules
from monitoring.embedded_events import read_embedded
from monitoring.observations import StreamKey, labelled_dtype, prediction_dtype
from monitoring.remedies import ActionRequest
from monitoring.service_replay import ROOT, bodies_of
from monitoring.windows import Window
from monitoring.withheld_intents import NEW, Message, clinc150, halves, in_scope_messages, is_unknown

RESAMPLES = 2_000
FOUND_SHARE = 1 / 3
HEAD = (
    "draw                  n  rejected  clusters  found  clustered  of withheld  adjusted Rand [95%]          "
    "withheld only  stable only"
)


@dataclass(frozen=True)
class Outcome:
    """What one draw gave."""

    title: str
    candidates: int
    """Messages that no known intent took."""
    rejected: float
    """Of the withheld messages, the share among the candidates: what discovery can find at most."""
    clusters: int
    withheld: int
    """Intents of the draw."""
    found: int
    """Of those, the ones of which a cluster of their own holds a third of the candidates or more."""
    clustered: float
    withheld_clustered: float
    """Of the withheld candidates."""
    rand: Figure
    """Over all clustered messages; NaN when there are none, or only one cluster of one kind."""
    withheld_rand: float
    """Over the clustered messages of withheld intents alone; NaN when there is one intent, which says nothing."""
    stable_share: float
    """Of the candidates, those in clusters whose stability is not below ``clusters.DISSOLVED``."""
    stable_rand: float
    """Over those; NaN as above."""


def main(arguments: list[str] | None = None) -> int:
    """Prints a line a draw, then the means."""
    parser = argparse.ArgumentParser(
        prog="python -m monitoring.bench_discovery",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of public text")
    parser.add_argument("--in-scope", type=Path, help="JSON Lines of in-scope messages")
    parser.add_argument("--model-repo", type=Path, default=ROOT / "model_repo" / "versions", help="model repository")
    parser.add_argument("--draws", type=int, default=10, help="draws of intents (default: 10)")
    parser.add_argument("--withheld", type=int, default=5, help="intents of a draw (default: 5)")
    parser.add_argument("--half", choices=["held-out", "chosen-on"], default="held-out", help="which intents to draw")
    chosen = parser.parse_args(arguments)
    withheld, noise = clinc150(chosen.data)
    in_scope = in_scope_messages(chosen.data, chosen.in_scope)
    intents = halves(sorted(withheld))[chosen.half]
    intents = [intent for intent in intents if is_unknown(chosen.data, intent)]
    everything = [*in_scope, *noise, *(one for intent in intents for one in withheld[intent])]
    with tempfile.TemporaryDirectory() as folder:
        bodies = bodies_of([one.asked for one in everything], Path(folder), chosen.model_repo)
    version = Store(chosen.model_repo).deployment().champion.version
    taxonomy = Store(chosen.model_repo).load(version).manifest.taxonomy
    say(f"version {version}; {len(in_scope)} in-scope messages; draws from {len(intents)} intents ({chosen.half})")
    say(HEAD)
    outcomes = []
    for draw in range(chosen.draws):
        rng = np.random.default_rng(draw)
        names = [str(name) for name in rng.choice(intents, chosen.withheld, replace=False)]
        messages = [*in_scope, *(noise if draw % 2 else ()), *(one for name in names for one in withheld[name])]
        shuffled = [messages[index] for index in rng.permutation(len(messages))]
        title = f"{draw:>2} {'noise' if draw % 2 else 'plain'} {', '.join(names)}"
        outcomes.append(measured(title, shuffled, bodies, taxonomy))
        say(line(outcomes[-1]))
    for words, part in (("all", outcomes), ("plain", outcomes[::2]), ("noise", outcomes[1::2])):
        if part:
            say(mean_line(words, part))
    return 0


def measured(title: str, messages: Sequence[Message], bodies: Mapping[str, str], taxonomy: Taxonomy) -> Outcome:
    """The action run on a log that holds these messages in this order, compared with the truth."""
    truth = {one.asked.request_id: one.truth for one in messages}
    queue = _queue([bodies[one.asked.request_id] for one in messages], taxonomy)
    clusters = {one: cluster for cluster in queue["clusters"] for one in cluster["request_ids"]}
    candidates = [*clusters, *queue["unclustered_request_ids"]]
    new = [one for one in candidates if truth[one].startswith(NEW)]
    stable = [one for one, cluster in clusters.items() if cluster["stability"] >= DISSOLVED]
    numbers = {one: cluster["cluster"] for one, cluster in clusters.items()}
    withheld = {name for name in truth.values() if name.startswith(NEW)}
    new_clustered = [one for one in new if one in clusters] if len(withheld) > 1 else []
    return Outcome(
        title=title,
        candidates=len(candidates),
        rejected=len(new) / sum(name.startswith(NEW) for name in truth.values()),
        clusters=len(queue["clusters"]),
        withheld=len(withheld),
        found=_found(queue["clusters"], candidates, truth),
        clustered=len(clusters) / len(candidates),
        withheld_clustered=sum(one in clusters for one in new) / len(new),
        rand=_rand(list(clusters), truth, numbers),
        withheld_rand=_plain_rand(new_clustered, truth, numbers),
        stable_share=len(stable) / len(candidates),
        stable_rand=_plain_rand(stable, truth, numbers),
    )


def adjusted_rand(weights: FloatArray, truth: IntArray, found: IntArray) -> FloatArray:
    """
    (B,): the adjusted Rand index (Hubert & Arabie 1985) of rows weighted by (B, n); NaN where it is not defined.

    A row of weight two makes no pair with itself, else every resample would agree with itself a little.

    >>> adjusted_rand(np.ones((1, 4)), np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2])).round(4).tolist()
    [0.5714]
    """
    squares = (weights**2).sum(axis=1)
    cells = _pairs(weights, truth * (int(found.max(initial=0)) + 1) + found, squares)
    rows, columns = _pairs(weights, truth, squares), _pairs(weights, found, squares)
    expected = rows * columns / ((weights.sum(axis=1) ** 2 - squares) / 2.0)
    most = (rows + columns) / 2.0
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((cells - expected) / (most - expected))


def line(outcome: Outcome) -> str:
    """One draw."""
    return (
        f"{outcome.title}\n{'':<18} {outcome.candidates:>4} {outcome.rejected:>9.2f} {outcome.clusters:>9} "
        f"{outcome.found:>4}/{outcome.withheld} {outcome.clustered:>10.2f} {outcome.withheld_clustered:>12.2f}  "
        f"{outcome.rand.value:.3f} [{outcome.rand.low:.3f}, {outcome.rand.high:.3f}] n={outcome.rand.n:<5}"
        f"{outcome.withheld_rand:>17.3f} {outcome.stable_rand:>12.3f}"
    )


def mean_line(words: str, outcomes: Sequence[Outcome]) -> str:
    """Means over draws, with the interval that other draws of intents would give."""
    figures = [
        _mean(words, [outcome.rejected for outcome in outcomes]),
        _mean(words, [outcome.found / outcome.withheld for outcome in outcomes]),
        _mean(words, [outcome.clustered for outcome in outcomes]),
        _mean(words, [outcome.withheld_clustered for outcome in outcomes]),
        _mean(words, [outcome.rand.value for outcome in outcomes]),
        _mean(words, [outcome.withheld_rand for outcome in outcomes]),
        _mean(words, [outcome.stable_share for outcome in outcomes]),
        _mean(words, [outcome.stable_rand for outcome in outcomes]),
    ]
    names = (
        "rejected",
        "found",
        "clustered",
        "of withheld",
        "adjusted Rand",
        "withheld only",
        "stable share",
        "stable only",
    )
    told = ", ".join(
        f"{name} {figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"
        for name, figure in zip(names, figures, strict=True)
    )
    return f"mean of {len(outcomes)} draws ({words}): {told}"


def say(words: str) -> None:
    """At once: a draw takes a while."""
    sys.stdout.write(words + "\n")
    sys.stdout.flush()


def _queue(bodies: Iterable[str], taxonomy: Taxonomy) -> Mapping[str, Any]:
    """What the action leaves for review."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "events.sqlite"
        with closing(sqlite3.connect(log)) as connection:
            connection.executescript(SQLITE_SCHEMA)
            connection.executemany(
                "INSERT INTO predictions (request_id, at, body) VALUES (?, ?, ?)",
                [(event["request_id"], event["at"], body) for body in bodies for event in [json.loads(body)]],
            )
            connection.commit()
            event = json.loads(connection.execute("SELECT body FROM predictions LIMIT 1").fetchone()[0])
        key = StreamKey(event["version"], event["policy"], event["role"])
        request = ActionRequest("bench/1-discover_intents", "bench", "discover_intents", key, 0.0, (), (), None)
        kinds = (prediction_dtype(len(taxonomy.intents)), labelled_dtype(len(taxonomy.intents)))
        rows = [np.empty(0, dtype=kind) for kind in kinds]
        window = Window(key, taxonomy, rows[0], rows[1], np.empty((0, 0), dtype=np.float16))
        result = DiscoverIntents(log, Path(folder)).run(request, window)
        if result.outcome != "done":
            # Nothing found is a result, and must count as one.
            found = read_embedded(log, key, taxonomy, DiscoveryRules().most_predictions)
            ids = [event.request_id for event in found.events if event.is_unrouted]
            return {"clusters": [], "unclustered_request_ids": ids}
        body: Mapping[str, Any] = json.loads(Path(result.detail["file"]).read_text(encoding="utf-8"))
        return body


def _found(clusters: Sequence[Mapping[str, Any]], candidates: Sequence[str], truth: Mapping[str, str]) -> int:
    """Withheld intents that are most of some cluster, and have a fair share of their own in it."""
    asked = Counter(truth[one] for one in candidates)
    found = set()
    for cluster in clusters:
        name, count = Counter(truth[one] for one in cluster["request_ids"]).most_common(1)[0]
        if name.startswith(NEW) and 2 * count > cluster["size"] and count >= FOUND_SHARE * asked[name]:
            found.add(name)
    return len(found)


def _rand(ids: Sequence[str], truth: Mapping[str, str], clusters: Mapping[str, int]) -> Figure:
    if np.isnan(_plain_rand(ids, truth, clusters)):
        return Figure(float("nan"), float("nan"), float("nan"), len(ids), "clinc150")
    true, found = _numbers(ids, truth, clusters)
    measure = Measure(lambda weights: adjusted_rand(weights, true, found), len(ids))
    return bootstrap({"rand": measure}, len(ids), "clinc150", np.random.default_rng(0), RESAMPLES)["rand"]


def _plain_rand(ids: Sequence[str], truth: Mapping[str, str], clusters: Mapping[str, int]) -> float:
    if len(ids) < 2:
        return float("nan")
    return float(adjusted_rand(np.ones((1, len(ids))), *_numbers(ids, truth, clusters))[0])


def _numbers(ids: Sequence[str], truth: Mapping[str, str], clusters: Mapping[str, int]) -> tuple[IntArray, IntArray]:
    names = {name: number for number, name in enumerate(sorted(set(truth.values())))}
    true = np.array([names[truth[one]] for one in ids], dtype=np.int64)
    return true, np.array([clusters[one] for one in ids], dtype=np.int64)


def _mean(words: str, values: Sequence[float]) -> Figure:
    """Over the draws that have the value; ``n`` says how many."""
    array = np.array([value for value in values if not np.isnan(value)])
    if len(array) == 0:
        return Figure(float("nan"), float("nan"), float("nan"), 0, words)
    measure = Measure(lambda weights: weights @ array / len(array), len(array))
    return bootstrap({"mean": measure}, len(array), words, np.random.default_rng(0), RESAMPLES)["mean"]


def _pairs(weights: FloatArray, groups: IntArray, squares: FloatArray) -> FloatArray:
    """(B,): weight of the pairs of different rows that are in one group."""
    _, group = np.unique(groups, return_inverse=True)
    sums = weights @ (group[:, None] == np.arange(int(group.max()) + 1)).astype(np.float64)
    return np.asarray(((sums**2).sum(axis=1) - squares) / 2.0)


if __name__ == "__main__":
    sys.exit(main())
