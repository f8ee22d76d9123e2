"""The OpenAPI document, from the models of ``schemas`` and the table of ``errors``."""

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.errors import (
    PROBLEMS,
    BackendFailed,
    BodyTooLarge,
    BodyTooSlow,
    DeadlinePassed,
    EventLogUnavailable,
    InvalidField,
    MalformedBody,
    ModelNotReady,
    Overloaded,
    Problem,
    ServiceError,
    ShuttingDown,
    Unauthorized,
    UnknownIntent,
    UnsupportedMediaType,
)
from service.schemas import (
    BatchAnswer,
    BatchRequest,
    FeedbackAnswer,
    FeedbackRequest,
    LiveAnswer,
    ModelAnswer,
    ProblemAnswer,
    ReadyAnswer,
    RouteAnswer,
    RouteRequest,
)

_MODELS: tuple[type[BaseModel], ...] = (
    RouteRequest,
    RouteAnswer,
    BatchRequest,
    BatchAnswer,
    FeedbackRequest,
    FeedbackAnswer,
    LiveAnswer,
    ReadyAnswer,
    ModelAnswer,
    ProblemAnswer,
)
_BODY = (MalformedBody, InvalidField, BodyTooLarge, BodyTooSlow, UnsupportedMediaType, Unauthorized)
_ROUTING = (*_BODY, Overloaded, ModelNotReady, ShuttingDown, BackendFailed, DeadlinePassed)

_ROUTE_REQUEST = {"text": "where is order 4411, and is there a code for box sets?", "request_id": "c0ffee-17"}
_ROUTE_ANSWER = {
    "request_id": "c0ffee-17",
    "decision": "multi",
    "intents": [{"intent": "order_tracking", "probability": 0.75}, {"intent": "promotion", "probability": 0.24}],
    "top": {"intent": "order_tracking", "probability": 0.75},
    "probabilities": {"order_tracking": 0.75, "promotion": 0.24, "faq": 0.01},
    "ood": {"is_ood": False, "energy": -6.1, "cut": -3.9},
    "high_risk": True,
    "high_risk_reasons": ["order_tracking"],
    "age_sensitive": False,
    "model": {"version": "3", "policy": "3.1", "role": "champion"},
    "timings_ms": {"tokenize": 0.1, "queue": 0.4, "inference": 2.0, "total": 2.6},
}
_LABEL = {"request_id": "c0ffee-17", "intents": ["order_tracking"], "source": "agent"}
_EVENT_LOG = {"status": "ok", "lost": 0, "waiting": 0}


def openapi_document(intents: Sequence[str] = ()) -> dict[str, Any]:
    """The whole document, OpenAPI 3.1; ``intents`` are those of the served version, which labels may name."""
    _, definitions = models_json_schema(
        [(model, "validation") for model in _MODELS], ref_template="#/components/schemas/{model}"
    )
    if intents:
        definitions["$defs"]["FeedbackRequest"]["properties"]["intents"]["items"]["enum"] = list(intents)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "MangaAssist router",
            "version": "1",
            "description": "Decides what a customer wants: intents with calibrated probabilities, or out of "
            "distribution. The intents are those of the served version; GET /model names them.",
        },
        "paths": {
            "/route": {
                "post": _post("Decide on one utterance", RouteRequest, _ROUTE_REQUEST, RouteAnswer, _ROUTE_ANSWER)
            },
            "/route/batch": {
                "post": _post(
                    "Decide on several utterances",
                    BatchRequest,
                    {"utterances": [_ROUTE_REQUEST]},
                    BatchAnswer,
                    {"answers": [_ROUTE_ANSWER]},
                )
            },
            "/feedback": {
                "post": _post(
                    "Say what turned out to be right",
                    FeedbackRequest,
                    _LABEL,
                    FeedbackAnswer,
                    {"request_id": "c0ffee-17", "stored": True},
                    status=202,
                    errors=(*_BODY, UnknownIntent, ModelNotReady, EventLogUnavailable),
                )
            },
            "/model": {
                "get": {
                    **_get("What serves", ModelAnswer, _model_example(), errors=(Unauthorized, ModelNotReady)),
                    "security": _SECURITY,
                }
            },
            "/health/live": {"get": _get("Whether the process runs", LiveAnswer, {"status": "live"})},
            "/health/ready": {"get": _ready()},
            "/metrics": {"get": _plain("Prometheus metrics", "text/plain", {"type": "string"})},
            "/openapi.json": {"get": _plain("This document", "application/json", {"type": "object"})},
        },
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {
                "api_key": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "X-API-Key",
                    "description": "Needed when the service is started with keys.",
                }
            },
        },
    }


