"""Sending spans from the command line: to an endpoint that answers, with an answer to show."""

from __future__ import annotations

import contextlib
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from opentelemetry.environment_variables import OTEL_TRACES_EXPORTER
from opentelemetry.sdk.environment_variables import (
    OTEL_EXPORTER_OTLP_ENDPOINT,
    OTEL_SDK_DISABLED,
)
from opentelemetry.sdk.trace import ReadableSpan

from burr_otel.check.probe import Place, host_and_port
from burr_otel.check.run import kept_warnings
from burr_otel.cli.terminal import bar
from burr_otel.replay.read import opened
from burr_otel.replay.send import Job, Sender, SendingStoppedError
from burr_otel.spans.exporters import (
    bare_exporter,
    endpoint_from_environ,
    exporter_names,
    sdk_disabled,
    without_secrets,
)
from burr_otel.store import StoredRun
from burr_otel.view.text import plural

_OTLP_HTTP_PORT: Final = 4318
_BATCH_TIMEOUT_S: Final = 10.0  # its own tries included


class Target(NamedTuple):
    """Where spans go."""

    place: Place
    named: bool  # on the command line
    problem: str  # why nothing can be sent there, if so
    unreachable: bool  # because nobody answers


def find_target(to: str | None = None) -> Target:
    """Ask an endpoint whether it answers: this one, or that of the ``OTEL_*`` variables."""
    place, problem = Place(*endpoint_from_environ()), ""
    if to is not None:
        place = place._replace(endpoint=to if "://" in to else f"http://{to}")
        address = host_and_port(place.endpoint)
        if address is None:
            what = f"{without_secrets(to)!r} is no endpoint"
            problem = f"{what}; use a URL such as http://localhost:4317."
        elif urllib.parse.urlsplit(place.endpoint).path.strip("/") or address[1] == _OTLP_HTTP_PORT:
            place = place._replace(protocol="http/protobuf")
    elif sdk_disabled():
        problem = f"{OTEL_SDK_DISABLED} is true, so no trace was made."
    elif "otlp" not in exporter_names():
        said = ",".join(exporter_names())
        problem = f"{OTEL_TRACES_EXPORTER} is {said!r}, so nothing was sent by OTLP."
    unreachable = not problem and not place.answers()
    if unreachable:
        other = "name another with --to" if to is not None else f"set {OTEL_EXPORTER_OTLP_ENDPOINT}"
        problem = f"No OTLP endpoint answers at {place.shown}. Start it there, or {other}."
    return Target(place, to is not None, problem, unreachable)


@contextlib.contextmanager
def open_sender(target: Target) -> Iterator[Sender]:
    """What sends spans to a target and waits until they are taken."""
    endpoint = target.place.endpoint if target.named else None  # else it reads the variables itself
    with kept_warnings("opentelemetry") as said:
        exporter = bare_exporter(target.place.protocol, endpoint, timeout=_BATCH_TIMEOUT_S)
        try:
            yield Sender(exporter, said, time.sleep)
        finally:
            exporter.shutdown()


def send(found: Sequence[StoredRun], storage_dir: str, target: Target | None) -> tuple[Job, bool]:
    """Send, or rehearse without a target; gives the job, and whether it was interrupted."""
    began, doing = time.monotonic(), "reading" if target is None else "sending"
    with contextlib.ExitStack() as stack:
        moved = stack.enter_context(bar(doing, sum(run.size_bytes for run in found)))
        job = Job(None if target is None else stack.enter_context(open_sender(target)))
        try:
            for runs, read_bytes, spans in job.run(opened(found, storage_dir)):
                rate = spans / max(time.monotonic() - began, 1e-3)
                moved(read_bytes, f"{runs:,} of {plural(len(found), 'run')}, {rate:,.0f} spans/s")
        except KeyboardInterrupt:
            return job, True
    return job, False


class Courier:
    """Sends spans to an endpoint as long as it takes any; `problem` says why it did not."""

    def __init__(self, target: Target) -> None:
        self.problem = target.problem
        self._target, self._stopped = target, bool(target.problem)

    def __call__(self, spans: Sequence[ReadableSpan]) -> bool:
        """Send the spans of one session, and tell whether they were taken."""
        if not spans or self._stopped:
            return not spans
        try:
            with open_sender(self._target) as sender:
                batches = list(sender.send(spans))
        except SendingStoppedError as error:
            self._stopped = True
            self.problem = f"{self._target.place.shown} takes nothing: {error.reason}"
            return False
        refused = [reason for settled in batches for _, reason in settled if reason]
        if refused:
            self.problem = f"{self._target.place.shown} refused a span: {refused[0]}"
        return not refused
