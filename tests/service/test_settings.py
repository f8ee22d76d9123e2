"""Settings are validated at start and documented."""

import pytest
from pydantic import ValidationError

from service.errors import BadSettings
from service.settings import Settings, read_settings


def test_defaults_are_for_this_machine_only() -> None:
    """Loopback, no keys needed."""
    settings = read_settings({})
    assert (settings.host, settings.port, settings.api_keys) == ("127.0.0.1", 8080, ())


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"ROUTER_PORT": "80000"}, "ROUTER_PORT"),
        ({"ROUTER_PORT": "http"}, "ROUTER_PORT"),
        ({"ROUTER_WORKERS": "0"}, "ROUTER_WORKERS"),
        ({"ROUTER_ENGINE": "abacus"}, "ROUTER_ENGINE"),
        ({"ROUTER_STORE_TEXT": "perhaps"}, "ROUTER_STORE_TEXT"),
        ({"ROUTER_API_KEYS": "short"}, "ROUTER_API_KEYS"),
        ({"ROUTER_DEADLINE_MS": "nan"}, "ROUTER_DEADLINE_MS"),
        ({"ROUTER_COLOUR": "red"}, "ROUTER_COLOUR"),
        ({"ROUTER_MIN_IN_FLIGHT": "100", "ROUTER_MAX_IN_FLIGHT": "10"}, "min_in_flight"),
    ],
)
def test_a_wrong_or_unknown_setting_is_named(environment: dict[str, str], named: str) -> None:
    """The operator need not guess which."""
    with pytest.raises(BadSettings, match=named):
        read_settings(environment)


def test_wrong_keys_are_not_repeated_in_the_message() -> None:
    """The message goes to a log."""
    with pytest.raises(BadSettings) as refused:
        read_settings({"ROUTER_API_KEYS": "s3cret"})
    assert "s3cret" not in str(refused.value)


def test_values_are_read_from_the_environment() -> None:
    """Other variables are none of ours."""
    settings = read_settings(
        {"ROUTER_STORE_TEXT": "false", "ROUTER_API_KEYS": "a" * 16 + ", " + "b" * 16, "PATH": "/bin"}
    )
    assert settings.store_text is False
    assert settings.api_keys == ("a" * 16, "b" * 16)


def test_settings_are_frozen() -> None:
    """Nobody changes them on the way down."""
    with pytest.raises(ValidationError):
        read_settings({}).port = 1


def test_every_setting_is_documented_at_the_field() -> None:
    """With the effect of turning it."""
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
