"""An application's graph, as ``graph.json`` holds it for the Burr UI."""

from __future__ import annotations

import hashlib
import json
import weakref
from typing import Any

from burr.core import Action

from burr_otel.store.encoded import encode_text

__all__ = ["digest", "graph_json", "same"]

_NO_SOURCE = "No source available"
_sources: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


def graph_json(graph: Any) -> bytes:
    """What ``graph.json`` holds of an `ApplicationGraph`."""
    actions = [
        b'{"type":"action","name":%b,"reads":%b,"writes":%b,"code":%b,"inputs":%b,'
        b'"optional_inputs":%b}'
        % (
            encode_text(action.name),
            _texts(action.reads),
            _texts(action.writes),
            encode_text(_source(action)),
            _texts(sorted(action.optional_and_required_inputs[0])),
            _texts(sorted(action.optional_and_required_inputs[1])),
        )
        for action in graph.actions
    ]
    transitions = [
        b'{"type":"transition","from_":%b,"to":%b,"condition":%b}'
        % (
            encode_text(item.from_.name),
            encode_text(item.to.name),
            encode_text(item.condition.name),
        )
        for item in graph.transitions
    ]
    return b'{"type":"application","entrypoint":%b,"actions":[%b],"transitions":[%b]}' % (
        encode_text(graph.entrypoint.name),
        b",".join(actions),
        b",".join(transitions),
    )


def digest(graph: bytes) -> str:
    """A short name of one graph, to tell changed ones apart."""
    return hashlib.sha256(graph).hexdigest()[:16]


def same(left: bytes, right: bytes) -> bool:
    """Whether two files hold the same graph, however they spell it."""
    try:
        return bool(_comparable(json.loads(left)) == _comparable(json.loads(right)))
    except ValueError:
        return False


def _texts(items: Any) -> bytes:
    return b"[%b]" % b",".join([encode_text(str(item)) for item in items])


def _comparable(graph: Any) -> Any:
    """A graph in which the order of inputs, which Burr takes from a set, does not matter."""
    if not isinstance(graph, dict):
        return graph
    actions = []
    for action in graph.get("actions", ()):
        inputs = {name: sorted(action.get(name, ())) for name in ("inputs", "optional_inputs")}
        actions.append({**action, **inputs})
    return {**graph, "actions": actions}


def _source(action: Any) -> str:
    """An action's source; reading it takes milliseconds, and servers build a graph per request."""
    key = _source_key(action)
    try:
        source = None if key is None else _sources.get(key)
        if source is None:
            source = str(action.get_source())
            if key is not None:
                _sources[key] = source
    except Exception:  # functions made by exec or typed into a prompt have none
        return _NO_SOURCE
    return source


def _source_key(action: Any) -> Any:
    """What determines an action's source; None when only asking tells."""
    function = getattr(action, "_originating_fn", None)
    if function is not None:
        wrapped = hasattr(function, "__wrapped__")
        return function if wrapped else getattr(function, "__code__", None)
    kind = type(action)
    return kind if kind.get_source is Action.get_source else None
