"""One batch sent once, by the exporter that the tracker uses, and what came back.

The exporters keep the answer to themselves and try again for seconds. So HTTP's is given a session
that listens, and of gRPC's only the client is called.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.trace import ReadableSpan

from burr_otel.spans.exporters import Protocol, bare_exporter, compression_from_environ

# What the exporters and their libraries send in any case.
_USUAL_HEADERS: Final = {
    *("accept", "accept-encoding", "connection", "content-encoding", "content-length"),
    *("content-type", "user-agent", "host"),
}
_LONGEST: Final = 300
_REFUSED: Final = 400


@dataclasses.dataclass
class Answer:
    """What was sent and what came back."""

    compression: str
    size_bytes: int  # of the message, before it is compressed
    status: int = 0  # of HTTP
    code: str = ""  # of gRPC
    said: str = ""  # the endpoint's words, or the error's
    rejected: int = 0  # spans that a partial success leaves out
    location: str = ""  # where a redirect leads
    url: str = ""  # where the request went by HTTP
    headers: tuple[str, ...] = ()  # names of those that the settings added
    timeout_s: float = 0.0
    secrets: tuple[str, ...] = dataclasses.field(default=(), repr=False)

    def note_sent(self, headers: Iterable[tuple[str, str | bytes]], timeout_s: object) -> None:
        """Note what was sent: the names of headers to show, their values never to show."""
        texts = {k.lower(): v if isinstance(v, str) else v.decode("latin-1") for k, v in headers}
        self.headers = tuple(sorted(texts.keys() - _USUAL_HEADERS))
        self.secrets = tuple(texts[name] for name in self.headers if len(texts[name]) > 1)
        self.timeout_s = round(timeout_s, 1) if isinstance(timeout_s, int | float) else 0.0

    def note_response(self, response: ExportTraceServiceResponse) -> None:
        """Note what OTLP answers."""
        self.rejected = response.partial_success.rejected_spans
        self.said = _short(response.partial_success.error_message)


def ask(protocol: Protocol, spans: Sequence[ReadableSpan]) -> Answer:
    """Send spans where the ``OTEL_*`` variables say; raises what the exporter raises of them."""
    request = encode_spans(spans)
    answer = Answer(compression_from_environ(), request.ByteSize())
    if protocol == "grpc":
        _ask_by_grpc(request, answer)
    else:
        _ask_by_http(spans, answer)
    return answer


def _short(text: str) -> str:
    return " ".join(text.split())[:_LONGEST]


def _ask_by_grpc(request: Any, answer: Answer) -> None:
    import grpc  # noqa: PLC0415 - as the exporters: only the one in use

    exporter: Any = bare_exporter("grpc")
    headers, timeout_s = exporter._headers, exporter._timeout  # noqa: SLF001 - it has no other way in
    answer.note_sent(headers, timeout_s)
    try:
        export = exporter._client.Export  # noqa: SLF001 - likewise
        answer.note_response(export(request=request, metadata=headers, timeout=timeout_s))
        answer.code = "OK"
    except grpc.RpcError as error:
        answer.code, answer.said = error.code().name, _short(error.details() or str(error))
    finally:
        exporter.shutdown(timeout_millis=0)


def _ask_by_http(spans: Sequence[ReadableSpan], answer: Answer) -> None:
    import requests  # noqa: PLC0415 - costs a quarter of a second, and gRPC does without

    class Listening(requests.Session):
        def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
            answer.url = str(request.url)
            answer.note_sent(request.headers.items(), options.get("timeout"))
            try:
                response = super().send(request, **options)
                _note_http(answer, response)
            except requests.RequestException as error:
                answer.said, response = _short(str(error)), requests.Response()
                response.status_code = _REFUSED  # which the exporter does not try again
            exporter.shutdown()  # nor anything else
            return response

    exporter = bare_exporter("http/protobuf", session=Listening())
    exporter.export(spans)


def _note_http(answer: Answer, response: Any) -> None:
    answer.status = response.status_code
    answer.location = response.headers.get("Location", "")
    kind = response.headers.get("Content-Type", "")
    body: bytes = response.content or b""
    if answer.status < 300 and "protobuf" in kind:  # noqa: PLR2004 - success
        with contextlib.suppress(Exception):  # no OTLP, whatever it calls itself
            answer.note_response(ExportTraceServiceResponse.FromString(body))
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
