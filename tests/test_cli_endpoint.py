"""Whether anything answers where spans would be sent."""

import socket

import pytest

from burr_otel.check import probe as module
from burr_otel.check.probe import Place, host_and_port
from burr_otel.cli.sending import find_target


@pytest.mark.parametrize(
    ("endpoint", "place"),
    [
        ("http://localhost:4317", ("localhost", 4317)),
        ("https://api.honeycomb.io:443", ("api.honeycomb.io", 443)),
        ("https://api.example.org/v1/traces", ("api.example.org", 443)),
        ("http://collector/v1/traces", ("collector", 80)),
        ("localhost:4317", ("localhost", 4317)),
        ("collector", ("collector", 4317)),
        ("http://[::1]:4318", ("::1", 4318)),
        ("unix:///run/otel.sock", None),
        ("http://host:99999999", None),
        ("", None),
    ],
)
def test_places(endpoint, place):
    """URLs, and what gRPC takes besides, are read; the rest is left to the exporter."""
    assert host_and_port(endpoint) == place


def test_a_listener_answers_and_a_closed_port_does_not(monkeypatch):
    """Also behind a proxy for others: this machine is always asked directly."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert Place(f"http://127.0.0.1:{port}", "http/protobuf").answers()
    assert not Place(f"http://127.0.0.1:{port}", "http/protobuf").answers()


def test_only_sending_tells_what_is_behind_a_proxy(monkeypatch):
    """A host that only the proxy can reach must not be taken for silent."""

    def unreachable(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr(module.socket, "create_connection", unreachable)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("https_proxy", "http://proxy.example.org:3128")
    assert Place("https://api.example.org:443", "http/protobuf").answers()
    monkeypatch.setenv("no_proxy", "api.example.org")
    assert not Place("https://api.example.org:443", "http/protobuf").answers()


def test_the_question_is_bounded(monkeypatch):
    """A host that swallows packets costs half a second, not minutes."""
    asked = []
    monkeypatch.setattr(
        module.socket, "create_connection", lambda place, timeout: asked.append(timeout) or _Open()
    )
    assert Place("http://10.255.255.1:4317", "http/protobuf").answers()
    assert asked == [0.5]


class _Open:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.mark.parametrize("to", ["http://ann:s3cret@localhost:1", "nonsense://ann:s3cret@"])
def test_a_password_in_an_endpoint_is_not_shown(to):
    """Neither in what went wrong nor where spans went."""
    target = find_target(to)
    assert target.problem
    assert "s3cret" not in target.problem + target.place.shown


def test_an_empty_exporter_variable_counts_as_unset(monkeypatch):
    """As for the tracker: spans go by OTLP."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:1")
    assert find_target().unreachable
