"""
river, Evidently and NannyML over one exported stream, with their defaults: at which rows each of their alarms comes.

None of them is in the project's environment, so each is imported where it is used; see ``bench_rivals``.
"""

import contextlib
import io
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

WINDOW = 1_000
Array = NDArray[Any]
Alarms = dict[str, list[int]]
"""By detector: rows, counted from the end of the pinned stretch, after which it gave an alarm."""


@dataclass(frozen=True)
class Stream:
    """One stream, as ``replay_export`` wrote it."""

    columns: Mapping[str, Array]
    """See ``replay_export.columns_of``."""
    labels: tuple[str, ...]
    """Names of the labels, ood last."""
    embeddings: Array
    """(messages, H), of every message that occurs in any stream."""
    pinned: int
    changed_at: int
    """Rows before the change; all rows of a quiet stream."""
    allowed: int
    """Rows that the change should be found within."""

    @property
    def in_scope(self) -> Array:
        """(n,) whether there is a label that is an intent."""
        label = self.columns["label"]
        return np.asarray((label >= 0) & (label < len(self.labels) - 1))

    @property
    def windows(self) -> Iterator[slice]:
        """After the pinned stretch, each whole one."""
        n = len(self.columns["label"])
        for begin in range(self.pinned, n - WINDOW + 1, WINDOW):
            yield slice(begin, begin + WINDOW)


def river(stream: Stream) -> Alarms:
    """Detectors that take one row after the other, from the first pinned one on."""
    drift, binary = import_module("river.drift"), import_module("river.drift.binary")
    error = (stream.columns["top"] != stream.columns["label"])[stream.in_scope]
    at_error = np.flatnonzero(stream.in_scope)
    every = np.arange(len(stream.columns["label"]))
    alarms: Alarms = {}
    for detector in (drift.ADWIN, drift.PageHinkley, binary.DDM, binary.EDDM, binary.HDDMA, binary.HDDMW):
        alarms[f"river {detector.__name__}: errors"] = _fed(detector(), error.tolist(), at_error, stream)
    for column, words in (("confidence", "confidence"), ("energy", "energy"), ("total_ms", "latency")):
        for detector in (drift.ADWIN, drift.PageHinkley):
            values = stream.columns[column].astype(float).tolist()
            alarms[f"river {detector.__name__}: {words}"] = _fed(detector(), values, every, stream)
    return alarms


def kswin(stream: Stream) -> Alarms:
    """river's KSWIN, which makes a test a row: a millisecond each."""
    drift = import_module("river.drift")
    every, values = np.arange(len(stream.columns["label"])), stream.columns["confidence"].tolist()
    return {"river KSWIN: confidence": _fed(drift.KSWIN(seed=0), values, every, stream)}


def evidently(stream: Stream) -> Alarms:
    """Reports of windows against the pinned stretch, with the tests that they come with."""
    core, presets, pandas = import_module("evidently"), import_module("evidently.presets"), import_module("pandas")
    methods = import_module("evidently.legacy.metrics.data_drift.embedding_drift_methods")
    drift = core.DataDefinition(
        numerical_columns=["confidence", "energy", "total_ms"], categorical_columns=["decided", "lang"]
    )
    labels = core.DataDefinition(
        classification=[core.MulticlassClassification(target="label", prediction_labels="top")],
        categorical_columns=["label", "top"],
    )
    names = {
        "column": "Evidently DataDriftPreset: any column",
        "share": "Evidently DataDriftPreset: half of the columns",
        "quality": "Evidently ClassificationPreset: any test",
        "embeddings": "Evidently EmbeddingsDrift",
    }
    alarms: Alarms = {name: [] for name in names.values()}
    frame = pandas.DataFrame({name: stream.columns[name] for name in ("confidence", "energy", "total_ms")})
    for name in ("decided", "label", "top"):
        frame[name] = np.array(stream.labels)[stream.columns[name]]
    frame["lang"] = stream.columns["lang"].astype(str)
    pinned = slice(0, stream.pinned)
    for window in stream.windows:
        row = window.stop - stream.pinned
        failed = _failed(core, [presets.DataDriftPreset()], drift, frame[pinned], frame[window])
        if any(name.startswith("Value Drift") for name in failed):
            alarms[names["column"]].append(row)
        if any(name.startswith("Share of Drifted") for name in failed):
            alarms[names["share"]].append(row)
        scope = stream.in_scope[window]
        if scope.any():
            reference, current = frame[pinned][stream.in_scope[pinned]], frame[window][scope]
            if _failed(core, [presets.ClassificationPreset()], labels, reference, current):
                alarms[names["quality"]].append(row)
        # What the metric calls before it draws its picture, which would take most of the time.
        vectors = [pandas.DataFrame(stream.embeddings[stream.columns["message"][rows]]) for rows in (window, pinned)]
        _, is_drift, _ = methods.model(bootstrap=False)(*vectors)
        if is_drift:
            alarms[names["embeddings"]].append(row)
    return alarms


