"""The scenario table, in memory."""

import pytest
from scenarios import SCENARIOS

from burr_otel import OtelTracker


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(name, spans, tmp_path, caplog):
    """The traces are those of the table, each complete, and OpenTelemetry has no complaint."""
    scenario = SCENARIOS[name]

    def make(**settings):
        return OtelTracker("proj", tmp_path, tracer_provider=spans.provider, **settings)

    scenario.run(make, spans.provider.get_tracer("service"))
    # Children of spawned applications have trackers of their own.
    from burr_otel.spans import keeper

    keeper.keeper.finish_all()
    assert spans.tree() == scenario.tree
    assert len({s.context.trace_id for s in spans.spans}) == scenario.traces
    assert not [r for r in caplog.records if r.name.startswith("opentelemetry")]
