"""What is drawn of a run that goes on."""

import io

import pytest
from rich.console import Console
from trees import run_tree

from burr_otel.history.tree import SpanNode
from burr_otel.records import Raised
from burr_otel.view.drawing import frame, grow

T0 = 1_700_000_000_000_000_000
S = 10**9


def step(seq, start_s, end_s=None, **fields):
    return SpanNode(
        "step",
        f"step{seq}",
        T0 + start_s * S,
        None if end_s is None else T0 + end_s * S,
        app_id="app",
        sequence_id=seq,
        **fields,
    )


def view_of(*steps, outcome="running"):
    session = SpanNode("application", "run", T0, None, outcome, "app", children=list(steps))
    return run_tree("proj", "app", "/store/proj/app", sessions=[session])


def draw(view, height):
    file = io.StringIO()
    Console(file=file, width=60, height=height).print(frame(view, height))
    return file.getvalue().splitlines()


def test_what_runs_grows_to_now():
    """A running step is drawn up to this moment, an ended one stays as it was."""
    view = view_of(step(0, 0, 1), step(1, 1, outcome="running"))
    grow(view, T0 + 9 * S)
    assert [s.end_ns - T0 for s in view.steps] == [1 * S, 9 * S]
    assert view.sessions[0].end_ns == T0 + 9 * S


@pytest.mark.parametrize("height", [20, 30, 50])
def test_a_long_run_fits_the_terminal(height):
    """The newest steps are in sight, and how many are not is told."""
    steps = [step(n, n, n + 1) for n in range(500)]
    steps.append(
        step(500, 500, 501, outcome="error", failure=Raised("E", "long " * 100, "")),
    )
    lines = draw(view_of(*steps), height)
    assert len(lines) <= height
    text = "\n".join(lines)
    assert "500 step500" in text
    assert "earlier steps" in text
    assert "0 step0" not in text


def test_a_short_run_is_shown_whole():
    """Nothing is hidden that fits."""
    lines = draw(view_of(step(0, 0, 1), step(1, 1, 2)), 50)
    assert not any("earlier" in line for line in lines)
    assert any("0 step0" in line for line in lines)


def test_a_run_without_a_session_has_a_header():
    """A log that is still empty can be followed."""
    assert draw(run_tree("proj", "app", "/x"), 20)[0].startswith("proj/app")
