"""What is remembered of the watching of each stream, and how it is saved."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from monitoring.errors import BadState
from monitoring.observations import StreamKey
from monitoring.sequential import Evidence
from monitoring.signals import Signal, Verdict


@dataclass(frozen=True)
class Look:
    """A signal that is no running sum: as it was when last measured, and when that was."""

    signal: Signal
    at_row: int
    """Rows that the stream had then, of the kind that the signal is about."""


@dataclass(frozen=True)
class Followed:
    """One stream."""

    floor: int = 0
    """Predictions up to this number count no longer: a remedy came after them."""
    predictions: int = 0
    """Rows counted so far, which only grows."""
    labelled: int = 0
    """The same of labelled ones."""
    latest_number: int = 0
    """Of the latest prediction."""
    embedded_up_to: int = 0
    """Embeddings of predictions up to this number were looked at, or do not count."""
    digest: str = ""
    """Of the claims that the evidence is about."""
    evidence: Mapping[str, Evidence] = field(default_factory=dict)
    """By signal; a signal that no row was about yet is missing."""
    looks: Mapping[str, Look] = field(default_factory=dict)
    """By signal."""


def to_bytes(streams: Mapping[StreamKey, Followed]) -> bytes:
    """As it is saved: JSON with NaN and Infinity."""
    return json.dumps([[key.version, key.policy, key.role, _to_json(one)] for key, one in streams.items()]).encode()


def from_bytes(body: bytes) -> dict[StreamKey, Followed]:
    """Inverse of ``to_bytes``; raises BadState."""
    try:
        return {StreamKey(*row[:3]): _from_json(row[3]) for row in json.loads(body)}
    except (ValueError, TypeError, KeyError, IndexError) as wrong:
        raise BadState(f"the saved evidence cannot be read: {wrong!r}") from wrong


def _to_json(one: Followed) -> dict[str, Any]:
    evidence = {name: [held.log_wealth.tolist(), held.rows, held.detected_at] for name, held in one.evidence.items()}
    looks = {name: [asdict(look.signal), look.at_row] for name, look in one.looks.items()}
    plain = {each.name: getattr(one, each.name) for each in fields(one)}
    return {**plain, "evidence": evidence, "looks": looks}


def _from_json(data: Mapping[str, Any]) -> Followed:
    evidence = {
        name: Evidence(np.array(wealth, dtype=np.float64), rows, detected_at)
        for name, (wealth, rows, detected_at) in data["evidence"].items()
    }
    looks = {
        name: Look(Signal(**{**signal, "verdict": Verdict(signal["verdict"])}), at_row)
        for name, (signal, at_row) in data["looks"].items()
    }
    return Followed(**{**data, "evidence": evidence, "looks": looks})
