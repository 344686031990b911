"""``burr-otel check``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click
from rich.text import Text

from burr_otel.cli import options
from burr_otel.cli.app import FAILED, UNREACHED
from burr_otel.cli.terminal import lines, output, print_json
from burr_otel.view.text import clean

if TYPE_CHECKING:
    from burr_otel.check.run import Report

_SETTINGS: Final = (
    *("endpoint_from", "protocol", "exporters", "disabled"),
    *("service_name", "sampler", "limits", "warnings"),
)


@click.command("check")
@options.storage_dir
@options.as_json
def command(storage_dir: str, as_json: bool) -> int:
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
    from burr_otel.spans.exporters import without_secrets
    from burr_otel.store import without_password

    report = check(storage_dir)
    storage_dir = without_password(storage_dir)
    endpoint = without_secrets(report.settings.endpoint)
    if as_json:
        print_json(_as_json(report, endpoint, storage_dir))
    else:
        lines(output(), _drawn(report, endpoint, storage_dir))
    if not report.problems:
        return 0
    return UNREACHED if report.passing else FAILED


def _drawn(report: Report, endpoint: str, storage_dir: str) -> Iterator[Text]:
    for name, value in _found(report, endpoint, storage_dir):
        yield Text.assemble((f"{name:<12}", "bold"), clean(value))
    yield Text("")
    for warning in report.settings.warnings:
        yield Text(clean(warning), style="yellow")
    for problem in report.problems:
        yield Text.assemble(("✗ ", "bold red"), clean(problem.sentence))
    if report.taken:
        sent = f"Sent, and taken: trace {report.trace_id} of {report.settings.service_name}."
        yield Text(clean(sent), style="green")
    elif report.answer is not None:
        yield Text("Runs lose nothing by that: burr-otel replay sends them once it is mended.")


def _found(report: Report, endpoint: str, storage_dir: str) -> Iterator[tuple[str, str]]:
    """What is set, a line each."""
    settings, answer = report.settings, report.answer
    yield "endpoint", f"{endpoint} ({settings.endpoint_from})"
    yield "protocol", settings.protocol
    if settings.exporters != ["otlp"]:
        yield "exporters", ", ".join(settings.exporters)
    if answer is not None:
        source = f" ({settings.headers_from})" if answer.headers else ""
        yield "headers", (", ".join(answer.headers) or "none") + source
        yield "sending", f"compression {answer.compression}, timeout {answer.timeout_s:g} s"
    elif settings.headers_from:
        yield "headers", f"those of {settings.headers_from}"
    whose = "" if settings.names_service else " (runs have their project's name, as none is set)"
    yield "service", f"{settings.service_name}{whose}"
    if settings.sampler:
        yield "sampler", settings.sampler
    limits = [f"{value} {text}" for text, value in settings.limits.items() if value is not None]
    if limits:
        yield "limits", ", ".join(limits)
    for name, value in settings.own.items():
        yield "setting", f"{name}: {value}"
    yield "storage", f"{storage_dir} ({'can' if report.storage_writable else 'cannot'} be used)"
    if answer is not None:
        yield "answer", report.said or "taken, without a word"
    if report.batch is not None:
        size = f"{report.batch.size_bytes / 1000:,.0f} kB"
        yield "large batch", f"{size}, {'taken' if report.taken else 'not taken'}"


def _as_json(report: Report, endpoint: str, storage_dir: str) -> dict[str, Any]:
    settings, answer, batch = report.settings, report.answer, report.batch
    return {
        "taken": report.taken,
        "problems": [problem._asdict() for problem in report.problems],
        "trace_id": report.trace_id,
        "endpoint": endpoint,
        **{name: getattr(settings, name) for name in _SETTINGS},
        "settings": settings.own,
        "storage_dir": storage_dir,
        "storage_writable": report.storage_writable,
        "large_batch": batch and {"bytes": batch.size_bytes, "taken": report.taken},
        "answer": answer
        and {
            "said": report.said,
            "http_status": answer.status or None,
            "grpc_status": answer.code or None,
            "rejected_spans": answer.rejected,
            "headers_sent": list(answer.headers),
            "compression": answer.compression,
            "timeout_s": answer.timeout_s,
        },
    }
