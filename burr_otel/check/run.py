"""The check itself: send a trace, then a batch as large as they get, and find out what is wrong."""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, cast

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from burr_otel import semconv
from burr_otel.check.ask import Answer, ask
from burr_otel.check.diagnose import diagnose, shown, wrong_address
from burr_otel.check.mistakes import PASSING, Problem, problem
from burr_otel.check.settings import SERVICE_NAME, Settings, kept_warnings, unwritable
from burr_otel.spans import provider
from burr_otel.spans.start import ids
from burr_otel.store import without_password

_BAD_HEADERS: Final = "Header format invalid"
_BATCH_BYTES: Final = 2 * 1024 * 1024  # what long chats make of a batch; most limits are 4 MiB
_BATCH_SPANS: Final = 512  # the SDK's default
_SPAN_BYTES: Final = 512  # of a step without its content
_NEVER_SAMPLERS: Final = (
    *("AlwaysOff", "ParentBased{root:AlwaysOff"),
    *("TraceIdRatioBased{0}", "TraceIdRatioBased{0.0}"),
)


class Report(NamedTuple):
    """What was found."""

    settings: Settings
    answer: Answer | None  # what became of the test trace; None: none was sent
    batch: Answer | None  # the same of the large batch, which is sent when the trace was taken
    trace_id: str | None
    said: str  # by the endpoint, without secrets
    problems: list[Problem]

    @property
    def taken(self) -> bool:
        """Whether the endpoint took all that was sent, whole."""
        sending = [each for each in self.problems if each.name not in ("storage", "sampled_out")]
        return self.answer is not None and not sending

    @property
    def storage_writable(self) -> bool:
        """Whether runs can be kept."""
        return all(each.name != "storage" for each in self.problems)

    @property
    def passing(self) -> bool:
        """Whether nothing is wrong but that the endpoint is not there, or not yet."""
        return bool(self.problems) and all(each.name in PASSING for each in self.problems)


def check(storage_dir: str) -> Report:
    """Find out whether traces arrive, and if not, why."""
    settings = Settings.read()
    report = Report(settings, None, None, None, "", [])
    reason = unwritable(storage_dir)
    if reason:
        report.problems.append(
            problem("storage", {"value": without_password(storage_dir), "answer": reason})
        )
    keeps_out = _keeps_out(settings)
    if keeps_out:
        report.problems.append(keeps_out)
        return report
    sampler = settings.sampler
    if sampler.startswith(_NEVER_SAMPLERS[:2]) or any(n in sampler for n in _NEVER_SAMPLERS[2:]):
        report.problems.append(problem("sampled_out", {"value": sampler}))
    return _send(report)


def _keeps_out(settings: Settings) -> Problem | None:
    """What keeps a trace from being sent at all."""
    if settings.disabled:
        return problem("disabled", {})
    if "otlp" not in settings.exporters:
        return problem("no_exporter", {"value": ",".join(settings.exporters)})
    if settings.unusable is None:
        return wrong_address(settings)
    variable, reason = settings.unusable
    return problem("bad_value", {"variable": variable, "answer": reason})


def _send(report: Report) -> Report:
    settings, batch, found = report.settings, None, None
    assert settings.resource is not None, "else it is not usable"
    spans = _trace(settings.resource, ["", *_contents(settings)])
    small, large = spans[:2], spans[2:]
    # OpenTelemetry's log lines quote headers.
    with kept_warnings("opentelemetry") as log:
        try:
            answer = ask(settings.protocol, small)
            found = diagnose(settings, answer)
            if found is None:
                batch = ask(settings.protocol, large)
                found = diagnose(settings, batch)
        except Exception as error:  # the exporters raise for some bad values of their variables
            settings.blame(error)
    if settings.unusable is not None:
        variable, reason = settings.unusable
        fields = {"variable": variable, "answer": reason}
        report.problems.append(problem("bad_value", fields))
        return report
    if any(_BAD_HEADERS in line for line in log):
        fields = {"headers": settings.headers_from or "OTEL_EXPORTER_OTLP_HEADERS"}
        report.problems.append(problem("bad_headers", fields))
    if found:
        report.problems.append(found)
    said = shown(batch or answer, settings)
    trace_id = trace.format_trace_id(small[0].context.trace_id)
    return report._replace(answer=answer, batch=batch, trace_id=trace_id, said=said)


def _trace(resource: Resource, texts: Sequence[str]) -> list[ReadableSpan]:
    """A root and its steps, one for each text, as the tracker names them, marked as a check."""
    # Whatever the sampler says: it is the way that is tried, not the luck.
    app_id = f"check-{uuid.uuid4().hex[:8]}"
    told: dict[str, Any] = {
        **dict.fromkeys((semconv.PROJECT, semconv.GEN_AI_AGENT_NAME), SERVICE_NAME),
        **dict.fromkeys((semconv.APP_ID, semconv.GEN_AI_CONVERSATION_ID), app_id),
        semconv.OUTCOME: semconv.OK,
        semconv.CHECK: True,
    }
    made = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False, id_generator=ids)
    tracer = provider.tracer(made)
    root = tracer.start_span(f"{semconv.ROOT_NAME_PREFIX} {SERVICE_NAME}", attributes=told)
    spans = [root]
    for text in texts:
        written = {semconv.STATE_WRITTEN: f'{{"text":"{text}"}}'} if text else {}
        above = trace.set_span_in_context(root)
        spans.append(tracer.start_span("check", above, attributes={**told, **written}))
    for span in spans:
        span.end()
    return cast("list[ReadableSpan]", spans)


def _contents(settings: Settings) -> list[str]:
    """Texts that compress as little as real ones, as many as the settings put into one batch."""
    length = max(settings.max_attribute_bytes - len('{"text":""}'), 1)
    try:
        most = int(os.environ.get("OTEL_BSP_MAX_EXPORT_BATCH_SIZE") or _BATCH_SPANS)
    except ValueError:
        most = _BATCH_SPANS
    count = max(1, min(most, _BATCH_BYTES // (length + _SPAN_BYTES)))
    words = random.Random(0)  # noqa: S311 - nothing secret
    return [words.randbytes((length + 1) // 2).hex()[:length] for _ in range(count)]
