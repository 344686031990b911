"""What of Burr we hang on: fails when Burr adds, removes or changes it, and says how to mend that."""

import dataclasses
import inspect
import threading

import burr.core.application
import burr.lifecycle.base
import pytest
from burr.common.types import ParentPointer
from burr.core.persistence import BaseStateLoader
from burr.tracking.base import SyncTrackingClient
from burr.visibility import ActionSpan

from burr_otel import OtelTracker
from burr_otel.hooks import RunHooks
from burr_otel.live import burr_patches, run

# One line for each thing, as Burr 0.43 has it.
EXPECTED = """
hook DoLogAttributeHook.do_log_attributes(attributes, action, action_sequence_id, span, tags, app_id, partition_key)
hook DoLogAttributeHookAsync.do_log_attributes(attributes, action, action_sequence_id, span, tags, app_id, partition_key) async
hook PostApplicationCreateHook.post_application_create(app_id, partition_key, state, application_graph, parent_pointer, spawning_parent_pointer)
hook PostApplicationExecuteCallHook.post_run_execute_call(app_id, partition_key, state, method, exception)
hook PostApplicationExecuteCallHookAsync.post_run_execute_call(app_id, partition_key, state, method, exception) async
hook PostEndSpanHook.post_end_span(action, action_sequence_id, span, span_dependencies, app_id, partition_key)
hook PostEndSpanHookAsync.post_end_span(action, action_sequence_id, span, span_dependencies, app_id, partition_key) async
hook PostEndStreamHook.post_end_stream(action, sequence_id, app_id, partition_key)
hook PostEndStreamHookAsync.post_end_stream(action, sequence_id, app_id, partition_key) async
hook PostRunStepHook.post_run_step(app_id, partition_key, sequence_id, state, action, result, exception)
hook PostRunStepHookAsync.post_run_step(app_id, partition_key, sequence_id, state, action, result, exception) async
hook PostStreamItemHook.post_stream_item(item, item_index, stream_initialize_time, first_stream_item_start_time, action, sequence_id, app_id, partition_key)
hook PostStreamItemHookAsync.post_stream_item(item, item_index, stream_initialize_time, first_stream_item_start_time, action, sequence_id, app_id, partition_key) async
hook PreApplicationExecuteCallHook.pre_run_execute_call(app_id, partition_key, state, method)
hook PreApplicationExecuteCallHookAsync.pre_run_execute_call(app_id, partition_key, state, method) async
hook PreRunStepHook.pre_run_step(app_id, partition_key, sequence_id, state, action, inputs)
hook PreRunStepHookAsync.pre_run_step(app_id, partition_key, sequence_id, state, action, inputs) async
hook PreStartSpanHook.pre_start_span(action, action_sequence_id, span, span_dependencies, app_id, partition_key)
hook PreStartSpanHookAsync.pre_start_span(action, action_sequence_id, span, span_dependencies, app_id, partition_key) async
hook PreStartStreamHook.pre_start_stream(action, sequence_id, app_id, partition_key)
hook PreStartStreamHookAsync.pre_start_stream(action, sequence_id, app_id, partition_key) async
method astep
method aiterate
method arun
method astream_iterate
method astream_result
method iterate
method run
method step
method stream_iterate
method stream_result
driver _arun_multi_step_streaming_action(action, state, inputs, sequence_id, app_id, partition_key, lifecycle_adapters) async generator
driver _arun_single_step_streaming_action(action, state, inputs, sequence_id, app_id, partition_key, lifecycle_adapters) async generator
driver _run_multi_step_streaming_action(action, state, inputs, sequence_id, app_id, partition_key, lifecycle_adapters) generator
driver _run_single_step_streaming_action(action, state, inputs, sequence_id, app_id, partition_key, lifecycle_adapters) generator
abstract SyncTrackingClient.copy
abstract BaseStateLoader.list_app_ids
abstract BaseStateLoader.load
field ParentPointer.app_id
field ParentPointer.partition_key
field ParentPointer.sequence_id
field ActionSpan.action
field ActionSpan.action_sequence_id
field ActionSpan.child_count
field ActionSpan.name
field ActionSpan.parent
field ActionSpan.sequence_id
state key __PRIOR_STEP
state key __SEQUENCE_ID
argument Application.adapter_set
inner Application._step(inputs, _run_hooks)
"""

ADVICE = {
    "hook": "the hook methods of burr_otel/hooks.py: implement a new synchronous hook when it "
    "tells something that spans or the store should show; never an asynchronous one (Burr runs "
    "those in tasks of their own, where nothing can be made current for the action)",
    "method": "nothing but the values of burr.execute.method in docs/spans.md, if the hooks of a new "
    "method come in an order that tests/test_spans_streams.py and tests/test_tracker.py know; run "
    "an application with it and look",
    "driver": "DRIVERS and _driving in burr_otel/live/burr_patches.py, which run a stream's generator "
    "with its step current",
    "abstract": "the methods of OtelTracker: without a new abstract one it cannot be made at all",
    "field": "what reads it: burr_otel/live/build.py (pointers) and burr_otel/live/step.py (spans)",
    "state key": "SEQUENCE_KEY and PRIOR_STEP_KEY in burr_otel/live/run.py, and burr_otel/store",
    "inner": "burr_otel/live/burr_patches.py, which learns from it what a synchronous action gave under "
    "an asynchronous method",
    "argument": "BurrInstrumentor in burr_otel/instrumentor.py, which adds a tracker there",
}


def hooks(module):
    """A line for each hook class of a module."""
    for name, kind in vars(module).items():
        if not inspect.isclass(kind):
            continue
        for attribute, remark in (("hooks", ""), ("async_hooks", " async")):
            hook = vars(kind).get(attribute)
            if hook is not None:
                yield f"hook {name}.{hook}{arguments(getattr(kind, hook))}{remark}"


