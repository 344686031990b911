"""What live hid stays hidden, whoever reads the log: replay, `show`, `diff`, test cases."""

import contextlib
import json

import apps
import pytest
from burr.core import State, action
from burr.core.action import streaming_action
from cli_support import run
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from programs import in_child
from replay_support import assert_same, stored_spans, told

from burr_otel import OtelTracker, mark_failed
from burr_otel.content import ContentPolicy

CANARY = "canary4f1c"


def hide(path, value):
    """A user's function that no reader of the log has; asked twice, it gives something else."""
    return value.replace("canary", "<hidden>") + "." if isinstance(value, str) else value


@action(reads=["count"], writes=["count", "kept"], tags=["otel.kind:llm"])
def everywhere(state: State, prompt: str, __tracer) -> tuple[dict, State]:
    with contextlib.suppress(ValueError), __tracer(f"call {CANARY}") as inner:
        inner.log_attributes(**{f"key {CANARY}": f"value {CANARY}"})
        raise ValueError(f"inner {CANARY}")
    __tracer.log_attributes(**{f"own {CANARY}": {"deep": [CANARY]}})
    mark_failed(f"because of {CANARY}")
    return {"answer": CANARY}, state.update(count=1, kept=(CANARY,))


@action(reads=["count"], writes=["count"])
def fails(state: State) -> State:
    raise ValueError(f"outer {CANARY}")


@streaming_action(reads=["count"], writes=["text"])
def swallows(state: State):
    try:
        yield {"text": CANARY}, None
        yield {"text": CANARY}, state.update(text=CANARY)
    finally:
        raise RuntimeError(f"late {CANARY}")


def run_all(tracker):
    with tracker:
        app = apps.single(tracker, everywhere, "a1", state={"count": 0, "kept": CANARY})
        app.step(inputs={"prompt": CANARY})
        app.step(inputs={"prompt": CANARY})
        with contextlib.suppress(ValueError):
            apps.single(tracker, fails, "a2", state={"count": CANARY}).step()
        _, container = apps.single(tracker, swallows, "a3").stream_result(halt_after=["step"])
        list(container)


def all_told(spans):
    return repr([told(span) for span in spans])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_a_function_hid_is_sent_later_as_it_was_sent_live(spans, tmp_path):
    """Names, exceptions of inner spans and streams, reasons: asked once, in the hook."""
    tracker = OtelTracker(
        "proj", tmp_path, tracer_provider=spans.provider, redactor=hide, openinference_content=True
    )
    run_all(tracker)
    assert CANARY not in all_told(spans.spans)
    assert_same(spans.spans, stored_spans(tmp_path))


@pytest.mark.parametrize("sampler", [None, ALWAYS_OFF])
def test_what_a_function_hid_is_drawn_nowhere(sampler, tmp_path, spans):
    """Also of steps that were not sampled, of which no span ever told anything."""
    provider = spans.provider if sampler is None else TracerProvider(sampler=sampler)
    run_all(OtelTracker("proj", tmp_path, tracer_provider=provider, redactor=hide))
    assert CANARY not in all_told(stored_spans(tmp_path))
    for app_id in ("a1", "a2", "a3"):
        for how in ([], ["--json"], ["--step", "1"], ["--step", "0"], ["--html", "-"]):
            shown = run("show", app_id, *how, "--storage-dir", tmp_path)
            assert CANARY not in shown.stdout, how


READERS = {
    "off": ContentPolicy(**dict.fromkeys(("inputs", "results", "state", "attributes"), "off"),
                         exceptions="off"),
    "types": ContentPolicy(**dict.fromkeys(("inputs", "results", "state", "attributes"), "types"),
                           exceptions="types"),
    "pattern": ContentPolicy(redact_values=(r"canary\w+",)),
}  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
def test_a_reader_who_hides_more_has_the_last_word(reader, spans, tmp_path):
    """Also of values that are no plain JSON, which the log holds as they were shown."""
    with OtelTracker(
        "proj", tmp_path, tracer_provider=spans.provider, openinference_content=True
    ) as tracker:

        @action(reads=["count"], writes=["count"], tags=["otel.kind:llm"])
        def odd(state: State, prompt: str, more: object, __tracer) -> tuple[dict, State]:
            __tracer.log_attributes(value=(CANARY,), other={CANARY})
            return {"answer": CANARY, "more": (CANARY,)}, state.update(count=(CANARY,))

        inputs = {"prompt": CANARY, "more": (CANARY,)}
        apps.single(tracker, odd, "a1", state={"count": (CANARY,)}).step(inputs=inputs)
        with contextlib.suppress(ValueError):
            apps.single(tracker, fails, "a2", state={"count": (CANARY,)}).step()
    assert all_told(spans.spans).count(CANARY) > 10
    assert CANARY not in all_told(stored_spans(tmp_path, policy=READERS[reader]))


def test_a_reader_with_patterns_hides_secrets_that_were_shown(spans, tmp_path):
    """The run was recorded with `redact=False`; the JSON stays JSON, and small."""

    @action(reads=["count"], writes=["count"])
    def tell(state: State, given: object) -> State:
        return state.update(count=({"password": "hunter22", "text": "x" * 4_000},))

    with OtelTracker("proj", tmp_path, tracer_provider=spans.provider, redact=False) as tracker:
        apps.single(tracker, tell).step(inputs={"given": ({"api_key": "hunter22"},)})
    reader = ContentPolicy(max_attribute_bytes=500)
    [step, _] = stored_spans(tmp_path, policy=reader)
    assert "hunter22" not in all_told([step])
    written = json.loads(step.attributes["burr.state.written"])
    assert written["count"][0]["password"] == "[redacted]"
    assert len(step.attributes["burr.state.written"]) <= 500
    assert step.attributes["burr.truncated"] == ("burr.state.written",)