_SECURITY: list[dict[str, list[str]]] = [{}, {"api_key": []}]


def _post(
    summary: str,
    request: type[BaseModel],
    request_example: object,
    answer: type[BaseModel],
    answer_example: object,
    *,
    status: int = 200,
    errors: Iterable[type[ServiceError]] = _ROUTING,
) -> dict[str, Any]:
    return {
        **_get(summary, answer, answer_example, status=status, errors=errors),
        "security": _SECURITY,
        "requestBody": {"required": True, "content": _json(request, request_example)},
    }


def _get(
    summary: str,
    answer: type[BaseModel],
    example: object,
    *,
    status: int = 200,
    errors: Iterable[type[ServiceError]] = (),
) -> dict[str, Any]:
    answered = {str(status): {"description": "Answered", "content": _json(answer, example)}}
    return {"summary": summary, "responses": answered | _problems(errors)}


def _ready() -> dict[str, Any]:
    operation = _get("Whether requests are answered", ReadyAnswer, {"status": "ready", "event_log": _EVENT_LOG})
    operation["responses"]["503"] = {
        "description": "Not yet, or not any more",
        "content": _json(ReadyAnswer, {"status": "shutting_down", "event_log": _EVENT_LOG}),
    }
    return operation


def _plain(summary: str, media_type: str, schema: dict[str, str]) -> dict[str, Any]:
    return {
        "summary": summary,
        "responses": {"200": {"description": "Answered", "content": {media_type: {"schema": schema}}}},
    }


def _json(model: type[BaseModel], example: object) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}, "example": example}}


def _problems(errors: Iterable[type[ServiceError]]) -> dict[str, Any]:
    """One response a status; its examples name every error type that has it."""
    by_status: dict[int, list[Problem]] = {}
    for error in errors:
        by_status.setdefault(PROBLEMS[error].status, []).append(PROBLEMS[error])
    return {str(status): _problem_response(problems) for status, problems in sorted(by_status.items())}


def _problem_response(problems: list[Problem]) -> dict[str, Any]:
    response: dict[str, Any] = {
        "description": "; ".join(problem.title for problem in problems),
        "content": {
            "application/problem+json": {
                "schema": {"$ref": "#/components/schemas/ProblemAnswer"},
                "examples": {problem.error_type: {"value": _problem_example(problem)} for problem in problems},
            }
        },
    }
    if any(problem.retry_after_s is not None for problem in problems):
        response["headers"] = {
            "Retry-After": {
                "description": "Seconds to wait before another try.",
                "schema": {"type": "integer", "minimum": 1},
            }
        }
    return response


def _problem_example(problem: Problem) -> dict[str, Any]:
    return {
        "type": problem.uri,
        "title": problem.title,
        "status": problem.status,
        "detail": problem.title,
        "error_type": problem.error_type,
    }


def _model_example() -> dict[str, Any]:
    return {
        "version": "3",
        "policy": "3.1",
        "role": "champion",
        "intents": ["order_tracking", "promotion", "faq"],
        "high_risk": ["order_tracking"],
        "backend": "onnxruntime",
        "precision": "int8",
        "max_tokens": 128,
        "created": "2026-01-31T09:00:00+00:00",
        "deployment": 7,
        "reload": 0,
        "tuning": {"batch_tokens": 48},
        "limits": {"batch_tokens": 48, "batch_utterances": 32, "max_in_flight": 64, "max_tokens": 128},
    }
