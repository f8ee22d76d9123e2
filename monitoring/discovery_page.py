"""The review queue of new-intent discovery as a page of Markdown: pure, from the body of the JSON file."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from monitoring.clusters import DISSOLVED
from monitoring.remedies import Awaited

STABLE = 0.75
"""From this stability on a cluster is taken as one (Hennig 2007); below ``DISSOLVED`` as an accident."""
LONGEST_TEXT = 200
_MARKUP = re.compile(r"([\\`*_{}\[\]()#!|<>~&]|^[-+])")


def discovery_page(body: Mapping[str, Any]) -> str:
    """What is in the queue, a section a cluster."""
    looked, counts = body["looked_through"], body["utterances"]
    lines = [
        f"# New-intent discovery: {_plain(body['request']['incident'])}",
        "",
        f"{counts['all']} utterances from {_time(looked['from'])} to {_time(looked['to'])} that no known intent took: "
        f"{counts['decided_ood']} decided ood, {counts['labelled_ood']} labelled ood, {counts['misrouted']} labelled "
        "with another intent than they were decided for (one utterance may be in several of these counts). "
        f"{body['clustered']} of them are in {len(body['clusters'])} clusters; {body['unclustered']} are in none.",
        "",
        f"Looked through: {looked['predictions']} predictions, {looked['with_embedding']} of them with an embedding; "
        f"{looked['ood_without_embedding']} decided ood have none and could not be clustered; "
        f"{counts['left_out_as_older']} were left out as older.",
        "",
        *_awaited(body["request"].get("awaited")),
        "For each cluster decide: a new intent, part of a known one, or ood as it should be.",
    ]
    for cluster in body["clusters"]:
        lines += ["", *_section(cluster)]
    return "\n".join(lines) + "\n"


def stability_words(stability: float) -> str:
    """
    What a stability means.

    >>> stability_words(0.9), stability_words(0.6), stability_words(0.2)
    ('stable', 'a pattern, its edge unclear', 'may be an accident')
    """
    if stability >= STABLE:
        return "stable"
    return "a pattern, its edge unclear" if stability >= DISSOLVED else "may be an accident"


def _awaited(asked: Mapping[str, Any] | None) -> list[str]:
    """What had come of what is new, if that was waited for."""
    if asked is None:
        return []
    awaited = Awaited.from_json(asked)
    missing = " The wait was over before they had come, and the cluster of what is new may be missing."
    return [f"By the labels, {awaited.words}.{missing if awaited.is_short else ''}", ""]


def _section(cluster: Mapping[str, Any]) -> list[str]:
    nearest = "no known intent to compare with"
    if cluster["nearest_intent"] is not None:
        nearest = f"{_plain(cluster['nearest_intent'])} (cosine {cluster['similarity']:.2f})"
    lines = [
        f"## Cluster {cluster['cluster']}: {', '.join(map(_plain, cluster['key_terms'])) or 'without texts'}",
        "",
        f"- size: {cluster['size']}, {cluster['distinct']} of them distinct",
        f"- stability: {cluster['stability']:.2f}, {stability_words(cluster['stability'])}",
        f"- nearest known intent: {nearest}",
        f"- decided: {_tally(cluster['decided'])}",
        f"- labels: {_tally(cluster['labels']) or 'none'}",
        f"- languages: {_tally(cluster['languages'])}",
        "",
    ]
    return lines + [_exemplar(exemplar) for exemplar in cluster["exemplars"]]


def _exemplar(exemplar: Mapping[str, Any]) -> str:
    text, request_id = exemplar["text"], _plain(exemplar["request_id"])
    if text is None:
        return f"1. request {request_id}"
    shortened = text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"
    return f"1. {_plain(shortened)} (request {request_id})"


def _tally(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{_plain(name)} {count}" for name, count in counts.items())


def _plain(text: str) -> str:
    """On one line, and nothing in it is taken as markup: a customer wrote it."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
