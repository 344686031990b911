"""``burr-otel demo``."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click
from rich.text import Text

from burr_otel.cli import options
from burr_otel.cli.show import draw
from burr_otel.cli.terminal import lines, output, print_json
from burr_otel.config import OtelConfig
from burr_otel.history.tree import RunTree
from burr_otel.store import Store, without_password
from burr_otel.trace_url import TracePlace, read_template, trace_url
from burr_otel.view.as_json import run_as_json
from burr_otel.view.content import load, reader_policy
from burr_otel.view.text import clean

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from burr_otel.cli.sending import Target

_EXPORT_TIMEOUT_S: Final = 5.0
_JAEGER_PAGE: Final = "http://localhost:16686"
_HOW_TO_GET_ONE: Final = (
    "To see it in Jaeger: docker run --rm -p 16686:16686 -p 4317:4317 jaegertracing/jaeger, "
    "then burr-otel demo again. Or set OTEL_EXPORTER_OTLP_ENDPOINT."
)


@click.command("demo")
@options.storage_dir
@options.as_json
def command(storage_dir: str, as_json: bool) -> None:
    """Run a small Burr application and draw its trace.

    A support desk answers two questions: with a branch, a loop, streamed answers, and a step that
    fails and is run again. Nothing leaves this machine, except that the trace is also sent to the
    OTLP endpoint of the OTEL_* variables (default: localhost:4317), when one answers there.

    \b
    Examples:
      burr-otel demo
      OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4317 burr-otel demo
    """
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
        InMemorySpanExporter,
    )

    from burr_otel import OtelTracker
    from burr_otel.check.settings import kept_warnings
    from burr_otel.cli.sending import find_target
    from burr_otel.demo import DEMO_PROJECT, build_demo, run_demo
    from burr_otel.spans.provider import service_resource

    target, kept = find_target(), InMemorySpanExporter()
    provider = TracerProvider(resource=service_resource(DEMO_PROJECT), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    tracker = OtelTracker(DEMO_PROJECT, storage_dir, tracer_provider=provider)
    # Burr logs the traceback of the step that is meant to fail.
    with kept_warnings("burr"):
        run = run_demo(build_demo(tracker))
    tracker.close()
    refusal = _send(target, kept.get_finished_spans())
    store = Store(DEMO_PROJECT, storage_dir)
    view = load(store.read(run.app_id), store, reader_policy(), details=as_json)
    sent = refusal is None
    if as_json:
        print_json({**run_as_json(view), "sent_to": target.shown if sent else None})
        return
    console = output()
    draw(console, view)
    console.print()
    lines(console, _sending(target, refusal, view))
    again = ["burr-otel", "show", run.app_id]
    if storage_dir != options.DEFAULT_STORAGE_DIR:
        again += ["--storage-dir", without_password(storage_dir)]
    lines(console, [Text(f"To draw it again: {shlex.join(again)}")])


def _send(target: Target, spans: Sequence[ReadableSpan]) -> str | None:
    """Send the trace in one batch; why it is not there, if it is not."""
    from opentelemetry.sdk.trace.export import SpanExportResult

    from burr_otel.check.settings import kept_warnings
    from burr_otel.cli.sending import open_exporter

    if target.problem:
        return f"{target.problem}\n{_HOW_TO_GET_ONE}" if target.unreachable else target.problem
    if not spans:
        sampler = os.environ.get("OTEL_TRACES_SAMPLER", "")
        return f"Nothing was sent: the sampler {sampler!r} left this trace out."
    with kept_warnings("opentelemetry") as said:
        exporter = open_exporter(target, _EXPORT_TIMEOUT_S)
        taken = exporter.export(spans) is SpanExportResult.SUCCESS
        exporter.shutdown()
    reason = said[-1] if said else "it gave no reason"
    return None if taken else f"{target.shown} answers but did not take the trace: {reason}"


def _sending(target: Target, refusal: str | None, view: RunTree) -> list[Text]:
    if refusal is not None:
        return [Text(clean(refusal), style="" if target.problem else "yellow")]
    from burr_otel.cli.sending import answers

    session = next(session for session in view.sessions if session.trace_id)
    trace_id, began_ns = session.trace_id, session.start_ns
    found = [Text(f"Sent to {target.shown} as trace {trace_id}.", style="green")]
    setting = OtelConfig.resolve().trace_url
    if setting != "jaeger" or ("localhost" in target.endpoint and answers(_JAEGER_PAGE)):
        place = TracePlace(str(trace_id), view.project, view.app_id, began_ns, began_ns)
        found.append(Text(f"To look at it: {trace_url(read_template(setting), place)}"))
    return found
