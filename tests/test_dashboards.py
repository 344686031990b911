"""What stands in dashboards/ can be read, and asks for nothing that we do not write."""

import contextlib
import http.server
import itertools
import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from burr_otel import semconv

FOLDER = Path(__file__).parents[1] / "dashboards"
NAMES = {
    value for name, value in vars(semconv).items() if name.isupper() and isinstance(value, str)
}
METRICS = {value for name, value in vars(semconv).items() if name.startswith("METRIC_")}
# What Honeycomb itself fills.
COLUMNS = NAMES | {"duration_ms", "trace.trace_id", "name"}


def read(name):
    return json.loads((FOLDER / name).read_text("utf-8"))


# --- Grafana and Prometheus ---------------------------------------------------------------------

BOARD = read("grafana.json")
QUERIES = [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]
RULES = (FOLDER / "prometheus-rules.yaml").read_text("utf-8")
PARTS = ("_seconds", "_bucket", "_count", "_sum", "_total")


def known_to_prometheus(name):
    """Whether a metric or label is one of ours: dots become _, a unit and a part are added."""
    ours = {each.replace(".", "_") for each in NAMES}
    while name not in ours:
        part = next((part for part in PARTS if name.endswith(part)), None)
        if part is None:
            return False
        name = name.removesuffix(part)
    return True


@pytest.mark.parametrize("text", [*QUERIES, RULES])
def test_queries_name_only_metrics_and_labels_that_we_write(text):
    """A renamed metric or attribute leaves no empty panel and no alert that never comes."""
    without_records = re.sub(r"\bburr_\w+:[\w:]+", "", text)
    found = set(re.findall(r"\b(?:burr|gen_ai|error)_\w+", without_records))
    assert found
    assert [name for name in found if not known_to_prometheus(name)] == []


def test_every_metric_has_a_panel():
    """What we measure can be seen."""
    text = " ".join(QUERIES)
    assert [metric for metric in METRICS if metric.replace(".", "_") not in text] == []


def test_outcomes_in_queries_are_ours():
    """A misspelt outcome would count nothing."""
    asked = set(re.findall(r'burr_outcome=~"([^"]+)"', RULES + " ".join(QUERIES)))
    assert {one for each in asked for one in each.split("|")} <= {"error", "failed", "crashed"}


def test_recorded_series_that_rules_read_are_recorded():
    """An alert on a series that no rule records never comes."""
    recorded = set(re.findall(r"record: (\S+)", RULES))
    assert set(re.findall(r"\bburr_\w+:[\w:]+", RULES)) == recorded


def test_panels_do_not_overlap_and_have_ids_of_their_own():
    """Grafana would move or hide them."""
    panels = BOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    boxes = [tuple(panel["gridPos"][k] for k in "xywh") for panel in panels]
    assert_apart(boxes, width=24)


def assert_apart(boxes, width):
    """No box leaves the grid, and no two share a cell."""
    assert all(x + w <= width for x, _, w, _ in boxes)
    cells = [
        {(x + i, y + j) for i, j in itertools.product(range(w), range(h))} for x, y, w, h in boxes
    ]
    assert sum(map(len, cells)) == len(set().union(*cells))


def test_variables_of_queries_are_defined():
    """`$project` in a query must be a variable of the dashboard, or one of Grafana's own."""
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(BOARD)))
    ours = {each["name"] for each in BOARD["templating"]["list"]}
    assert used - {"__rate_interval", "__range", "__all"} == ours


# --- Jaeger -------------------------------------------------------------------------------------


def test_jaegers_links_name_attributes_that_we_write():
    """Jaeger's UI leaves out a link when one attribute in it is not on the span."""
    patterns = read("jaeger-ui.json")["linkPatterns"]
    for pattern in patterns:
        keys = pattern["key"] if isinstance(pattern["key"], list) else [pattern["key"]]
        assert {*keys, *re.findall(r"#\{([^}]+)\}", pattern["url"])} <= NAMES
        assert pattern["type"] == "tags"


# --- Honeycomb ----------------------------------------------------------------------------------

HONEYCOMB = read("honeycomb.json")
STORED = [each["query"] for each in HONEYCOMB["queries"].values()]
TRIGGERS = HONEYCOMB["triggers"]


@pytest.mark.parametrize("query", [*STORED, *(each["query"] for each in TRIGGERS)])
def test_honeycomb_queries_name_columns_that_spans_have(query):
    """Honeycomb refuses a query whose columns it does not know."""
    named = {*query.get("breakdowns", ())}
    for part in ("calculations", "filters", "orders"):
        named |= {each["column"] for each in query.get(part, ()) if "column" in each}
    assert named <= COLUMNS


