"""`log_events="ERROR"`: log lines inside a step are events of its span."""

import gc
import logging
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import apps
import pytest
from opentelemetry.instrumentation.logging import LoggingInstrumentor
from programs import WITHOUT_PANDAS
from replay_support import assert_same, ours, stored_spans

from burr_otel import ConfigError, OtelTracker
from burr_otel.spans import keeper

logger = logging.getLogger("shop.orders")


@pytest.fixture
def make(spans, clock, tmp_path):
    """Makes trackers that keep log lines; afterwards everything is as it was."""
    before = logging.getLogRecordFactory()
    made = []

    def tracker(level="ERROR", **settings):
        settings = {"tracer_provider": spans.provider, "clock": clock, **settings}
        made.append(OtelTracker("proj", tmp_path, log_events=level, **settings))
        return made[-1]

    yield tracker
    gc.collect()  # applications of one tracker keep the lines of all
    for each in made:
        each.close()
    assert logging.getLogRecordFactory() is before


def run(tracker, work, app_id="a1"):
    """Run `work` as the one step of an application."""

    @apps.action(reads=["count"], writes=["count"])
    def act(state, __tracer):
        work(__tracer)
        return state.update(count=1)

    apps.single(tracker, act, app_id).step()


def lines(span):
    """The log lines of a span: severity, logger and message."""
    names = ("log.severity", "log.logger", "log.message")
    return [tuple(e.attributes.get(n) for n in names) for e in span.events if e.name == "log"]


def test_lines_at_the_level_or_above_are_events_of_the_span_around_them(make, spans, tmp_path):
    """Of the step, or of the inner span; what is replayed is the same."""

    def work(tracer):
        logger.warning("not this")
        logger.error("order %s failed", 7)
        with tracer("inner"):
            logger.critical("out of stock")

    tracker = make()
    run(tracker, work)
    logger.error("after the step")
    assert lines(spans.named("step")) == [("ERROR", "shop.orders", "order 7 failed")]
    assert lines(spans.named("inner")) == [("CRITICAL", "shop.orders", "out of stock")]
    tracker.close()
    keeper.keeper.finish_all()
    assert_same(ours(spans.spans), stored_spans(tmp_path))


def test_an_exception_that_is_logged_is_told(make, spans):
    """With its type, message and traceback, as those that a step raises."""

    def work(_):
        try:
            raise KeyError("password=hunter2hunter2")
        except KeyError:
            logger.exception("swallowed")

    run(make(), work)
    (event,) = (e for e in spans.named("step").events if e.name == "log")
    assert event.attributes["exception.type"] == "KeyError"
    assert "raise KeyError" in event.attributes["exception.stacktrace"]
    assert "hunter2" not in str(dict(event.attributes))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "key [redacted]"),
        ({"capture_attributes": "off"}, None),
        ({"capture_attributes": "types"}, "str[55]"),
    ],
)
def test_lines_are_redacted_as_logged_attributes_are(make, spans, settings, message):
    """By the same policy."""
    secret = "sk-ant-api03-NeverToBeSeenAnywhere0123456789abcdef0"
    run(make(**settings), lambda _: logger.error("key %s", secret))
    assert [line[2] for line in lines(spans.named("step"))] == [message]


def test_a_step_that_logs_without_end_keeps_a_hundred_short_lines(make, spans):
    """Bounded in number and length."""

    def work(_):
        for _ in range(1000):
            logger.error("x" * 100_000)

    run(make(), work)
    found = lines(spans.named("step"))
    assert len(found) == 100
    assert max(len(message) for _, _, message in found) <= 2_000


def test_what_we_and_opentelemetry_log_ourselves_is_left_out(make, spans):
    """Also what a redactor logs, which would go on for ever."""

    def redactor(path, value):
        logger.error("asked for %s", path)
        return value

    def work(_):
        logging.getLogger("burr_otel.store").error("ours")
        logging.getLogger("opentelemetry.sdk").error("theirs")
        logger.error("once")

    run(make(redactor=redactor), work)
    messages = [message for _, _, message in lines(spans.named("step"))]
    assert messages.count("once") == 1
    assert {"ours", "theirs"}.isdisjoint(messages)
    assert not any("attributes.log.message" in message for message in messages)


