"""The claims of docs/comparison.md that can be executed, each on the thing it is about."""

import importlib.util
import re
from pathlib import Path

import apps
import pytest
from burr.core import ApplicationBuilder, State, action
from burr.integrations import opentelemetry as burr_opentelemetry
from burr.integrations.opentelemetry import OpenTelemetryBridge
from burr.tracking import LocalTrackingClient
from opentelemetry.trace import StatusCode

from burr_otel import OtelTracker

# Burr's client leaves its file to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def bridged(spans, *, fails=False):
    """A run with Burr's bridge: two steps, or one that fails."""
    app = (
        ApplicationBuilder()
        .with_actions(step=apps.boom if fails else apps.count)
        .with_transitions(("step", "step"))
        .with_identifiers(app_id="a1")
        .with_state(count=0)
        .with_entrypoint("step")
        .with_hooks(OpenTelemetryBridge(tracer=spans.provider.get_tracer("bridge")))
        .build()
    )
    if fails:
        with pytest.raises(ValueError, match="kaputt"):
            app.step()
        return
    app.step()
    app.step()


def test_the_bridge_makes_a_trace_of_each_call(spans):
    """Two calls of `step` are two traces; ours are one."""
    bridged(spans)
    assert len({span.context.trace_id for span in spans.spans}) == 2


def test_the_bridge_has_no_values_and_no_ids(spans):
    """No inputs, results, state, app id, sequence id or links are on its spans."""
    bridged(spans)
    assert [dict(span.attributes) for span in spans.spans] == [{}] * 4
    assert all(not span.links for span in spans.spans)


def test_the_bridge_marks_a_failed_step_but_not_why(spans):
    """Status and message, no exception event, no `error.type`; the span of the call is OK."""
    bridged(spans, fails=True)
    step, call = spans.spans if spans.spans[0].parent else spans.spans[::-1]
    assert step.status.status_code is StatusCode.ERROR
    assert (step.events, dict(step.attributes)) == ((), {})
    assert call.status.status_code is StatusCode.OK


def test_an_inner_span_whose_body_raises_is_ok_for_the_bridge(spans):
    """Burr hands it no exception there, and it sets OK."""

    @action(reads=[], writes=[])
    def step(state: State, __tracer) -> State:
        with __tracer("inner"):
            raise ValueError("kaputt")

    app = (
        ApplicationBuilder()
        .with_actions(step=step)
        .with_entrypoint("step")
        .with_hooks(OpenTelemetryBridge(tracer=spans.provider.get_tracer("bridge")))
        .build()
    )
    with pytest.raises(ValueError, match="kaputt"):
        app.step()
    inner = next(span for span in spans.spans if span.name == "inner")
    assert inner.status.status_code is StatusCode.OK


def test_burrs_opentelemetry_tracker_sets_the_global_provider(monkeypatch):
    """One without an exporter, when there is none."""
    made = []
    monkeypatch.setattr(burr_opentelemetry, "initialized", False)
    monkeypatch.setattr(burr_opentelemetry.trace, "set_tracer_provider", made.append)
    monkeypatch.setattr(
        burr_opentelemetry.trace, "get_tracer_provider", lambda: made[-1] if made else None
    )
    burr_opentelemetry.initialize_tracer()
    (provider,) = made
    processors = provider._active_span_processor._span_processors
    assert [type(each).__name__ for each in processors] == ["BurrTrackingSpanProcessor"]
    provider.shutdown()


def test_local_tracking_client_mixes_applications_of_one_tracker(tmp_path):
    """One client in two builders sends every step to the one built last; ours keeps them apart."""
    theirs = LocalTrackingClient("proj", str(tmp_path / "theirs"))
    with OtelTracker("proj", tmp_path / "ours") as ours:
        for tracker in (theirs, ours):
            first, second = apps.counter(tracker, "a1"), apps.counter(tracker, "a2")
            first.step()
            second.step()
            first.step()
    lines = {
        kind: [(tmp_path / kind / "proj" / app / "log.jsonl").read_text() for app in ("a1", "a2")]
        for kind in ("theirs", "ours")
    }
    ended = {kind: [text.count('"end_entry"') for text in texts] for kind, texts in lines.items()}
    assert ended == {"theirs": [0, 3], "ours": [2, 1]}


@pytest.mark.parametrize("tail", ['{"type": "begin_ent', "\0\0\0\n", "\n"])
def test_local_tracking_client_does_not_load_a_damaged_log(tmp_path, tail):
    """A torn line, NULs or a blank line; ours loads the same log."""
    client = LocalTrackingClient("proj", str(tmp_path))
    apps.counter(client, "a1").step()
    with (tmp_path / "proj" / "a1" / "log.jsonl").open("a") as log:
        log.write(tail)
    with pytest.raises(ValueError, match=r"Expecting|Unterminated|control|Invalid"):
        client.load(None, "a1")
    assert OtelTracker("proj", tmp_path).load(None, "a1")["state"]["count"] == 1


def test_local_tracking_client_leaves_its_folder(tmp_path):
    """An app id with `..` writes outside of the project; ours refuses it."""
    apps.counter(LocalTrackingClient("proj", str(tmp_path)), "../out")
    assert (tmp_path / "out").is_dir()
    with pytest.raises(ValueError, match="out2"):
        apps.counter(OtelTracker("proj", tmp_path), "../out2")


def test_local_tracking_client_reads_any_partition_and_lists_nothing(tmp_path):
    """Ours returns `None` for another partition, and lists."""
    client = LocalTrackingClient("proj", str(tmp_path))
    apps.counter(client, "a1", partition_key="ann").step()
    assert client.load("bob", "a1") is not None
    assert client.list_app_ids("ann") == []
    ours = OtelTracker("proj", tmp_path)
    assert ours.load("bob", "a1") is None
    assert ours.list_app_ids("ann") == ["a1"]


def test_what_langfuse_bridge_is():
    """An `OpenTelemetryBridge`: a trace a call, no store. Its source says so where it is missing."""
    spec = importlib.util.find_spec("burr.integrations.langfuse")
    source = Path(spec.origin).read_text("utf-8")
    assert "class LangfuseBridge(OpenTelemetryBridge):" in source
    assert "redact" not in source
    assert "capture_state: bool = True" in source


def test_every_claim_that_is_marked_tested_has_a_test_here():
    """The page names the test of each claim, and each test above is named."""
    root = Path(__file__).parents[1]
    page = (root / "docs" / "comparison.md").read_text("utf-8")
    named = set(re.findall(r"`(test_\w+)`", page))
    here = set(re.findall(r"^def (test_\w+)", Path(__file__).read_text("utf-8"), re.MULTILINE))
    assert named == here - {"test_every_claim_that_is_marked_tested_has_a_test_here"}
