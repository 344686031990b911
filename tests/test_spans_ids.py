"""Ids do not repeat: not in seeded programs, not in forked children, not by our doing."""

import os
import random

import apps
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from programs import in_child

from burr_otel import OtelTracker
from burr_otel.spans import provider
from burr_otel.spans.start import SystemSeededIds, id_generator, ids
from burr_otel.testing import FixedIds


@pytest.fixture(autouse=True)
def _own_providers(monkeypatch):
    monkeypatch.setattr(provider, "_own", {})


def test_a_seeded_program_gets_other_ids_each_time():
    """`random.seed(42)` decides what the program draws, and none of our ids."""
    drawn = set()
    for _ in range(3):
        random.seed(42)
        drawn |= {ids.generate_trace_id(), ids.generate_span_id()}
    assert len(drawn) == 6


def test_our_ids_leave_the_programs_own_numbers_alone():
    """What a seeded program draws does not depend on how many ids were made."""
    random.seed(42)
    expected = random.random()
    random.seed(42)
    ids.generate_trace_id()
    assert random.random() == expected


def test_ids_have_the_right_size_and_are_valid():
    """Never zero, which is invalid; the whole width is used."""

    class Bits:
        def __init__(self):
            self.values = [0, 5, 0, 7]

        def getrandbits(self, width):
            return self.values.pop(0)

    made = SystemSeededIds()
    assert made.generate_trace_id().bit_length() > 64
    assert made.generate_span_id() < 2**64
    made._random_bits = Bits().getrandbits
    assert (made.generate_span_id(), made.generate_trace_id()) == (5, 7)


def test_a_forked_child_goes_on_with_other_ids():
    """Else every worker of a pre-forking server would make the same ones."""
    ours, theirs = os.pipe()
    assert in_child(lambda: os.write(theirs, ids.generate_trace_id().to_bytes(16, "big"))) == 0
    assert int.from_bytes(os.read(ours, 16), "big") != ids.generate_trace_id()


class Numbered(RandomIdGenerator):
    """Somebody's own, made from the SDK's."""


@pytest.mark.parametrize("own", [FixedIds(), Numbered()])
def test_a_provider_with_a_generator_of_its_own_keeps_it(own):
    """AWS X-Ray wants ids of its own kind, and tests want fixed ones."""
    assert id_generator(TracerProvider(id_generator=own, shutdown_on_exit=False)) is own


@pytest.mark.parametrize("made_by", [TracerProvider(shutdown_on_exit=False), object()])
def test_in_place_of_the_sdks_generator_ours_is_used(made_by):
    """The SDK's draws on the global `random`; a provider that tells of none leaves it to us."""
    assert id_generator(made_by) is ids


def test_runs_of_a_seeded_program_are_traces_of_their_own(tmp_path):
    """With the provider that we make, spans of other instrumentations too."""
    tracker, traces = OtelTracker("proj", tmp_path), set()
    for number in range(3):
        random.seed(42)
        app = apps.counter(tracker, f"a{number}")
        app.step()
        own = provider.tracer_provider(None, "proj").get_tracer("http").start_span("GET /")
        traces |= {own.get_span_context().trace_id, app_trace(tracker, f"a{number}")}
    assert len(traces) == 6


def app_trace(tracker, app_id):
    return int(tracker.trace_url(app_id).rpartition("/")[2].partition("?")[0], 16)
