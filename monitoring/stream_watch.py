"""
Watches every stream: gathers evidence row by row as the journey goes, pins what to compare with, and assesses.

Changes are made in two steps, as the journey's transaction needs it: ``follow``, ``pin_due`` and ``restart`` give what
is to be saved, and ``take_over`` makes it hold once it was. Used from one thread.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np

from model_repo.contract.errors import ContractError
from model_repo.contract.labels import Taxonomy
from model_repo.contract.outputs import FloatArray
from model_repo.contract.policy import Policy
from model_repo.contract.reference import ReferenceProfile
from monitoring.assessment import ASSESSED_SIGNALS, Assessment, window_signals
from monitoring.errors import BadFailureTree
from monitoring.failure_tree import FailureTree
from monitoring.label_join import Joined, StreamJoined
from monitoring.latency import LATENCY_SIGNALS
from monitoring.observations import NO_EMBEDDINGS, StreamKey
from monitoring.reference_window import Reference, from_version, pin
from monitoring.references import FOLLOWED_SIGNALS, NO_REFERENCE, ReferenceNumbers, evidence_rows, reference_numbers
from monitoring.segments import SEGMENT_SIGNALS, SegmentFinding
from monitoring.sequential import Evidence, start, update
from monitoring.signals import Signal, Verdict
from monitoring.watch_state import Followed, Look, from_bytes, to_bytes
from monitoring.windows import StreamWindows, Window

WATCHES = "watches"
FOLLOWED_ROLES = ("champion", "candidate")
MMD = "embedding_mmd"
MMD_ROWS = 256
"""New embeddings, the latest ones, that one look takes at most: its cost grows with the square."""


class Sources(Protocol):
    """What versions bring with them. Each may raise ContractError for what the model repository does not hold."""

    def policy(self, version: str, policy_name: str) -> Policy:
        """One revision, as ``3.1``."""

    def profile(self, version: str) -> ReferenceProfile:
        """The distributions that the version was calibrated on."""

    def costs(self, taxonomy: Taxonomy) -> FloatArray:
        """(K + 1, K + 1), as ``costs.cost_matrix`` gives it."""


@dataclass(frozen=True)
class WatchSettings:
    """How much is looked at; the process settings say what each does."""

    window_predictions: int = 2500
    window_labelled: int = 1000
    reference: Literal["production", "version"] = "production"
    """What label-free signals are compared with before a reference is pinned: nothing, or the version's own profile."""
    pin_predictions: int = 5000
    pin_labelled: int = 5000
    """With 1,000, a fall of 3 points takes twice as long to be told from the reference's own error, and an ECE that
    rose by 0.03 three times; 5,000 finds the latter within 2,500 labels nine times in ten, 3,000 seven times."""
    pin_growth: int = 4
    """Pinned again once, over so many times as many; 1 is never."""
    seed: int = 42
    """Of intervals by resampling, and of the embeddings that a reference keeps."""


