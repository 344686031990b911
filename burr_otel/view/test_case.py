"""A recorded step as a test: a pytest file, and its data beside it.

Nothing of a log stands in the code but what is known to be a name that can be imported, and what
`repr` has quoted; all else is in the data.
"""

from __future__ import annotations

import dataclasses
import json
import keyword
import re
from pathlib import Path
from typing import Any, Final, NamedTuple

from burr_otel import semconv
from burr_otel.content import ContentPolicy
from burr_otel.errors import StoreError
from burr_otel.history.content import RunContent, session_of
from burr_otel.history.read import read_run
from burr_otel.history.settle import Alive
from burr_otel.history.tree import SpanNode
from burr_otel.records import BeginRoot, BeginStep, EndStep, state_data
from burr_otel.store import StoredRun
from burr_otel.view.content import INTERNAL_KEYS
from burr_otel.view.steps import UnknownStepError

_MOST_BYTES: Final = 64 * 1024 * 1024
_NO_DATA: Final = re.compile(r"<.+( at 0x[0-9a-f]+.*|: .*)>", re.DOTALL)  # stands for an object
_METHODS: Final = ("run", "run_and_update", "stream_run", "stream_run_and_update")
_TEMPLATE: Final = '''"""A recorded step as a test, made by `burr-otel test-case`."""

from burr_otel.testing import RecordedStep
from {module} import {name}

STEP = RecordedStep.beside(__file__)
{constants}

def test_{test}():
    """{says}"""
    {body}
'''
_FAILS: Final = "It raised what `STEP.raised` says; this passes once it no longer does."
_WORKS: Final = "It still gives what was recorded."


class StepCase(NamedTuple):
    """The two files, and what they are called without their suffixes."""

    name: str
    code: str
    data: str


class _Meant(NamedTuple):
    span: SpanNode
    begin: BeginStep | None
    end: EndStep | None
    before: EndStep | BeginRoot | None


