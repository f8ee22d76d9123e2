"""A snapshot in which everything has happened once."""

import numpy as np

from model_repo.contract.calibration_error import BINS, BinCounts
from monitoring.assessment import Assessment
from monitoring.counters import DELAY_EDGES_S, RETIRED, Counters, StreamCounters
from monitoring.failure_tree import Outcome, Walk
from monitoring.incidents import ask, open_incident
from monitoring.observations import StreamKey
from monitoring.segments import SegmentFinding
from monitoring.signals import Signal, Verdict
from monitoring.snapshot import Health, Snapshot

KEY = StreamKey("3", "3.1", "champion")
NAN = float("nan")
ACCURACY = Signal("accuracy", 0.88, 0.86, 0.9, 1000, Verdict.BREACHED, 0.92, 0.01)
UNKNOWN = Signal("ood_recall", NAN, NAN, NAN, 0, Verdict.INCONCLUSIVE, 0.8, 0.05)
IN_JAPANESE = Signal("accuracy[lang=ja]", 0.7, 0.6, 0.8, 90, Verdict.BREACHED, 0.9, 0.01)


def bins(value: float) -> BinCounts:
    """The same in the first bin of each."""
    first = np.zeros(BINS)
    first[0] = value
    return BinCounts(first, first / 2, first / 4)


def delays(early: int, late: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Labels at once, and after the last edge."""
    counts = np.zeros(len(DELAY_EDGES_S), dtype=np.int64)
    counts[0], counts[-1] = early, late
    return counts


COUNTERS = Counters(
    predictions_read=100,
    labels_read=40,
    missing_predictions=7,
    missing_labels_at_most=3,
    malformed=1,
    future_schema=2,
    unknown_version=4,
    labels_repeated=5,
    labels_corrected=6,
    labels_outranked=8,
    labels_orphaned=9,
    streams={
        KEY: StreamCounters(
            predictions=90,
            ood=10,
            over_15_ms=2,
            labelled=30,
            labelled_ood=4,
            correct=20,
            early=1,
            too_late=2,
            foreign=3,
            closed_labelled=3,
            closed_unlabelled=1,
            calibration=bins(26.0),
            delays=delays(28, 2),
        ),
        RETIRED: StreamCounters(predictions=1000, labelled=500, delays=delays(500, 0)),
    },
)
FIRED = Walk("accuracy_down", Outcome.FIRED, ("accuracy down >= 1 pp", "broad"), "retrain", (ACCURACY,))
INCIDENT, REQUEST = ask(open_incident(FIRED, KEY, 1_767_268_800.0), "retrain", 1_767_268_801.0)
FULL = Snapshot(
    at=1_767_268_900.0,
    health=Health("available"),
    counters=COUNTERS,
    behind_s=12.5,
    last_step_at=1_767_268_899.0,
    last_assessment_at=1_767_268_898.0,
    assessments=(
        Assessment(
            KEY,
            1_767_268_898.0,
            {"accuracy": ACCURACY, "ood_recall": UNKNOWN},
            (SegmentFinding("lang=ja", IN_JAPANESE, 0.8, True),),
            predictions=90,
            labelled=30,
            reference="production",
        ),
    ),
    open_incidents=(INCIDENT,),
    latest_incidents=(INCIDENT,),
    outbox_waiting=1,
    outbox_dead=2,
    outbox_oldest_s=99.0,
)
