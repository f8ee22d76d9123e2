"""What the sidecar answers over HTTP. Reads the snapshot of the moment; never touches the state or the log."""

from typing import Annotated, Any

import orjson
from fastapi import FastAPI, Query, Response

from monitoring.assessment import Assessment
from monitoring.counters import RETIRED
from monitoring.remedies import SignalRecord
from monitoring.signals import Signal
from monitoring.snapshot import SHOWN_INCIDENTS, Snapshot, Watched
from monitoring.telemetry import CONTENT_TYPE, Telemetry


def http_app(watched: Watched, telemetry: Telemetry) -> FastAPI:
    """The application."""
    app = FastAPI(title="MangaAssist monitor", docs_url=None, redoc_url=None)

    @app.get("/metrics")
    def metrics() -> Response:
        """Prometheus text."""
        return Response(telemetry.render(), media_type=CONTENT_TYPE)

    @app.get("/status")
    def status() -> Response:
        """What was read, measured and decided."""
        return _json(status_document(watched.snapshot))

    @app.get("/incidents")
    def incidents(limit: Annotated[int, Query(ge=1, le=SHOWN_INCIDENTS)] = 50) -> Response:
        """The latest incidents, newest first."""
        return _json({"incidents": [one.to_json() for one in watched.snapshot.latest_incidents[:limit]]})

    @app.get("/incidents/{incident_id}")
    def incident(incident_id: str) -> Response:
        """One incident, while it is open or among the latest."""
        snapshot = watched.snapshot
        for one in (*snapshot.open_incidents, *snapshot.latest_incidents):
            if one.id == incident_id:
                return _json(one.to_json())
        return _json({"detail": f"no incident {incident_id!r} among the latest {SHOWN_INCIDENTS}"}, 404)

    @app.get("/health/live")
    def live() -> Response:
        """200 while the loop turns; otherwise the process should be started again."""
        is_well = watched.is_well()
        return _json({"status": "ok" if is_well else "the loop does not turn"}, 200 if is_well else 503)

    @app.get("/health/ready")
    def ready() -> Response:
        """200 while the loop turns, the log can be read and the state can be written."""
        health = watched.snapshot.health
        problems = {
            "loop": None if watched.is_well() else "does not turn",
            "log": None if health.log == "available" else (health.log_problem or "not looked at yet"),
            "state": None if health.is_state_writable else (health.state_problem or "cannot be written"),
        }
        is_ready = not any(problems.values())
        parts = {name: problem or "ok" for name, problem in problems.items()}
        return _json({"status": "ok" if is_ready else "not ready", **parts}, 200 if is_ready else 503)

    return app


def status_document(snapshot: Snapshot) -> dict[str, Any]:
    """``GET /status``. Numbers that could not be measured are null."""
    counters = snapshot.counters
    return {
        "at": snapshot.at,
        "log": {
            "status": snapshot.health.log,
            "problem": snapshot.health.log_problem,
            "behind_seconds": snapshot.behind_s,
            "last_step_at": snapshot.last_step_at,
            "predictions_read": counters.predictions_read,
            "labels_read": counters.labels_read,
            "missing_predictions": counters.missing_predictions,
            "missing_labels_at_most": counters.missing_labels_at_most,
            "new_logs": counters.new_logs,
            "malformed": counters.malformed,
            "future_schema": counters.future_schema,
            "unknown_version": counters.unknown_version,
        },
        "state": {"is_writable": snapshot.health.is_state_writable, "problem": snapshot.health.state_problem},
        "streams": [
            {
                "version": key.version,
                "policy": key.policy,
                "role": key.role,
                "predictions": counts.predictions,
                "ood": counts.ood,
                "labelled": counts.labelled,
                "correct": counts.correct,
                "label_join_ratio": counts.join_ratio,
                "label_delay_seconds": {"p50": counts.delay_quantile_s(0.5), "p95": counts.delay_quantile_s(0.95)},
            }
            for key, counts in counters.streams.items()
            if key != RETIRED
        ],
        "last_assessment_at": snapshot.last_assessment_at,
        "assessments": [_assessment(one) for one in snapshot.assessments],
        "open_incidents": [one.id for one in snapshot.open_incidents],
        "outbox": {
            "waiting": snapshot.outbox_waiting,
            "dead": snapshot.outbox_dead,
            "oldest_seconds": snapshot.outbox_oldest_s,
        },
    }


def _assessment(one: Assessment) -> dict[str, Any]:
    return {
        "version": one.key.version,
        "policy": one.key.policy,
        "role": one.key.role,
        "at": one.at,
        "reference": one.reference,
        "window": {"predictions": one.predictions, "labelled": one.labelled},
        "signals": {name: _signal(signal) for name, signal in one.signals.items()},
        "segments": [
            {
                "segment": finding.name,
                "is_worse": finding.is_worse,
                "concentration": finding.concentration,
                "accuracy": _signal(finding.accuracy),
            }
            for finding in one.segments
        ],
    }


def _signal(signal: Signal) -> dict[str, Any]:
    return SignalRecord.of_signal(signal).to_json()


def _json(document: Any, status: int = 200) -> Response:
    # NaN and infinity become null.
    return Response(orjson.dumps(document), status, media_type="application/json")
