"""Settings of the sidecar are validated at start, documented, and never repeated where they are secret."""

import pytest
from pydantic import ValidationError

from monitoring.errors import BadSettings
from monitoring.settings import MonitorSettings, read_settings
from service.settings import read_settings as read_service_settings

SECRET = "not-so-secret-in-a-test"


def test_defaults_are_for_this_machine_only() -> None:
    """Loopback, beside the service's port."""
    settings = read_settings({})
    assert (settings.host, settings.port) == ("127.0.0.1", 8081)


def test_service_and_sidecar_meet_at_the_same_files_by_default() -> None:
    """Without a setting both find the log and the versions."""
    sidecar, service = read_settings({}), read_service_settings({})
    assert (sidecar.event_log_path, sidecar.model_repo) == (service.event_log_path, service.model_repo)


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"MONITOR_PORT": "80000"}, "MONITOR_PORT"),
        ({"MONITOR_POLL_SECONDS": "0"}, "MONITOR_POLL_SECONDS"),
        ({"MONITOR_POLL_SECONDS": "nan"}, "MONITOR_POLL_SECONDS"),
        ({"MONITOR_REFERENCE": "yesterday"}, "MONITOR_REFERENCE"),
        ({"MONITOR_WINDOW_LABELLED": "1e9"}, "MONITOR_WINDOW_LABELLED"),
        ({"MONITOR_COLOUR": "red"}, "MONITOR_COLOUR"),
        ({"MONITOR_HOOK": "pigeon"}, "MONITOR_HOOK"),
        ({"MONITOR_HOOK": "webhook"}, "MONITOR_HOOK_URL and MONITOR_HOOK_SECRET"),
        ({"MONITOR_HOOK": "sagemaker"}, "MONITOR_SAGEMAKER_PIPELINE and MONITOR_SAGEMAKER_REGION"),
        ({"MONITOR_SAGEMAKER_PARAMETERS": "Labels={production_labels}"}, "MONITOR_SAGEMAKER_PARAMETERS"),
        ({"MONITOR_SAGEMAKER_PARAMETERS": '{"Labels": 3}'}, "MONITOR_SAGEMAKER_PARAMETERS"),
        ({"MONITOR_PIN_GROWTH": "0"}, "MONITOR_PIN_GROWTH"),
        ({"MONITOR_PIN_GROWTH": "11"}, "MONITOR_PIN_GROWTH"),
        (
            {"MONITOR_PIN_GROWTH": "3", "MONITOR_PIN_PREDICTIONS": "16667"},
            "MONITOR_PIN_GROWTH times MONITOR_PIN_PREDICTIONS must be at most 50000",
        ),
        (
            {"MONITOR_PIN_LABELLED": "12501"},
            "MONITOR_PIN_GROWTH times MONITOR_PIN_LABELLED must be at most 50000",
        ),
        ({"MONITOR_OUTBOX_FIRST_WAIT_SECONDS": "1000"}, "MONITOR_OUTBOX_FIRST_WAIT_SECONDS"),
    ],
)
def test_a_wrong_or_unknown_setting_is_named(environment: dict[str, str], named: str) -> None:
    """The operator need not guess which."""
    with pytest.raises(BadSettings, match=named):
        read_settings(environment)


@pytest.mark.parametrize(
    "environment",
    [
        {"MONITOR_PIN_PREDICTIONS": "12500", "MONITOR_PIN_LABELLED": "12500"},
        {"MONITOR_PIN_PREDICTIONS": "50000", "MONITOR_PIN_LABELLED": "50000", "MONITOR_PIN_GROWTH": "1"},
    ],
)
def test_a_reference_that_can_be_held_is_accepted(environment: dict[str, str]) -> None:
    """Grown to the limit, or as large from the beginning and never grown."""
    settings = read_settings(environment)
    assert settings.pin_growth * settings.pin_predictions == 50_000


def test_the_secret_is_repeated_nowhere() -> None:
    """Neither in a refusal nor when the settings are printed."""
    hook = {"MONITOR_HOOK": "webhook", "MONITOR_HOOK_URL": "http://127.0.0.1/hook"}
    with pytest.raises(BadSettings) as refused:
        read_settings({**hook, "MONITOR_HOOK_SECRET": "s3cret"})
    assert "s3cret" not in str(refused.value)
    assert SECRET not in repr(read_settings({**hook, "MONITOR_HOOK_SECRET": SECRET}))


def test_settings_are_frozen() -> None:
    """Nobody changes them on the way down."""
    with pytest.raises(ValidationError):
        read_settings({}).port = 1


def test_every_setting_is_documented_at_the_field() -> None:
    """With the effect of turning it."""
    assert [name for name, field in MonitorSettings.model_fields.items() if not field.description] == []