def nannyml(stream: Stream) -> Alarms:
    """Chunks of 1,000 rows against the pinned ones: estimated and realised accuracy, drift of columns and vectors."""
    nml, pandas = import_module("nannyml"), import_module("pandas")
    logging.getLogger("nannyml").setLevel(logging.ERROR)
    intents = stream.labels[:-1]
    frame = pandas.DataFrame(stream.columns["probabilities"], columns=[f"p_{name}" for name in intents])
    for name in ("confidence", "energy", "total_ms"):
        frame[name] = stream.columns[name]
    for name in ("decided", "label", "top"):
        frame[name] = np.array(stream.labels)[stream.columns[name]]
    task = {
        "y_pred_proba": {name: f"p_{name}" for name in intents},
        "y_pred": "top",
        "y_true": "label",
        "problem_type": "classification_multiclass",
        "metrics": ["accuracy"],
    }
    alarms: Alarms = {}
    scope, is_pinned = stream.in_scope, np.arange(len(frame)) < stream.pinned
    # Chunks of utterances that are in scope, of 1,000 events about.
    size = round(WINDOW * scope[is_pinned].mean())
    reference = frame[scope & is_pinned]
    answered = ~is_pinned & (stream.columns["decided"] < len(intents))
    estimated = nml.CBPE(**task, chunk_size=size).fit(reference)
    alarms["NannyML CBPE: accuracy"] = _chunks(estimated.estimate, frame, answered, size, stream, ["accuracy"])
    realised = nml.PerformanceCalculator(**task, chunk_size=size).fit(reference)
    labelled = ~is_pinned & scope
    alarms["NannyML realised accuracy"] = _chunks(realised.calculate, frame, labelled, size, stream, ["accuracy"])
    columns = ["confidence", "energy", "total_ms", "decided"]
    univariate = nml.UnivariateDriftCalculator(
        column_names=columns, treat_as_categorical=["decided"], chunk_size=WINDOW
    ).fit(frame[is_pinned])
    alarms["NannyML univariate drift: any column"] = _chunks(
        univariate.calculate, frame, ~is_pinned, WINDOW, stream, [(name, "jensen_shannon") for name in columns]
    )
    vectors = pandas.DataFrame(stream.embeddings[stream.columns["message"]]).rename(columns=lambda one: f"e{one}")
    rebuilt = nml.DataReconstructionDriftCalculator(column_names=list(vectors.columns), chunk_size=WINDOW)
    rebuilt.fit(vectors[is_pinned])
    alarms["NannyML reconstruction drift: embeddings"] = _chunks(
        rebuilt.calculate, vectors, ~is_pinned, WINDOW, stream, ["reconstruction_error"]
    )
    return alarms


TOOLS: Mapping[str, Callable[[Stream], Alarms]] = {
    "river": river,
    "kswin": kswin,
    "evidently": evidently,
    "nannyml": nannyml,
}


def _fed(detector: Any, values: list[Any], rows: Array, stream: Stream) -> list[int]:
    found = []
    for row, value in zip(rows.tolist(), values, strict=True):
        detector.update(value)
        if detector.drift_detected and row >= stream.pinned:
            found.append(row + 1 - stream.pinned)
    return found


def _failed(core: Any, presets: list[Any], definition: Any, reference: Any, current: Any) -> list[str]:
    """Names of the tests of a report that failed."""
    of_definition = [*(definition.numerical_columns or ()), *definition.categorical_columns]
    windows = [core.Dataset.from_pandas(rows[of_definition], definition) for rows in (current, reference)]
    report = core.Report(presets, include_tests=True).run(*windows)
    return [test["name"] for test in report.dict()["tests"] if str(test["status"]).endswith("FAIL")]


def _chunks(
    calculate: Callable[[Any], Any], frame: Any, chosen: Array, size: int, stream: Stream, measures: list[Any]
) -> list[int]:
    """Rows at the ends of the whole chunks in which any of the measures gave an alert."""
    rows = np.flatnonzero(chosen)
    rows = rows[: len(rows) // size * size]
    if len(rows) == 0:
        return []
    with contextlib.redirect_stderr(io.StringIO()):
        told = calculate(frame.iloc[rows]).filter(period="analysis").to_df()
    is_alert = np.any([told[measure]["alert"].to_numpy(dtype=bool) for measure in measures], axis=0)
    ends = rows[np.arange(1, len(is_alert) + 1) * size - 1]
    return [int(row) + 1 - stream.pinned for row in ends[is_alert]]
