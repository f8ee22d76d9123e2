"""
An HTML report of a stretch of time: ``python -m monitoring report --from 2026-01-01 --to 2026-01-02 --out r.html``.

Read, measure, draw, write. The event log and the sidecar's state are only read, and no lock is taken: a report can be
made while both processes run. The same rows give the same report, but for the time at which it was made.
"""

import argparse
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from model_repo.contract.errors import ContractError
from model_repo.contract.policy import Policy
from model_repo.store import Store
from monitoring.errors import BadState, CannotReport, LogUnavailable, MonitoringError
from monitoring.failure_tree import FailureTree, load
from monitoring.incidents import Incident
from monitoring.observations import StreamKey
from monitoring.reference_window import Reference, from_version
from monitoring.references import NO_REFERENCE, reference_numbers
from monitoring.report_arguments import parse_time
from monitoring.report_figures import DRAWN_STREAMS, confusion_pictures, pictures_over_time, reliability_pictures
from monitoring.report_page import Report, StreamSection, page
from monitoring.report_plots import Mark
from monitoring.report_rows import RangeRows, StreamRows, read_range
from monitoring.report_signals import Yardstick, stream_segments, stream_signals
from monitoring.report_state import SavedState, read_state
from monitoring.settings import MonitorSettings, read_settings
from monitoring.signals import Watch
from monitoring.sources import StoreSources
from monitoring.stream_watch import Sources

log = logging.getLogger(__name__)

SEED = 7
"""Of resampling: two reports of the same rows have the same intervals."""


def run_report(chosen: argparse.Namespace, environment: Mapping[str, str] | None = None) -> int:
    """Exit status: 0, or 2 after one line that names the argument which is wrong."""
    try:
        settings = read_settings(environment)
        report = make_report(chosen, settings, time.time())
        write_whole(chosen.out, page(report))
    except MonitoringError as wrong:
        sys.stderr.write(f"report: {wrong}\n")
        return 2
    rows = report.rows
    sys.stdout.write(f"{chosen.out}: {rows.predictions:,} predictions, {rows.labelled:,} with a label\n")
    return 0


def make_report(chosen: argparse.Namespace, settings: MonitorSettings, now: float) -> Report:
    """Everything on the page; raises MonitoringError whose message names the argument."""
    began, ended = parse_time("--from", chosen.began), parse_time("--to", chosen.ended)
    if ended <= began:
        raise CannotReport(f"--to must be later than --from, got {chosen.ended} and {chosen.began}")
    log = chosen.log or settings.event_log_path
    if not log.is_file():
        raise CannotReport(f"--log: {log} is no file")
    sources = _sources(chosen.model_repo or settings.model_repo, settings)
    saved = _saved_state(chosen.state, settings, began, ended)
    try:
        rows = read_range(log, began, ended, sources.taxonomy, now)
    except LogUnavailable as wrong:
        raise CannotReport(f"--log: {wrong}") from wrong
    return report_of(rows, sources, saved, load(), now)


def report_of(rows: RangeRows, sources: Sources, saved: SavedState | None, tree: FailureTree, now: float) -> Report:
    """The report of rows that were read; pure but for the sources."""
    rng = np.random.default_rng(SEED)
    references = saved.references if saved else ()
    incidents = saved.incidents if saved else None
    yardsticks = {stream.key: yardstick_of(stream, sources, references, tree.watches, rng) for stream in rows.streams}
    profiles = {key: by.numbers.profile for key, by in yardsticks.items() if by.numbers.profile is not None}
    marks = incident_marks(incidents or (), now)
    return Report(
        rows=rows,
        made_at=now,
        sections=tuple(_section(stream, yardsticks[stream.key], tree, rng) for stream in rows.streams),
        over_time=tuple(pictures_over_time(rows, profiles, tree.watches, marks, rng)) if rows.streams else (),
        reliability=tuple(reliability_pictures(rows)),
        confusion=tuple(confusion_pictures(rows)),
        incidents=incidents,
        notes=tuple(notes_of(rows, yardsticks)),
    )


