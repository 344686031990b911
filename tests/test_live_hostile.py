"""Values and exceptions whose own code raises: neither the action nor its span suffers from them."""

import contextlib
import logging
import tracemalloc

import apps
import pytest
from burr.core import State, action
from opentelemetry import baggage, trace
from opentelemetry import context as otel_context
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from replay_support import assert_same, stored_spans

from burr_otel import OtelTracker, mark_failed
from burr_otel.spans import burr_span


class Exits:
    """Whoever asks for its text, ends the program."""

    def __str__(self):
        raise SystemExit(3)

    __repr__ = __str__


class Unreadable(str):
    __slots__ = ()

    def __str__(self):
        raise RuntimeError("no text")


class Odd(dict):
    """A result that is neither true nor false, of no length."""

    def __bool__(self):
        raise RuntimeError("no truth")

    def __len__(self):
        raise RuntimeError("no length")


class Incomparable:
    __hash__ = None

    def __eq__(self, other):
        raise RuntimeError("no equality")


class OddExit(SystemExit):
    @property
    def code(self):
        raise RuntimeError("no code")


class Nameless(type):
    def __getattribute__(cls, name):
        if name in ("__module__", "__qualname__"):
            raise RuntimeError("no name")
        return type.__getattribute__(cls, name)


class OddError(Exception, metaclass=Nameless):
    pass


def step(function):
    return action(reads=["count"], writes=["count"])(function)


@step
def gives_odd_result(state: State) -> tuple[dict, State]:
    return Odd(a=1), state.update(count=1)


@step
def marks(state: State) -> State:
    mark_failed(Exits())
    return state.update(count=1)


@step
def logs(state: State, __tracer) -> State:
    __tracer.log_attributes(value=Exits(), other=1)
    with __tracer(Unreadable("x"), span_dependencies=[Exits()]):
        trace.get_current_span().update_name(Unreadable("y"))
        trace.get_current_span().update_name("\ud800")
    with __tracer(["no key"]):
        pass
    return state.update(count=1)


@step
def takes(state: State, given: object) -> State:
    return state.update(count=1)


@pytest.mark.parametrize(
    ("what", "settings", "inputs"),
    [
        (gives_odd_result, {}, {}),
        (marks, {}, {}),
        (logs, {}, {}),
        (takes, {}, {"given": Exits()}),
        (apps.count, {"failed": lambda *_: Exits()}, {}),
        (apps.count, {"failed": lambda *_: str(Exits())}, {}),
    ],
    ids=["result", "mark_failed", "names", "input", "failed gives", "failed raises"],
)
def test_hostile_values_cost_neither_state_nor_span(what, settings, inputs, spans, tmp_path):
    """The step returns, its span ends, and the log says the same."""
    with OtelTracker("proj", tmp_path, tracer_provider=spans.provider, **settings) as tracker:
        _, _, state = apps.single(tracker, what).step(inputs=inputs)
    assert state["count"] == 1
    assert tracker.load(None, "a1")["state"]["count"] == 1
    assert len(spans.named("step").attributes) > 5
    assert_same(spans.spans, stored_spans(tmp_path))


@pytest.mark.parametrize(
    "error",
    [SystemExit(Incomparable()), OddExit(1), OddError("x")],
    ids=["exit code", "exit", "class"],
)
def test_a_hostile_exception_reaches_the_caller(error, spans, tmp_path):
    """Its span is an error, and no error of ours takes its place."""

    @step
    def fails(state: State) -> State:
        raise error

    logging.disable(logging.CRITICAL)  # Burr logs it, which such a class does not survive
    caught = None
    with OtelTracker(
        "proj", tmp_path, tracer_provider=spans.provider, expected_exceptions=("ValueError",)
    ) as tracker:
        try:
            apps.single(tracker, fails).step()
        except BaseException as raised:
            caught = raised
    logging.disable(logging.NOTSET)
    assert caught is error
    assert spans.named("step").attributes["burr.outcome"] == "error"


def test_an_exit_without_a_code_is_none(spans, tmp_path):
    """0, False and None end a program in order; 1 does not."""

    @step
    def leaves(state: State, code: object) -> State:
        raise SystemExit(code)

    with OtelTracker("proj", tmp_path, tracer_provider=spans.provider) as tracker:
        for code in (0, None, False, 1, "no"):
            with contextlib.suppress(SystemExit):
                apps.single(tracker, leaves, f"a{code}").step(inputs={"code": code})
    outcomes = [s.attributes["burr.outcome"] for s in spans.spans if s.name == "step"]
    assert outcomes == ["ok", "ok", "ok", "error", "error"]