def arguments(function):
    names = inspect.signature(function).parameters
    return f"({', '.join(each for each in names if each not in ('self', 'future_kwargs'))})"


def drivers(module):
    """A line for each function that drives a stream; those that we have wrapped are unwrapped."""
    for name, function in vars(module).items():
        if name.endswith("_streaming_action") and inspect.isroutine(function):
            driver = inspect.unwrap(function)
            kind = "generator" if inspect.isgeneratorfunction(driver) else "function"
            kind = "async generator" if inspect.isasyncgenfunction(driver) else kind
            yield f"driver {name}{arguments(driver)} {kind}"


def found():
    """Everything of Burr that we hang on, as it is installed here."""
    application = burr.core.application
    yield from hooks(burr.lifecycle.base)
    yield from (f"method {each.value}" for each in burr.lifecycle.base.ExecuteMethod)
    yield from drivers(application)
    own_hooks = {line.split(".")[1].split("(")[0] for line in hooks(burr.lifecycle.base)}
    for kind in (SyncTrackingClient, BaseStateLoader):
        for name in kind.__abstractmethods__ - own_hooks:
            yield f"abstract {kind.__name__}.{name}"
    for kind in (ParentPointer, ActionSpan):
        yield from (f"field {kind.__name__}.{each.name}" for each in dataclasses.fields(kind))
    yield f"state key {application.PRIOR_STEP}"
    yield f"state key {application.SEQUENCE_ID}"
    if "adapter_set" in inspect.signature(application.Application.__init__).parameters:
        yield "argument Application.adapter_set"
    if hasattr(application.Application, "_step"):
        yield f"inner Application._step{arguments(application.Application._step)}"


def complaint(now, expected):
    """What has changed in Burr and where to look, or nothing."""
    lines = []
    for sign, changed in (("+", sorted(now - expected)), ("-", sorted(expected - now))):
        for line in changed:
            kind = next(each for each in ADVICE if line.startswith(each))
            lines.append(f"{sign} {line}\n    look at {ADVICE[kind]}")
    if not lines:
        return ""
    head = "Burr has changed what burr-otel hangs on (+ new, - gone; a changed one is both):"
    tail = (
        "When that is done, change EXPECTED in this file, and the lowest apache-burr in "
        "pyproject.toml if older ones do not work any more."
    )
    return "\n".join([head, *lines, tail])


def test_burr_is_as_we_know_it():
    """Every hook, method, stream driver, pointer and state key that we hang on is as expected."""
    problem = complaint(set(found()), set(EXPECTED.strip().split("\n")))
    assert not problem, problem


def test_the_guard_sees_and_explains_changes():
    """A new hook, a changed one and a driver that is gone are named, with the place to mend."""
    known = set(EXPECTED.strip().split("\n"))
    hook = "hook PostApplicationCloseHook.post_application_close(app_id)"
    changed = next(line for line in known if "PreStartStreamHook." in line)
    now = known - {changed} | {hook, changed.replace("app_id", "uid")}
    text = complaint(now, known)
    assert f"+ {hook}\n    look at the hook methods of burr_otel/hooks.py" in text
    assert f"- {changed}" in text
    assert "uid" in text
    driver = next(line for line in known if line.startswith("driver"))
    text = complaint(known - {driver}, known)
    assert f"- {driver}\n    look at DRIVERS" in text


@pytest.mark.parametrize("line", sorted(line for line in hooks(burr.lifecycle.base)))
def test_we_implement_every_synchronous_hook_and_no_other(line):
    """Each synchronous hook reaches the tracker; an asynchronous class is none of its bases."""
    name, hook = line.removeprefix("hook ").split("(")[0].split(".")
    base = getattr(burr.lifecycle.base, name)
    assert issubclass(OtelTracker, base) is not line.endswith("async")
    assert not inspect.iscoroutinefunction(getattr(OtelTracker, hook))
    assert hook in vars(RunHooks)


def test_the_names_that_we_repeat_are_burrs():
    """Names of Burr's that stand in our code as text are still Burr's."""
    assert burr.core.application.SEQUENCE_ID == run.SEQUENCE_KEY
    assert burr.core.application.PRIOR_STEP == run.PRIOR_STEP_KEY
    assert sorted(burr_patches.DRIVERS) == sorted(
        line.split(" ")[1].split("(")[0] for line in drivers(burr.core.application)
    )


def test_every_driver_is_wrapped(tracker):
    """A tracker that exists has wrapped what drives a stream, once, however many there are."""
    tracker.copy()
    for name in burr_patches.DRIVERS:
        driver = getattr(burr.core.application, name)
        assert hasattr(driver, "__wrapped__")
        assert not hasattr(driver.__wrapped__, "__wrapped__")
    inner = burr.core.application.Application._step
    assert hasattr(inner, "__wrapped__")
    assert not hasattr(inner.__wrapped__, "__wrapped__")


def test_threads_that_make_the_first_trackers_wrap_burr_once(monkeypatch):
    """A stream whose driver is wrapped twice would be made current twice."""
    names, others = [], []

    def replace(_owner, name, _wrap):
        names.append(name)
        if not others:  # another thread comes in the middle of it
            others.append(threading.Thread(target=burr_patches.install, args=(OtelTracker,)))
            others[0].start()
            others[0].join(0.2)

    monkeypatch.setattr(burr_patches, "_installed", set())
    monkeypatch.setattr(burr_patches, "_replace", replace)
    burr_patches.install(OtelTracker)
    others[0].join(60)
    assert len(names) == len(set(names))
