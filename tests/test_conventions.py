"""Names, types and requirement levels of attributes, against the table in `conventions.csv`."""

import csv
import json
from pathlib import Path

import apps
import pytest
from scenarios import SCENARIOS

from burr_otel import OtelTracker, semconv
from burr_otel.spans import keeper

ROWS = list(csv.DictReader((Path(__file__).parent / "conventions.csv").read_text().splitlines()))
TABLE = {row["attribute"]: row for row in ROWS}
# What is no attribute of a span among the names of `semconv`: values, events, metrics and theirs,
# prefixes, and what the resource says.
OTHER_NAMES = {
    semconv.SCHEMA_URL,
    semconv.SCOPE_NAME,
    semconv.ROOT_NAME_PREFIX,
    semconv.INVOKE_WORKFLOW,
    semconv.KIND_TAG_PREFIX,
    semconv.MIME_JSON,
    semconv.EVENT_EXCEPTION,
    semconv.EVENT_STREAM_FIRST_ITEM,
    semconv.EVENT_STREAM_END,
    semconv.EVENT_LOG,
    semconv.METRIC_STEP_DURATION,
    semconv.METRIC_STEP_ACTIVE,
    semconv.METRIC_SNAPSHOT_BYTES,
    semconv.METRIC_STEP_ENDED,
    semconv.METRIC_USAGE_TOKENS,
    semconv.METRIC_INVOKE_AGENT_DURATION,
    semconv.GEN_AI_TOKEN_TYPE,
    semconv.OPENINFERENCE_PROJECT_NAME,
    *(
        getattr(semconv, name)
        for name in dir(semconv)
        if name.startswith("LINK_") and name != "LINK_TYPE"
    ),
    semconv.OK,
    semconv.ERROR,
    semconv.FAILED,
    semconv.CANCELLED,
    semconv.ABANDONED,
    semconv.CRASHED,
}


def is_json(value):
    json.loads(value)
    return True


CHECKS = {
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "int": lambda value: type(value) is int,
    "double": lambda value: type(value) is float,
    "string[]": lambda value: isinstance(value, tuple) and all(type(v) is str for v in value),
    "json": lambda value: isinstance(value, str) and is_json(value),
}


def role(span, by_id):
    if span.name.startswith(semconv.ROOT_NAME_PREFIX):
        return "root"
    return "step" if semconv.ACTION_NAME in span.attributes else "inner"


def test_the_table_and_semconv_name_the_same_attributes():
    """Every name in `semconv` stands in the table, with a source, and the reverse."""
    names = {
        value
        for name, value in vars(semconv).items()
        if name.isupper() and isinstance(value, str) and value not in OTHER_NAMES
    }
    assert names == set(TABLE)
    assert all(row["source"] for row in ROWS)


@pytest.mark.parametrize("name", SCENARIOS)
def test_spans_say_what_the_table_says(name, spans, tmp_path):
    """Every attribute of ours is in the table for its span, of its type; required ones are there."""

    def make(**settings):
        return OtelTracker(
            "proj",
            tmp_path,
            tracer_provider=spans.provider,
            openinference_content=True,
            **settings,
        )

    SCENARIOS[name].run(make, spans.provider.get_tracer("service"))
    keeper.keeper.finish_all()
    ours = [s for s in spans.spans if s.instrumentation_scope.name == semconv.SCOPE_NAME]
    assert ours
    for span in ours:
        kind = role(span, ours)
        required = {
            row["attribute"]
            for row in ROWS
            if kind in row["on"].split() and row["level"] == "required"
        }
        assert required <= set(span.attributes), span.name
        groups = [(kind, span.attributes)]
        groups += [("event", e.attributes) for e in span.events if e.name == "exception"]
        groups += [("link", link.attributes) for link in span.links]
        for where, attributes in groups:
            for key, value in attributes.items():
                if key not in TABLE:
                    # Logged by the application of the scenario, under its own names.
                    assert not key.startswith(("burr.", "gen_ai.", "openinference.")), key
                    continue
                assert where in TABLE[key]["on"].split(), (where, key)
                assert CHECKS[TABLE[key]["type"]](value), (key, value)


def test_unknown_partition_key_is_absent(tracker, spans):
    """A key whose value is `None` is left out, not set to text."""
    apps.counter(tracker).step()
    assert "burr.partition_key" not in spans.named("count").attributes
