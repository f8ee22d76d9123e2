"""
What the HTTP interface takes and gives. Unknown fields and wrong types are refused; nothing is coerced.

Requests are validated by these models. Answers are built as plain dictionaries, for speed; their models describe
them in the OpenAPI document, and a test holds the two together.
"""

from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from model_repo.contract.errors import BadEvent
from model_repo.contract.events import LabelEvent
from service.errors import FieldFault, InvalidField, MalformedBody

TEXT_CHARACTERS = 2000
REQUEST_ID_CHARACTERS = 64
SESSION_ID_CHARACTERS = 128
BATCH_UTTERANCES = 64
LABEL_INTENTS = 16
FAULTS_TOLD = 10
"""Faults listed in one answer; a batch of 64 wrong utterances need not be told in full."""


def _trimmed(text: str) -> str:
    text = text.strip()
    if not text:
        raise PydanticCustomError("blank", "must hold a character that is not white space")
    if len(text) > TEXT_CHARACTERS:
        raise PydanticCustomError(
            "too_long",
            "must have at most {limit} characters after trimming, got {got}",
            {"limit": TEXT_CHARACTERS, "got": len(text)},
        )
    return _without_nul(text)


def _without_nul(text: str) -> str:
    if "\x00" in text:
        raise PydanticCustomError("nul", "must not hold the character U+0000")
    return text


Text = Annotated[
    str,
    AfterValidator(_trimmed),
    Field(
        description=f"What the customer wrote: 1 to {TEXT_CHARACTERS} characters after trimming, without U+0000.",
        examples=["where is order 4411, and is there a code for box sets?"],
        json_schema_extra={
            "minLength": 1,
            "maxLength": TEXT_CHARACTERS,
            "pattern": r"^[^\u0000]*[^\s\u0000][^\u0000]*$",
        },
    ),
]
RequestId = Annotated[
    str,
    AfterValidator(_without_nul),
    Field(
        min_length=1,
        max_length=REQUEST_ID_CHARACTERS,
        description="Key that a label refers to; made up by the service when left out.",
        examples=["c0ffee-17"],
        json_schema_extra={"pattern": r"^[^\u0000]*$"},
    ),
]
SessionId = Annotated[
    str,
    AfterValidator(_without_nul),
    Field(
        min_length=1,
        max_length=SESSION_ID_CHARACTERS,
        description="Conversation that the utterance belongs to.",
        examples=["chat-981"],
        json_schema_extra={"pattern": r"^[^\u0000]*$"},
    ),
]


class Strict(BaseModel):
    """No coercion, no unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class RouteRequest(Strict):
    """One utterance."""

    text: Text
    request_id: RequestId | None = None
    session_id: SessionId | None = None


class BatchRequest(Strict):
    """Several utterances, answered in order."""

    utterances: Annotated[list[RouteRequest], Field(min_length=1, max_length=BATCH_UTTERANCES)]


class FeedbackRequest(Strict):
    """What turned out to be right: either ``intents``, or ``ood: true``."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": ["intents"], "properties": {"ood": {"const": False}}},
                {"required": ["ood"], "properties": {"ood": {"const": True}}, "not": {"required": ["intents"]}},
            ]
        }
    )

    request_id: RequestId
    intents: Annotated[list[str], Field(min_length=1, max_length=LABEL_INTENTS)] = []
    ood: bool = Field(default=False, description="True when no intent fits; then leave ``intents`` out.")
    source: Literal["agent", "customer", "rule", "review"]

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if bool(self.intents) == self.ood:
            raise PydanticCustomError("one_of_two", "must hold either intents or ood: true")
        return self

    def to_label(self) -> LabelEvent:
        """The label as the log keeps it; an intent named twice counts once."""
        try:
            return LabelEvent(self.request_id, tuple(dict.fromkeys(self.intents)), self.ood, self.source)
        except BadEvent as wrong:
            raise InvalidField((FieldFault("body", str(wrong)),)) from wrong


class IntentProbability(Strict):
    """An intent with its calibrated probability."""

    intent: str
    probability: Annotated[float, Field(ge=0, le=1.000001)]


class OodVerdict(Strict):
    """The energy score against its cut; above the cut the utterance is out of distribution."""

    is_ood: bool
    energy: float
    cut: float