class StreamWatches:
    """See the module."""

    def __init__(
        self,
        tree: FailureTree,
        sources: Sources,
        settings: WatchSettings,
        saved: Callable[[str], bytes | None],
    ) -> None:
        """Go on where the state is; raises BadState, or BadFailureTree when a signal has no threshold."""
        lacking = sorted(set(ASSESSED_SIGNALS) - set(tree.watches))
        if lacking:
            raise BadFailureTree(f"signals without a threshold: {', '.join(lacking)}")
        self._watches = tree.watches
        self._sources = sources
        self._settings = settings
        self._saved = saved
        body = saved(WATCHES)
        self._streams: Mapping[StreamKey, Followed] = {} if body is None else from_bytes(body)
        self._pending: Mapping[StreamKey, Followed] | None = None
        self._pinned: dict[str, Reference | None] = {}
        """By version, as far as they were asked for; None when there is none yet."""
        self._pending_pin: Reference | None = None
        self._numbers: dict[str, ReferenceNumbers] = {}
        self._assessed: dict[StreamKey, tuple[object, dict[str, Signal], tuple[SegmentFinding, ...]]] = {}

    def follow(self, joined: Joined) -> Mapping[str, bytes]:
        """
        What to save with a chunk: the evidence with it counted. A label that is corrected later does not count again.
        """
        followed = {
            stream.key: self._followed(stream) for stream in joined.streams if stream.key.role in FOLLOWED_ROLES
        }
        gone = set(joined.dropped)
        if not followed and not gone & set(self._streams):
            return {}
        return self._change({key: one for key, one in {**self._streams, **followed}.items() if key not in gone})

    def pin_due(self, windows: StreamWindows) -> Mapping[str, bytes]:
        """
        What to save when the first stretch of a version's production is long enough to be its reference from now on,
        and once more when ``pin_growth`` times as much has come in which nothing was found; nothing otherwise.

        Policy revisions of the version go on with it: whether a revision helped is told by what was before it.
        """
        key, settings = windows.key, self._settings
        pinned = self._reference(key.version) if key.role == "champion" else None
        times = 1 if pinned is None else settings.pin_growth
        predictions, labelled = times * settings.pin_predictions, times * settings.pin_labelled
        n_predictions, n_labelled = windows.held
        is_long_enough = n_predictions >= predictions and n_labelled >= labelled
        if key.role != "champion" or not is_long_enough:
            return {}
        if pinned is not None and not self._may_grow(pinned, windows, predictions, labelled):
            return {}
        stretch = replace(windows.beginning(predictions, labelled), embeddings=windows.embeddings_after(0).vectors)
        self._pending_pin = pin(stretch, np.random.default_rng(settings.seed))
        return {_pin_name(key.version): self._pending_pin.to_bytes()}

    def restart(self, key: StreamKey, windows: StreamWindows) -> Mapping[str, bytes]:
        """What to save after a remedy: no evidence, and a floor below which no prediction, or label of one, counts."""
        before = self._streams.get(key, Followed())
        numbers = windows.latest(predictions=1, labelled=0).predictions["number"]
        floor = int(max(before.latest_number, numbers.max(initial=0)))
        return self._change({**self._streams, key: _anew(replace(before, floor=floor, latest_number=floor))})

    def take_over(self) -> None:
        """What was to be saved is saved."""
        if self._pending is not None:
            self._streams = self._pending
        if self._pending_pin is not None:
            version = self._pending_pin.key.version
            self._pinned[version] = self._pending_pin
            self._numbers.pop(version, None)
        self.roll_back()

    def roll_back(self) -> None:
        """What was to be saved could not be: all is as it was before."""
        self._pending = None
        self._pending_pin = None

    def assess(self, windows: StreamWindows, now: float, extra: Mapping[str, Signal]) -> Assessment:
        """
        Measure and judge the current window; ``extra`` are signals that actions measured.

        Without new rows the numbers are those of before. Verdicts of signals that are not followed row by row are
        renewed once ``minimum_rows`` new rows have come, so that their errors add up as ``signals.look_error`` says.
        """
        key = windows.key
        numbers = self._numbers_of(key, windows.taxonomy)
        followed = _begun(self._streams.get(key, Followed()), numbers)
        temperature = self._temperature(key)
        window = self._window(windows, followed, has_policy=temperature is not None)
        token = (followed.predictions, followed.labelled, followed.floor, followed.digest, len(window.labelled))
        if self._assessed.get(key, (None,))[0] != token:
            signals, findings, followed = self._measured(windows, window, numbers, followed, temperature or 1.0)
            self._assessed[key] = token, signals, findings
            if key in self._streams:
                self._streams = {**self._streams, key: followed}
        _, signals, findings = self._assessed[key]
        return Assessment(
            key, now, {**signals, **extra}, findings, len(window.predictions), len(window.labelled), numbers.origin
        )

    def detected(self, key: StreamKey) -> frozenset[str]:
        """Signals whose evidence says that something changed; whether it matters is for the next assessment to say."""
        followed = self._streams.get(key, Followed())
        return frozenset(name for name, held in followed.evidence.items() if held.has_detected)

    def _may_grow(self, pinned: Reference, windows: StreamWindows, predictions: int, labelled: int) -> bool:
        """
        Whether so many rows, of the same stream and from the pinned ones on, are more than those and passed quietly.

        Quietly: nothing is detected or breached now, and no remedy, nor anything else that serves, has come since.
        """
        if pinned.profile.n >= predictions or len(pinned.labelled) >= labelled:
            return False
        followed, numbers = self._streams.get(windows.key, Followed()), pinned.labelled["number"]
        # The one signal that a branch fires on without evidence of its rows; shares of a delay are breached by chance.
        embedded = followed.looks.get(MMD)
        is_breached = embedded is not None and embedded.signal.verdict is Verdict.BREACHED
        if self.detected(windows.key) or is_breached or followed.floor > numbers.max():
            return False
        held = windows.beginning(1, 1)
        # What came first may have been let go, or be another policy's: no two streams share a number.
        return bool(held.predictions["number"][0] <= numbers.min() and held.labelled["number"][0] == numbers[0])

    def _followed(self, stream: StreamJoined) -> Followed:
        numbers = self._numbers_of(stream.key, stream.taxonomy)
        before = _begun(self._streams.get(stream.key, Followed()), numbers)
        predictions, labelled = (rows[rows["number"] > before.floor] for rows in (stream.predictions, stream.labelled))
        evidence = dict(before.evidence)
        rows = evidence_rows(numbers, self._watches, predictions, labelled, stream.taxonomy)
        for name, (values, bounds) in rows.items():
            claim = numbers.claims[name]
            evidence[name] = update(evidence.get(name) or start(claim), claim, values, bounds)
        return replace(
            before,
            predictions=before.predictions + len(predictions),
            labelled=before.labelled + len(labelled),
            latest_number=int(stream.predictions["number"].max(initial=before.latest_number)),
            evidence=evidence,
        )

    def _change(self, streams: Mapping[StreamKey, Followed]) -> Mapping[str, bytes]:
        self._pending = streams
        return {WATCHES: to_bytes(streams)}

    def _window(self, windows: StreamWindows, followed: Followed, has_policy: bool) -> Window:
        window = windows.latest(self._settings.window_predictions, self._settings.window_labelled)
        predictions, labelled = (
            rows[rows["number"] > followed.floor] for rows in (window.predictions, window.labelled)
        )
        # Without its policy nobody knows what the probabilities were.
        return replace(window, predictions=predictions, labelled=labelled if has_policy else labelled[:0])

    def _measured(
        self, windows: StreamWindows, window: Window, numbers: ReferenceNumbers, followed: Followed, temperature: float
    ) -> tuple[dict[str, Signal], tuple[SegmentFinding, ...], Followed]:
        """Signals with the looks of before where no new one is due, and what is remembered after it."""
        new = windows.embeddings_after(followed.embedded_up_to)
        if len(new) < self._watches[MMD].minimum_rows:
            new = NO_EMBEDDINGS
        window = replace(window, embeddings=new.vectors[-MMD_ROWS:])
        signals, findings = window_signals(
            window,
            numbers,
            temperature,
            self._sources.costs(windows.taxonomy),
            self._watches,
            followed.evidence,
            np.random.default_rng([self._settings.seed, followed.latest_number]),
        )
        looks = dict(followed.looks)
        for name in signals.keys() - FOLLOWED_SIGNALS - {*SEGMENT_SIGNALS}:
            if self._is_due(signals[name], followed, window):
                looks[name] = Look(signals[name], _rows_of(name, followed))
            elif name in looks:
                signals[name] = looks[name].signal
        embedded_up_to = int(new.numbers.max(initial=followed.embedded_up_to))
        evidence = _still_held(followed, signals)
        return signals, findings, replace(followed, looks=looks, evidence=evidence, embedded_up_to=embedded_up_to)

    def _is_due(self, signal: Signal, followed: Followed, window: Window) -> bool:
        """Whether enough of the rows that a signal is about are new."""
        name = signal.name
        if name == MMD:
            return len(window.embeddings) > 0
        look, minimum = followed.looks.get(name), self._watches[name].minimum_rows
        if look is None or look.signal.n < minimum:
            return True
        rows = len(window.predictions) if name in LATENCY_SIGNALS else len(window.labelled)
        return (_rows_of(name, followed) - look.at_row) * signal.n >= minimum * rows

    def _temperature(self, key: StreamKey) -> float | None:
        try:
            return self._sources.policy(key.version, key.policy).temperature
        except ContractError:
            return None

    def _reference(self, version: str) -> Reference | None:
        """The pinned one."""
        if version not in self._pinned:
            body = self._saved(_pin_name(version))
            self._pinned[version] = None if body is None else Reference.from_bytes(body)
        return self._pinned[version]

    def _numbers_of(self, key: StreamKey, taxonomy: Taxonomy) -> ReferenceNumbers:
        if key.role not in FOLLOWED_ROLES:
            return NO_REFERENCE
        if key.version not in self._numbers:
            try:
                self._numbers[key.version] = self._make_numbers(key, taxonomy)
            except ContractError:
                return NO_REFERENCE
        return self._numbers[key.version]

    def _make_numbers(self, key: StreamKey, taxonomy: Taxonomy) -> ReferenceNumbers:
        reference = self._reference(key.version)
        if reference is None and self._settings.reference == "production":
            return NO_REFERENCE
        if reference is None:
            reference = from_version(key, taxonomy, self._sources.profile(key.version))
        temperature = self._sources.policy(reference.key.version, reference.key.policy).temperature
        rng = np.random.default_rng(self._settings.seed)
        return reference_numbers(reference, temperature, taxonomy, self._sources.costs(taxonomy), self._watches, rng)


def _begun(followed: Followed, numbers: ReferenceNumbers) -> Followed:
    """As it was, or without evidence when that is about other claims."""
    return followed if followed.digest == numbers.digest else _anew(replace(followed, digest=numbers.digest))


def _anew(followed: Followed) -> Followed:
    """Without evidence. The embeddings of before are another remedy's, or the reference's own."""
    return replace(followed, evidence={}, looks={}, embedded_up_to=followed.latest_number)


def _still_held(followed: Followed, signals: Mapping[str, Signal]) -> dict[str, Evidence]:
    """
    The evidence, but for that which has detected what the signal no longer shows: a whole window has come since, and
    is ok. It begins anew, so that the next change is met with the same care as the first.
    """

    def is_over(name: str, held: Evidence) -> bool:
        is_ok = signals[name].verdict is Verdict.OK
        return held.detected_at is not None and is_ok and held.rows - held.detected_at >= signals[name].n

    return {name: held for name, held in followed.evidence.items() if not is_over(name, held)}


def _rows_of(name: str, followed: Followed) -> int:
    return followed.predictions if name in LATENCY_SIGNALS else followed.labelled


def _pin_name(version: str) -> str:
    return f"reference/{version}"
