"""The address of a trace in a backend: presets, and templates of one's own."""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from burr_otel.errors import ConfigError

_PLACEHOLDER: Final = re.compile(r"\{(\w+)\}")
_FILLS: Final = ("trace_id", "project", "app_id", "start_s", "end_s", "start_ms", "end_ms")
# A backend searches within these times, and the root is not the whole trace.
_MARGIN_NS: Final = 3600 * 10**9
_SAMPLED: Final = 1


def _grafana() -> str:
    """Explore of Grafana, which keeps its state as JSON in its address."""
    source = {"type": "tempo", "uid": "tempo"}
    query = {"refId": "A", "datasource": source, "queryType": "traceql", "query": "{trace_id}"}
    times = {"from": "{start_ms}", "to": "{end_ms}"}
    pane = {"datasource": "tempo", "queries": [query], "range": times}
    panes = urllib.parse.quote(json.dumps({"burr": pane}, separators=(",", ":")), safe="")
    panes = re.sub(r"%7B(\w+)%7D", r"{\1}", panes)  # what is filled in later
    return f"/explore?schemaVersion=1&orgId=1&panes={panes}"


class _Preset(NamedTuple):
    base: str  # empty: there is no usual one
    rest: str
    example: str = ""


PRESETS: Final[Mapping[str, _Preset]] = {
    "jaeger": _Preset("http://localhost:16686", "/trace/{trace_id}"),
    # https://docs.honeycomb.io/investigate/collaborate/share-trace/
    "honeycomb": _Preset(
        "",
        "/trace?trace_id={trace_id}&trace_start_ts={start_s}&trace_end_ts={end_s}",
        "https://ui.honeycomb.io/TEAM/environments/ENVIRONMENT",
    ),
    "phoenix": _Preset("http://localhost:6006", "/redirects/traces/{trace_id}"),
    "tempo": _Preset("http://localhost:3000", _grafana()),
}
"""Backends by name; a base address of one's own is written behind it: ``NAME=BASE``."""


class TracePlace(NamedTuple):
    """What a template may name."""

    trace_id: str  # 32 hexadecimal digits
    project: str
    app_id: str
    start_ns: int  # Unix time
    end_ns: int


def recorded_place(
    otel: Mapping[str, Any], project: str, app_id: str, end_ns: int | None = None
) -> TracePlace | None:
    """Where the trace is that the ``otel`` object of a record names; None: it was not traced."""
    trace_id, flags, time_ns = map(otel.get, ("trace_id", "flags", "time_unix_nano"))
    if not isinstance(trace_id, str) or not isinstance(time_ns, int):
        return None
    if isinstance(flags, int) and not flags & _SAMPLED:
        return None
    return TracePlace(trace_id, project, app_id, time_ns, time_ns if end_ns is None else end_ns)


def read_template(text: str) -> str:
    """The template that a setting stands for; raises `ConfigError` when it stands for none."""
    name, _, base = text.strip().partition("=")
    template, preset = text.strip(), PRESETS.get(name.strip().lower())
    if preset is not None:
        base = base.strip().rstrip("/") or preset.base
        if not base:
            raise ConfigError(
                f"{name} does not say whose traces; write {name}={preset.example} with your own."
            )
        template = base + preset.rest
    if urllib.parse.urlsplit(template).scheme not in ("http", "https"):
        raise ConfigError(
            f"{text!r} is no address of a trace; use {', '.join(PRESETS)}, one of these with the "
            "address of its pages (jaeger=https://jaeger.example.com), or a URL with {trace_id}."
        )
    unknown = [found for found in _PLACEHOLDER.findall(template) if found not in _FILLS]
    if unknown or "{trace_id}" not in template:
        what = f"{{{unknown[0]}}} is not known" if unknown else "it names no {trace_id}"
        allowed = ", ".join(f"{{{fill}}}" for fill in _FILLS)
        raise ConfigError(f"{text!r} is no address of a trace: {what}; there are {allowed}.")
    return template


def trace_url(setting: str, place: TracePlace) -> str:
    """The address of a trace, by a setting."""
    start_ns, end_ns = max(0, place.start_ns - _MARGIN_NS), place.end_ns + _MARGIN_NS
    times = (start_ns // 10**9, end_ns // 10**9 + 1, start_ns // 10**6, end_ns // 10**6 + 1)
    told = (*place[:3], *map(str, times))
    texts = (urllib.parse.quote(each, safe="", errors="replace") for each in told)
    fills = dict(zip(_FILLS, texts, strict=True))
    return _PLACEHOLDER.sub(lambda found: fills[found[1]], read_template(setting))
