"""The HTML page: built from views, opened in a real browser."""

import html
import json
import re
import shutil

import browser
import pytest
from cli_support import RECORDED, run
from trees import run_tree

from burr_otel.cli import cli, show
from burr_otel.history.read import ChildRun, Pointer
from burr_otel.history.tree import SpanNode
from burr_otel.records import LinkIds, Raised, SpanIds, StreamMark, Usage
from burr_otel.view.diff import MISSING, Change
from burr_otel.view.page import html_page

T0 = 1_700_000_000_000_000_000
MS = 10**6
HOSTILE = (
    "</script><script>window.owned=1</script><img src=x onerror=window.owned=1>\u202e\x1b[2J&amp;"
)

needs_browser = pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """An open browser page, shared by the tests of this file."""
    with browser.chromium(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def span(kind, name, start_ms, end_ms, *children, **fields):
    made = SpanNode(kind, name, T0 + start_ms * MS, T0 + end_ms * MS, app_id="app", **fields)
    made.children = list(children)
    return made


def view_of(*steps, **fields):
    end_ms = max((step.end_ns - T0) // MS for step in steps)
    root = span("application", "invoke_workflow proj", 0, end_ms, *steps)
    return run_tree("proj", "app", "/store/proj/app", sessions=[root], **fields)


def three_steps():
    return view_of(
        span("step", "ask", 0, 250, span("span", "model", 100, 250), sequence_id=0),
        span(
            "step",
            "fetch",
            250,
            500,
            sequence_id=1,
            outcome="error",
            failure=Raised("OSError", "gone", "Traceback\n  line\nOSError: gone"),
            details={"inputs": {"url": "https://example.org/needle"}},
            attributes={"attempt": 3},
        ),
        span(
            "step",
            "write",
            500,
            1000,
            sequence_id=2,
            marks=[StreamMark("first_item_stream", 0, T0 + 750 * MS)],
        ),
    )


def hostile_view():
    return run_tree(
        "proj",
        HOSTILE,
        HOSTILE,
        partition_key=HOSTILE,
        sessions=[
            span(
                "application",
                HOSTILE,
                0,
                9,
                span(
                    "step",
                    HOSTILE,
                    0,
                    9,
                    sequence_id=0,
                    outcome="error",
                    failure=Raised(HOSTILE, HOSTILE, HOSTILE),
                    details={"inputs": {HOSTILE: HOSTILE}},
                    attributes={HOSTILE: HOSTILE},
                    links=[LinkIds(SpanIds(1, 2), HOSTILE)],
                ),
            )
        ],
    )


def data_of(text):
    raw = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1]
    return json.loads(raw)


def test_the_page_needs_nothing_else():
    """No address outside the page is in its markup, and its policy would not allow one."""
    text = html_page(three_steps())
    markup = text.replace(json.dumps(data_of(text)), "")
    assert not re.search(r"(src|href)\s*=|@import|url\(", markup.partition('id="data"')[0])
    assert "default-src 'none'" in text


def test_no_text_breaks_out_of_the_markup():
    """Whatever a name or value holds, the page has the elements that it should have and no more."""
    text = html_page(hostile_view())
    assert text.count("<script") == 2
    assert text.count("</script>") == 2
    assert "<img" not in text
    assert html.escape("</script><script>window.owned=1") in text
    assert "\u202e" not in text
    assert "\x1b" not in text


def test_large_values_are_cut():
    """A page of megabytes for each step could not be opened; what was cut is told."""
    step = span("step", "s", 0, 9, sequence_id=0, details={"result": {"text": "x" * 500_000}})
    text = html_page(view_of(step))
    assert len(text) < 80_000
    (part,) = data_of(text)["rows"][1]["parts"]
    assert part["text"].endswith("…")
    assert "burr-otel show --step" in part["cut"]


def test_many_large_values_do_not_add_up(monkeypatch):
    """Beyond a budget for the whole page, values are cut much shorter."""
    import burr_otel.view.page as module

    monkeypatch.setattr(module, "_PAGE_BUDGET", 50_000)
    steps = [
        span("step", "s", n, n + 1, sequence_id=n, details={"result": {"t": "x" * 15_000}})
        for n in range(100)
    ]
    assert len(html_page(view_of(*steps))) < 200_000


def test_of_a_long_run_the_page_has_both_ends(monkeypatch, capsys):
    """A page of 50,000 steps takes a minute to make; what is left out is told, and how to see it."""
    monkeypatch.setattr(show, "_STEPS_ON_PAGE", (2, 3))
    where = ("--storage-dir", str(RECORDED), "-p", "demo_chatbot")
    cli.main(["show", "chat-1-giraffe", "--html", "-", *where], standalone_mode=False)
    rows = data_of(capsys.readouterr().out)["rows"]
    assert [row["number"] for row in rows if row["kind"] == "step"] == [0, 1, 27, 28, 29]
    assert [row["name"] for row in rows if row["kind"] == "note"] == [
        "25 steps left out; show --json has all, --step N one"
    ]


@needs_browser
def test_rows_and_details_in_a_browser(page, tmp_path):
    """Bars stand where their time is; a click shows everything about a step."""
    (tmp_path / "run.html").write_text(html_page(three_steps()), "utf-8")
    page.problems.clear()
    page.open(tmp_path / "run.html")
    labels = page.value("[...document.querySelectorAll('.row .label')].map(n => n.textContent)")
    assert labels == ["invoke_workflow proj", "0ask", "model", "1fetch", "2write"]
    bars = page.value(
        "[...document.querySelectorAll('.bar')].map(n => [n.style.left, n.style.width])"
    )
    assert bars == [["0%", "100%"], ["0%", "25%"], ["10%", "15%"], ["25%", "25%"], ["50%", "50%"]]
    assert page.value("document.querySelector('.mark').style.left") == "75%"
    page.click(".row.error")
    details = page.value("document.querySelector('#details').innerText")
    for text in (
        "1 fetch",
        "failed",
        "OSError: gone",
        "Traceback",
        "example.org/needle",
        "attempt",
    ):
        assert text in details
    page.screenshot("details")
    page.click("#details .close")
    assert page.value("document.querySelector('#details').hidden") is True
    assert page.problems == []


def linked_view():
    """A failing step, a change of the state, tokens, a branch, and links here and elsewhere."""
    here, gone = SpanIds(0xA, 0x1), SpanIds(0xB, 0x2)
    branch = span("application", "invoke_workflow proj", 10, 90, ids=SpanIds(0xA, 0x9))
    branch.details["initial"] = {"topic": "rivers"}
    steps = (
        span("step", "ask", 0, 100, branch, sequence_id=0, ids=here, usage=Usage(1200, 64, 2),
             details={"changes": [Change(("chat", 1), MISSING, "hi"), Change(("n",), 1, 2)]}),
        span("step", "tell", 100, 250, sequence_id=1, outcome="error", ids=SpanIds(0xA, 0x3),
             links=[LinkIds(here, "dependency"), LinkIds(gone, "fork")],
             failure=Raised("OSError", "gone " * 60, "")),
    )  # fmt: skip
    view = view_of(*steps, forked_from=Pointer("origin", 4))
    view.children = [ChildRun("later", "fork", 0), ChildRun("untraced", "fork", 0)]
    view.sessions[0].ids = SpanIds(0xA, 0x8)
    return view


@needs_browser
def test_axis_errors_tokens_and_branches_stand_in_the_list(page, tmp_path):
    """What a person looks for first needs no click."""
    (tmp_path / "run.html").write_text(html_page(linked_view()), "utf-8")
    page.open(tmp_path / "run.html")
    ticks = page.value("[...document.querySelectorAll('.tick')].map(n => n.textContent)")
    assert ticks == ["0", "62.5 ms", "125 ms", "188 ms", "250 ms"]
    lines = page.value(
        "[...document.querySelectorAll('.line')].map(n => [n.className, n.innerText])"
    )
    assert lines[0] == ["line", '{"topic": "rivers"}']
    assert lines[1][0] == "line bad"
    assert lines[1][1].startswith("OSError: gone gone")
    tokens = page.value("document.querySelector('.row.step .tokens').innerText")
    assert tokens == "1,200 / 64"
    page.click(".row.step")
    details = page.value("document.querySelector('#details').innerText")
    assert "chat[1]: hi" in details
    assert "n: 1 → 2" in details


@needs_browser
def test_links_lead_to_the_backend_and_to_spans_of_the_page(page, tmp_path):
    """Traces, parent and forks are addresses in the backend; a span that is here is shown here."""
    traces = {"origin": "b" * 32, "later": "c" * 32}
    text = html_page(
        linked_view(), lambda trace_id: f"https://b.example/{trace_id}?a=1&b=2", traces
    )
    (tmp_path / "run.html").write_text(text, "utf-8")
    page.open(tmp_path / "run.html")
    found = page.value(
        "[...document.querySelectorAll('header a')].map(n => [n.innerText, n.href, n.rel])"
    )
    rel = "noopener noreferrer"
    assert found == [
        [f"{0xA:032x}", f"https://b.example/{0xA:032x}?a=1&b=2", rel],
        ["forked from origin at step 4", f"https://b.example/{'b' * 32}?a=1&b=2", rel],
        ["later at step 0", f"https://b.example/{'c' * 32}?a=1&b=2", rel],
    ]
    assert "untraced at step 0" in page.value("document.querySelector('header').innerText")
    page.click(".row.error")
    hrefs = page.value("[...document.querySelectorAll('#details a')].map(n => n.href)")
    assert hrefs == [f"https://b.example/{each:032x}?a=1&b=2" for each in (0xA, 0xB)]
    page.click("#details div button")
    assert page.value("document.querySelector('.row.chosen .label').innerText") == "0ask"


@needs_browser
def test_an_address_that_is_none_is_no_link(page, tmp_path):
    """Only http and https are followed."""
    text = html_page(linked_view(), lambda _: "javascript:window.owned=1")
    (tmp_path / "run.html").write_text(text, "utf-8")
    page.open(tmp_path / "run.html")
    assert page.value("document.querySelectorAll('a').length") == 0
    page.click(".row.error")
    assert page.value("document.querySelectorAll('a').length") == 0


def test_a_run_that_was_never_traced_has_no_address():
    """Runs of Burr's own client."""
    text = html_page(three_steps(), lambda trace_id: f"https://b.example/{trace_id}")
    assert "none (written without OpenTelemetry)" in text
    assert "https://b.example" not in text


@needs_browser
def test_search_finds_values_and_failures(page, tmp_path):
    """Matches are shown with what they are in; the count says how many there are."""
    (tmp_path / "run.html").write_text(html_page(three_steps()), "utf-8")
    page.open(tmp_path / "run.html")
    page.click("#search")
    page.type("NEEDLE")
    page.wait("document.querySelector('#count').textContent === '1 of 5 spans'")
    assert page.value("[...document.querySelectorAll('.row')].length") == 2
    assert page.value("document.querySelector('.row.found .label').textContent") == "1fetch"
    page.key("Escape")
    page.wait("document.querySelector('#count').textContent === '5 spans'")
    page.click("#failures")
    page.wait("document.querySelector('#count').textContent === '1 of 5 spans'")


@needs_browser
def test_folding_and_keys(page, tmp_path):
    """Steps fold away what is in them, and the arrow keys walk through the rows."""
    (tmp_path / "run.html").write_text(html_page(three_steps()), "utf-8")
    page.open(tmp_path / "run.html")
    page.click("#fold")
    page.wait("document.querySelectorAll('.row').length === 4")
    page.click("#unfold")
    page.wait("document.querySelectorAll('.row').length === 5")
    page.value("document.querySelector('#list').focus()")
    for _ in range(2):
        page.key("ArrowDown")
    assert page.value("document.querySelector('.row.chosen .label').textContent") == "0ask"
    page.key("ArrowLeft")
    page.wait("document.querySelectorAll('.row').length === 4")
    chosen = "document.querySelector('.row.chosen .label').textContent"
    for key, label in [("ArrowLeft", "invoke_workflow proj"), ("n", "1fetch"), ("End", "2write"),
                       ("p", "1fetch"), ("Home", "invoke_workflow proj")]:  # fmt: skip
        page.key(key)
        assert page.value(chosen) == label
    assert page.value("document.querySelector('#list').getAttribute('aria-activedescendant')")
    page.key("Escape")
    assert page.value("document.querySelector('#details').hidden") is True
    page.key("/")
    assert page.value("document.activeElement.id") == "search"


@needs_browser
def test_hostile_texts_do_nothing_in_a_browser(page, tmp_path):
    """No script of the data runs and nothing is requested, in the list, in the details, in search."""
    (tmp_path / "run.html").write_text(html_page(hostile_view()), "utf-8")
    page.requests.clear()
    page.open(tmp_path / "run.html")
    page.click(".row.step")
    page.click("#search")
    page.type("<script>")
    page.wait("document.querySelector('#count').textContent.includes(' of ')")
    assert page.value("window.owned") is None
    assert page.value("document.querySelectorAll('img').length") == 0
    assert "<img src=x" in page.value("document.querySelector('#details').innerText")
    assert page.requests == [f"file://{tmp_path}/run.html"]


@needs_browser
def test_five_thousand_spans_are_usable(page, tmp_path):
    """Only the rows in sight are in the document; scrolling and searching reach the others."""
    steps = [
        span("step", f"step_{n % 7}", n, n + 1, sequence_id=n, details={"inputs": {"n": f"v{n}"}})
        for n in range(5000)
    ]
    (tmp_path / "run.html").write_text(html_page(view_of(*steps)), "utf-8")
    page.open(tmp_path / "run.html")
    assert page.value("document.querySelector('#count').textContent") == "5,001 spans"
    assert page.value("document.querySelectorAll('.row').length") < 100
    page.value("document.querySelector('#list').scrollTop = 1e9")
    page.wait("[...document.querySelectorAll('.number')].some(n => n.textContent === '4999')")
    page.click("#search")
    page.type("v4321")
    page.wait("document.querySelector('#count').textContent === '1 of 5,001 spans'")
    assert page.value("document.querySelector('.row.found .number').textContent") == "4321"


@needs_browser
@pytest.mark.parametrize(("width", "dark"), [(390, False), (1280, True)])
def test_nothing_overlaps_or_overflows(page, tmp_path, width, dark):
    """On a phone and in the dark: no sideways scrolling, text that differs from its ground."""
    (tmp_path / "run.html").write_text(html_page(three_steps()), "utf-8")
    page.open(tmp_path / "run.html", width=width, dark=dark)
    page.click(".row.error")
    assert page.value("document.documentElement.scrollWidth") <= width
    ground, ink = page.value("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))")
    assert ground != ink
    names = "[...document.querySelectorAll('.label')].every(n => n.scrollWidth <= n.clientWidth)"
    assert page.value(names)
    assert (ground == "rgb(255, 255, 255)") is not dark
    page.screenshot(f"width-{width}")


@needs_browser
def test_a_real_run_from_the_command(page, tmp_path):
    """`show --html` writes a page of a recorded run that opens from disk without any request."""
    file = tmp_path / "giraffe.html"
    result = run(
        "show", "chat-1-giraffe", "-p", "demo_chatbot_with_traces",
        "--storage-dir", RECORDED, "--html", file,
    )  # fmt: skip
    assert result.returncode == 0
    assert str(file) in result.stdout
    page.requests.clear()
    page.open(file)
    assert page.value("document.querySelector('#count').textContent") == "100 spans"
    assert page.requests == [f"file://{file}"]


def test_html_to_standard_output_and_bad_files(tmp_path):
    """`-` writes the page alone; a folder that is not there is one clear error."""
    where = ("count-to-1", "--storage-dir", RECORDED)
    result = run("show", *where, "--html", "-")
    assert result.returncode == 0
    assert result.stdout.startswith("<!doctype html>")
    assert result.stdout.rstrip().endswith("</html>")
    result = run("show", *where, "--html", tmp_path / "nowhere" / "x.html")
    assert result.returncode == 1
    folder = tmp_path / "nowhere"
    assert f"{folder}/x.html cannot be written: there is no folder {folder}." in result.stderr
    assert "Errno" not in result.stderr
    assert "Traceback" not in result.stderr
    assert run("show", *where, "--html", "x.html", "--json").returncode == 2
    shutil.rmtree(tmp_path)
