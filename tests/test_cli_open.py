"""`burr-otel open`, through the real executable."""

import json
import webbrowser

import apps
import pytest
from cli_support import RECORDED, run
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from burr_otel import OtelTracker
from burr_otel.cli import main
from burr_otel.replay.read import opened
from burr_otel.store import Store
from burr_otel.testing import capture_spans, manual_roots

GIRAFFE = ("chat-1-giraffe", "-p", "demo_chatbot", "--storage-dir", RECORDED)


@pytest.fixture
def traced(tmp_path):
    """A store with a run that was traced; its trace id."""
    with capture_spans() as spans, manual_roots():
        with OtelTracker("proj", tmp_path, tracer_provider=spans.provider) as tracker:
            apps.counter(tracker).run(halt_after=["finish"])
        return f"{spans.spans[-1].context.trace_id:032x}"


def called(capfd, *arguments):
    """Exit code, output and errors of a call in this process, which is quicker."""
    with pytest.raises(SystemExit) as exited:
        main([*map(str, arguments)])
    return exited.value.code, *capfd.readouterr()


def test_the_address_is_printed_and_opened_when_asked(tmp_path, traced):
    """In the browser that the environment names; the beginning of the id will do."""
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/seen\n')
    browser.chmod(0o755)
    place = ("--storage-dir", tmp_path)
    backend = "phoenix=https://phoenix.example.com"
    result = run(
        "open", "a", "--browser", *place, BROWSER=f"{browser} %s", BURR_OTEL_TRACE_URL=backend
    )
    assert (result.returncode, result.stderr) == (0, "")
    expected = f"https://phoenix.example.com/redirects/traces/{traced}\n"
    assert result.stdout == (tmp_path / "seen").read_text() == expected


def test_json(tmp_path, traced, capfd):
    """One object."""
    code, out, _ = called(capfd, "open", "a1", "--json", "--storage-dir", tmp_path)
    assert code == 0
    assert json.loads(out) == {
        "project": "proj",
        "app_id": "a1",
        "trace_id": traced,
        "url": f"http://localhost:16686/trace/{traced}",
        "live": True,
        "opened": False,
    }


def test_a_session_that_was_not_sampled_hides_no_earlier_trace(tmp_path, traced, capfd):
    """The newest trace that there is."""
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    with OtelTracker("proj", tmp_path, tracer_provider=provider) as tracker:
        apps.resumed(tracker, upto=9).step()
    code, out, errors = called(capfd, "open", "a1", "--storage-dir", tmp_path)
    assert (code, out, errors) == (0, f"http://localhost:16686/trace/{traced}\n", "")


def test_a_run_that_was_never_traced_has_the_address_that_replay_sends_it_to(capfd):
    """And it is said that it is not there before."""
    code, out, errors = called(capfd, "open", *GIRAFFE)
    run = Store("demo_chatbot", RECORDED).read("chat-1-giraffe")
    [spans] = opened([run], str(RECORDED))
    sent = {f"{span.context.trace_id:032x}" for span in spans}
    assert code == 0
    assert {out.strip().rpartition("/")[2]} == sent
    assert "burr-otel replay" in errors


@pytest.mark.parametrize(
    ("setting", "says"), [("honeycomb", "TEAM"), ("zipkin", "jaeger, honeycomb, phoenix, tempo")]
)
def test_a_setting_that_leads_nowhere_is_an_error(
    tmp_path, traced, capfd, monkeypatch, setting, says
):
    """Not a warning, and another backend's address."""
    monkeypatch.setenv("BURR_OTEL_TRACE_URL", setting)
    code, out, errors = called(capfd, "open", "a1", "--storage-dir", tmp_path)
    assert (code, out) == (1, "")
    assert f"BURR_OTEL_TRACE_URL='{setting}'" in errors
    assert says in errors


def test_without_a_browser_the_address_is_still_printed(tmp_path, traced, capfd, monkeypatch):
    """With an error, for that was asked for."""
    monkeypatch.setattr(webbrowser, "open", lambda url: False)
    code, out, errors = called(capfd, "open", "a1", "--browser", "--storage-dir", tmp_path)
    assert (code, out) == (1, f"http://localhost:16686/trace/{traced}\n")
    assert "no browser" in errors


def test_an_unknown_run_exits_with_3(tmp_path, traced, capfd):
    """As `show` does."""
    code, _, errors = called(capfd, "open", "b1", "--storage-dir", tmp_path)
    assert code == 3
    assert "'b1'" in errors
