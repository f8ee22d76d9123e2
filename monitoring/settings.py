"""
Settings of the sidecar: read once from the environment (``MONITOR_<FIELD>``), validated at start, passed down.

What is asked of a signal (thresholds, rows) is not here: it stands in ``failure_modes.toml``.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, Json, ValidationError, model_validator

from model_repo.contract.tuning import DEFAULT_BATCH_TOKENS, DEFAULT_MAX_IN_FLIGHT
from monitoring.errors import BadSettings
from monitoring.observations import Limits

PREFIX = "MONITOR_"
MODEL_REPO = Path(__file__).resolve().parents[1] / "model_repo"

Seconds = Annotated[float, Field(gt=0, le=30 * 86_400)]
MOST_ROWS = min(Limits.recent, Limits.labelled)
"""Of one stream in memory, of either kind."""
Rows = Annotated[int, Field(ge=1, le=MOST_ROWS)]


class MonitorSettings(BaseModel):
    """Every setting with its default; ``read_settings`` fills it from the environment."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    host: str = "127.0.0.1"
    """Address to listen on. The default is reachable from this machine only; 0.0.0.0 tells everybody, without a key."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8081
    """Port to listen on; 0 takes a free one."""
    event_log_path: Path = Path("var/events.sqlite")
    """The event log that the service writes. It is only read, and need not exist yet."""
    model_repo: Path = MODEL_REPO / "versions"
    """Folder of the model repository: the taxonomies that events are read by, and what remedies move."""
    state_path: Path = Path("var/monitor.sqlite")
    """The sidecar's own SQLite file: cursor, counts, evidence, incidents, outbox. One sidecar a file."""
    work_folder: Path = Path("var/monitor")
    """Where actions write what people or hooks take from there: queues, clusters, production labels."""
    costs_file: Path = MODEL_REPO / "presets" / "costs.toml"
    """What each kind of mistake costs, for ``business_error``. Under a version of other intents every mistake costs 1,
    and a warning says so."""
    poll_seconds: Seconds = 0.5
    """How often the log is looked at once all of it was read. Lower notices sooner and reads the disk more often."""
    assess_seconds: Seconds = 5.0
    """How often the signals are measured and the failure tree is walked, when something new was read. Lower diagnoses
    sooner and takes more of a core; the evidence itself counts every row in any case."""
    window_predictions: Rows = 2500
    """Predictions, the latest ones, that an estimate is made of. Higher is steadier and follows a change later."""
    window_labelled: Rows = 1000
    """Labelled predictions, by arrival of the label, that an estimate is made of. As above."""
    reference: Literal["production", "version"] = "production"
    """What is compared with: the first stretch of production of each version, which is pinned; or until then the
    profile that the version brings, for the signals that need no label. Else nothing is judged until it is pinned."""
    pin_predictions: Rows = 5000
    """Predictions of that stretch. Higher gives a surer reference, and a longer time without verdicts."""
    pin_labelled: Rows = 5000
    """Labelled predictions of that stretch. As above."""
    pin_growth: Annotated[int, Field(ge=1, le=10)] = 4
    """Once so many times as many predictions and labels have come and nothing was found in them, the stretch is pinned
    again over all of them, for good; 1 leaves it as it was. Higher makes the reference's own error smaller: smaller
    falls are found, and false alarms are rarer. But a slow change that begins before, and is not found before, becomes
    a part of the reference. Times either number above it must be at most 50000, which is what is remembered."""
    alert_begin_after: Annotated[int, Field(ge=1, le=1000)] = 2
    """Walks in which a diagnosis must be reached before it counts. Higher bears a passing spike, and acts later."""
    alert_end_after: Annotated[int, Field(ge=1, le=1000)] = 3
    """Walks in which its branch must be clear before it counts as recovered."""
    alert_cooldown_seconds: Annotated[float, Field(ge=0, le=30 * 86_400)] = 3600.0
    """After its end, the same diagnosis does not begin again before this. Higher spares the hooks."""
    service_batch_tokens: Annotated[int, Field(ge=1, le=100_000)] = DEFAULT_BATCH_TOKENS
    """``ROUTER_BATCH_TOKENS`` of the service, which a remedy for latency halves."""
    service_max_in_flight: Annotated[int, Field(ge=1, le=100_000)] = DEFAULT_MAX_IN_FLIGHT
    """``ROUTER_MAX_IN_FLIGHT`` of the service. As above."""
    actions_enabled: bool = True
    """Off only diagnoses: incidents are recorded, and nothing is asked of any action."""
    discovery_utterances: Annotated[int, Field(ge=1, le=10_000)] = 80
    """Utterances of what is new, with an embedding and as far as labels tell, that the discovery of new intents waits
    for; with twice as many it is asked again. Higher shows a new intent more surely, and later: a broad one, a
    fifth of the traffic, was shown in 2 of 10 draws with 40, in 10 with 80; a tenth of it, in 5 with 100."""
    discovery_longest_wait_seconds: Seconds = 6 * 3600.0
    """After this, discovery goes ahead with what there is, and says so."""
    hook: Literal["command", "webhook", "sagemaker"] = "command"
    """What a retrain request goes to: a command on this machine, a signed webhook, or a SageMaker pipeline."""
    retrain_command: str = ""
    """The command, split as a shell would and run without one; ``{production_labels}``, ``{out}``, ``{segment}`` and
    ``{key}`` are replaced. Empty runs the pipeline of this repository on the original set plus the production labels,
    by the Python of ``.venv-dev`` where that was made, else by this one, which then needs the extra ``train``."""
    retrain_minimum_labels: Annotated[int, Field(ge=1, le=100_000)] = 100
    """Labelled utterances with their texts without which no retrain is asked for."""
    hook_url: str = ""
    """Where the webhook posts to."""
    hook_secret: str = Field(default="", repr=False)
    """Key of the webhook's HMAC-SHA256 signature, 16 characters or more."""
    hook_timeout_seconds: Annotated[float, Field(gt=0, le=7 * 86_400)] = 6 * 3600.0
    """A command, or the answer to a webhook (at most 30 s of it), that takes longer is ended and tried again."""
    sagemaker_pipeline: str = ""
    """Name of the SageMaker pipeline."""
    sagemaker_region: str = ""
    """Its region."""
    sagemaker_parameters: Json[dict[str, str]] = Field(default="{}", validate_default=True)
    """The parameters that it declares, as a JSON object, with what they are given; placeholders as in the command."""
    outbox_first_wait_seconds: Seconds = 5.0
    """Wait after the first failed try of an action; each further one waits twice as long."""
    outbox_longest_wait_seconds: Seconds = 900.0
    """No wait is longer than this."""
    outbox_attempts: Annotated[int, Field(ge=1, le=100)] = 8
    """Tries before an action is given up, and people are needed."""
    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = "info"
    """Least severe log line that is written: debug, info, warning or error."""

    @model_validator(mode="after")
    def _settings_fit_together(self) -> Self:
        lacking = {
            "command": [],
            "webhook": [name for name in ("hook_url", "hook_secret") if not getattr(self, name)],
            "sagemaker": [name for name in ("sagemaker_pipeline", "sagemaker_region") if not getattr(self, name)],
        }[self.hook]
        if lacking:
            raise ValueError(f"hook {self.hook} needs {' and '.join(variable(name) for name in lacking)}")
        if self.hook == "webhook" and (len(self.hook_secret) < 16 or not self.hook_secret.isascii()):
            raise ValueError(f"{variable('hook_secret')} must have at least 16 characters, all of them ASCII")
        for name in ("pin_predictions", "pin_labelled") if self.pin_growth > 1 else ():
            if self.pin_growth * getattr(self, name) > MOST_ROWS:
                raise ValueError(f"{variable('pin_growth')} times {variable(name)} must be at most {MOST_ROWS}")
        if self.outbox_first_wait_seconds > self.outbox_longest_wait_seconds:
            raise ValueError(
                f"{variable('outbox_first_wait_seconds')} must be at most {variable('outbox_longest_wait_seconds')}"
            )
        return self


def variable(field: str) -> str:
    """
    The environment variable of a field.

    >>> variable("port")
    'MONITOR_PORT'
    """
    return PREFIX + field.upper()


def read_settings(environment: Mapping[str, str] | None = None) -> MonitorSettings:
    """
    Settings from the environment; raises BadSettings naming each variable that is wrong or unknown.

    >>> read_settings({"MONITOR_PORT": "9000"}).port
    9000
    """
    given = os.environ if environment is None else environment
    values = {name.removeprefix(PREFIX).lower(): value for name, value in given.items() if name.startswith(PREFIX)}
    try:
        return MonitorSettings.model_validate(values)
    except ValidationError as wrong:
        faults = (
            f"{variable(str(e['loc'][0])) if e['loc'] else PREFIX + '*'}: {e['msg']}"
            for e in wrong.errors(include_url=False, include_input=False)
        )
        raise BadSettings("; ".join(faults)) from None