def test_a_line_that_cannot_be_written_harms_nothing(make, spans):
    """Neither the step nor the next line."""

    class Hostile:
        def __str__(self):
            raise RuntimeError("no text")

    silent = logging.getLogger("silent")
    silent.propagate = False
    silent.addHandler(logging.NullHandler())

    def work(_):
        silent.error("%s", Hostile())
        silent.error("%s")
        silent.error("next")

    run(make(), work)
    messages = [message for *_, message in lines(spans.named("step"))]
    assert messages == ["<unreadable>", "%s", "next"]


def test_what_burr_logs_of_a_failure_is_left_out(make, spans):
    """It repeats the whole state, and the span has the exception."""

    def work(_):
        raise ValueError("kaputt")

    with pytest.raises(ValueError, match="kaputt"):
        run(make(), work)
    assert lines(spans.named("step")) == []


def test_it_is_off_unless_asked_for(tracker, spans):
    """Nothing is installed, and nothing shown."""
    before = logging.getLogRecordFactory()
    run(tracker, lambda _: logger.error("no event"))
    assert logging.getLogRecordFactory() is before
    assert spans.named("step").events == ()


def test_only_steps_of_a_tracker_that_asks_have_them(make, tracker, spans):
    """Two trackers in one process; closing one leaves the other's lines."""
    first, second = make(), make("WARNING")

    def work(_):
        logger.warning("low")
        logger.error("high")

    run(first, work, "a1")
    run(second, work, "a2")
    run(tracker, work, "a3")
    first.close()
    run(second, work, "a4")
    found = {
        span.attributes["burr.app_id"]: [line[2] for line in lines(span)]
        for span in spans.spans
        if span.name == "step"
    }
    assert found == {"a1": ["high"], "a2": ["low", "high"], "a3": [], "a4": ["low", "high"]}


def test_with_the_logging_instrumentation_whichever_comes_first(make, spans):
    """Both see the line, and both go."""
    instrumentor = LoggingInstrumentor()
    tracker = make()
    run(tracker, lambda _: logger.error("before"), "a1")
    instrumentor.instrument(enable_log_auto_instrumentation=False)
    try:
        run(tracker, lambda _: logger.error("with"), "a2")
        tracker.close()
        run(tracker, lambda _: logger.error("again"), "a3")
    finally:
        tracker.close()
        instrumentor.uninstrument()
    steps = [span for span in spans.spans if span.name == "step"]
    assert [[line[2] for line in lines(span)] for span in steps] == [
        ["before"],
        ["with"],
        ["again"],
    ]


def test_logging_works_as_ever(tmp_path):
    """`basicConfig` after the tracker is built still counts, and so does the last resort."""
    code = """
    import logging, apps
    from burr_otel import OtelTracker
    tracker = OtelTracker("proj", "runs", log_events="ERROR")
    @apps.action(reads=["count"], writes=["count"])
    def act(state):
        logging.getLogger("shop").error("heard")
        return state.update(count=1)
    app = apps.single(tracker, act)
    app.step()
    logging.basicConfig(format="configured: %(message)s")
    app.step()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([WITHOUT_PANDAS, str(Path(__file__).parent)]),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.splitlines() == ["heard", "configured: heard"]


@pytest.mark.parametrize("level", ["LOUD", "", 40])
def test_a_level_that_is_none_is_an_error(tmp_path, level):
    """Which names what may be given."""
    with pytest.raises(ConfigError, match="log_events"):
        OtelTracker("proj", tmp_path, log_events=level)


def test_the_variable(monkeypatch, tmp_path):
    """In any case of letters."""
    monkeypatch.setenv("BURR_OTEL_LOG_EVENTS", "error")
    assert OtelTracker("proj", tmp_path).config.log_events == "error"


def test_a_secret_across_the_longest_message_is_hidden_whole(make, spans):
    """A line is cut once its secrets are hidden: half a token is not known to be one."""
    token = "sk-ant-api03-" + "a1B2c3D4" * 5

    def work(_):
        for before in range(1_940, 2_000, 7):
            logger.error("%s %s%s", "x" * before, token, " y" * 2_000)

    with make() as tracker:
        run(tracker, work)
    found = lines(spans.named("step"))
    assert len(found) == 9
    assert not any("sk-ant" in message for _, _, message in found)
    assert {len(message) for _, _, message in found} == {2_000}
