"""Settings: where they come from, and what a bad one says."""

import dataclasses
import logging
import os
from unittest.mock import patch

import pytest

from burr_otel import ConfigError, OtelConfig, config
from burr_otel.config import OtelSettings


@pytest.fixture(autouse=True)
def _warn_again():
    config._warn_once.cache_clear()


def resolved(environ, settings=None, base=None):
    """What holds where these are all variables."""
    with patch.dict(os.environ, environ, clear=True):
        return OtelConfig.resolve(base, settings)


def test_arguments_win_over_variables_which_win_over_defaults():
    """Argument, else variable, else default."""
    environ = {"BURR_OTEL_CAPTURE": "types", "BURR_OTEL_ROOT_LINGER": "5"}
    found = resolved(environ, {"capture": "off"})
    assert (found.capture, found.root_linger, found.root_max_open) == ("off", 5.0, 300.0)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("CAPTURE_STATE", "OFF", "off"),
        ("REDACT", "no", False),
        ("REDACT_KEYS", "ssn, iban ,", ("ssn", "iban")),
        ("MAX_ATTRIBUTE_BYTES", "1024", 1024),
        ("ROOT_MAX_OPEN", "none", None),
        ("EXCLUSIVE", "1", True),
        ("STEP_PARENT", "ambient", "ambient"),
    ],
)
def test_variables_are_parsed_by_the_kind_of_their_setting(name, text, value):
    """Words, flags, numbers, lists and `none`."""
    found = resolved({f"BURR_OTEL_{name}": text})
    assert getattr(found, name.lower()) == value


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("REDACT", "perhaps", "true or false"),
        ("MAX_ATTRIBUTE_BYTES", "16k", "a whole number of at least 64"),
        ("MAX_ATTRIBUTE_BYTES", "1", "a whole number of at least 64"),
        ("ROOT_LINGER", "-1", 'a number of at least 0.0 or "none"'),
        ("ROOT_LINGER", "nan", 'a number of at least 0.0 or "none"'),
        ("DURABILITY", "disk", "'none', 'flush', 'fsync'"),
    ],
)
def test_a_bad_variable_warns_once_and_leaves_the_default(name, text, says, caplog):
    """The warning names variable, value, what is allowed, and what happens instead."""
    environ = {f"BURR_OTEL_{name}": text}
    with caplog.at_level(logging.WARNING):
        first = resolved(environ)
        resolved(environ)
    assert first == resolved({})
    (record,) = caplog.records
    message = record.getMessage()
    assert f"BURR_OTEL_{name}=" in message
    assert says in message
    assert "default" in message


CONTENT = ("inputs", "results", "state", "attributes", "exceptions")


@pytest.mark.parametrize(
    ("name", "text", "says", "hidden"),
    [
        ("CAPTURE", "all", "'full', 'types', 'off'", ("",)),
        ("CAPTURE_STATE", "no", "'full', 'types', 'off'", ("_state",)),
        ("REDACT_KEYS", "ssn,(iban", "regular expressions", ("", *(f"_{c}" for c in CONTENT))),
        ("REDACT_VALUES", r"\d{3,4}", "regular expressions", ("", *(f"_{c}" for c in CONTENT))),
    ],
)
def test_a_bad_variable_that_should_hide_something_shows_nothing(name, text, says, hidden, caplog):
    """A typing error is no reason to send what somebody meant to keep back; the warning says so.

    The comma of ``{3,4}`` ends a pattern in a variable.
    """
    environ = {
        "BURR_OTEL_CAPTURE_INPUTS": "full",
        f"BURR_OTEL_{name}": text.replace("{3,4}", "(3,4)"),
    }
    with caplog.at_level(logging.WARNING):
        found = resolved(environ)
    assert {key for key, value in vars(found).items() if value == "off" and "capture" in key} == {
        f"capture{one}" for one in hidden
    }
    (record,) = caplog.records
    assert f"BURR_OTEL_{name}=" in record.getMessage()
    assert says in record.getMessage()
    assert "Nothing is captured instead" in record.getMessage()


def test_an_empty_variable_counts_as_none(caplog):
    """As OpenTelemetry has it for its own: compose files set what is not given to nothing."""
    names = [field.name.upper() for field in dataclasses.fields(OtelConfig)]
    environ = {f"BURR_OTEL_{name}": "" for name in names}
    assert resolved(environ) == resolved({})
    assert not caplog.records


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "4095"}, 4095),
        (
            {
                "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "1000",
                "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "5",
            },
            1000,
        ),
        ({"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "10"}, 64),
        ({"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "1000000"}, 16 * 1024),
        ({"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "x"}, 16 * 1024),
        ({"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "100", "BURR_OTEL_MAX_ATTRIBUTE_BYTES": "200"}, 200),
    ],
)
def test_the_sdks_length_limit_is_ours_when_it_is_lower(environ, expected):
    """The SDK would cut JSON in the middle; we cut it so that it stays JSON."""
    assert resolved(environ).max_attribute_bytes == expected


@pytest.mark.parametrize(
    "setting",
    [
        {"capture": "all"},
        {"redact": 1},
        {"max_attribute_bytes": 1.5},
        {"max_attribute_bytes": True},
        {"root_linger": float("inf")},
        {"root_linger": "2"},
        {"redact_keys": "ssn"},
        {"redact_keys": 5},
        {"redact_values": (1,)},
        {"redact_values": ("[a-",)},
        {"redactor": "hide"},
    ],
)
def test_a_bad_argument_raises_and_names_the_value(setting):
    """An argument is code: it raises."""
    ((name, value),) = setting.items()
    with pytest.raises(ConfigError) as caught:
        OtelConfig.resolve(None, setting)
    assert f"{name}={value!r} is not allowed" in str(caught.value)


def test_an_unknown_setting_names_the_nearest_one():
    """A typing error in a keyword is found, not ignored."""
    with pytest.raises(ConfigError, match=r"no setting 'captur'\. Did you mean 'capture'"):
        OtelConfig.resolve(None, {"captur": "off"})


def test_a_given_config_is_not_mixed_with_the_environment():
    """What was made by hand stays as it is but for the single settings."""
    base = OtelConfig(capture="off")
    found = resolved({"BURR_OTEL_CAPTURE": "types"}, {"exclusive": True}, base)
    assert (found.capture, found.exclusive) == ("off", True)


def test_keyword_arguments_and_config_have_the_same_settings():
    """The typed keywords of OtelTracker are the fields of OtelConfig, in order."""
    assert list(OtelSettings.__annotations__) == [f.name for f in dataclasses.fields(OtelConfig)]


def test_every_setting_is_documented():
    """The table of docs/settings.md is made from these texts."""
    assert all(field.metadata["doc"].endswith(".") for field in dataclasses.fields(OtelConfig))


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (
            {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "NO_CONTENT"},
            ("off", None, None, None),
        ),
        ({"OPENINFERENCE_HIDE_INPUTS": "true"}, ("full", "off", None, None)),
        ({"OPENINFERENCE_HIDE_OUTPUTS": "True"}, ("full", None, "off", "off")),
        (
            {
                "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "NO_CONTENT",
                "BURR_OTEL_CAPTURE": "types",
            },
            ("types", None, None, None),
        ),
        (
            {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY"},
            ("full", None, None, None),
        ),
    ],
)
def test_privacy_variables_of_other_conventions_are_honoured(environ, expected):
    """Who hides content from other instrumentations does not show it through ours."""
    found = resolved(environ)
    assert (
        found.capture,
        found.capture_inputs,
        found.capture_results,
        found.capture_state,
    ) == expected
