"""A secret planted wherever a user can put one leaves the process nowhere, when it should not."""

import logging

import apps
import pytest
from burr.core import State, action, default, expr
from burr.core.action import streaming_action
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from burr_otel import OtelTracker, mark_failed, printable

CANARY = "canary-4f1c9d7e"

HIDING = {
    "off": {"capture": "off"},
    "types": {"capture": "types"},
    "value pattern": {"redact_values": (r"canary-\w+",)},
}


class Unserialisable:
    """Burr's serde calls `str` on it, and that tells the secret while it fails."""

    def __repr__(self):
        return f"<Unserialisable {CANARY}>"

    def __str__(self):
        raise RuntimeError(f"no text for {CANARY}")


@action(reads=["count"], writes=["secret", "nested"])
def takes_and_keeps(state: State, token, __tracer) -> tuple[dict, State]:
    with __tracer("work") as span:
        span.log_attributes(
            plain=CANARY,
            listed=[CANARY, 1],
            deep={"a": {"b": CANARY}},
            escaped=f'{{"k": "{CANARY}"}}',
        )
    __tracer.log_attributes(on_step=CANARY)
    mark_failed(f"because of {CANARY}")
    result = {"answer": f"the secret is {CANARY}"}
    return result, state.update(secret=CANARY, nested={"list": [{"key": CANARY}]})


@action(reads=["count"], writes=["count"])
def fails_with_a_cause(state: State, __tracer) -> State:
    try:
        raise KeyError(CANARY)
    except KeyError as error:
        with __tracer("inner"):
            raise ValueError("canary-4f1c9d7e in the source line") from error


@streaming_action(reads=["count"], writes=["text"])
def streams(state: State):
    yield {"text": CANARY}, None
    yield {"text": CANARY}, state.update(text=CANARY)


@action(reads=["count"], writes=["bad"])
def keeps_what_cannot_be_kept(state: State, given: object, __tracer) -> State:
    __tracer.log_attributes(logged=Unserialisable())
    return state.update(bad=Unserialisable())


def everything(tracker):
    """Run applications that put the secret everywhere."""
    app = (
        apps.builder(tracker, "a1", step=takes_and_keeps, other=apps.count)
        .with_transitions(
            ("step", "other", expr(f"secret == '{CANARY}'")), ("step", "step", default)
        )
        .with_state(count=0, given=CANARY)
        .with_entrypoint("step")
        .build()
    )
    app.step(inputs={"token": CANARY})
    with pytest.raises(ValueError):
        apps.single(tracker, fails_with_a_cause, "a2").step()
    _, container = apps.single(tracker, streams, "a3").stream_result(halt_after=["step"])
    list(container)
    app = apps.single(tracker, keeps_what_cannot_be_kept, "a4")
    app.step(inputs={"given": Unserialisable()})


def exported(spans, reader):
    metrics = encode_metrics(reader.get_metrics_data()).SerializeToString()
    return encode_spans(spans.spans).SerializeToString() + metrics


@pytest.fixture
def run(spans, tmp_path, caplog, monkeypatch):
    """Run everything with the given settings; the bytes that leave, and our own log lines."""
    monkeypatch.setattr(printable, "_warned", set())  # each test sees all warnings

    def run(**settings):
        reader = InMemoryMetricReader()
        meters = MeterProvider([reader], shutdown_on_exit=False)
        with caplog.at_level(logging.DEBUG, logger="burr_otel"):
            tracker = OtelTracker(
                "proj",
                tmp_path,
                tracer_provider=spans.provider,
                meter_provider=meters,
                on_snapshot_error="warn",
                openinference_content=True,
                **settings,
            )
            everything(tracker)
            tracker.close()
        lines = [r.getMessage() for r in caplog.records if r.name.startswith("burr_otel")]
        found = exported(spans, reader)
        meters.shutdown()
        return found, "\n".join(lines)

    return run


def test_the_canary_is_seen_when_nothing_hides_it(run, spans):
    """The test can fail: without settings the secret is in every place."""
    found, _ = run(redact=False)
    assert found.count(CANARY.encode()) > 12
    for name in ("burr.inputs", "burr.result", "burr.state.written", "input.value", "on_step"):
        assert any(CANARY in str(s.attributes.get(name)) for s in spans.spans), name
    assert any("because of" in str(s.status.description) for s in spans.spans)


@pytest.mark.parametrize("name", HIDING)
def test_a_planted_secret_leaves_nowhere(name, run):
    """Neither in spans and their events, nor in metrics, nor in a log line of ours."""
    found, lines = run(**HIDING[name])
    assert CANARY.encode() not in found
    assert CANARY not in lines


def test_a_function_of_the_user_hides_what_it_knows(run):
    """`redactor=` sees every text value of inputs, results, state and logged attributes."""

    def hide(path, value):
        return "hidden" if isinstance(value, str) and "canary" in value else value

    found, _ = run(redactor=hide, capture_exceptions="off")
    assert CANARY.encode() not in found


def test_span_names_are_redacted(spans, tmp_path):
    """A secret that user code puts into a span's name, attribute key or tag."""

    @apps.action(reads=["count"], writes=["count", f"out-{CANARY}"], tags=[f"tag {CANARY}"])
    def name(state, __tracer):
        with __tracer(f"call {CANARY}"):
            __tracer.log_attributes(**{f"key {CANARY}": 1})
        return state.update(**{"count": 1, f"out-{CANARY}": 1})

    tracker = OtelTracker(
        "proj", tmp_path, tracer_provider=spans.provider, redact_values=(r"canary-\w+",)
    )
    apps.single(tracker, name).step()
    assert CANARY.encode() not in encode_spans(spans.spans).SerializeToString()


@pytest.mark.parametrize("key", ["password", "api_key", "Authorization", "access_token"])
def test_values_of_sensitive_keys_are_hidden_without_any_setting(key, spans, tmp_path):
    """The defaults hide what is plainly a secret, at any depth, and say so."""

    @apps.action(reads=["count"], writes=["count"])
    def use(state, credentials):
        return state.update(count=1)

    tracker = OtelTracker("proj", tmp_path, tracer_provider=spans.provider)
    apps.single(tracker, use).step(inputs={"credentials": {"deep": [{key: CANARY}]}})
    assert CANARY.encode() not in encode_spans(spans.spans).SerializeToString()
    assert "redacted" in spans.named("step").attributes["burr.inputs"]
