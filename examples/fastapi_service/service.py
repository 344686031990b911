"""What both services share: who they are, where spans go, and log lines that name their span."""

import logging

from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

import burr_otel


class SpanOfLogLine(logging.Filter):
    """Writes the ids of the current span into each log line."""

    def filter(self, record):
        context = trace.get_current_span().get_span_context()
        record.trace_id = trace.format_trace_id(context.trace_id)
        record.span_id = trace.format_span_id(context.span_id)
        return True


def start(name):
    """Set this process up as the service `name`; the endpoint is OTEL_EXPORTER_OTLP_ENDPOINT."""
    handler = logging.StreamHandler()
    handler.addFilter(SpanOfLogLine())
    line = "%(levelname)s %(name)s trace_id=%(trace_id)s span_id=%(span_id)s %(message)s"
    logging.basicConfig(level=logging.INFO, handlers=[handler], format=line)
    burr_otel.configure(name)


def instrumented(app: FastAPI, tracer_provider=None) -> FastAPI:
    """One span a request, without one for each chunk that is received or sent."""
    FastAPIInstrumentor.instrument_app(
        app, tracer_provider=tracer_provider, exclude_spans=["receive", "send"]
    )
    return app
