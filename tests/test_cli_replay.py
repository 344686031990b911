"""`burr-otel replay`, through the real executable: what is drawn, interrupted, refused and said.

`test_replay_*` have what is sent, and `backends/test_replay_in_jaeger.py` what arrives.
"""

import collections
import contextlib
import http.server
import json
import os
import re
import shutil
import threading

import apps
import pytest
from cli_support import RECORDED, Terminal, run, run_in_terminal, without_colour
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from otlp_receiver import decoded

from burr_otel import OtelTracker
from burr_otel.cli import main
from burr_otel.testing import capture_spans, manual_roots

SPANS = 21 + 471 + 323  # of Burr's recorded runs: roots, steps and begun inner spans
LONGEST_S = 180.0


class Endpoint:
    """An OTLP endpoint over HTTP that does what it is told.

    Attributes:
        url: Where it is.
        taken: How often each span was taken, by trace and span id.
        at_once: The most requests that were ever under way at one time.
        held_from: Number of the first request that is taken in and not answered.
        released: Lets go of these.
        arrived: Can be acquired once for each request.
        answer: Given the number of a request and its spans, gives the status.
    """

    def __init__(self):
        self.taken, self.at_once, self.requests = collections.Counter(), 0, 0
        self.held_from, self.released = None, threading.Event()
        self.arrived = threading.Semaphore(0)
        self.answer = lambda number, spans: 200
        self._under_way, self._lock = 0, threading.Lock()
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                status = endpoint._take(decoded(self))
                with contextlib.suppress(OSError):  # whoever asked may be gone
                    self.send_response(status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/traces"

    def _take(self, body):
        request = ExportTraceServiceRequest.FromString(body)
        spans = [span for b in request.resource_spans for s in b.scope_spans for span in s.spans]
        with self._lock:
            self.requests += 1
            number = self.requests
            self._under_way += 1
            self.at_once = max(self.at_once, self._under_way)
        self.arrived.release()
        if self.held_from is not None and number >= self.held_from:
            self.released.wait(LONGEST_S)
        status = self.answer(number, spans)
        with self._lock:
            self._under_way -= 1
            if status == 200:
                self.taken.update((span.trace_id, span.span_id) for span in spans)
        return status


@pytest.fixture
def endpoint():
    """One that takes everything."""
    made = Endpoint()
    thread = threading.Thread(target=made._server.serve_forever, args=(0.05,))
    thread.start()
    yield made
    made.released.set()
    made._server.shutdown()
    thread.join()
    made._server.server_close()


@pytest.fixture
def replay(endpoint, tmp_path):
    """Arguments and variables that replay Burr's recorded runs to the endpoint."""
    folder = tmp_path / "recorded"
    shutil.copytree(RECORDED, folder)
    for hour, log in enumerate(sorted(folder.rglob("log.jsonl"))):
        os.utime(log, (1_700_000_000 + 3600 * hour,) * 2)
    return "replay", "--storage-dir", str(folder), "--to", endpoint.url


def test_a_bar_is_drawn_and_control_c_loses_nothing(endpoint, replay):
    """Share, runs, rate and remaining time; it is said how to go on from there."""
    endpoint.held_from = 2
    with Terminal(*replay, columns=100) as terminal:
        terminal.read_until("spans/s")
        assert endpoint.arrived.acquire(timeout=LONGEST_S)
        assert endpoint.arrived.acquire(timeout=LONGEST_S)  # the second batch
        terminal.press("\x03")
        assert terminal.finish() == 130
        drawn = without_colour(terminal.drawn)
    assert re.search(
        r"sending ━+.* \d+% \d+ of 21 runs, [\d,]+ spans/s (\d:\d\d:\d\d|-:--:--)", drawn
    )
    assert "Traceback" not in drawn
    [(sent, spans, unsent)] = re.findall(r"Sent (\d+) runs \((\d+) spans\) .*; (\d+) unsent", drawn)
    [since] = re.findall(r"The same command with --since (\S+) goes on from here", drawn)
    assert (int(sent) + int(unsent), int(spans)) == (21, 512)
    endpoint.held_from = None

    code, drawn = run_in_terminal(*replay, "--since", since, columns=100)
    assert code == 0
    assert f"Sent {unsent} runs" in without_colour(drawn)
    assert len(endpoint.taken) == SPANS
    assert max(endpoint.taken.values()) <= 2, "only the run that was under way is sent again"
    again = sum(times - 1 for times in endpoint.taken.values())
    assert again < 512


def test_without_a_terminal_it_is_plain_text_at_the_pace_of_the_endpoint(endpoint, replay):
    """No bar and no colour; one batch at a time, and one that is busy is asked again later."""
    endpoint.answer = lambda number, spans: 503 if number == 1 else 200
    result = run(*replay)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"Sent 21 runs ({SPANS} spans) to {endpoint.url}.\n"
    assert endpoint.at_once == 1
    assert len(endpoint.taken) == endpoint.taken.total() == SPANS


# --- in this process, which is quicker ----------------------------------------------------------


@pytest.fixture
def called(capfd):
    """Calls the command; gives exit code, output and errors."""

    def call(*arguments):
        with pytest.raises(SystemExit) as exited:
            main([*map(str, arguments)])
        return exited.value.code, *capfd.readouterr()

    return call


def test_what_is_refused_is_named_and_the_rest_sent(endpoint, replay, called):
    """Span by span, with what the endpoint said; the exit code tells too."""
    bad = "invoke_workflow demo_counter"
    endpoint.answer = lambda number, spans: 400 if any(s.name == bad for s in spans) else 200
    code, out, _ = called(*replay)
    assert code == 1
    lines = out.splitlines()
    assert sum(f"span {bad!r} was refused: " in line for line in lines) == 5
    assert all("400" in line for line in lines if "refused:" in line)
    assert lines[-2] == f"Sent 16 runs ({SPANS - 5} spans) to {endpoint.url}; 5 refused."
    assert lines[-1] == "5 spans refused."
    assert len(endpoint.taken) == SPANS - 5


def test_an_endpoint_that_takes_nothing_ends_it_with_its_reason(endpoint, replay, called):
    """It is asked once, and nothing counts as sent."""
    endpoint.answer = lambda number, spans: 403
    code, out, _ = called(*replay)
    assert code == 1
    assert endpoint.requests == 1
    assert "Stopped, because the endpoint takes nothing: " in out
    assert "403" in out
    assert "Sent 0 runs (0 spans)" in out
    assert out.rstrip().endswith(
        "The same command with --since 2023-11-14T22:13:20Z goes on from here."
    )


def test_where_nobody_listens_nothing_is_begun(called):
    """One line that names the endpoint."""
    code, out, errors = called("replay", "--storage-dir", RECORDED, "--to", "http://127.0.0.1:9")
    assert (code, out) == (1, "")
    what = "No OTLP endpoint answers at http://127.0.0.1:9"
    assert errors == f"Error: {what}. Start it there, or name another with --to.\n"


def denying(end, opened=os.open):
    """`os.open` that refuses one file (faked: tests may run as root)."""

    def denied(path, *more, **also):
        if str(path).endswith(end):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *more, **also)

    return denied


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Runs that are whole, damaged, empty, unreadable, and one that goes on."""
    folder = tmp_path / "runs"
    with capture_spans() as spans, manual_roots():
        tracker = OtelTracker("proj", folder, tracer_provider=spans.provider)
        for app_id in ("damaged", "empty", "unreadable", "whole"):
            apps.counter(tracker, app_id=app_id).run(halt_after=["finish"])
        tracker.close()
        kept = apps.counter(tracker, app_id="goes-on")
        kept.step()
        with (folder / "proj" / "damaged" / "log.jsonl").open("a") as log:
            log.write("garbage\n")
        (folder / "proj" / "empty" / "log.jsonl").write_text("")
        monkeypatch.setattr(os, "open", denying("unreadable/log.jsonl"))
        yield folder
        del kept


@pytest.mark.parametrize("dry", [True, False])
def test_of_each_run_it_is_said_what_became_of_it(endpoint, store, called, dry):
    """Also in a rehearsal, which sends nothing, and names also the runs that it would send whole."""
    arguments = ("replay", "--storage-dir", store, "--to", endpoint.url, *["--dry-run"] * dry)
    code, out, _ = called(*arguments)
    assert code == 1
    whole = {"proj/whole: 5 spans"} if dry else set()
    still_open = "not ended as far as is known, so not sent yet: invoke_workflow proj"
    assert set(out.splitlines()[:-1]) == whole | {
        f"proj/damaged: {'5 spans; ' * dry}8 damaged bytes of its log were passed over",
        "proj/empty: its log is empty",
        f"proj/goes-on: {'1 span; ' * dry}{still_open}",
        f"proj/unreadable: [Errno 13] Permission denied: '{store}/proj/unreadable/log.jsonl'",
    }
    verb = "Would send" if dry else "Sent"
    expected = f"{verb} 3 runs (11 spans) to {endpoint.url}; 1 skipped, 1 unreadable."
    assert out.splitlines()[-1] == expected
    assert len(endpoint.taken) == (0 if dry else 11)

    code, out, _ = called(*arguments, "--json")
    found = json.loads(out)
    assert code == 1
    assert {run["app_id"]: (run["status"], run["spans"]) for run in found["runs"]} == {
        "damaged": ("sent", 5),
        "empty": ("skipped", 0),
        "goes-on": ("sent", 1),
        "unreadable": ("unreadable", 0),
        "whole": ("sent", 5),
    }
    assert (found["dry_run"], found["spans"], found["refused"]) == (dry, 11, 0)
