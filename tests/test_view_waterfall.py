"""The waterfall as text."""

import codecs
import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console
from trees import run_tree

from burr_otel.cli.app import _stand_in
from burr_otel.history.read import ChildRun, Pointer
from burr_otel.history.tree import SpanNode
from burr_otel.records import Raised, SpanIds, StreamMark
from burr_otel.view.drawing import Waterfall, header

T0 = 1_700_000_000_000_000_000
MS = 10**6


def span(kind, name, start_ms, end_ms, *children, **fields):
    end_ns = None if end_ms is None else T0 + end_ms * MS
    made = SpanNode(kind, name, T0 + start_ms * MS, end_ns, app_id="app", **fields)
    made.children = list(children)
    return made


def step(seq, name, start_ms, end_ms, *children, **fields):
    return span("step", name, start_ms, end_ms, *children, sequence_id=seq, **fields)


def run(*sessions, **fields):
    return run_tree("proj", "app", "/store/proj/app", sessions=list(sessions), **fields)


def draw(view, width=60, encoding="utf-8", **options):
    codecs.register_error("stand_in", _stand_in)
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n", errors="stand_in")
    console = Console(file=file, width=width, legacy_windows=False, **options)
    console.print(Waterfall(view.sessions))
    file.flush()
    return file.buffer.getvalue().decode(encoding)


def small(**fields):
    return run(
        span(
            "application",
            "invoke_workflow proj",
            0,
            1000,
            step(0, "ask", 0, 250, span("span", "model", 100, 250)),
            step(1, "fetch", 250, 500, outcome="error", failure=Raised("OSError", "gone", "")),
            step(2, "write", 500, 1000, marks=[StreamMark("first_item_stream", 0, T0 + 750 * MS), StreamMark("end_stream", 0, T0 + 999 * MS, 9)]),
        ),
        **fields,
    )  # fmt: skip


def test_bars_stand_where_their_time_is():
    """One line a span: sign, indented name, bar in its time, duration; failures say why."""
    assert draw(small()).splitlines() == [
        "  invoke_workflow proj ━━━━━━━━━━━━━━━━━━━━━━━━━━━━   1.00 s",
        "    0 ask              ━━━━━━━                        250 ms",
        "      model              ╺━━━━                        150 ms",
        "✗   1 fetch                   ━━━━━━━                 250 ms",
        "      OSError: gone",
        "    2 write                          ━━━━━━━◆━━━━━━   500 ms",
        "      first item after 250 ms, 9 items",
    ]


def test_forty_columns_are_enough():
    """Names are cut, bars and durations stay."""
    assert draw(small(), 40).splitlines() == [
        "  invoke_workflow… ━━━━━━━━━━━━   1.00 s",
        "    0 ask          ━━━            250 ms",
        "      model         ━━            150 ms",
        "✗   1 fetch           ━━━         250 ms",
        "      OSError: gone",
        "    2 write              ━━━◆━━   500 ms",
        "      first item after 250 ms, 9 items",
    ]


def test_a_terminal_without_unicode_gets_ascii():
    """The C locale can not print box characters."""
    lines = draw(small(), encoding="ascii").splitlines()
    assert lines[3] == "x   1 fetch                   =======                 250 ms"
    assert lines[5] == "    2 write                          =======*======   500 ms"


@pytest.mark.parametrize("width", [1, 12, 20, 40, 41, 79, 80, 200])
def test_no_line_is_wider_than_the_terminal(width):
    """Also with deep nesting, wide characters and long messages."""
    deep = span("span", "深" * 50, 0, 900)
    for level in range(40):
        deep = span("span", f"level {level}", 0, 900, deep)
    failed = step(
        0, "n" * 300, 0, 900, deep, outcome="error", failure=Raised("E" * 90, "字" * 9999, "")
    )
    view = run(span("application", "r", 0, 1000, failed))
    assert all(cell_len(line) <= width for line in draw(view, width).splitlines())


def test_long_messages_take_three_lines():
    """A message of megabytes does not scroll the waterfall away; its cut is marked."""
    view = run(
        span(
            "application",
            "r",
            0,
            9,
            step(0, "s", 0, 9, outcome="error", failure=Raised("E", "words " * 10**6, "")),
        )
    )
    lines = draw(view).splitlines()
    assert len(lines) == 5
    assert lines[-1].endswith("…")