@pytest.mark.parametrize("value", [Exits(), "\ud800", "plain"])
def test_baggage_of_any_kind_stops_no_step(value, spans, tmp_path):
    """What has no text, or one that no exporter can write, is shown all the same."""
    token = otel_context.attach(baggage.set_baggage("who", value))
    try:
        with OtelTracker(
            "proj", tmp_path, tracer_provider=spans.provider, baggage_keys=("who",)
        ) as tracker:
            apps.single(tracker, apps.count).step()
    finally:
        otel_context.detach(token)
    shown = spans.named("step").attributes["who"]
    assert shown == {"plain": "plain"}.get(value, shown)
    shown.encode()


def test_a_setting_that_raises_tells_no_secret(spans, tmp_path, caplog):
    """The warning about `failed` goes through the content policy, as all exceptions do."""

    def failed(*_):
        raise ValueError("password=hunter22")

    with OtelTracker("proj", tmp_path, tracer_provider=spans.provider, failed=failed) as tracker:
        apps.single(tracker, apps.count).step()
    assert "`failed` raised ValueError: password=[redacted]" in caplog.text
    assert "hunter22" not in caplog.text


class Assigns(SpanProcessor):
    """Writes to the private fields of an ended span, as redacting processors do."""

    def on_end(self, span):
        span._attributes = {**span.attributes, "seen": True}
        span._events = ()
        span._links = ()
        span._status = trace.Status(trace.StatusCode.ERROR, "***")
        span._name = "***"


def boom_spans(tmp_path, *processors):
    """The spans of a step that fails, behind processors of others."""
    kept = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    for each in (*processors, SimpleSpanProcessor(kept)):
        provider.add_span_processor(each)
    tracker = OtelTracker("proj", tmp_path, tracer_provider=provider)
    with tracker, contextlib.suppress(ValueError):
        apps.single(tracker, apps.boom).step()
    return kept.get_finished_spans()


def test_a_processor_may_assign_to_an_ended_span(tmp_path):
    """As to one of the SDK's; the exporter behind it sees what was assigned."""
    step_span, _ = boom_spans(tmp_path, Assigns())
    assert (step_span.name, step_span.events, step_span.links) == ("***", (), ())
    assert step_span.status.description == "***"
    assert step_span.attributes["seen"] is True
    assert step_span.attributes["burr.outcome"] == "error"


def test_a_log_that_fails_costs_no_span(tmp_path, monkeypatch):
    """Exceptions go to OpenTelemetry's logs too, whose processor fails."""

    def no_logs(*_):
        raise RuntimeError("no logs")

    monkeypatch.setattr("burr_otel.live.step_end.emit_log", no_logs)
    step_span, _ = boom_spans(tmp_path)
    assert step_span.attributes["error.type"] == "ValueError"


# --- memory ---------------------------------------------------------------------------------------


@step
def fails_at_length(state: State, __tracer) -> State:
    with __tracer("inner") as inner:
        inner.log_attributes(**{f"k{number}": "y" * 3_000 for number in range(4)})
        raise ValueError("x" * 20_000)


def test_exceptions_and_logged_values_count_as_held(tmp_path, monkeypatch):
    """Beyond the bound of all spans that nobody exports, they are described at once."""
    monkeypatch.setattr(burr_span, "_MOST_HELD_BYTES", burr_span._held_bytes + 400_000)
    ended = []

    class Keeps(SpanProcessor):
        def on_end(self, span):
            ended.append(span)

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Keeps())
    with OtelTracker("proj", tmp_path, tracer_provider=provider) as tracker:
        app = apps.single(tracker, fails_at_length)
        for _ in range(20):
            with contextlib.suppress(ValueError):
                app.step()
        waiting = [span.name for span in ended if span._content is None]
    assert len(ended) == 41
    assert 0 < waiting.count("step") < 10
    assert 0 < waiting.count("inner") < 10


def test_an_attribute_that_is_logged_again_and_again_is_held_once(spans, tmp_path):
    """A step that tells its progress for hours; the newest value is shown, as it is by replay."""

    @step
    def tells(state: State, __tracer) -> State:
        __tracer.log_attributes(progress="x" * 40_000)
        tracemalloc.start()
        for number in range(5_000):
            __tracer.log_attributes(progress=f"{number}" * 100)
        grown.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        return state.update(count=1)

    grown = []
    with OtelTracker("proj", tmp_path, tracer_provider=spans.provider) as tracker:
        apps.single(tracker, tells).step()
    assert grown[0] < 500_000
    assert spans.named("step").attributes["progress"] == "4999" * 100
    assert "burr.truncated" not in spans.named("step").attributes
    assert_same(spans.spans, stored_spans(tmp_path))
