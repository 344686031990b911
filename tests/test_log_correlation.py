"""Log lines inside actions carry the ids of their step."""

import logging

import apps
import pytest
from opentelemetry.instrumentation.logging import LoggingInstrumentor


@pytest.fixture
def instrumented(spans):
    """The logging instrumentation, as docs/spans.md says to set it up."""
    instrumentor = LoggingInstrumentor()
    instrumentor.instrument(
        tracer_provider=spans.provider,
        inject_trace_context=True,
        enable_log_auto_instrumentation=False,
    )
    yield
    instrumentor.uninstrument()


def test_log_lines_of_actions_carry_trace_and_span_ids(tracker, spans, instrumented, caplog):
    """In a step, in an inner span, and outside of both."""
    logger = logging.getLogger("shop")

    @apps.action(reads=["count"], writes=["count"])
    def work(state, __tracer):
        logger.warning("in the step")
        with __tracer("inner"):
            logger.warning("in the inner span")
        return state.update(count=1)

    apps.single(tracker, work).step()
    logger.warning("after it")
    ids = {r.getMessage(): r.otelSpanID for r in caplog.records if r.name == "shop"}
    assert ids == {
        "in the step": f"{spans.named('step').context.span_id:016x}",
        "in the inner span": f"{spans.named('inner').context.span_id:016x}",
        "after it": "0",
    }
    traces = {r.otelTraceID for r in caplog.records if r.name == "shop"}
    assert traces == {f"{spans.named('step').context.trace_id:032x}", "0"}
