"""What a notebook shows of a tracker and of a run."""

import subprocess
import sys

import apps
import nbformat
import pytest
from burr.core import State, action
from nbclient import NotebookClient

from burr_otel import OtelTracker, UnknownRunError

HOSTILE = "</td></table><script>window.owned=1</script><img src=x onerror=window.owned=1>"
FIRST_CELL = """
from burr.core import ApplicationBuilder, State, action
from burr_otel import OtelTracker

@action(reads=[], writes=["n"])
def count(state: State) -> State:
    return state.update(n=1)

tracker = OtelTracker("demo", "{place}")
builder = ApplicationBuilder().with_actions(count).with_entrypoint("count").with_state(n=0)
app = builder.with_tracker(tracker).with_identifiers(app_id="first").build()
app.step()
"""


@action(reads=[], writes=["n"])
def count(state: State) -> State:
    return state.update(n=1)


def test_a_notebook_draws_tracker_and_run_and_prints_text(tmp_path, monkeypatch):
    """The last expression of a cell is drawn as HTML, and print writes the terminal's waterfall."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    sources = [
        FIRST_CELL.format(place=tmp_path),
        "tracker",
        "tracker.run('first')",
        "print(tracker.run())",
    ]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    tracker, run, text = (cell.outputs for cell in notebook.cells[1:])
    assert tracker[0].data["text/plain"] == f"OtelTracker('demo', '{tmp_path}')"
    for shown in (tracker[0].data["text/html"], run[0].data["text/html"]):
        assert "demo/first" in shown
        assert "0 count" in shown
        assert "<script" not in shown
    assert run[0].data["text/plain"].startswith("<run demo/first: running, ")
    assert [each.output_type for each in text] == ["stream"]
    assert "0 count" in text[0].text


def test_without_a_run_there_is_the_tracker_alone(tracker, tmp_path):
    """An empty project is no error in a cell."""
    assert tracker._repr_html_().startswith("<code>OtelTracker(")
    with pytest.raises(UnknownRunError):
        tracker.run()
    with pytest.raises(UnknownRunError):
        tracker.run("nobody")


def test_the_newest_run_of_the_project_is_shown_by_a_tracker_that_made_none(tracker, tmp_path):
    """A notebook is where people look at what a service has recorded."""
    with tracker:
        apps.single(tracker, count, state={"n": 0}, app_id="served").step()
    reader = OtelTracker(tracker.project_id, tmp_path)
    assert repr(reader.run()).startswith(f"<run {tracker.project_id}/served: ok, ")


def test_hostile_texts_are_text_and_secrets_are_hidden(tracker):
    """Names and messages of a run are data, and redacted as on its spans."""

    @action(reads=[], writes=["n"])
    def fail(state: State) -> State:
        raise ValueError(f"password=hunter2 {HOSTILE}")

    with tracker:
        app = apps.single(tracker, fail, state={"n": 0})
        with pytest.raises(ValueError, match="hunter2"):
            app.step()
    for shown in (tracker._repr_html_(), str(tracker.run())):
        assert "ValueError: password=[redacted]" in shown
        assert "hunter2" not in shown
    assert "<script" not in tracker._repr_html_()
    assert "<img" not in tracker._repr_html_()


def test_a_long_run_is_drawn_in_part(tracker):
    """A cell of a notebook stays small, and says what it leaves out."""
    with tracker:
        app = apps.single(tracker, count, state={"n": 0})
        for _ in range(300):
            app.step()
    shown = tracker._repr_html_()
    assert "100 steps left out" in shown
    assert "0 step" in shown
    assert "299 step" in shown


def test_nothing_that_draws_is_imported_before_a_run_is_looked_at():
    """A service never looks."""
    code = "import sys, burr_otel.tracker; print([m for m in sys.modules if m.startswith('burr_otel.view')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