def step_case(
    run: StoredRun,
    alive: Alive,
    sequence_id: int | None,
    policy: ContentPolicy,
    *,
    redacted: bool = False,
    action: str | None = None,
) -> StepCase:
    """A step as a test: the one of that number, else the last that failed, else the last.

    `action` is ``MODULE:NAME`` of the action in place of the one that was recorded.

    Raises:
        UnknownStepError: There is no such step.
        StoreError: It cannot be a test; the message says why.
    """
    meant = _meant(run, alive, sequence_id)
    content = RunContent(run, policy)
    session = session_of(meant.span)
    facts = content.facts(session).action(meant.span.name)
    if redacted and content.is_hidden(session):
        raise StoreError("a `redactor` function decides what of this run is shown; it is not here.")
    hides = content.facts(session).policy if redacted else None
    end, name = meant.end, _name(run, meant.span)
    fails = end is None or end.raised is not None
    data: dict[str, Any] = {
        "project": run.project,
        "app_id": run.app_id,
        "sequence_id": meant.span.sequence_id,
        "action": meant.span.name,
        "trace_id": meant.span.trace_id,
        "outcome": meant.span.outcome,
        "raised": None if end is None or end.raised is None else end.raised._asdict(),
        "state": _part(*_found(meant, facts.writes), (*facts.reads, *facts.writes), hides),
        "inputs": _part(meant.begin.inputs.value if meant.begin else {}, [], None, hides),
        "written": None,
        "result": None,
    }
    missing = [key for key in facts.reads if key not in data["state"]["values"]]
    if missing and (end is None or end.raised is None):
        keys = ", ".join(map(repr, missing))
        raise StoreError(
            f"what step {meant.span.sequence_id} found of {keys} is not recorded: nothing is, of "
            "the state that an application is built with. Choose a later step."
        )
    if end is not None and not fails:
        values, exact = _state(end)
        data["written"] = _part(values, exact, facts.writes, hides)
        if end.result is not None and semconv.RESULT not in end.shown:
            data["result"] = _part(end.result.value, [], None, hides)
    code = _code(run, meant, facts.attributes.get(semconv.CODE_FUNCTION_NAME), action, name, data)
    return StepCase(name, code, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def burr_case(case: StepCase) -> str:
    """The same in the format of Burr's ``burr-test-case``, which knows no inputs."""
    data = json.loads(case.data)
    written = data["written"] or {"values": {}}
    before = data["state"]["values"]
    found = {"action": data["action"], "name": case.name, "input_state": before}
    found["expected_state"] = {**before, **written["values"]}
    return json.dumps([found], indent=1, ensure_ascii=False) + "\n"


def _meant(run: StoredRun, alive: Alive, sequence_id: int | None) -> _Meant:
    found: list[_Meant] = []
    numbers: set[int] = set()

    def rank(span: SpanNode) -> tuple[bool, int]:
        return sequence_id is None and span.is_bad, span.order

    def show(span: SpanNode) -> None:
        if span.kind != "step" or span.sequence_id is None:
            return
        numbers.add(span.sequence_id)
        if sequence_id not in (None, span.sequence_id):
            return
        if found and rank(found[0].span) > rank(span):
            return
        begin = span.begin if isinstance(span.begin, BeginStep) else None
        end = span.end if isinstance(span.end, EndStep) else None
        found[:] = [_Meant(span, begin, end, span.before)]

    read_run(run, alive, show)
    if not found:
        raise UnknownStepError(f"{run.project}/{run.app_id}", sequence_id, sorted(numbers))
    return found[0]


def _found(meant: _Meant, writes: tuple[str, ...]) -> tuple[dict[str, Any], list[Any]]:
    """The state that a step found, as far as it is recorded, and what JSON cannot say of it."""
    if meant.before is not None:
        return _state(meant.before)
    if meant.end is None:
        return {}, []
    values, exact = _state(meant.end)
    if meant.end.raised is None:  # that is the state after it
        values = {key: value for key, value in values.items() if key not in writes}
    return values, exact


def _state(record: EndStep | BeginRoot) -> tuple[dict[str, Any], list[Any]]:
    if record.state is None:
        return {}, []
    exact = record.otel.get("exact")
    return dict(state_data(record.state)), exact if isinstance(exact, list) else []


def _part(
    values: dict[str, Any],
    exact: list[Any],
    keys: tuple[str, ...] | None,
    hides: ContentPolicy | None,
) -> dict[str, Any]:
    """Some of the values, with the patches for them."""
    wanted = values.keys() - INTERNAL_KEYS if keys is None else set(keys)
    kept = {key: value for key, value in values.items() if key in wanted}
    if hides is None:
        return {"values": kept, "exact": [p for p in exact if p[0] and p[0][0] in kept]}
    policy = dataclasses.replace(hides, max_attribute_bytes=_MOST_BYTES)
    shown = policy.document("state", kept)
    return {"values": {} if shown is None else json.loads(str(shown.value)), "exact": []}


def _name(run: StoredRun, span: SpanNode) -> str:
    parts = [span.name, run.app_id[:8], str(span.sequence_id)]
    return "_".join(re.sub(r"[^a-z0-9]+", "_", part.lower()).strip("_") or "x" for part in parts)


def _code(
    run: StoredRun, meant: _Meant, recorded: Any, given: str | None, test: str, data: dict[str, Any]
) -> str:
    module, _, name = (given or "").partition(":")
    if given is None:
        module, name = _importable(str(recorded or ""), _file(run, meant.span.name))
    parts = [*module.split("."), name]
    if not all(part.isidentifier() and not keyword.iskeyword(part) for part in parts):
        what = repr(given or recorded or meant.span.name)
        raise StoreError(
            f"no test can import {what}. Pass --action MODULE:NAME, the action's function or class "
            "at the top level of a module."
        )
    fails = data["written"] is None
    objects = [
        key
        for key, value in data["inputs"]["values"].items()
        if isinstance(value, str) and _NO_DATA.fullmatch(value)
    ]
    constants = call = ""
    if objects:
        for key in objects:
            del data["inputs"]["values"][key]
        constants = f"NOT_RECORDED = {dict.fromkeys(objects)!r}  # no data: give them here\n"
        call = ", **NOT_RECORDED"
    ran = f"STEP.run({name}{call})"
    return _TEMPLATE.format(
        module=module,
        name=name,
        constants=constants,
        test=test,
        says=_FAILS if fails else _WORKS,
        body=ran if fails else f"assert {ran} == STEP.expected",
    )


def _importable(function: str, file: str | None) -> tuple[str, str]:
    """Module and name of what a recorded function is imported by."""
    module, _, name = function.rpartition(".")
    if name in _METHODS:  # of a class-based action
        module, _, name = module.rpartition(".")
    if module == "__main__" and file is not None:
        module = Path(file).stem
    return module, name


def _file(run: StoredRun, action: str) -> str | None:
    graph: Any = run.graph or {}
    try:
        file = graph["otel"]["actions"][action]["file"]
    except (KeyError, TypeError):
        return None
    return file if isinstance(file, str) else None
