"""The agent and gateway pair: two real agents, two real gateways, one real Jaeger."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from collector_api import AGENT_OVERLAY, BASE_CONFIG, GATEWAY_OVERLAY, Collector
from jaeger_api import Jaeger
from opentelemetry import context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Status, StatusCode
from processes import wait_for
from sending import sending_provider

VERDICTS = "otelcol_processor_tail_sampling_global_count_traces_sampled"
DROPPED = f'{VERDICTS}{{decision="not_sampled"'
WAIT_S = 3


@pytest.fixture
def pair(
    new_collector: Callable[..., Collector], jaeger: Jaeger
) -> tuple[list[Collector], list[Collector]]:
    """Two agents in front of two gateways in front of Jaeger; nothing unremarkable is kept."""
    gateways = [
        new_collector(
            name=f"gateway-{number}",
            configs=[
                BASE_CONFIG,
                GATEWAY_OVERLAY,
                f"yaml:processors::tail_sampling::decision_wait: {WAIT_S}s",  # for minutes
                "yaml:processors::tail_sampling::num_traces: 5000",
            ],
            env={"JAEGER_OTLP_ENDPOINT": jaeger.grpc_endpoint, "OTELCOL_KEEP_PERCENT": "0"},
        )
        for number in range(2)
    ]
    addresses = ", ".join(f"127.0.0.1:{gateway.ports.grpc}" for gateway in gateways)
    agents = [
        new_collector(
            name=f"agent-{number}",
            configs=[BASE_CONFIG, AGENT_OVERLAY],
            env={"OTELCOL_GATEWAYS": f"[{addresses}]"},
        )
        for number in range(2)
    ]
    for collector in (*gateways, *agents):
        collector.server.start()
    return agents, gateways


def one_run(
    providers: list[TracerProvider], *, fails: bool = False, outcome: str = "ok", took_s: float = 0
) -> int:
    """A root from the first machine and three steps from the second; returns the trace id."""
    root = (
        providers[0]
        .get_tracer("run")
        .start_span(
            "root",
            attributes={"burr.outcome": outcome},
            start_time=time.time_ns() - round(took_s * 1e9),
        )
    )
    parent = trace.set_span_in_context(root, context.Context())
    for number in range(3):
        step = providers[1].get_tracer("run").start_span(f"step {number}", context=parent)
        if fails and number == 1:
            step.set_status(Status(StatusCode.ERROR, "broken"))
        step.end()
    root.end()
    return root.get_span_context().trace_id


def test_every_trace_with_an_error_is_kept_whole_across_machines(
    pair: tuple[list[Collector], list[Collector]], jaeger: Jaeger
) -> None:
    """Spans of one trace from two machines meet in one gateway, which keeps all when one failed.

    So it does for a run that was cancelled, dropped or killed, and for a long one.
    """
    agents, gateways = pair
    with (
        sending_provider("machines", "grpc", agents[0].grpc_endpoint) as (first, _),
        sending_provider("machines", "grpc", agents[1].grpc_endpoint) as (second, _),
    ):
        machines = [first, second]
        failed = [one_run(machines, fails=True) for _ in range(16)]
        unfinished = [
            one_run(machines, outcome=outcome) for outcome in ("cancelled", "abandoned", "crashed")
        ]
        remarkable = [*failed, *unfinished, one_run(machines, took_s=61)]
        for _ in range(19):
            one_run(machines)
        one_run(machines, took_s=50)

    for trace_id in remarkable:
        read = jaeger.trace(trace_id, spans=4)
        assert [span.name for span in read.roots] == ["root"]
        assert len(read.spans) == 4
    accepted = [gateway.own_metric("otelcol_receiver_accepted_spans") for gateway in gateways]
    assert sum(accepted) == 160
    assert all(accepted), "one gateway got everything: nothing was balanced"

    def decided() -> bool | None:
        return sum(gateway.own_metric(VERDICTS) for gateway in gateways) >= 40 or None

    wait_for("a verdict on every trace", decided)
    assert set(jaeger.find_traces("machines")) == {f"{trace_id:032x}" for trace_id in remarkable}


def test_a_long_run_that_fails_late_is_kept(
    pair: tuple[list[Collector], list[Collector]], jaeger: Jaeger
) -> None:
    """An error saves what waits for a verdict, what comes after, and itself when it comes too late."""
    agents, gateways = pair
    with sending_provider("long", "grpc", agents[0].grpc_endpoint) as (provider, _):
        tracer = provider.get_tracer("long")
        root = tracer.start_span("root")
        late = tracer.start_span("late root")
        in_run = trace.set_span_in_context(root, context.Context())
        in_late = trace.set_span_in_context(late, context.Context())

        def step(name: str, parent: context.Context, *, fails: bool = False) -> None:
            span = tracer.start_span(name, context=parent)
            if fails:
                span.set_status(Status(StatusCode.ERROR, "broken"))
            span.end()
            provider.force_flush()

        step("fine", in_run)
        step("broken", in_run, fails=True)
        jaeger.trace(root.get_span_context().trace_id, spans=2)
        step("after", in_run)
        root.end()

        step("forgotten", in_late)

        def dropped() -> bool | None:
            return any(gateway.own_metric(DROPPED) for gateway in gateways) or None

        wait_for("the verdict on the late run", dropped)
        step("broken", in_late, fails=True)
        late.end()

    whole = jaeger.trace(root.get_span_context().trace_id, spans=4)
    rest = jaeger.trace(late.get_span_context().trace_id, spans=2)
    assert {span.name for span in whole.spans} == {"root", "fine", "broken", "after"}
    assert {span.name for span in rest.spans} == {"late root", "broken"}
