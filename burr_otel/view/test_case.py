"""A recorded step as a test: a pytest file, and its data beside it."""

# Nothing of a log stands in the code but names that can be imported and what `repr` has quoted.

from __future__ import annotations

import contextlib
import dataclasses
import json
import keyword
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from burr_otel import semconv
from burr_otel.content import ContentPolicy, Kind
from burr_otel.errors import StoreError
from burr_otel.history.content import RunContent
from burr_otel.history.tree import session_of
from burr_otel.records import BeginStep, EndStep, Raised
from burr_otel.store import StoredRun
from burr_otel.view.content import INTERNAL_KEYS, exact_patches, recorded_state
from burr_otel.view.steps import newest_step

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
_FAILS: Final = (
    "What it raised is `STEP.raised`, None if its process died; passes once it raises nothing."
)
_WORKS: Final = "It still gives what was recorded."


def step_case(
    run: StoredRun,
    sequence_id: int | None,
    policy: ContentPolicy,
    *,
    redacted: bool = False,
    action: str | None = None,
    for_burr: bool = False,
) -> dict[str, str]:
    """A step, chosen as by `newest_step`, as texts of files by their names."""
    span, _ = newest_step(run, sequence_id)
    begin, end = span.begin, span.end if isinstance(span.end, EndStep) else None
    content, session = RunContent(run, policy), session_of(span)
    if redacted and content.facts(session).policy.shown_only:
        raise StoreError("a `redactor` function decides what of this run is shown; it is not here.")
    facts, hides = content.facts(session).action(span.name), None
    if redacted:
        hides = dataclasses.replace(content.facts(session).policy, max_attribute_bytes=_MOST_BYTES)
    raised = None if end is None else end.raised
    found = recorded_state(span.before or end) or {}
    if span.before is None and raised is None:  # that is the state after it
        found = {key: value for key, value in found.items() if key not in facts.writes}
    inputs = begin.inputs.value if isinstance(begin, BeginStep) else {}
    data: dict[str, Any] = {
        "project": run.project,
        "app_id": run.app_id,
        "sequence_id": span.sequence_id,
        "action": span.name,
        "trace_id": span.trace_id,
        "outcome": span.outcome,
        "raised": None if raised is None else _raised(raised, hides),
        "state": _part("state", found, (*facts.reads, *facts.writes), hides, span.before or end),
        "inputs": _part("inputs", inputs, inputs, hides),
        "written": None,
        "result": None,
    }
    missing = [key for key in facts.reads if key not in data["state"]["values"]]
    if missing and raised is None:
        keys = ", ".join(map(repr, missing))
        raise StoreError(
            f"what step {span.sequence_id} found of {keys} is not recorded: nothing is, of "
            "the state that an application is built with. Choose a later step."
        )
    if end is not None and raised is None:
        data["written"] = _part("state", recorded_state(end) or {}, facts.writes, hides, end)
        if end.result is not None and semconv.RESULT not in end.shown:
            data["result"] = _part("results", end.result.value, end.result.value, hides)
    slugs = (
        re.sub(r"[^a-z0-9]+", "_", part.lower()).strip("_") or "x"
        for part in (span.name, run.app_id[:8], str(span.sequence_id))
    )
    name = "_".join(slugs)
    if for_burr:  # which knows no inputs
        before, written = data["state"]["values"], data["written"] or {"values": {}}
        case = {"action": span.name, "name": name, "input_state": before}
        case["expected_state"] = {**before, **written["values"]}
        return {f"{name}.json": _json([case])}
    if action is None:
        recorded = facts.attributes.get(semconv.CODE_FUNCTION_NAME)
        action = _importable(run, span.name, str(recorded)) if recorded else span.name
    code = _code(action, name, data)
    return {f"test_{name}.json": _json(data), f"test_{name}.py": code}


def _json(value: Any) -> str:
    try:
        return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    except RecursionError:
        raise StoreError("a value of this step is nested too deeply; choose another one.") from None


def _raised(raised: Raised, hides: ContentPolicy | None) -> dict[str, str]:
    return (raised if hides is None else hides.exception(raised))._asdict()


def _part(
    kind: Kind,
    values: dict[str, Any],
    keys: Iterable[str],
    hides: ContentPolicy | None,
    record: Any = None,
) -> dict[str, Any]:
    """Some of the values, with the patches for them in the record of a state."""
    wanted = set(keys) - set(INTERNAL_KEYS)
    kept = {key: value for key, value in values.items() if key in wanted}
    if hides is None:
        patches = [] if record is None else exact_patches(record)
        return {"values": kept, "exact": [p for p in patches if p[0] and p[0][0] in kept]}
    shown = hides.document(kind, kept)
    return {"values": {} if shown is None else json.loads(str(shown.value)), "exact": []}


def _code(action: str, test: str, data: dict[str, Any]) -> str:
    """The test; inputs that stand for objects are taken out of the data, to be given in it."""
    module, _, name = action.partition(":")
    parts = [*module.split("."), name]
    if not all(part.isidentifier() and not keyword.iskeyword(part) for part in parts):
        raise StoreError(
            f"no test can import {action!r}. Pass --action MODULE:NAME, the action's function or "
            "class at the top level of a module."
        )
    values = data["inputs"]["values"]
    texts = [key for key, value in values.items() if isinstance(value, str)]
    objects = {key: None for key in texts if _NO_DATA.fullmatch(values[key])}
    for key in objects:
        del values[key]
    constants = f"NOT_RECORDED = {objects!r}  # no data: give them here\n" if objects else ""
    fails, call = data["written"] is None, ", **NOT_RECORDED" if objects else ""
    ran = f"STEP.run({name}{call})"
    return _TEMPLATE.format(
        module=module,
        name=name,
        constants=constants,
        test=test,
        says=_FAILS if fails else _WORKS,
        body=ran if fails else f"assert {ran} == STEP.expected",
    )


def _importable(run: StoredRun, action: str, function: str) -> str:
    """``MODULE:NAME`` of what a recorded function is imported by."""
    module, _, name = function.rpartition(".")
    if name in _METHODS:  # of a class-based action
        module, _, name = module.rpartition(".")
    if module == "__main__":
        graph: Any = run.graph
        with contextlib.suppress(KeyError, TypeError):  # the file is not known
            module = Path(graph["otel"]["actions"][action]["file"]).stem
    return f"{module}:{name}"
