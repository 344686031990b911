"""The check itself: what is set, a test trace, a batch as large as they get, and what is wrong."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import random
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, cast

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Decision

from burr_otel import semconv
from burr_otel.check.mistakes import (
    PASSING,
    Problem,
    diagnose,
    problem,
    shown,
    wrong_address,
)
from burr_otel.check.probe import Answer, Place, ask
from burr_otel.config import ENV_PREFIX, OtelConfig
from burr_otel.errors import BurrOtelError
from burr_otel.spans import provider
from burr_otel.spans.exporters import (
    endpoint_from_environ,
    exporter_names,
    otlp_variable,
    sdk_disabled,
)
from burr_otel.spans.start import ids
from burr_otel.store import is_url, open_engine, without_password

SERVICE_NAME: Final = "burr-otel-check"
"""The service of a test trace, unless the variables name one."""

_PATTERNS: Final = ("redact_keys", "redact_values")  # may hold what they are to hide
_BAD_HEADERS: Final = "Header format invalid"
_BATCH_BYTES: Final = 2 * 1024 * 1024  # what long chats make of a batch; most limits are 4 MiB
_BATCH_SPANS: Final = 512  # the SDK's default
_SPAN_BYTES: Final = 512  # of a step without its content


@dataclasses.dataclass
class Report:
    """What is set, what was sent, and what was found."""

    storage_dir: str
    place: Place
    exporters: list[str]
    disabled: bool
    problems: list[Problem] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)  # said while it was read
    service_name: str = SERVICE_NAME
    sampler: str = ""  # in the SDK's words
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)  # by BURR_OTEL_* variable
    answer: Answer | None = None  # what became of the test trace; None: none was sent
    batch: Answer | None = None  # the same of the large batch, which follows when that was taken
    trace_id: str | None = None
    said: str = ""  # by the endpoint, without secrets

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

    def add(self, name: str, **fields: str) -> None:
        """Add a problem."""
        self.problems.append(problem(name, fields))


def check(storage_dir: str) -> Report:
    """Find out whether traces arrive, and if not, why."""
    with kept_warnings("burr_otel") as said:
        provider.warn_of_config_file()
        endpoint, protocol = endpoint_from_environ()
        place = Place(endpoint, protocol, otlp_variable("ENDPOINT"), otlp_variable("HEADERS"))
        hidden = without_password(storage_dir)
        report = Report(hidden, place, exporter_names(), sdk_disabled(), settings=_own_settings())
        length = OtelConfig.resolve().max_attribute_bytes
    report.warnings = list(dict.fromkeys(said))
    reason = unwritable(storage_dir)
    if reason:
        report.add("storage", value=hidden, answer=reason)
    wrong = wrong_address(place)
    if report.disabled:
        report.add("disabled")
    elif "otlp" not in report.exporters:
        report.add("no_exporter", value=",".join(report.exporters))
    elif wrong:
        report.problems.append(wrong)
    else:
        _send(report, length)
    return report


def _send(report: Report, max_attribute_bytes: int) -> None:
    place = report.place
    try:
        made = TracerProvider(shutdown_on_exit=False)
        report.sampler = made.sampler.get_description()
        # Id 0 is in any share but that of nothing.
        if made.sampler.should_sample(None, 0, "check").decision is not Decision.RECORD_AND_SAMPLE:
            report.add("sampled_out", value=report.sampler)
        resource = provider.service_resource(SERVICE_NAME)
        report.service_name = str(resource.attributes["service.name"])
        root, step, *steps = _trace(resource, ["", *_contents(max_attribute_bytes)])
        with kept_warnings("opentelemetry") as log:  # which quote headers
            answer = report.answer = ask(place.protocol, [root, step])
            found = diagnose(place, answer)
            if found is None:
                answer = report.batch = ask(place.protocol, steps)
                found = diagnose(place, answer)
    except Exception as error:  # the SDK raises for some bad values of its variables
        report.answer = report.batch = None
        reason = str(error).rstrip(".")
        report.add("bad_value", variable=provider.culprits(reason), answer=reason)
        return
    if any(_BAD_HEADERS in line for line in log):
        report.add("bad_headers", headers=place.headers_variable or "OTEL_EXPORTER_OTLP_HEADERS")
    if found:
        report.problems.append(found)
    report.said = shown(answer, place)
    report.trace_id = trace.format_trace_id(root.context.trace_id)


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


def _contents(max_attribute_bytes: int) -> list[str]:
    """Texts that compress as little as real ones, as many as the settings put into one batch."""
    length = max(max_attribute_bytes - len('{"text":""}'), 1)
    try:
        most = int(os.environ.get("OTEL_BSP_MAX_EXPORT_BATCH_SIZE") or _BATCH_SPANS)
    except ValueError:
        most = _BATCH_SPANS
    count = max(1, min(most, _BATCH_BYTES // (length + _SPAN_BYTES)))
    words = random.Random(0)  # noqa: S311 - nothing secret
    return [words.randbytes((length + 1) // 2).hex()[:length] for _ in range(count)]


# --- what is set --------------------------------------------------------------------------------


def _own_settings() -> dict[str, Any]:
    """Our own variables, as they are understood."""
    said = OtelConfig.said_by_environ()
    known = {field.name for field in dataclasses.fields(OtelConfig)}
    found: dict[str, Any] = {}
    for name in sorted(each for each in os.environ if each.startswith(ENV_PREFIX)):
        field = name.removeprefix(ENV_PREFIX).lower()
        if field == "storage_dir":
            found[name] = without_password(os.environ[name])
        elif field not in known:
            found[name] = "(no setting of that name)"
        elif os.environ[name]:
            value = said.get(field, "(not usable)")
            found[name] = f"{len(value)} patterns" if field in _PATTERNS else value
    return found


def unwritable(storage_dir: str) -> str | None:
    """Why no run can be kept there; a folder that is not there yet is not made."""
    try:
        if is_url(storage_dir):
            open_engine(storage_dir).projects()
            return None
        folder = Path(storage_dir).expanduser()
        there = (each for each in (folder, *folder.parents) if each.exists())
        with tempfile.TemporaryFile(dir=next(there, folder)):
            return None
    except (BurrOtelError, OSError) as error:
        return getattr(error, "strerror", None) or str(error)


# --- what loggers say ---------------------------------------------------------------------------


class _Keeper(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())  # without the traceback


@contextlib.contextmanager
def kept_warnings(name: str) -> Iterator[list[str]]:
    """Keep warnings of a logger, and of those below it, instead of printing them."""
    keeper, logger = _Keeper(), logging.getLogger(name)
    before, logger.propagate = logger.propagate, False
    logger.addHandler(keeper)
    try:
        yield keeper.texts
    finally:
        logger.removeHandler(keeper)
        logger.propagate = before
