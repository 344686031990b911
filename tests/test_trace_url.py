"""The address of a trace: presets, templates, and which trace is meant."""

import json
import urllib.parse

import apps
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from burr_otel import ConfigError, OtelConfig, OtelTracker, UnknownRunError
from burr_otel.trace_url import PRESETS, TracePlace, read_template, trace_url

HOUR_NS = 3600 * 10**9
PLACE = TracePlace("0af7651916cd43dd8448eb211c80319c", "shop", "a/1 ü", 10 * HOUR_NS, 11 * HOUR_NS)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("jaeger", "http://localhost:16686/trace/0af7651916cd43dd8448eb211c80319c"),
        (
            " Jaeger = https://jaeger.example.com/ui/ ",
            "https://jaeger.example.com/ui/trace/0af7651916cd43dd8448eb211c80319c",
        ),
        ("phoenix", "http://localhost:6006/redirects/traces/0af7651916cd43dd8448eb211c80319c"),
        (
            "honeycomb=https://ui.honeycomb.io/acme/environments/prod",
            (
                "https://ui.honeycomb.io/acme/environments/prod/trace"
                "?trace_id=0af7651916cd43dd8448eb211c80319c&trace_start_ts=32400&trace_end_ts=43201"
            ),
        ),
        (
            "https://x.example/{project}/{app_id}?t={trace_id}&from={start_ms}&to={end_ms}",
            (
                "https://x.example/shop/a%2F1%20%C3%BC"
                "?t=0af7651916cd43dd8448eb211c80319c&from=32400000&to=43200001"
            ),
        ),
    ],
)
def test_a_setting_is_a_preset_with_or_without_an_address_or_a_template(setting, expected):
    """What is filled in is encoded; times reach an hour beyond the run, for others' spans."""
    assert trace_url(read_template(setting), PLACE) == expected


def test_tempo_is_looked_at_in_grafanas_explore():
    """Its address holds JSON, which stays JSON."""
    url = urllib.parse.urlsplit(trace_url(read_template("tempo"), PLACE))
    assert (url.netloc, url.path) == ("localhost:3000", "/explore")
    [panes] = urllib.parse.parse_qs(url.query)["panes"]
    [pane] = json.loads(panes).values()
    assert pane["queries"][0]["query"] == PLACE.trace_id
    assert pane["range"] == {"from": "32400000", "to": "43200001"}


def test_a_template_with_json_in_it_is_left_as_it_is():
    """Braces that hold no single word are no placeholders."""
    found = trace_url(read_template('https://x.example/?q={"id":"{trace_id}"}'), PLACE)
    assert found == f'https://x.example/?q={{"id":"{PLACE.trace_id}"}}'


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("honeycomb", "honeycomb=https://ui.honeycomb.io/TEAM/environments/ENVIRONMENT"),
        ("zipkin", "jaeger, honeycomb, phoenix, tempo"),
        ("javascript:alert('{trace_id}')", "is no address"),
        ("https://x.example/trace", "{trace_id}"),
        ("https://x.example/{trace_id}/{span_id}", "{span_id} is not known"),
    ],
)
def test_a_setting_that_leads_nowhere_is_refused_where_it_is_set(setting, says, monkeypatch):
    """The error names the setting, its value and what may be written."""
    with pytest.raises(ConfigError) as caught:
        OtelConfig(trace_url=setting)
    assert "trace_url=" in str(caught.value)
    assert says in str(caught.value)
    monkeypatch.setenv("BURR_OTEL_TRACE_URL", setting)
    with pytest.raises(ConfigError, match="BURR_OTEL_TRACE_URL"):
        OtelConfig.resolve(strict=True)


def test_every_preset_but_honeycomb_works_by_its_name():
    """Whose team and environment nobody can guess."""
    usable = [name for name in PRESETS if name != "honeycomb"]
    assert all(PLACE.trace_id in trace_url(read_template(name), PLACE) for name in usable)


# --- which trace --------------------------------------------------------------------------------


def test_a_run_of_this_process_has_the_address_of_its_newest_trace(tracker, spans):
    """From its first moment on, also in a copy of the tracker and inside its steps."""
    seen = []

    @apps.action(reads=["count"], writes=["count"])
    def step(state):
        seen.append(tracker.trace_url("a1"))
        return state.update(count=state["count"] + 1)

    app = apps.counter(tracker, step=step)
    at_once = tracker.trace_url("a1")
    app.step()
    tracker.close()
    trace_id = f"{spans.named('count').context.trace_id:032x}"
    assert at_once == seen[0] == tracker.trace_url("a1")
    assert at_once == f"http://localhost:16686/trace/{trace_id}"


def test_a_stored_run_has_the_address_of_its_newest_trace(tmp_path, spans):
    """By another tracker than the one that recorded it, with settings of its own."""
    with OtelTracker("proj", tmp_path, tracer_provider=spans.provider) as first:
        apps.counter(first).step()
        apps.resumed(first).step()
    newest = f"{spans.spans[-1].context.trace_id:032x}"
    reader = OtelTracker("proj", tmp_path, trace_url="phoenix=https://phoenix.example.com")
    expected = f"https://phoenix.example.com/redirects/traces/{newest}"
    assert reader.trace_url("a1") == expected


def test_without_a_store_the_live_run_is_known(spans, tmp_path):
    """``snapshots="off"``."""
    tracker = OtelTracker("proj", tmp_path, tracer_provider=spans.provider, snapshots="off")
    app = apps.counter(tracker)
    assert tracker.trace_url("a1").startswith("http://localhost:16686/trace/")
    assert app is not None


def test_a_run_that_is_not_sampled_has_no_address(tmp_path):
    """Nothing would be there."""
    tracker = OtelTracker("proj", tmp_path, tracer_provider=TracerProvider(sampler=ALWAYS_OFF))
    app = apps.counter(tracker)
    app.step()
    assert tracker.trace_url("a1") is None
    tracker.close()
    del app
    assert OtelTracker("proj", tmp_path).trace_url("a1") is None


def test_an_unknown_run_is_an_error_with_the_nearest_names(tracker):
    """A typing error is no run without a trace."""
    apps.counter(tracker, app_id="checkout-1").step()
    with pytest.raises(UnknownRunError, match="checkout-1"):
        tracker.trace_url("checkuot-1")
