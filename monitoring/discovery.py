"""
New-intent discovery: what no known intent took, in groups, for people to name.

``discover_intents`` looks through the latest events of the version for utterances that were decided ood, labelled ood,
or labelled with none of the intents they were decided for, and that carry an embedding. Where it is known since when
something new has come, those of since then are clustered. It only reads the log, and leaves
``<work folder>/discovery/<key>.json`` for tools, and the same as ``.md`` for people. Texts are as the log has them:
redacted, or absent, and then request ids have to do.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from model_repo.contract.labels import OOD
from monitoring.clusters import Cluster, Clustering, ClusterRules, find_clusters, known_intents
from monitoring.discovery_page import discovery_page
from monitoring.embedded_events import EmbeddedEvent, EmbeddedEvents, read_embedded
from monitoring.errors import HookFailed, LogUnavailable
from monitoring.key_terms import key_terms
from monitoring.own_process import in_own_process
from monitoring.remedies import ActionRequest, ActionResult
from monitoring.windows import Window
from monitoring.work_files import write_json

SEED = 42
"""Of the subsamples that stability is measured on: the same events give the same file."""
_BLANK_OR_SIGN = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class DiscoveryRules:
    """What is looked through, and what is told of each cluster."""

    most_predictions: int = 50_000
    """The latest rows of the log that are looked through: about 1 s. With an embedding on one event in ten and one
    utterance in twenty ood, 50,000 give 250."""
    most_utterances: int = 2_000
    """Of what is found the newest are clustered: 2,000 take about half a minute."""
    exemplars: int = 8
    terms: int = 8
    clusters: ClusterRules = field(default_factory=ClusterRules)


class DiscoverIntents:
    """The action of the tree's ood branch."""

    def __init__(self, event_log: Path, work_folder: Path, rules: DiscoveryRules | None = None) -> None:
        self._event_log = event_log
        self._folder = work_folder / "discovery"
        self._rules = rules or DiscoveryRules()

    def run(self, request: ActionRequest, window: Window) -> ActionResult:
        """See ``Action``. What was written under a key is not written again: people may be at work on it."""
        result, awaited = self._clustered(request, window), request.awaited
        if awaited is None or not awaited.is_short:
            return result
        return replace(result, words=f"{result.words}; the longest wait was over with {awaited.words}")

    def _clustered(self, request: ActionRequest, window: Window) -> ActionResult:
        file = self._folder / f"{request.key}.json"
        if file.exists():
            return ActionResult("nothing_to_do", f"the clusters lie in {file} already", {"file": str(file)})
        try:
            found = read_embedded(self._event_log, request.stream, window.taxonomy, self._rules.most_predictions)
        except LogUnavailable as wrong:
            raise HookFailed(str(wrong)) from wrong
        n, fewest = sum(event.is_unrouted for event in found.events), self._rules.clusters.fewest
        if n < fewest:
            return ActionResult("nothing_to_do", too_few_words(n, fewest, found), {"utterances": n})
        since = 0.0 if request.awaited is None else request.awaited.since
        body = {"schema": 1, "request": request.to_json(), **in_own_process(discover, found, self._rules, since)}
        if not body["clusters"]:
            n = body["utterances"]["all"]
            words = (
                f"{n} utterances that no known intent took, and no {self._rules.clusters.smallest} of them are alike"
            )
            return ActionResult("nothing_to_do", words, {"utterances": n})
        readable = file.with_suffix(".md")
        try:
            readable.parent.mkdir(parents=True, exist_ok=True)
            readable.write_text(discovery_page(body), encoding="utf-8")
            # Last, and whole or not at all: while it is missing the action has not been done.
            write_json(file, body)
        except OSError as wrong:
            raise HookFailed(f"{file} cannot be written: {wrong}") from wrong
        return ActionResult("done", _done_words(body, readable), _summary(body, file, readable))


def discover(found: EmbeddedEvents, rules: DiscoveryRules, since: float = 0.0) -> dict[str, Any]:
    """
    The review queue, ready for JSON; raises CannotMeasure for fewer utterances than ``rules.clusters.fewest``.

    ``since`` is when something new began to come, Unix time: among thousands of ordinary ood utterances of before it
    would be too small a part to make a cluster.
    """
    unrouted = [row for row, event in enumerate(found.events) if event.is_unrouted]
    recent = sum(found.events[row].at >= since for row in unrouted)
    chosen = unrouted[: min(rules.most_utterances, max(recent, rules.clusters.fewest))]
    routed = [row for row, event in enumerate(found.events) if not event.is_unrouted and len(event.decided) == 1]
    known = known_intents(found.vectors[routed], [found.events[row].decided[0] for row in routed])
    clustering = find_clusters(found.vectors[chosen], known, rules.clusters, np.random.default_rng(SEED))
    events = [found.events[row] for row in chosen]
    return {
        "looked_through": {
            "predictions": found.looked_through,
            "with_embedding": len(found.events),
            "ood_without_embedding": found.ood_without_embedding,
            "malformed": found.malformed,
            "from": min(event.at for event in events),
            "to": max(event.at for event in events),
        },
        "utterances": _counts(events) | {"left_out_as_older": len(unrouted) - len(chosen)},
        "clustered": len(events) - clustering.unclustered,
        "unclustered": clustering.unclustered,
        "clusters": _told(clustering, events, found.events, rules),
        "unclustered_request_ids": _unclustered_ids(clustering, events),
        "rules": asdict(rules),
    }


