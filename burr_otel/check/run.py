"""The check itself: read, send one trace, find out what is wrong."""

from __future__ import annotations

import logging
from typing import NamedTuple

from burr_otel.check.ask import Answer, ask
from burr_otel.check.diagnose import diagnose, shown, wrong_address
from burr_otel.check.mistakes import PASSING, Problem, problem
from burr_otel.check.settings import Settings, unwritable
from burr_otel.check.trace import make_trace, trace_id

__all__ = ["Report", "check"]

_BAD_HEADERS = "Header format invalid"


class Report(NamedTuple):
    """What was found.

    Attributes:
        settings: What is set.
        answer: What became of the test trace; `None` when none was sent.
        trace_id: Its trace id, when one was sent.
        said: What the endpoint said, without secrets.
        problems: What to change; nothing when all is well.
    """

    settings: Settings
    answer: Answer | None
    trace_id: str | None
    said: str
    problems: list[Problem]

    @property
    def taken(self) -> bool:
        """Whether the endpoint took the test trace whole."""
        sending = [each for each in self.problems if each.name not in ("storage", "sampled_out")]
        return self.answer is not None and not sending

    @property
    def passing(self) -> bool:
        """Whether nothing is wrong but that the endpoint is not there, or not yet."""
        return bool(self.problems) and all(each.name in PASSING for each in self.problems)


def check(storage_dir: str) -> Report:
    """Find out whether traces arrive, and if not, why.

    Args:
        storage_dir: Where runs are kept.
    """
    settings = Settings.read()
    report = Report(settings, None, None, "", [])
    reason = unwritable(storage_dir)
    if reason:
        report.problems.append(problem("storage", {"value": storage_dir, "answer": reason}))
    keeps_out = _keeps_out(settings)
    if keeps_out:
        report.problems.append(keeps_out)
        return report
    if settings.sampler.startswith(("AlwaysOff", "ParentBased{root:AlwaysOff")) or (
        "TraceIdRatioBased{0}" in settings.sampler or "TraceIdRatioBased{0.0}" in settings.sampler
    ):
        report.problems.append(problem("sampled_out", {"value": settings.sampler}))
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
    settings = report.settings
    assert settings.resource is not None, "else it is not usable"
    spans = make_trace(settings.resource)
    with _quiet() as log:
        try:
            answer = ask(settings.protocol, spans)
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
    found = diagnose(settings, answer)
    if found:
        report.problems.append(found)
    return report._replace(answer=answer, trace_id=trace_id(spans), said=shown(answer, settings))


class _quiet(logging.Handler):  # noqa: N801 - reads as a function
    """Keeps OpenTelemetry's log lines, which quote headers, from being printed."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines: list[str] = []
        self._logger = logging.getLogger("opentelemetry")

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message."""
        self._lines.append(record.getMessage())

    def __enter__(self) -> list[str]:
        self._before = self._logger.propagate
        self._logger.addHandler(self)
        self._logger.propagate = False
        return self._lines

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)
        self._logger.propagate = self._before