def test_the_policy_of_a_forked_process_is_its_parents(spans, tmp_path):
    """The child writes a session of its own, whose first record does not repeat it."""
    tracker = OtelTracker("proj", tmp_path, tracer_provider=spans.provider, capture="off")
    app = apps.single(tracker, apps.count, state={"count": 41})
    app.step()
    assert in_child(app.step) == 0
    tracker.close()
    steps = [span for span in stored_spans(tmp_path) if span.name == "step"]
    assert len(steps) == 2
    assert all("burr.state.written" not in span.attributes for span in steps)


def test_a_session_that_lost_its_policy_shows_no_content(spans, tmp_path):
    """A flipped bit in its first record must not show what live did not."""
    with OtelTracker("proj", tmp_path, tracer_provider=spans.provider, capture="off") as tracker:
        apps.counter(tracker, upto=2).run(halt_after=["finish"])
    path = tmp_path / "proj" / "a1" / "log.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"otel_root"', b'"otel_r00t"', 1))
    spans_read = stored_spans(tmp_path)
    assert [span.name for span in spans_read if span.name == "count"] == ["count"] * 2
    assert not any("burr.state.written" in span.attributes for span in spans_read)


def test_burrs_own_log_tells_no_message_that_the_reader_hides(tmp_path):
    """Neither in the step's span nor in the application's status."""
    from burr.tracking import LocalTrackingClient

    client = LocalTrackingClient("proj", str(tmp_path))
    with contextlib.suppress(ValueError):
        apps.single(client, fails).step()
    read = stored_spans(tmp_path, policy=ContentPolicy(exceptions="types"))
    assert CANARY not in repr([(told(span)["status"], told(span)["events"]) for span in read])
    assert [span.status.description for span in read] == ["ValueError"] * 2


# --- differences ----------------------------------------------------------------------------------

PASSWORD = "hunter2zz"


@action(reads=["n"], writes=["n", "headers", "env", "args", "deep"])
def rotate(state: State, word: str) -> tuple[dict, State]:
    n = state["n"] + 1
    secret = f"{PASSWORD}{n}"
    return {"word": f"result{n}"}, state.update(
        n=n,
        headers=[["authorization", secret], ["accept", f"shown{n}"]],
        env=[{"name": "DB_PASSWORD", "value": secret}, {"name": "MODE", "value": f"shown{n}"}],
        args=["run", "--password", secret, f"shown{n}"],
        deep={"list": [{"key": "api_key", "value": secret}]},
    )


def test_a_secret_that_its_neighbour_names_is_hidden_in_differences_too(spans, tmp_path):
    """Pairs, dicts of name and value, and program arguments, each compared item by item."""
    with OtelTracker("proj", tmp_path, tracer_provider=spans.provider) as tracker:
        for app_id, n in (("a1", 0), ("a2", 10)):
            app = apps.single(tracker, rotate, app_id, state={"n": n})
            app.step(inputs={"word": "a"})
            app.step(inputs={"word": "a"})
    assert PASSWORD not in all_told(spans.spans)
    where = ["--storage-dir", tmp_path]
    for how in (
        ["show", "a1", "--step", "1"],
        ["show", "a1", "--step", "1", "--json"],
        ["show", "a1", "--html", "-"],
        ["diff", "a1", "a2"],
    ):
        output = run(*how, *where).stdout
        assert PASSWORD not in output, how
        assert output.count("shown") >= 3, how


def test_a_difference_is_hidden_as_what_it_is(spans, tmp_path):
    """Inputs and results that are not captured are not shown as if they were state."""
    with OtelTracker(
        "proj",
        tmp_path,
        tracer_provider=spans.provider,
        capture_inputs="off",
        capture_results="off",
    ) as tracker:
        for app_id, n in (("a1", 0), ("a2", 10)):
            app = apps.single(tracker, rotate, app_id, state={"n": n})
            app.step(inputs={"word": f"input{n}"})
    output = run("diff", "a1", "a2", "--storage-dir", tmp_path).stdout
    assert "input0" not in output
    assert "result1" not in output
    assert "[not captured]" in output
    assert "shown1" in output


def test_redacted_test_cases_hide_what_spans_hide(spans, tmp_path, monkeypatch):
    """Exceptions with their secrets, and the kinds of content that are not captured."""

    @action(reads=["count"], writes=["count"])
    def leak(state: State, word: str) -> State:
        raise ValueError("password=hunter22")

    with (
        OtelTracker(
            "proj", tmp_path, tracer_provider=spans.provider, capture_inputs="off"
        ) as tracker,
        contextlib.suppress(ValueError),
    ):
        apps.single(tracker, leak, state={"count": 7}).step(inputs={"word": "unseen"})
    where = ["--storage-dir", str(tmp_path), "-o", str(tmp_path / "out"), "--action", "m:leak"]
    assert run("test-case", "a1", "--redacted", *where).returncode == 0
    text = next((tmp_path / "out").glob("*.json")).read_text()
    assert "hunter22" not in text
    assert "unseen" not in text
    assert json.loads(text)["state"]["values"] == {"count": 7}
