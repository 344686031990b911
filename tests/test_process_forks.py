"""Children that are forked while another thread is in the middle of something."""

import ctypes
import importlib
import json
import operator
import os
import sys
import threading
import types

import apps
import pytest
from opentelemetry.sdk.trace import TracerProvider
from programs import in_child, run_program

import burr_otel.live.burr_patches
from burr_otel import OtelTracker, forks
from burr_otel.cached import CachedProperty
from burr_otel.live.registry import registry
from burr_otel.spans import provider
from burr_otel.store import engines

LOCKS = [
    "live.burr_patches._lock",
    "live.registry.registry._lock",
    "spans.keeper.keeper._lock",
    "spans.provider._lock",
    "store.engines._lock",
    "store.files.run._runs_lock",
    "store.process.background._lock",
]


def forked_while_held(lock, work):
    """The exit code of a child that is forked while another thread has a lock."""
    held, forked = threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            forked.wait(1)  # a lock that is taken for a fork is waited for by then

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    code = in_child(work)
    forked.set()
    thread.join(60)
    return code


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_of_the_process(name):
    """The thread that holds it is not in the child, where it is free."""
    lock_of = operator.attrgetter(name)

    def work():
        assert lock_of(burr_otel).acquire(timeout=1)
        lock_of(burr_otel).release()

    assert forked_while_held(lock_of(burr_otel), work) == 0


def test_a_span_that_is_collected_under_a_lock_for_which_a_fork_waits(tmp_path):
    """As any may be, inside any allocation: the fork holds nothing that the span asks for."""
    code = """
        import os, signal, threading

        signal.alarm(60)  # ends a program that hangs
        lock, held, forking = threading.Lock(), threading.Event(), threading.Event()

        def before():
            forking.set()
            lock.acquire()

        # Before ours, as `logging` and `concurrent.futures` do: such are called last.
        os.register_at_fork(
            before=before, after_in_parent=lock.release, after_in_child=lock.release
        )
        from burr_otel import OtelTracker
        from burr_otel.spans import burr_span
        from burr_otel.spans.burr_span import BurrSpan, SpanLimits, SpanSource

        OtelTracker("p")
        span = BurrSpan("s", None, None, (), 1, SpanSource(None, None, SpanLimits(), None))
        span.finish(burr_span.describe_nothing, 2, 2000)
        spans = [span]
        del span

        def collect():
            with lock:
                held.set()
                forking.wait()
                spans.clear()

        thread = threading.Thread(target=collect)
        thread.start()
        held.wait()
        if os.fork() == 0:
            os._exit(0)
        thread.join()
        assert burr_span._held_bytes == 0
    """
    run_program(code, tmp_path)


@pytest.mark.parametrize("name", ["root._lock", "session._log._lock"])
def test_a_lock_of_a_run(tracker, name):
    """The child goes on with the run."""
    app = apps.counter(tracker)
    app.step()
    [run] = registry.runs("a1")
    assert forked_while_held(operator.attrgetter(name)(run), app.step) == 0
    assert tracker.load(None, "a1")["state"]["count"] == 2


def test_a_child_that_was_forked_in_c(tmp_path, monkeypatch):
    """Python tells nobody of it, as in uWSGI: the child has ids and a session of its own all the same."""
    monkeypatch.setattr(os, "fork", ctypes.PyDLL(None).fork)
    tracker = OtelTracker("p", tmp_path, tracer_provider=TracerProvider())
    app = apps.counter(tracker)
    assert in_child(app.step) == 0
    app.step()
    log = (tmp_path / "p" / "a1" / "log.jsonl").read_text().splitlines()
    steps = [each for each in map(json.loads, log) if each["type"] == "begin_entry"]
    for name in ("session", "span_id"):
        assert len({step["otel"][name] for step in steps}) == 2


def test_a_child_that_is_told_of_its_fork_alone(monkeypatch):
    """As with uWSGI's py-call-osafterfork: a lock that nobody took before is no error."""
    told = []
    monkeypatch.setattr(os, "register_at_fork", lambda **works: told.append(works))
    forks.free_in_child(threading.RLock())
    told[0]["after_in_child"]()


@pytest.fixture
def forked_while_importing(tmp_path, monkeypatch):
    """The exit code of a child that does what another thread does, which imports `slow` for it."""
    (tmp_path / "slow.py").write_text("import threads; threads.wait(); Engine = str")
    threads = types.ModuleType("threads")
    begun, forked = threading.Event(), threading.Event()
    threads.wait = lambda: begun.set() or forked.wait(1)
    monkeypatch.setitem(sys.modules, "threads", threads)
    monkeypatch.delitem(sys.modules, "slow", raising=False)  # of an earlier round
    monkeypatch.syspath_prepend(tmp_path)

    def code_of(work, one, two):
        thread = threading.Thread(target=work, args=(one,))
        thread.start()
        assert begun.wait(60)
        code = in_child(lambda: work(two))
        forked.set()
        thread.join(60)
        return code

    return code_of


def test_exporters_that_another_thread_imports(forked_while_importing, monkeypatch):
    """The child imports them as well, while its parent makes the first provider."""

    def load():
        importlib.import_module("slow")
        return ()

    monkeypatch.setattr(provider, "exporters_from_environ", load)
    monkeypatch.setattr(provider, "_own", {})
    assert forked_while_importing(provider._own_provider, "one", "two") == 0


def test_an_engine_that_another_thread_imports(forked_while_importing, monkeypatch):
    """The child opens a store of the same kind, as its parent opens the first one."""
    monkeypatch.setattr(engines, "import_module", lambda _: importlib.import_module("slow"))
    monkeypatch.setitem(engines._ENGINES, "slow", ("slow", "Engine", "slow"))
    monkeypatch.setattr(engines, "_opened", {})
    assert forked_while_importing(engines.open_engine, "slow://one", "slow://two") == 0


class Slow:
    def __init__(self, wait):
        self._wait = wait

    @CachedProperty
    def value(self):
        self._wait()
        return 1


def test_a_property_that_is_worked_out_once():
    """Another thread works it out for another object; the child does so for its own."""
    begun, forked = threading.Event(), threading.Event()
    theirs = Slow(lambda: begun.set() or forked.wait(60))
    thread = threading.Thread(target=lambda: theirs.value)
    thread.start()
    assert begun.wait(60)
    code = in_child(lambda: Slow(bool).value)
    forked.set()
    thread.join(60)
    assert code == 0
    assert theirs.__dict__["value"] == 1
