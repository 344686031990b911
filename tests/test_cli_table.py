"""The table of `burr-otel list` in terminals of any width."""

import dataclasses
import uuid

import pytest
from rich.cells import cell_len

from burr_otel.cli.list_runs import run_table
from burr_otel.view.find import RunSummary

TRACE = "0af7651916cd43dd8448eb211c80319c"


def runs(count=3, **changes):
    fields = {
        "partition_key": None,
        "started_ns": 1_700_000_000_000_000_000,
        "last_ns": 1_700_000_004_000_000_000,
        "steps": 12,
        "last_action": "write_answer",
        "status": "ok",
        "trace_id": TRACE,
        **changes,
    }
    return [
        RunSummary(f"project-{n}", str(uuid.UUID(int=n + (1 << 127))), **fields)
        for n in range(count)
    ]


def drawn(found, width=None):
    return [line.plain for line in run_table(found, width)]


def titles(found, width=None):
    head = drawn(found, width)[0]
    head = head.replace("app id", "app_id")
    return head.replace("last action", "last_action").split()


@pytest.mark.parametrize("width", range(20, 200, 7))
def test_no_line_is_longer_than_the_terminal(width):
    """Whatever stands in the columns."""
    found = runs(partition_key="ann@example.org", last_action="漢字" * 9)
    assert max(map(cell_len, drawn(found, width))) <= width


@pytest.mark.parametrize("width", [48, 60, 80, 100, 120])
def test_app_ids_stand_in_full_as_long_as_they_fit_beside_the_status(width):
    """Other columns go first: half a UUID cannot be copied."""
    found = runs()
    for line, run in zip(drawn(found, width)[2:], found, strict=True):
        assert line.startswith(run.app_id)
        assert " ok" in line


def test_an_app_id_is_cut_only_when_nothing_else_is_left():
    """Below that, its beginning stands, which other commands take."""
    assert titles(runs(), 30) == ["app_id", "status"]
    line = drawn(runs(), 30)[2]
    assert line.startswith("80000000-0000")
    assert "…" in line


def test_the_trace_id_is_there_in_full_as_soon_as_it_fits():
    """At 120 columns beside UUIDs of several projects; it is never cut."""
    assert TRACE in drawn(runs(), 120)[2]
    for width in range(20, 200):
        line = drawn(runs(), width)[2]
        assert TRACE in line or TRACE[:5] not in line


def test_ids_that_burr_made_of_a_hash_leave_room_for_what_a_person_reads():
    """Parallel applications have ids of 64 digits; a file or a pipe gets them in full."""
    found = runs()
    found[1] = dataclasses.replace(found[1], app_id="0123456789abcdef" * 4)
    assert "0123456789abcdef…  " in drawn(found, 120)[3]
    assert TRACE in drawn(found, 120)[3]
    assert "0123456789abcdef" * 4 in drawn(found)[3]


def test_a_column_that_tells_nothing_gives_way():
    """One project for all, or no partition at all, leaves its room to others."""
    same = [run for run in runs() if run.project == "project-0"] * 2
    assert "project" not in titles(same, 100)
    assert "project" in titles(runs(), 100)
    assert "partition" not in titles(runs(), 400)
    assert "partition" in titles(runs(partition_key="ann"), 400)


def test_without_a_width_nothing_is_cut_or_left_out():
    """For pipes and --wide."""
    found = runs(partition_key="k" * 90, last_action="a" * 90)
    assert titles(found) == [
        "app_id",
        "project",
        "partition",
        "started",
        "took",
        "steps",
        "last_action",
        "tokens",
        "status",
        "trace",
        "began",
        "with",
    ]
    line = drawn(found)[2]
    for text in (found[0].app_id, "k" * 90, "a" * 90, TRACE):
        assert text in line


def test_names_keep_to_their_line_and_do_not_act():
    """A line break in a name makes no row, an escape sequence no colour."""
    found = runs(1, partition_key="a\nb", last_action="\x1b[2J\u202e")
    (row,) = drawn(found)[2:]
    assert "a b" in row
    assert "\x1b" not in row
    assert "\u202e" not in row