class ModelName(Strict):
    """What answered."""

    version: str
    policy: str
    role: Literal["champion", "candidate", "shadow"]


class Timings(Strict):
    """Milliseconds; ``total`` runs from the parsed request to the decision."""

    tokenize: float
    queue: float
    inference: float
    total: float


class RouteAnswer(Strict):
    """The decision on one utterance."""

    request_id: str
    decision: Literal["single", "multi", "ood"]
    intents: list[IntentProbability] = Field(description="Accepted intents by probability; empty exactly when ood.")
    top: IntentProbability = Field(description="The most probable intent, kept also when ood.")
    probabilities: dict[str, float] = Field(description="Calibrated, every intent; sums to 1.")
    ood: OodVerdict
    high_risk: bool
    high_risk_reasons: list[str]
    age_sensitive: bool
    model: ModelName
    timings_ms: Timings


class BatchAnswer(Strict):
    """One answer for each utterance, in order."""

    answers: list[RouteAnswer]


class FeedbackAnswer(Strict):
    """``stored`` is false when the same label was there already."""

    request_id: str
    stored: bool


class LiveAnswer(Strict):
    """The process runs."""

    status: Literal["live"]


class EventLogState(Strict):
    """``lost`` counts events since the start that the log will never hold; ``waiting`` those kept in memory."""

    status: Literal["ok", "failing"]
    lost: int
    waiting: int


class ReadyAnswer(Strict):
    """Whether requests are answered. A failing event log does not stop answers, so it is told apart."""

    status: Literal["ready", "not_ready", "shutting_down"]
    event_log: EventLogState


class TuningAnswer(Strict):
    """Limits that the deployment lowers; one that is left out is what the settings say."""

    batch_tokens: int | None = None
    batch_utterances: int | None = None
    max_in_flight: int | None = None
    max_tokens: int | None = None


class LimitsAnswer(Strict):
    """Limits in force: what the settings and the version say, or less where the deployment is tuned."""

    batch_tokens: int
    batch_utterances: int
    max_in_flight: int = Field(description="How high admission may go; what it admits now is a metric.")
    max_tokens: int = Field(description="Longest utterance that is read; what is longer is cut at the end.")


class ModelAnswer(Strict):
    """What serves now."""

    version: str
    policy: str
    role: Literal["champion", "candidate", "shadow"]
    intents: list[str]
    high_risk: list[str]
    backend: str
    precision: str
    max_tokens: int = Field(description="Of the version.")
    created: str
    deployment: int = Field(description="Number of the change of the model repository that was taken over last.")
    reload: int = Field(description="How often a reload was asked for.")
    tuning: TuningAnswer
    limits: LimitsAnswer


class FieldFaultAnswer(Strict):
    """One thing wrong with one field."""

    field: str
    message: str


class ProblemAnswer(Strict):
    """RFC 9457 problem document."""

    type: str = Field(examples=["urn:manga-router:problem:invalid_field"])
    title: str
    status: int
    detail: str
    error_type: str
    request_id: str | None = None
    errors: list[FieldFaultAnswer] | None = None


Request = TypeVar("Request")

ROUTE = TypeAdapter(RouteRequest)
BATCH = TypeAdapter(BatchRequest)
FEEDBACK = TypeAdapter(FeedbackRequest)


def parse(adapter: TypeAdapter[Request], body: bytes) -> Request:
    """A request from its JSON; raises MalformedBody or InvalidField. The messages never repeat what was sent."""
    if not body:
        raise MalformedBody("the body is empty; a JSON object is needed")
    try:
        return adapter.validate_json(body)
    except ValidationError as wrong:
        raise _translated(wrong) from None


def _translated(wrong: ValidationError) -> MalformedBody | InvalidField:
    errors = wrong.errors(include_url=False, include_input=False, include_context=False)
    if errors[0]["type"] == "json_invalid":
        return MalformedBody(errors[0]["msg"])
    return InvalidField(tuple(_fault(error) for error in errors[:FAULTS_TOLD]))


def _fault(error: Any) -> FieldFault:
    # An unknown field's name is the client's own text: keep it short and printable.
    path = ".".join(str(step) for step in error["loc"]) or "body"
    return FieldFault(path[:200].encode("ascii", "backslashreplace").decode(), error["msg"])
