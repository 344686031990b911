"""Commands to begin with: ``burr-otel demo`` and ``burr-otel check``."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import RenderableType
from rich.text import Text

from burr_otel.cli import options
from burr_otel.cli.app import FAILED, UNREACHED
from burr_otel.cli.runs import live_trace
from burr_otel.cli.show import drawing
from burr_otel.cli.terminal import CommandResult
from burr_otel.config import OtelConfig
from burr_otel.store import Store, StoredRun, without_password
from burr_otel.trace_url import TracePlace, trace_url
from burr_otel.view.as_json import run_as_json
from burr_otel.view.content import load, reader_policy
from burr_otel.view.text import clean

if TYPE_CHECKING:
    from burr_otel.check.run import Report
    from burr_otel.cli.sending import Target

_JAEGER_PAGE: Final = "http://localhost:16686"
_REPORTED: Final = (
    *("taken", "trace_id", "exporters", "disabled", "service_name", "sampler", "warnings"),
    *("settings", "storage_dir", "storage_writable"),
)
_ANSWERED: Final = (
    *("http_status", "grpc_status", "rejected_spans"),
    *("headers_sent", "compression", "timeout_s"),
)
_HOW_TO_GET_ONE: Final = (
    "To see it in Jaeger: docker run --rm -p 16686:16686 -p 4317:4317 jaegertracing/jaeger, "
    "then burr-otel demo again."
)


@click.command("demo")
@options.storage_dir
@options.printed
def demo_command(storage_dir: str) -> CommandResult:
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

    from burr_otel import OtelTracker
    from burr_otel.check.run import kept_warnings
    from burr_otel.cli.sending import find_target
    from burr_otel.demo import DEMO_PROJECT, build_demo, run_demo
    from burr_otel.spans.provider import service_resource

    target = find_target()
    provider = TracerProvider(resource=service_resource(DEMO_PROJECT), shutdown_on_exit=False)
    tracker = OtelTracker(DEMO_PROJECT, storage_dir, tracer_provider=provider)
    # Burr logs the traceback of the step that is meant to fail.
    with kept_warnings("burr"):
        app = build_demo(tracker)
        run_demo(app)
    tracker.close()
    store = Store(DEMO_PROJECT, storage_dir)
    run = store.read(app.uid)
    view = load(run, store, reader_policy(), details=True)
    place = live_trace(run)
    refusal = _refusal(target, run, storage_dir, is_traced=place is not None)
    told: Iterable[Text] = [Text(refusal or "", style="" if target.problem else "yellow")]
    if place is not None and refusal is None:
        told = _sent_lines(target, place)
    again = ["burr-otel", "show", app.uid]
    if storage_dir != options.DEFAULT_STORAGE_DIR:
        again += ["--storage-dir", without_password(storage_dir)]
    last = f"To draw it again: {shlex.join(again)}"
    sent_to = target.place.shown if refusal is None else None
    parts: list[RenderableType] = [*drawing(view), "", *told, last]
    return CommandResult({**run_as_json(view), "sent_to": sent_to}, parts)


def _refusal(target: Target, run: StoredRun, storage_dir: str, *, is_traced: bool) -> str | None:
    """Send the trace; why it is not there, if it is not."""
    if target.problem:
        return f"{target.problem}\n{_HOW_TO_GET_ONE}" if target.unreachable else target.problem
    if not is_traced:
        sampler = os.environ.get("OTEL_TRACES_SAMPLER", "")
        return f"Nothing was sent: the sampler {sampler!r} left this trace out."
    from burr_otel.cli.sending import send

    job, interrupted = send([run], storage_dir, target)
    if interrupted:
        raise click.Abort
    reason = job.stopped or "; ".join(job.reports[0].reasons)
    return f"{target.place.shown} answers but did not take the trace: {reason}" if reason else None


def _sent_lines(target: Target, place: TracePlace) -> Iterator[Text]:
    from burr_otel.check.probe import Place

    yield Text(f"Sent to {target.place.shown} as trace {place.trace_id}.", style="green")
    setting, jaeger = OtelConfig.resolve().trace_url, Place(_JAEGER_PAGE, "http/protobuf")
    if setting != "jaeger" or ("localhost" in target.place.endpoint and jaeger.answers()):
        yield Text(f"To look at it: {trace_url(setting, place)}")


@click.command("check")
@options.storage_dir
@options.printed
def check_command(storage_dir: str) -> CommandResult:
    """Find out whether traces arrive, and if not, what to change.

    Shows what the OTEL_* and BURR_OTEL_* variables say to a tracker that makes its own provider
    (headers by name only), sends one test trace of two spans, marked burr.check, the way that
    tracker would, then a batch of the size that long chats make, and says what the endpoint
    answered. For each usual mistake there is one sentence. Ends with 0 when all was taken, with 5
    when the endpoint is not there or takes nothing at the moment, so that trying again may help,
    and with 1 when something is to be changed.

    \b
    Examples:
      burr-otel check
      OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4317 burr-otel check
      until burr-otel check; do sleep 1; done
    """
    from burr_otel.check.run import check

    report = check(storage_dir)
    exit_code = UNREACHED if report.passing else FAILED if report.problems else 0
    return CommandResult(check_data(report), check_lines(report), exit_code=exit_code)


def check_data(report: Report) -> dict[str, Any]:
    """What was found, for programs."""
    answer, batch, place = report.answer, report.batch, report.place
    return {
        **{name: getattr(report, name) for name in _REPORTED},
        "problems": [problem._asdict() for problem in report.problems],
        "endpoint": place.shown,
        "endpoint_from": place.variable or "default",
        "protocol": place.protocol,
        "large_batch": batch and {"bytes": batch.size_bytes, "taken": report.taken},
        "answer": answer
        and {"said": report.said, **{name: getattr(answer, name) for name in _ANSWERED}},
    }


def check_lines(report: Report) -> Iterator[Text]:
    """What was found, for people."""
    for name, value in _facts(report):
        yield Text.assemble((f"{name:<12}", "bold"), clean(value))
    yield Text("")
    for warning in report.warnings:
        yield Text(warning, style="yellow")
    for problem in report.problems:
        yield Text.assemble(("✗ ", "bold red"), clean(problem.sentence))
    if report.taken:
        sent = f"Sent, and taken: trace {report.trace_id} of {report.service_name}."
        yield Text(sent, style="green")
    elif report.answer is not None:
        yield Text("Runs lose nothing by that: burr-otel replay sends them once it is mended.")


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    """What is set, and what came back, a line each."""
    from burr_otel.check.run import SERVICE_NAME

    place, answer, batch = report.place, report.answer, report.batch
    yield "endpoint", f"{place.shown} ({place.variable or 'default'})"
    yield "protocol", place.protocol
    if report.exporters != ["otlp"]:
        yield "exporters", ", ".join(report.exporters)
    if answer is not None:
        source = f" ({place.headers_variable})" if answer.headers_sent else ""
        yield "headers", (", ".join(answer.headers_sent) or "none") + source
        yield "sending", f"compression {answer.compression}, timeout {answer.timeout_s:g} s"
    if report.sampler:
        none_set = report.service_name == SERVICE_NAME
        whose = " (runs have their project's name, as none is set)" if none_set else ""
        yield "service", f"{report.service_name}{whose}"
        yield "sampler", report.sampler
    for name, value in report.settings.items():
        yield "setting", f"{name}: {value}"
    can = "can" if report.storage_writable else "cannot"
    yield "storage", f"{report.storage_dir} ({can} be used)"
    if answer is not None:
        yield "answer", report.said or "taken, without a word"
    if batch is not None:
        taken = "taken" if report.taken else "not taken"
        yield "large batch", f"{batch.size_bytes / 1000:,.0f} kB, {taken}"
