"""What every test shares."""

import os
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest
from burr.core import application

from burr_otel import OtelTracker
from burr_otel.live.registry import registry
from burr_otel.spans import keeper, shield
from burr_otel.testing import FakeClock, capture_spans, manual_roots

sys.path.insert(0, str(Path(__file__).parent))

# A shell's background job ignores Ctrl-C, and so would the programs that the tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Lone surrogates in captured output are escaped.

    Burr logs hostile texts as they are, and pytest-xdist cannot send them to its parent.
    """
    report = yield
    report.sections = [(title, escaped(text)) for title, text in report.sections]
    return report


def pytest_terminal_summary(terminalreporter):
    """One line for each reason to skip tests: hundreds of tests need the same server."""
    reasons = Counter(report.longrepr[2] for report in terminalreporter.stats.get("skipped", ()))
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"SKIPPED [{count}] {reason.removeprefix('Skipped: ')}")


def escaped(text):
    return text.encode("utf-8", "backslashreplace").decode()


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch, tmp_path):
    """No test sees this machine's settings or writes to its home."""
    for name in list(os.environ):
        if name.startswith(("OTEL_", "BURR_OTEL_")) and name not in (
            "BURR_OTEL_BACKENDS",
            "BURR_OTEL_REQUIRE_BACKENDS",
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")


@pytest.fixture
def spans():
    """Spans in memory; application spans end only by `tracker.close()` or a sweep."""
    with capture_spans() as captured, manual_roots():
        yield captured


@pytest.fixture
def clock():
    """A clock that moves one microsecond a reading."""
    return FakeClock()


@pytest.fixture
def tracker(spans, clock, tmp_path):
    """A tracker whose spans are captured."""
    return OtelTracker("proj", tmp_path, tracer_provider=spans.provider, clock=clock)


@pytest.fixture(autouse=True)
def _no_leaks():
    """No test leaves an application or an open span to the next one.

    Nor what Burr remembers of an abandoned stream: it then calls no execute hooks for any later
    application of the same id in the same context.
    """
    application._run_call_var.set({})
    shield._reported.clear()  # each kind is told once a process
    yield
    keeper.keeper.finish_all()
    for run in list(registry.runs()):
        registry.remove(run)
