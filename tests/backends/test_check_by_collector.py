"""`burr-otel check` against a real collector, whose servers are other ones than those of Python."""

from __future__ import annotations

import pathlib

import pytest
from collector_api import Collector
from sending import PROTOCOLS

from burr_otel.check.run import check


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("port", "scheme", "wrong"),
    [
        ("own", "http", None),
        ("other", "http", {"grpc": "grpc_to_http", "http/protobuf": "http_to_grpc"}),
        ("own", "https", dict.fromkeys(PROTOCOLS, "tls_to_plain")),
    ],
)
def test_a_collector(
    protocol: str,
    port: str,
    scheme: str,
    wrong: dict[str, str] | None,
    collector: Collector,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The right port takes the trace; the other one, and TLS, are told for what they are."""
    of = protocol if port == "own" else next(each for each in PROTOCOLS if each != protocol)
    endpoint = collector.endpoint(of).replace("http://", f"{scheme}://")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    report = check(str(tmp_path))
    assert [found.name for found in report.problems] == ([wrong[protocol]] if wrong else [])
