"""Children that are forked while another thread is in the middle of something."""

import importlib
import operator
import sys
import threading
import types

import apps
import pytest
from programs import in_child

import burr_otel.live.burr_patches
from burr_otel.cached import CachedProperty
from burr_otel.live.registry import registry
from burr_otel.spans import provider

LOCKS = [
    "live.burr_patches._lock",
    "live.registry.registry._lock",
    "spans.burr_span._held_lock",
    "spans.keeper.keeper._lock",
    "spans.provider._lock",
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


@pytest.mark.parametrize("name", ["root._lock", "session._log._lock"])
def test_a_lock_of_a_run(tracker, name):
    """The child goes on with the run."""
    app = apps.counter(tracker)
    app.step()
    [run] = registry.runs("a1")
    assert forked_while_held(operator.attrgetter(name)(run), app.step) == 0
    assert tracker.load(None, "a1")["state"]["count"] == 2


def test_exporters_that_another_thread_imports(tmp_path, monkeypatch):
    """The child imports them as well, while its parent makes the first provider."""
    (tmp_path / "slow_exporter.py").write_text("import threads; threads.wait()")
    threads = types.ModuleType("threads")
    begun, forked = threading.Event(), threading.Event()
    threads.wait = lambda: begun.set() or forked.wait(1)
    monkeypatch.setitem(sys.modules, "threads", threads)
    monkeypatch.delitem(sys.modules, "slow_exporter", raising=False)  # of an earlier round
    monkeypatch.syspath_prepend(tmp_path)

    def load():
        importlib.import_module("slow_exporter")
        return ()

    monkeypatch.setattr(provider, "exporters_from_environ", load)
    monkeypatch.setattr(provider, "_own", {})
    thread = threading.Thread(target=provider._own_provider, args=("one",))
    thread.start()
    assert begun.wait(60)
    code = in_child(lambda: provider._own_provider("two"))
    forked.set()
    thread.join(60)
    assert code == 0


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