@pytest.mark.parametrize("query", STORED)
def test_honeycomb_orders_by_what_is_shown(query):
    """An order must be among calculations or breakdowns."""
    shown = [(each["op"], each.get("column")) for each in query["calculations"]]
    assert all((each["op"], each.get("column")) in shown for each in query.get("orders", ()))


@pytest.mark.parametrize("trigger", TRIGGERS, ids=lambda each: each["name"])
def test_triggers_keep_to_what_the_api_takes(trigger):
    """One calculation, no more than filters and groups, at most four times its frequency."""
    query = trigger["query"]
    assert set(query) <= {
        "breakdowns",
        "calculations",
        "filters",
        "filter_combination",
        "time_range",
    }
    [calculation] = query["calculations"]
    assert calculation["op"] not in {"HEATMAP", "CONCURRENCY"}
    assert trigger["frequency"] % 60 == 0
    assert query["time_range"] <= 4 * trigger["frequency"]
    assert trigger["threshold"]["op"] in {">", ">=", "<", "<="}
    assert trigger["alert_type"] in {"on_change", "on_true"}
    assert len(trigger["name"]) <= 120


def test_the_board_shows_every_query_once():
    """No stored query is left out, and no panel lies over another."""
    panels = HONEYCOMB["board"]["panels"]
    assert sorted(panel["query"] for panel in panels) == sorted(HONEYCOMB["queries"])
    sides = ("x_coordinate", "y_coordinate", "width", "height")
    assert_apart([tuple(panel["position"][side] for side in sides) for panel in panels], width=12)


@contextlib.contextmanager
def honeycomb(refused=lambda path, body: None):
    """Stands in for Honeycomb's API: keeps what is posted, answers with ids or with a refusal."""
    posted = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            posted.append((self.path, self.headers["X-Honeycomb-Team"], body))
            answer = json.dumps({**body, "id": f"id{len(posted)}"}).encode()
            self.send_response(refused(self.path, body) or 201)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            """Say nothing."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", posted
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def import_into(endpoint, *arguments, key="key-1"):
    return subprocess.run(
        [sys.executable, FOLDER / "honeycomb_import.py", *arguments],
        env={"HONEYCOMB_API_KEY": key, "HONEYCOMB_API_ENDPOINT": endpoint},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_import_makes_queries_captions_board_and_triggers():
    """In this order, with the ids that Honeycomb gave, and with who is to be told."""
    with honeycomb() as (endpoint, posted):
        done = import_into(endpoint, "Support-Bot", "--email", "me@example.com")
    assert done.returncode == 0, done.stderr
    assert {key for _, key, _ in posted} == {"key-1"}
    paths = [path for path, _, _ in posted]
    count = len(STORED)
    pairs = ["/1/queries/support-bot", "/1/query_annotations/support-bot"]
    assert paths == [*pairs * count, "/1/boards", *["/1/triggers/support-bot"] * len(TRIGGERS)]

    bodies = [body for _, _, body in posted]
    board = bodies[2 * count]
    assert board["type"] == "flexible"
    for number, panel in enumerate(board["panels"]):
        assert set(panel) == {"type", "position", "query_panel"}
        assert panel["query_panel"]["query_id"] == f"id{2 * number + 1}"
        assert panel["query_panel"]["query_annotation_id"] == f"id{2 * number + 2}"
        assert bodies[2 * number + 1]["query_id"] == f"id{2 * number + 1}"
    for body in bodies[2 * count + 1 :]:
        assert body["recipients"] == [{"type": "email", "target": "me@example.com"}]


def test_a_query_that_honeycomb_refuses_is_left_out_and_named():
    """A service without streams has no such column; the rest of the board is made."""

    def no_streams(path, body):
        return 422 if "burr.stream" in json.dumps(body) else None

    with honeycomb(no_streams) as (endpoint, posted):
        done = import_into(endpoint, "shop")
    assert done.returncode == 0, done.stderr
    [board] = [body for path, _, body in posted if path == "/1/boards"]
    assert len(board["panels"]) == len(STORED) - 1
    assert "left out: Time to first item of a stream: /1/queries/shop: 422" in done.stderr


@pytest.mark.parametrize(("status", "tries"), [(401, 1), (422, len(STORED))])
def test_the_import_makes_no_empty_board(status, tries):
    """A bad key ends it at once; a dataset that has nothing, when every query was refused."""
    with honeycomb(lambda path, body: status) as (endpoint, posted):
        done = import_into(endpoint, "shop")
    assert done.returncode == 1
    assert [path for path, _, _ in posted] == ["/1/queries/shop"] * tries
    assert "honeycomb_import: " in done.stderr


def test_the_import_wants_a_key():
    """Without one it says which variable is missing, and asks nobody."""
    done = import_into("http://127.0.0.1:9", "shop", key="")
    assert done.returncode == 1
    assert "HONEYCOMB_API_KEY is not set" in done.stderr