def test_outcomes_differ_without_colour():
    """Failed, stopped and running ones have signs, so a plain file tells them apart."""
    outcomes = ["ok", "error", "crashed", "cancelled", "abandoned", "running"]
    steps = [step(n, "s", n, n + 1, outcome=outcome) for n, outcome in enumerate(outcomes)]
    lines = draw(run(span("application", "r", 0, 9, *steps))).splitlines()
    signs = [line[0] for line in lines if re.match(r".   \d s ", line)]
    assert signs == [" ", "✗", "✗", "⊘", "⊘", "…"]


def test_colours_mark_failures():
    """On a terminal a failed step and its message are red."""
    drawn = draw(small(), force_terminal=True, color_system="standard", no_color=False)
    assert re.search(r"\x1b\[31m✗ .*fetch", drawn)
    assert re.search(r"\x1b\[31mOSError: gone", drawn)


def test_hostile_names_are_neutralised():
    """Neither escape sequences nor Rich's own markup act."""
    view = run(
        span(
            "application",
            "[red]r[/red] :smile:",
            0,
            9,
            step(0, "\x1b[2Jx\r\n", 0, 9, outcome="error", failure=Raised("E", "\x1b]0;t\x07", "")),
        ),
        partition_key="\x1b[31m",
    )
    drawn = draw(view, 100) + "".join(text.plain for text in header(view))
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", drawn)
    assert "[red]r[/red] :smile:" in drawn
    assert "␛[2Jx" in drawn
    assert "␛]0;t␇" in drawn


def test_long_pauses_are_cut_and_named():
    """A chat that waited an hour for its user shows both turns, and how long the wait was."""
    hour = 3600_000
    view = run(
        span(
            "application",
            "chat",
            0,
            hour + 2000,
            step(0, "a", 0, 1000),
            step(1, "b", hour + 1000, hour + 2000),
        )
    )
    lines = draw(view, 50).splitlines()
    assert lines[2] == "  ··· 1h 00m pause ···"
    assert lines[1].count("━") > 8
    assert lines[3].count("━") > 8


def test_sessions_are_drawn_one_below_the_other():
    """A resumed run has a scale for each session, so that neither squeezes the other."""
    later = 86_400_000
    view = run(
        span("application", "r", 0, 100, step(0, "a", 0, 100)),
        span("application", "r", later, later + 100, step(1, "b", later, later + 100)),
    )
    lines = draw(view, 50).splitlines()
    assert [line[:9] for line in lines if line.startswith("session")] == ["session 1", "session 2"]
    bars = [re.sub(r"[^━╸╺ ]", "", line[10:]) for line in lines if "━" in line]
    assert len({bar.count("━") for bar in bars}) == 1


def test_header_names_everything_needed_to_go_on():
    """Ids, folder, relatives and totals, each once and never cut."""
    view = small(
        partition_key="user-7",
        forked_from=Pointer("older", 3),
        spawned_by=Pointer("boss", 1),
        children=[
            ChildRun("kid", "spawn", 1),
            *(ChildRun(f"fork-{n}", "fork", n) for n in range(7)),
        ],
        skipped=["12 bytes at offset 40: not JSON"],
    )
    view.sessions[0].ids = SpanIds(int("ab" * 16, 16), 1)
    view.run.place = "/very/" + "long/" * 60
    lines = [text.plain for text in header(view)]
    assert lines[0] == "proj/app  ok"
    assert lines[1] == "trace   " + "ab" * 16
    assert lines[2] == "place   " + view.run.place
    assert lines[3:6] == [
        "key     user-7",
        "parent  forked from older at step 3",
        "parent  spawned by boss at step 1",
    ]
    assert lines[6:12] == [f"fork    fork-{n} at step {n}" for n in range(5)] + [
        "fork    and 2 more"
    ]
    assert lines[12].endswith("1.00 s, 3 steps, 1 failed")
    assert lines[13] == "skipped 12 bytes at offset 40: not JSON"


def test_an_empty_log_is_said_to_be_empty():
    """A run that was built and never ran has no bars and no totals."""
    view = run()
    assert draw(view) == ""
    assert header(view)[-1].plain == "began   never: its log is empty"