def too_few_words(n: int, fewest: int, found: EmbeddedEvents) -> str:
    """Why nothing was clustered, and what would change it."""
    words = (
        f"{n} utterances that no known intent took carry an embedding, of {found.looked_through} predictions looked "
        f"through; clusters need {fewest}"
    )
    if found.ood_without_embedding == 0:
        return words
    return f"{words} ({found.ood_without_embedding} more were decided ood without one: raise the embedding sample)"


def _counts(events: Sequence[EmbeddedEvent]) -> dict[str, int]:
    return {
        "all": len(events),
        "decided_ood": sum(not event.decided for event in events),
        "labelled_ood": sum(event.label == () for event in events),
        "misrouted": sum(bool(event.decided) and bool(event.label) for event in events),
        "with_text": sum(event.text is not None for event in events),
    }


def _told(
    clustering: Clustering, events: Sequence[EmbeddedEvent], everything: Sequence[EmbeddedEvent], rules: DiscoveryRules
) -> list[dict[str, Any]]:
    members = [[events[row] for row in cluster.rows] for cluster in clustering.clusters]
    groups = [[event.text for event in group if event.text is not None] for group in members]
    terms = key_terms(groups, [event.text for event in everything if event.text is not None], rules.terms)
    return [
        _one(number, cluster, group, words, rules)
        for number, (cluster, group, words) in enumerate(zip(clustering.clusters, members, terms, strict=True), start=1)
    ]


def _one(
    number: int, cluster: Cluster, members: Sequence[EmbeddedEvent], terms: Sequence[str], rules: DiscoveryRules
) -> dict[str, Any]:
    distinct = distinct_events(members)
    labels = Counter(name for event in members if event.label is not None for name in event.label or (OOD,))
    return {
        "cluster": number,
        "size": len(members),
        "distinct": len(distinct),
        "stability": round(cluster.stability, 4),
        "nearest_intent": cluster.nearest_intent,
        "similarity": round(cluster.similarity, 4) if math.isfinite(cluster.similarity) else None,
        "key_terms": list(terms),
        "exemplars": [
            {"request_id": event.request_id, "text": event.text, "decided": list(event.decided) or [OOD]}
            for event in distinct[: rules.exemplars]
        ],
        "languages": dict(Counter(event.lang for event in members).most_common()),
        "decided": dict(Counter(name for event in members for name in event.decided or (OOD,)).most_common()),
        "labels": dict(labels.most_common()),
        "request_ids": [event.request_id for event in members],
    }


def distinct_events(events: Sequence[EmbeddedEvent]) -> list[EmbeddedEvent]:
    """The first of each text, in order, whatever its case, spaces and signs; without a text each is its own."""
    first: dict[str, EmbeddedEvent] = {}
    for event in events:
        same = _BLANK_OR_SIGN.sub(" ", event.text.casefold()).strip() if event.text is not None else ""
        first.setdefault(same or f"\0{event.request_id}", event)
    return list(first.values())


def _unclustered_ids(clustering: Clustering, events: Sequence[EmbeddedEvent]) -> list[str]:
    clustered = {row for cluster in clustering.clusters for row in cluster.rows}
    return [event.request_id for row, event in enumerate(events) if row not in clustered]


def _done_words(body: dict[str, Any], readable: Path) -> str:
    clusters, n = len(body["clusters"]), body["utterances"]["all"]
    return (
        f"{clusters} clusters of {body['clustered']} utterances among {n} that no known intent took, "
        f"for review in {readable}"
    )


def _summary(body: dict[str, Any], file: Path, readable: Path) -> dict[str, Any]:
    told = ("cluster", "size", "stability", "nearest_intent", "similarity", "key_terms")
    return {
        "file": str(file),
        "readable": str(readable),
        "utterances": body["utterances"]["all"],
        "clustered": body["clustered"],
        "unclustered": body["unclustered"],
        "clusters": [{name: cluster[name] for name in told} for cluster in body["clusters"]],
    }
