"""Hostile values at every entry point, through a real exporter and collector: no span is lost."""

from __future__ import annotations

import contextlib
import json
import pathlib
from typing import Any

import pytest
from apps import builder
from burr.core import State, action, application, default
from collector_api import Collector
from hostile import ZOO
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jaeger_api import Jaeger
from opentelemetry.sdk.trace import ReadableSpan
from processes import wait_for
from sending import PROTOCOLS, sending_provider

from burr_otel import OtelTracker
from burr_otel.spans import keeper
from burr_otel.testing import manual_roots

JSON_ATTRIBUTES = ("burr.inputs", "burr.result", "burr.state.written", "burr.graph")


class OddError(Exception):
    """An exception with any value for an argument."""


@action(reads=["seed"], writes=["kept"])
def everywhere(state: State, given: Any, __tracer: Any) -> tuple[dict[str, Any], State]:
    """Put a value into every place that a user's action has."""
    with __tracer(given if isinstance(given, str) else "inner") as span:
        span.log_attributes(value=given, many=[given, given], deep={"a": {"b": given}})
    __tracer.log_attributes(on_step=given)
    return {"value": given}, state.update(kept=given)


@action(reads=["seed"], writes=["kept"])
def fails(state: State, given: Any) -> State:
    """Raise an exception that holds a value."""
    raise OddError(given) from OddError(given)


def run_with(tracker: OtelTracker, app_id: str, value: Any) -> None:
    """One application that takes, keeps, logs and raises `value`."""
    app = (
        builder(tracker, app_id, everywhere=everywhere, fails=fails)
        .with_transitions(("everywhere", "fails", default), ("fails", "everywhere", default))
        .with_state(seed=0)
        .with_entrypoint("everywhere")
        .build()
    )
    for _ in range(2):
        # Burr's own copying of state may refuse a value as well.
        with contextlib.suppress(Exception):
            app.step(inputs={"given": value})


def check_all_arrived(sent: list[ReadableSpan], service: str, jaeger: Jaeger) -> None:
    """Jaeger has every span that was ended, and what should be JSON is."""
    wanted = {span.context.span_id for span in sent}

    def probe() -> dict[int, ReadableSpan] | None:
        found = {
            span.context.span_id: span
            for spans in jaeger.find_traces(service, limit=10_000).values()
            for span in spans
        }
        return found if wanted <= set(found) else None

    read = wait_for(f"{len(wanted)} spans of {service}", probe)
    for span_id in wanted:
        for name in JSON_ATTRIBUTES:
            if name in read[span_id].attributes:
                json.loads(read[span_id].attributes[name])


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Burr formats all inputs and the exception of a failing step for its log, without bound."""
    monkeypatch.setattr(application, "_format_BASE_ERROR_MESSAGE", lambda *_: "failed")
    monkeypatch.setattr(application.logger, "disabled", True)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_span_of_a_hostile_batch_is_lost(
    protocol: str, collector: Collector, jaeger: Jaeger, tmp_path: pathlib.Path
) -> None:
    """Each value of the zoo as input, result, state, logged attribute, name and exception."""
    service = f"hostile-{protocol.partition('/')[0]}"
    with (
        manual_roots(),
        sending_provider(service, protocol, collector.endpoint(protocol)) as (made, kept),
    ):
        # Spans only: a store must keep all of a ten-million-element list, and takes its time.
        tracker = OtelTracker("hostile", tmp_path, tracer_provider=made, snapshots="off")
        for number, (_, make) in enumerate(ZOO):
            try:
                value = make()
            except pytest.skip.Exception:
                continue
            run_with(tracker, f"zoo-{number}", value)
        keeper.keeper.finish_all()
    sent = list(kept.get_finished_spans())
    assert len([s for s in sent if s.parent is None]) > 100
    check_all_arrived(sent, service, jaeger)


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())  # with lone surrogates
    | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(st.characters()) | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(values=st.lists(ANYTHING, min_size=1, max_size=8))
def test_no_span_of_an_arbitrary_batch_is_lost(
    values: list[Any],
    collector: Collector,
    jaeger: Jaeger,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Arbitrary nested values, several to a batch, so that one cannot take the others with it."""
    folder = tmp_path_factory.mktemp("store")
    with (
        manual_roots(),
        sending_provider("arbitrary", "grpc", collector.grpc_endpoint) as (made, kept),
    ):
        tracker = OtelTracker("arbitrary", folder, tracer_provider=made, on_snapshot_error="warn")
        for number, value in enumerate(values):
            run_with(tracker, f"any-{number}", value)
        keeper.keeper.finish_all()
    check_all_arrived(list(kept.get_finished_spans()), "arbitrary", jaeger)
