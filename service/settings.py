"""
Settings of the service: read once from the environment (``ROUTER_<FIELD>``), validated at start, passed down.

What belongs to a model (temperature, thresholds, cut) is not here: it travels with the version.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from model_repo.contract.tuning import DEFAULT_BATCH_TOKENS, DEFAULT_MAX_IN_FLIGHT
from service.errors import BadSettings

PREFIX = "ROUTER_"


class Settings(BaseModel):
    """Every setting with its default; ``read_settings`` fills it from the environment."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    host: str = "127.0.0.1"
    """Address to listen on. The default is reachable from this machine only; 0.0.0.0 serves everybody."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """Port to listen on; 0 takes a free one."""
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes that share the port and the event log. Each holds its own model and admits on its own."""
    model_repo: Path = Path(__file__).resolve().parents[1] / "model_repo" / "versions"
    """Folder of the model repository: ``deployment.json`` and one folder a version."""
    model_poll_seconds: Annotated[float, Field(gt=0, le=3600)] = 0.5
    """How often the deployment is looked at. Lower notices a change sooner; one small file is read each time, which
    takes a third of a millisecond of a core with the longest history."""
    inference_threads: Annotated[int, Field(ge=1, le=64)] = 2
    """Threads that run micro-batches, several at once. More answer more requests a second, each of them later."""
    engine_threads: Annotated[int, Field(ge=0, le=64)] = 0
    """Cores that compute one micro-batch; 0 shares the cores out among the inference threads."""
    engine: Literal["auto", "onnxruntime", "openvino", "neuron"] = "auto"
    """Inference engine; auto takes the faster one for this CPU. Naming one takes that one or does not start."""
    batch_tokens: Annotated[int, Field(ge=1, le=100_000)] = DEFAULT_BATCH_TOKENS
    """Tokens computed together. Lower is a shorter wait for everyone in a micro-batch, and more calls."""
    batch_utterances: Annotated[int, Field(ge=1, le=1024)] = 32
    """Utterances computed together, at most as many as the version's graph has slots."""
    admission_target_ms: Annotated[float, Field(gt=0, le=60_000)] = 10.0
    """Time inside the service that admission defends at the 95th percentile. Lower refuses sooner; the rest of the
    15 ms budget is for what the service cannot see: the sockets and the caller."""
    max_in_flight: Annotated[int, Field(ge=1, le=100_000)] = DEFAULT_MAX_IN_FLIGHT
    """Most utterances inside at once. The limit in force moves between ``min_in_flight`` and this one; higher takes
    longer bursts, and admits more of a sudden overload before the limit comes down."""
    min_in_flight: Annotated[int, Field(ge=1, le=100_000)] = 8
    """Fewest utterances that are always admitted, however slow the machine has become. Lower shortens the wait under
    overload and refuses more, of short bursts too; below one an inference thread gives throughput away for nothing."""
    deadline_ms: Annotated[float, Field(gt=0, le=600_000)] = 1000.0
    """An admitted request that has no answer by then gets 504. Callers that gave up earlier take no slot anyway."""
    batch_chunk: Annotated[int, Field(ge=1, le=64)] = 8
    """Utterances of one ``/route/batch`` that wait at once. Higher finishes a batch sooner and delays single ones."""
    body_limit_bytes: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)] = 64 * 1024
    """Largest body of ``/route`` and ``/feedback``; 2,000 characters in JSON take 24 KB at most."""
    batch_body_limit_bytes: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)] = 2 * 1024 * 1024
    """Largest body of ``/route/batch``."""
    body_timeout_seconds: Annotated[float, Field(gt=0, le=600)] = 10.0
    """A body that arrives in pieces must be complete by then."""
    api_keys: tuple[str, ...] = ()
    """Comma-separated keys, at least 16 characters each. Any of them opens every path but health, metrics and the
    OpenAPI document, in the header ``X-API-Key``; none leaves the service open."""
    event_log_path: Path = Path("var/events.sqlite")
    """The event log, a SQLite file; its folder is made if need be. Several workers share it."""
    event_backlog: Annotated[int, Field(ge=0, le=1_000_000)] = 10_000
    """Events kept in memory while the log cannot be written; what comes on top is lost and counted."""
    event_lock_wait_ms: Annotated[int, Field(ge=0, le=1000)] = 5
    """How long a micro-batch waits for another writer of the log before its events go to the backlog."""
    store_text: bool = True
    """Store the redacted text with the event. Off stores no text at all; monitoring then cannot cluster new intents."""
    embedding_sample_ratio: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of events that carry the embedding (about 1 KB each), which embedding drift is measured on."""
    retention_days: Annotated[float, Field(gt=0, le=3650)] = 30.0
    """Events older than this are deleted."""
    retention_mib: Annotated[float, Field(gt=0)] = 2048.0
    """Oldest events are deleted when the log holds more than this."""
    retention_poll_seconds: Annotated[float, Field(gt=0, le=86_400)] = 30.0
    """How often old events are deleted and the write-ahead log is folded in. Lower keeps the files smaller."""
    shutdown_notice_seconds: Annotated[float, Field(ge=0, le=600)] = 0.5
    """After SIGTERM: how long readiness is false and connections are closed after their answer, while requests are
    still taken. Set it above the probe interval of a load balancer."""
    shutdown_grace_seconds: Annotated[int, Field(ge=1, le=600)] = 15
    """Then: how long admitted requests may take before they are cut off."""
    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = "info"
    """Least severe log line that is written: debug, info, warning or error. Refused requests are at debug."""

    @field_validator("api_keys", mode="before")
    @classmethod
    def _split(cls, keys: object) -> object:
        return tuple(key.strip() for key in keys.split(",") if key.strip()) if isinstance(keys, str) else keys

    @field_validator("api_keys")
    @classmethod
    def _long_enough(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        if any(len(key) < 16 or not key.isascii() for key in keys):
            raise ValueError("each key must have at least 16 characters, all of them ASCII")
        return keys

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        if self.min_in_flight > self.max_in_flight:
            raise ValueError(
                f"min_in_flight must be at most max_in_flight, got {self.min_in_flight} > {self.max_in_flight}"
            )
        return self


def variable(field: str) -> str:
    """
    The environment variable of a field.

    >>> variable("port")
    'ROUTER_PORT'
    """
    return PREFIX + field.upper()


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """
    Settings from the environment; raises BadSettings naming each variable that is wrong or unknown.

    >>> read_settings({"ROUTER_PORT": "9000"}).port
    9000
    """
    given = os.environ if environment is None else environment
    values = {name.removeprefix(PREFIX).lower(): value for name, value in given.items() if name.startswith(PREFIX)}
    try:
        return Settings.model_validate(values)
    except ValidationError as wrong:
        faults = (
            f"{variable(str(e['loc'][0])) if e['loc'] else PREFIX + '*'}: {e['msg']}"
            for e in wrong.errors(include_url=False, include_input=False)
        )
        raise BadSettings("; ".join(faults)) from None
