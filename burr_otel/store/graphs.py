"""An application's graph, as ``graph.json`` holds it for the Burr UI."""

from __future__ import annotations

import hashlib
import inspect
import sys
import weakref
from typing import Any, Final

from burr_otel.records import encode_json

_NO_SOURCE: Final = "No source available"
_sources: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


def graph_json(graph: Any) -> bytes:
    """What ``graph.json`` holds of an `ApplicationGraph`."""
    actions = [
        {
            "type": "action",
            "name": action.name,
            "reads": list(map(str, action.reads)),
            "writes": list(map(str, action.writes)),
            "code": _source(action),
            "inputs": sorted(action.optional_and_required_inputs[0]),
            "optional_inputs": sorted(action.optional_and_required_inputs[1]),
        }
        for action in graph.actions
    ]
    transitions = [
        {
            "type": "transition",
            "from_": item.from_.name,
            "to": item.to.name,
            "condition": item.condition.name,
        }
        for item in graph.transitions
    ]
    tree = {
        "type": "application",
        "entrypoint": graph.entrypoint.name,
        "actions": actions,
        "transitions": transitions,
        "otel": {"actions": {action.name: _facts(action) for action in graph.actions}},
    }
    return encode_json(tree)


def digest(graph: bytes) -> str:
    """A short name of one graph, to tell changed ones apart."""
    return hashlib.sha256(graph).hexdigest()[:16]


def _facts(action: Any) -> dict[str, Any]:
    """What Burr's layout has no field for: an action's tags, and where its code is."""
    facts: dict[str, Any] = {"tags": list(map(str, action.tags))}
    # Around a function of pydantic models Burr puts one of its own.
    function = getattr(action, "_originating_fn", None) or getattr(action, "fn", None)
    kind = None
    if function is None:
        kind, prefix = type(action), "stream_" if action.streaming else ""
        function = getattr(kind, prefix + ("run_and_update" if action.single_step else "run"), None)
    function = inspect.unwrap(function) if callable(function) else None
    code = getattr(function, "__code__", None)
    if function is None or code is None:
        return facts
    facts |= {"file": code.co_filename, "line": code.co_firstlineno}
    module, name = function.__module__, function.__qualname__
    if kind is not None:  # it may inherit the method: parallel actions have Burr's
        if module != kind.__module__:
            file = getattr(sys.modules.get(kind.__module__), "__file__", None)
            facts |= {"file": file, "line": None}
        module, name = kind.__module__, f"{kind.__qualname__}.{function.__name__}"
    return {**facts, "function": f"{module}.{name}"}


def _source(action: Any) -> str:
    """An action's source; reading it takes milliseconds, and servers build a graph per request."""
    key = _source_key(action)
    try:
        if key is None:
            return str(action.get_source())
        if key not in _sources:
            _sources[key] = str(action.get_source())
        return _sources[key]
    except Exception:  # functions made by exec or typed into a prompt have none
        return _NO_SOURCE


def _source_key(action: Any) -> Any:
    """What determines an action's source; None when only asking tells."""
    function = getattr(action, "_originating_fn", None)
    if function is not None:
        wrapped = hasattr(function, "__wrapped__")
        return function if wrapped else getattr(function, "__code__", None)
    from burr.core import Action  # noqa: PLC0415 - what reads graphs needs no Burr

    kind = type(action)
    return kind if kind.get_source is Action.get_source else None
