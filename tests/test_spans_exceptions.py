"""Errors, as spans and logs say them."""

import sys

import apps
import pytest
from opentelemetry import _logs
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs import export as log_export
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.trace import StatusCode

# OpenTelemetry before 1.39 has the earlier name.
InMemoryLogRecordExporter = getattr(log_export, "InMemoryLogRecordExporter", None) or (
    log_export.InMemoryLogExporter
)


def failing(error):
    """An action that raises `error`."""

    @apps.action(reads=["count"], writes=["count"])
    def fail(state):
        raise error

    return fail


def run(tracker, error):
    with pytest.raises(type(error)) as caught:
        apps.single(tracker, failing(error)).step()
    assert caught.value is error
    tracker.close()


def exceptions(span):
    return [event for event in span.events if event.name == "exception"]


def test_causes_are_in_the_traceback(tracker, spans):
    """One exception event, with the whole chain."""
    try:
        try:
            raise KeyError("inner")
        except KeyError as cause:
            raise ValueError("outer") from cause
    except ValueError as error:
        chained = error
    run(tracker, chained)
    (event,) = exceptions(spans.named("step"))
    text = event.attributes["exception.stacktrace"]
    assert "KeyError: 'inner'" in text
    assert "ValueError: outer" in text
    assert "direct cause" in text


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups are new in Python 3.11")
def test_every_member_of_a_group_is_in_the_traceback(tracker, spans):
    """An `ExceptionGroup` shows its members."""
    group = ExceptionGroup("several", [ValueError("one"), TypeError("two")])  # noqa: F821
    run(tracker, group)
    (event,) = exceptions(spans.named("step"))
    assert event.attributes["exception.type"].endswith("ExceptionGroup")
    assert "ValueError: one" in event.attributes["exception.stacktrace"]
    assert "TypeError: two" in event.attributes["exception.stacktrace"]


def test_types_are_qualified(tracker, spans):
    """`error.type` and `exception.type` name the module of what is not built in."""

    class OddError(Exception):
        pass

    run(tracker, OddError("x"))
    expected = f"{__name__}.{OddError.__qualname__}"
    assert spans.named("step").attributes["error.type"] == expected
    assert exceptions(spans.named("step"))[0].attributes["exception.type"] == expected


def test_an_exception_without_a_text_of_its_own(tracker, spans, caplog):
    """A `__str__` that raises reaches nobody; the span still says what was raised."""

    class MuteError(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    caplog.set_level("CRITICAL", logger="burr")
    run(tracker, MuteError())
    assert spans.named("step").attributes["error.type"].endswith("MuteError")
    assert spans.named("step").status.status_code is StatusCode.ERROR


def test_surrogates_do_not_lose_the_batch(tracker, spans):
    """Lone surrogates in a message are replaced: as they are, no exporter could encode the batch."""
    run(tracker, ValueError("bad \ud800 text"))
    for span in spans.spans:
        (span.status.description or "").encode()
        for event in exceptions(span):
            event.attributes["exception.message"].encode()


def test_an_inner_span_whose_body_raises_shows_it(tracker, spans):
    """Burr tells its span hooks nothing of the exception; the span has it all the same."""

    @apps.action(reads=["count"], writes=["count"])
    def fail(state, __tracer):
        with __tracer("outer"):
            with __tracer("fine"):
                pass
            with __tracer("broken"):
                raise ValueError("inside")

    with pytest.raises(ValueError):
        apps.single(tracker, fail).step()
    tracker.close()
    assert (
        spans.tree()
        == """
invoke_workflow proj [error] (inside)
  step [error] (inside)
    outer (inside)
      fine
      broken (inside)
"""
    )
    assert [len(exceptions(s)) for s in spans.spans] == [0, 1, 1, 0, 1]


def test_status_ok_is_never_set(tracker, spans):
    """The specification leaves OK to the application."""
    apps.counter(tracker).run(halt_after=["finish"])
    tracker.close()
    assert {s.status.status_code for s in spans.spans} == {StatusCode.UNSET}


@pytest.mark.parametrize(
    ("value", "events", "records"), [("", 1, 0), ("logs", 0, 1), ("logs/dup", 1, 1)]
)
def test_exceptions_as_log_records_on_request(tracker, spans, monkeypatch, value, events, records):
    """`OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN`: `logs` in place of the event, `logs/dup` both."""
    exporter = InMemoryLogRecordExporter()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    monkeypatch.setattr(_logs, "get_logger", lambda *a, **k: provider.get_logger(a[0]))
    monkeypatch.setenv("OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN", value)
    run(tracker, ValueError("kaputt"))
    step = spans.named("step")
    assert len(exceptions(step)) == events
    assert step.attributes["error.type"] == "ValueError"
    found = [data.log_record for data in exporter.get_finished_logs()]
    assert len(found) == records
    for record in found:
        assert record.event_name == "exception"
        assert record.attributes["exception.message"] == "kaputt"
        assert record.span_id == step.context.span_id
        assert record.trace_id == step.context.trace_id
    provider.shutdown()
