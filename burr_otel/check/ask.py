"""One batch through the exporter that the tracker uses, sent once, and what came back.

The exporters keep the answer to themselves and try again for seconds. So a session (HTTP) or a
client (gRPC) that listens is put into them, and they are told to give up after the first answer.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Sequence
from typing import Any, Final

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult

from burr_otel.spans.exporters import Protocol, bare_exporter, compression_from_environ

# What the exporters and their libraries send in any case.
_USUAL_HEADERS: Final = {
    *("accept", "accept-encoding", "connection", "content-encoding", "content-length"),
    *("content-type", "user-agent", "host"),
}
_LONGEST: Final = 300


@dataclasses.dataclass
class Answer:
    """What was sent and what came back."""

    compression: str
    size_bytes: int  # of the message, before it is compressed
    taken: bool = False  # for all that the exporter knows
    status: int = 0  # of HTTP
    code: str = ""  # of gRPC
    said: str = ""  # the endpoint's words, or the error's
    rejected: int = 0  # spans that a partial success leaves out
    location: str = ""  # where a redirect leads
    url: str = ""  # where the request went by HTTP
    headers: tuple[str, ...] = ()  # names of those that the settings added
    timeout_s: float = 0.0
    secrets: tuple[str, ...] = dataclasses.field(default=(), repr=False)

    def add_headers(self, sent: dict[str, str]) -> None:
        """Note what was sent: the names to show, the values never to show."""
        own = {key.lower(): value for key, value in sent.items()}
        self.headers = tuple(sorted(key for key in own if key not in _USUAL_HEADERS))
        self.secrets = tuple(own[key] for key in self.headers if len(own[key]) > 1)

    def read(self, response: ExportTraceServiceResponse) -> None:
        """Note what OTLP answers."""
        self.rejected = response.partial_success.rejected_spans
        self.said = _short(response.partial_success.error_message)


def ask(protocol: Protocol, spans: Sequence[ReadableSpan]) -> Answer:
    """Send spans where the ``OTEL_*`` variables say; raises what the exporter raises of them."""
    answer = Answer(compression_from_environ(), encode_spans(spans).ByteSize())
    ask_by = _ask_by_grpc if protocol == "grpc" else _ask_by_http
    answer.taken = ask_by(spans, answer) is SpanExportResult.SUCCESS
    return answer


def _short(text: str) -> str:
    return " ".join(text.split())[:_LONGEST]


def _seconds(value: Any) -> float:
    return round(float(value), 1) if isinstance(value, int | float) else 0.0


def _ask_by_http(spans: Sequence[ReadableSpan], answer: Answer) -> SpanExportResult:
    import requests  # noqa: PLC0415 - costs a quarter of a second, and gRPC does without

    class Listening(requests.Session):
        failure: Exception | None = None

        def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
            if self.failure is not None:  # the exporter tries a lost connection again at once
                raise self.failure
            answer.url, answer.timeout_s = str(request.url), _seconds(options.get("timeout"))
            answer.add_headers({str(k): _text(v) for k, v in request.headers.items()})
            try:
                response = super().send(request, **options)
            except Exception as error:
                answer.said = _short(str(error))
                self.failure = error
                raise
            finally:
                exporter.shutdown()
            _read_http(answer, response)
            return response

    exporter = bare_exporter("http/protobuf", session=Listening())
    return exporter.export(spans)


def _read_http(answer: Answer, response: Any) -> None:
    answer.status = response.status_code
    answer.location = response.headers.get("Location", "")
    kind = response.headers.get("Content-Type", "")
    body: bytes = response.content or b""
    if answer.status < 300 and "protobuf" in kind:  # noqa: PLR2004 - success
        with contextlib.suppress(Exception):  # no OTLP, whatever it calls itself
            answer.read(ExportTraceServiceResponse.FromString(body))
        return
    answer.said = _short(_words(body, kind) or str(response.reason or ""))


def _words(body: bytes, kind: str) -> str:
    """What a body says to people, whatever it is."""
    text = body.decode("utf-8", "replace")
    if "protobuf" in kind:  # google.rpc.Status: its message is the text field 2
        from google.rpc.status_pb2 import Status  # noqa: PLC0415 - for a refusal only

        with contextlib.suppress(Exception):
            return str(Status.FromString(body).message)
    if "html" in kind:
        return re.sub(r"<[^>]*>", " ", re.sub(r"(?s)<(style|script).*?</\1>", " ", text))
    return text


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


class _ListeningClient:
    """Stands in for the gRPC exporter's client, and writes down what it hears."""

    def __init__(self, exporter: Any, answer: Answer) -> None:
        self._exporter, self._answer = exporter, answer
        self._export = exporter._client.Export  # noqa: SLF001 - it has no other way in

    def Export(self, request: Any, **options: Any) -> Any:  # noqa: N802 - gRPC's name
        answer = self._answer
        answer.timeout_s = _seconds(options.get("timeout"))
        answer.add_headers(dict(options.get("metadata") or ()))
        try:
            response = self._export(request, **options)
        except Exception as error:
            code = getattr(error, "code", None)
            details = getattr(error, "details", None)
            answer.code = code().name if code else type(error).__name__
            answer.said = _short((details() if details else None) or str(error))
            self._exporter.shutdown(timeout_millis=0)
            raise
        answer.read(response)
        answer.code = "OK"
        return response


def _ask_by_grpc(spans: Sequence[ReadableSpan], answer: Answer) -> SpanExportResult:
    exporter: Any = bare_exporter("grpc")
    exporter._client = _ListeningClient(exporter, answer)  # noqa: SLF001 - as above
    try:
        result: SpanExportResult = exporter.export(spans)
    finally:
        if answer.code == "OK":
            exporter.shutdown(timeout_millis=0)
    return result
