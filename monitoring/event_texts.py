"""
What stands in the event log beside the numbers: request ids and texts, looked up when an action needs them.

The log is only read, and no lock is held between look-ups. Texts are as the service stored them: redacted, or absent
when storing text is turned off. What retention has deleted is not found.
"""

import sqlite3
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from monitoring.errors import LogUnavailable
from monitoring.event_reader import MAX_BODY_CHARS
from monitoring.observations import Records, StreamKey

AT_ONCE = 500
"""Looked up in one query; SQLite takes 999 arguments at least."""
LOCK_WAIT_S = 0.5

_BODY = f"CASE WHEN length(body) <= {MAX_BODY_CHARS} THEN body END"


@dataclass(frozen=True)
class LoggedUtterance:
    """One prediction as the log has it."""

    request_id: str
    text: str | None
    """Redacted; None when it was not stored."""
    lang: str
    top: str
    """The most probable intent, kept also when ood."""


class EventTexts:
    """The log in one file, which need not exist yet."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def of_records(self, key: StreamKey, records: Records) -> list[LoggedUtterance | None]:
        """
        One for each prediction of a stream, None where the log has it no more. Raises LogUnavailable.

        A record carries no request id: it is found by its time, confidence and energy. Two that agree in all of them
        are the same text asked twice at the same moment, and are told apart by their order.
        """
        keys = [_key(*row) for row in zip(records["at"], records["confidence"], records["energy"], strict=True)]
        wanted, found = set(keys), dict[tuple[float, ...], list[LoggedUtterance]]()
        for at, body in self._rows("at", sorted({at for at, _, _ in keys})):
            if (body.get("version"), body.get("policy"), body.get("role")) == (key.version, key.policy, key.role):
                one, place = _utterance(body), _key(at, body.get("confidence"), body.get("energy"))
                if one is not None and place in wanted:
                    found.setdefault(place, []).append(one)
        turns = {place: iter(ones) for place, ones in found.items()}
        return [next(turns[place], None) if place in turns else None for place in keys]

    def of_requests(self, request_ids: Sequence[str]) -> dict[str, LoggedUtterance]:
        """By request id; of several predictions of one request the champion's, the latest. Raises LogUnavailable."""
        found: dict[str, tuple[bool, LoggedUtterance]] = {}
        for request_id, body in self._rows("request_id", list(dict.fromkeys(request_ids))):
            one, is_champion = _utterance(body), body.get("role") == "champion"
            if one is not None and (is_champion or not found.get(request_id, (False, one))[0]):
                found[request_id] = is_champion, one
        return {request_id: one for request_id, (_, one) in found.items()}

    def _rows(self, column: str, values: Sequence[Any]) -> Iterator[tuple[Any, Mapping[str, Any]]]:
        """The value looked for and the event, in the order of the log within each look-up; what is no event is not."""
        try:
            uri = f"{self._log.absolute().as_uri()}?mode=ro"
            with closing(sqlite3.connect(uri, uri=True, timeout=LOCK_WAIT_S, isolation_level=None)) as connection:
                # Bytes that are not UTF-8 make one bad event, not a look-up that cannot be read.
                connection.text_factory = bytes
                for start in range(0, len(values), AT_ONCE):
                    some = values[start : start + AT_ONCE]
                    marks = ",".join("?" * len(some))
                    query = f"SELECT {column}, {_BODY} FROM predictions WHERE {column} IN ({marks}) ORDER BY seq"  # noqa: S608 - names of ours
                    for value, body in connection.execute(query, some).fetchall():
                        event = _parsed(body)
                        if event is not None:
                            yield value.decode("utf-8", "replace") if isinstance(value, bytes) else value, event
        except (sqlite3.Error, OSError) as error:
            raise LogUnavailable(f"{self._log} cannot be read: {error}") from error


def folded(text: str) -> str:
    """
    What two texts have in common that differ in case, width and spaces alone.

    >>> folded("Ｗｈｅｒｅ  is it? ")
    'where is it?'
    """
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _key(at: Any, confidence: Any, energy: Any) -> tuple[float, ...]:
    numbers = (at, confidence, energy)
    return tuple(float(one) for one in numbers) if all(isinstance(one, int | float) for one in numbers) else ()


def _parsed(body: Any) -> Mapping[str, Any] | None:
    try:
        event = orjson.loads(body)
    except (ValueError, TypeError):
        return None
    return event if isinstance(event, dict) else None


def _utterance(event: Mapping[str, Any]) -> LoggedUtterance | None:
    request_id, text = event.get("request_id"), event.get("text")
    lang, top = event.get("lang"), event.get("top")
    if not (isinstance(request_id, str) and isinstance(lang, str) and isinstance(top, str)):
        return None
    return LoggedUtterance(request_id, text if isinstance(text, str) and text.strip() else None, lang, top)
