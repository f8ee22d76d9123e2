"""What the sidecar answers over HTTP. Reads the snapshot of the moment; never touches the state or the log."""

from typing import Any

import orjson
from fastapi import FastAPI, Response

from monitoring.counters import RETIRED
from monitoring.snapshot import Snapshot, Watched
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
    }


def _json(document: Any, status: int = 200) -> Response:
    # NaN and infinity become null.
    return Response(orjson.dumps(document), status, media_type="application/json")
