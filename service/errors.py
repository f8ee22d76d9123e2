"""
What can go wrong while answering, and the one table that says how each is told over HTTP.

    ServiceError
    ├── MalformedBody          empty, not UTF-8, not JSON, nested too deeply
    ├── InvalidField           a field is missing, unknown, of the wrong type or out of range
    │   └── UnknownIntent      a label names an intent that the version does not know
    ├── BodyTooLarge           more bytes than the endpoint takes
    ├── BodyTooSlow            the body did not arrive in time
    ├── UnsupportedMediaType   not application/json
    ├── Unauthorized           no API key, or a wrong one
    ├── UnknownPath
    ├── MethodNotAllowed
    ├── Overloaded             admitting this would break the latency budget of those inside
    ├── ModelNotReady          no version is loaded yet
    ├── ShuttingDown           the process is about to end
    ├── DeadlinePassed         admitted, but not answered in time
    ├── BackendFailed          the engine raised, or gave logits that are not numbers
    ├── EventLogUnavailable    a label could not be stored
    └── Unexpected             a defect of the service

Apart from these, ``BadSettings`` stops the process at start and never reaches HTTP.
"""

from collections.abc import Mapping
from dataclasses import dataclass


class BadSettings(ValueError):
    """A setting is missing, unknown or out of range; the message names it."""


class ServiceError(Exception):
    """Root of the tree; the message says what was got and what is allowed, and never repeats the customer's text."""

    request_id: str | None = None
    """Of the utterance it happened to, once that is known."""


class MalformedBody(ServiceError):
    """The body is empty, not UTF-8 or not JSON."""


@dataclass(frozen=True)
class FieldFault:
    """One thing wrong with one field."""

    field: str
    """Path into the body, as in ``utterances.3.text``; ``body`` for the whole."""
    message: str


class InvalidField(ServiceError):
    """One field or more breaks the contract."""

    def __init__(self, faults: tuple[FieldFault, ...]) -> None:
        super().__init__("; ".join(f"{fault.field}: {fault.message}" for fault in faults))
        self.faults = faults


class UnknownIntent(InvalidField):
    """A label names an intent that the served version does not know."""


class BodyTooLarge(ServiceError):
    """The body has more bytes than the endpoint takes."""


class BodyTooSlow(ServiceError):
    """The body did not arrive in time."""


class UnsupportedMediaType(ServiceError):
    """The body is not declared as JSON in UTF-8."""


class Unauthorized(ServiceError):
    """The API key is missing or wrong."""


class UnknownPath(ServiceError):
    """Nothing is served under this path."""


class MethodNotAllowed(ServiceError):
    """The path is served, but not by this method."""

    def __init__(self, method: str, allowed: tuple[str, ...]) -> None:
        super().__init__(f"{method} is not served here; allowed: {', '.join(allowed)}")
        self.allowed = allowed


class Overloaded(ServiceError):
    """Admitting this would break the latency budget of those inside."""


class ModelNotReady(ServiceError):
    """No version is loaded yet."""


class ShuttingDown(ServiceError):
    """The process is about to end; ask another."""


class DeadlinePassed(ServiceError):
    """Admitted, but not answered in time."""


class BackendFailed(ServiceError):
    """The engine raised, or gave logits that are not finite."""


class EventLogUnavailable(ServiceError):
    """The event log took no label."""


class Unexpected(ServiceError):
    """A defect of the service; the log has the trace under the request id."""


@dataclass(frozen=True)
class Problem:
    """How an error is told to the client."""

    status: int
    error_type: str
    """Stable: clients and alerts may depend on it."""
    title: str
    retry_after_s: int | None = None
    """Sent as ``Retry-After``."""

    @property
    def uri(self) -> str:
        """The ``type`` member of RFC 9457."""
        return f"urn:manga-router:problem:{self.error_type}"


PROBLEMS: Mapping[type[ServiceError], Problem] = {
    MalformedBody: Problem(400, "malformed_body", "The body is not a JSON document"),
    InvalidField: Problem(422, "invalid_field", "A field breaks the contract"),
    UnknownIntent: Problem(422, "unknown_intent", "The served version does not know this intent"),
    BodyTooLarge: Problem(413, "body_too_large", "The body is too large"),
    BodyTooSlow: Problem(408, "body_too_slow", "The body did not arrive in time"),
    UnsupportedMediaType: Problem(415, "unsupported_media_type", "The body must be application/json in UTF-8"),
    Unauthorized: Problem(401, "unauthorized", "A valid API key is needed"),
    UnknownPath: Problem(404, "unknown_path", "Nothing is served here"),
    MethodNotAllowed: Problem(405, "method_not_allowed", "This method is not served here"),
    Overloaded: Problem(503, "overloaded", "Too many requests are inside; try again", retry_after_s=1),
    ModelNotReady: Problem(503, "model_not_ready", "No model version is loaded yet", retry_after_s=2),
    ShuttingDown: Problem(503, "shutting_down", "This process is about to end", retry_after_s=1),
    DeadlinePassed: Problem(504, "deadline_passed", "Not answered in time"),
    BackendFailed: Problem(503, "backend_failed", "The model could not answer", retry_after_s=1),
    EventLogUnavailable: Problem(503, "event_log_unavailable", "The label could not be stored", retry_after_s=5),
    Unexpected: Problem(500, "unexpected", "A defect of the service"),
}


def problem_of(error: ServiceError) -> Problem:
    """
    The table's row for an error.

    >>> problem_of(Overloaded("full")).status
    503
    """
    return PROBLEMS[type(error)]