def yardstick_of(
    stream: StreamRows,
    sources: Sources,
    references: Sequence[Reference],
    watches: Mapping[str, Watch],
    rng: np.random.Generator,
) -> Yardstick:
    """By the reference pinned for the version, else by the profile that it brings; both may be missing."""
    key, taxonomy, costs = stream.key, stream.taxonomy, sources.costs(stream.taxonomy)
    numbers = NO_REFERENCE
    try:
        pinned = next((reference for reference in references if reference.key.version == key.version), None)
        reference = pinned or from_version(key, taxonomy, sources.profile(key.version))
        temperature = sources.policy(reference.key.version, reference.key.policy).temperature
        numbers = reference_numbers(reference, temperature, taxonomy, costs, watches, rng)
    except (ContractError, OSError) as missing:
        log.warning("nothing to compare %s with: %s", key.name, missing)
    return Yardstick(_policy(sources, key), costs, numbers)


def incident_marks(incidents: Sequence[Incident], now: float) -> list[Mark]:
    """On the time axes, under the number that the page gives them."""
    return [
        Mark(incident.began_at, incident.ended_at or now, f"I{ordinal}", is_incident=True)
        for ordinal, incident in enumerate(incidents, start=1)
    ]


def notes_of(rows: RangeRows, yardsticks: Mapping[StreamKey, Yardstick]) -> list[str]:
    """What was left out, and why."""
    counts = (
        (rows.unknown_version, "of versions that the model repository does not hold"),
        (rows.malformed, "malformed"),
        (rows.future_schema, "written by a newer version of this program"),
    )
    notes = [f"Events left out, {words}: {count:,}." for count, words in counts if count]
    lost = sum(stream.counts["foreign"] + stream.counts["too_late"] for stream in rows.streams)
    if lost:
        notes.append(f"Labels left out, too late or with an intent that the version does not know: {lost:,}.")
    if rows.streams and not rows.labelled:
        notes.append("No prediction of the range has a label yet: quality and calibration cannot be measured.")
    unknown = sorted({key.policy for key, by in yardsticks.items() if by.policy is None})
    if unknown:
        notes.append(f"Brier, NLL and ECE are not in the table for want of the policy {', '.join(unknown)}.")
    if len(rows.streams) > DRAWN_STREAMS:
        notes.append(f"Pictures show the {DRAWN_STREAMS} streams with most predictions, of {len(rows.streams)}.")
    return notes


def write_whole(file: Path, text: str) -> None:
    """The whole file or none of it; raises CannotReport."""
    new = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        new.write_text(text, encoding="utf-8")
        new.replace(file)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise CannotReport(f"--out: {file} cannot be written: {error}") from error


def _section(stream: StreamRows, measured_by: Yardstick, tree: FailureTree, rng: np.random.Generator) -> StreamSection:
    signals = stream_signals(stream, measured_by, tree.watches, rng)
    segments = stream_segments(stream, measured_by, tree.watches["accuracy"])
    return StreamSection(stream, tuple(signals), tuple(segments), measured_by.numbers.origin)


def _policy(sources: Sources, key: StreamKey) -> Policy | None:
    try:
        return sources.policy(key.version, key.policy)
    except (ContractError, OSError):
        return None


def _sources(model_repo: Path, settings: MonitorSettings) -> StoreSources:
    if not model_repo.is_dir():
        raise CannotReport(f"--model-repo: {model_repo} is no folder")
    try:
        return StoreSources(Store(model_repo), settings.costs_file)
    except ContractError as wrong:
        raise CannotReport(f"MONITOR_COSTS_FILE: {wrong}") from wrong


def _saved_state(given: Path | None, settings: MonitorSettings, began: float, ended: float) -> SavedState | None:
    """None when no state was named and the usual one is not there: a report can do without."""
    if given is None and not settings.state_path.exists():
        return None
    try:
        return read_state(given or settings.state_path, began, ended)
    except BadState as wrong:
        raise CannotReport(f"--state: {wrong}") from wrong
