"""
The way of events up to the windows: read, decode, join, count, commit, show to the windows.

The cursor and all that was counted from the events before it are committed together, so a log that is delivered at
least once is counted exactly once, wherever the process is killed.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from monitoring.counters import Counters, count
from monitoring.decoding import TaxonomyOf, decode
from monitoring.event_reader import CHUNK_EVENTS, Cursor, EventReader
from monitoring.label_join import Joined, LabelJoin
from monitoring.observations import Limits
from monitoring.state_file import StateFile
from monitoring.windows import WindowSet

CURSOR, COUNTERS = "cursor", "counters"

SaveAlso = Callable[[Joined], Mapping[str, bytes]]
"""What else is to be saved with a chunk, by name. Called inside the transaction, which may still fail: whoever keeps
the value in memory too takes it over after the step."""


@dataclass(frozen=True)
class Step:
    """What one step did."""

    joined: Joined
    events: int
    """Rows read, predictions and labels."""
    is_caught_up: bool
    """Nothing more is waiting: there is time until the next poll."""


class Journey:
    """One log, one state, one thread."""

    def __init__(
        self,
        log: Path,
        state: StateFile,
        taxonomy_of: TaxonomyOf,
        limits: Limits | None = None,
        *,
        chunk_events: int = CHUNK_EVENTS,
    ) -> None:
        """Go on where the state is; raises BadState when it cannot be read."""
        self._limits = limits or Limits()
        self._reader = EventReader(log, chunk_events=chunk_events)
        self._state = state
        self._taxonomy_of = taxonomy_of
        self._join = LabelJoin(state, taxonomy_of, self._limits)
        saved_cursor, saved_counters = state.get(CURSOR), state.get(COUNTERS)
        self.cursor = Cursor() if saved_cursor is None else Cursor.from_json(saved_cursor)
        self.counters = Counters() if saved_counters is None else Counters.from_json(saved_counters)
        self.windows = WindowSet(self._limits, self._join.remembered())

    def step(self, now: float, save_also: SaveAlso | None = None) -> Step:
        """
        Take in the next chunk; ``now`` is Unix time.

        Raises LogUnavailable (nothing changed, wait and try again) or sqlite3.Error when the state cannot be written
        (nothing changed either). When there is nothing to read, nothing is written, and ``save_also`` is not called.
        """
        rows = self._reader.read(self.cursor)
        if not (rows.predictions or rows.labels or rows.is_new_log):
            return Step(Joined((), (), Counter()), 0, True)
        decoded = decode(rows, self._taxonomy_of)
        with self._state.transaction():
            joined = self._join.add(decoded, rows.cursor.latest_at, now)
            counters = (self.counters + count(rows, decoded, joined)).retire(joined.dropped)
            for name, body in (save_also(joined) if save_also else {}).items():
                self._state.put(name, body)
            self._state.put(CURSOR, rows.cursor.to_json())
            self._state.put(COUNTERS, counters.to_json())
        self.cursor, self.counters = rows.cursor, counters
        self.windows.push(joined)
        return Step(joined, len(rows.predictions) + len(rows.labels), rows.is_caught_up)

    def close(self) -> None:
        """Let go of the log; the state is its owner's to close."""
        self._reader.close()
