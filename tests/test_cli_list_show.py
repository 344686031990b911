"""`burr-otel list` and `burr-otel show`, through the real executable."""

import json
import os
import shutil
import subprocess

import apps
import pytest
from cli_support import RECORDED, command, environment, run, run_in_terminal, without_colour
from rich.cells import cell_len

from burr_otel import OtelTracker
from burr_otel.cli import main
from burr_otel.store import StoredRun
from burr_otel.testing import capture_spans, manual_roots


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A storage directory with the 21 runs that ship with Burr."""
    folder = tmp_path_factory.mktemp("store") / "burr"
    shutil.copytree(RECORDED, folder)
    # Newest last in the order of names, so that lists have a known order.
    for number, log in enumerate(sorted(folder.glob("*/*/log.jsonl"))):
        os.utime(log, (1_700_000_000 + number, 1_700_000_000 + number))
    return folder


def write_run(folder, *lines, project="proj", app_id="app"):
    """A run with exactly these lines in its log."""
    path = folder / project / app_id
    path.mkdir(parents=True)
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (path / "log.jsonl").write_text("".join(f"{text}\n" for text in texts), "utf-8")
    return path


def step(seq, action="act", exception=None, second=0):
    return [
        {
            "type": "begin_entry",
            "start_time": f"2024-01-01T00:00:{second:02d}.000000",
            "action": action,
            "inputs": {},
            "sequence_id": seq,
        },
        {
            "type": "end_entry",
            "end_time": f"2024-01-01T00:00:{second:02d}.500000",
            "action": action,
            "result": {},
            "exception": exception,
            "state": {"__SEQUENCE_ID": seq},
            "sequence_id": seq,
        },
    ]


# --- list -----------------------------------------------------------------------------------------


def test_list_shows_the_newest_runs_first(recorded):
    """The last writer's run comes first, and --limit counts."""
    result = run("list", "--storage-dir", recorded, "--limit", "3")
    assert result.returncode == 0
    assert not result.stderr
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[2:5]] == [
        "count-to-50",
        "count-to-42",
        "count-to-100",
    ]
    assert len(lines) == 5
    assert "result" in lines[2]
    assert "51" in lines[2]
    assert " ok" in lines[2]


def test_list_json_has_every_run(recorded):
    """Every recorded run, with steps, last action and status taken from the ends of its log."""
    found = json.loads(run("list", "--storage-dir", recorded, "-n", "0", "--json").stdout)
    assert len(found) == 21
    by_place = {(entry["project"], entry["app_id"]): entry for entry in found}
    failed = {place for place, entry in by_place.items() if entry["status"] == "failed"}
    assert failed == {
        ("demo_chatbot", "chat-6-demonstrate-errors"),
        ("demo_chatbot_with_traces", "chat-6-demonstrate-errors"),
    }
    for (project, app_id), entry in by_place.items():
        log = (recorded / project / app_id / "log.jsonl").read_text().splitlines()
        steps = [r for r in map(json.loads, log) if r["type"] == "end_entry"]
        assert entry["steps"] == len(steps)
        assert entry["last_action"] == steps[-1]["action"]
        assert entry["seconds"] >= 0
        assert entry["trace_id"] is None
    giraffe = by_place["demo_chatbot_with_traces", "chat-1-giraffe"]
    assert giraffe["started"] == "2024-08-27T18:58:33.909412Z"
    assert by_place["demo_counter", "count-to-1"]["partition_key"] == "user_0"


def test_list_project_looks_nowhere_else(recorded):
    """--project narrows the list; an unknown one is an error that names the nearest."""
    found = json.loads(
        run("list", "--storage-dir", recorded, "-p", "demo_counter", "--json").stdout
    )
    assert {entry["project"] for entry in found} == {"demo_counter"}
    result = run("list", "--storage-dir", recorded, "-p", "demo_count")
    assert result.returncode == 3
    assert "'demo_counter'" in result.stderr


def test_the_storage_directory_may_come_from_a_variable(recorded, tmp_path):
    """As for the tracker, for every command; the option wins."""
    named = {"BURR_OTEL_STORAGE_DIR": str(recorded)}
    assert len(json.loads(run("list", "-n", "0", "--json", **named).stdout)) == 21
    assert run("show", "count-to-1", **named).returncode == 0
    assert run("list", "--json", "--storage-dir", tmp_path, **named).stdout == "[]\n"


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_list_fits_the_terminal(recorded, columns):
    """Narrow terminals go without some columns, never without app id and status."""
    code, drawn = run_in_terminal("list", "--storage-dir", recorded, columns=columns)
    lines = without_colour(drawn).splitlines()
    assert code == 0
    assert max(cell_len(line) for line in lines) <= columns
    row = next(line for line in lines if line.startswith("count-to-50"))
    assert row.rstrip().endswith("ok") or columns == 200


def test_an_empty_store_is_no_error(tmp_path):
    """A storage directory without runs says how to get one."""
    result = run("list", "--storage-dir", tmp_path)
    assert result.returncode == 0
    assert "burr-otel demo" in result.stdout
    assert run("list", "--storage-dir", tmp_path, "--json").stdout == "[]\n"


def test_a_missing_store_is_an_error(tmp_path):
    """The message names the directory and what to do."""
    result = run("list", "--storage-dir", tmp_path / "nowhere")
    assert result.returncode == 1
    assert str(tmp_path / "nowhere") in result.stderr
    assert "Traceback" not in result.stderr


def test_list_survives_damaged_and_foreign_things(tmp_path):
    """Files, empty folders, empty logs and garbage in the store do not stop the list."""
    write_run(tmp_path, *step(0), app_id="good")
    write_run(tmp_path, app_id="empty")
    write_run(tmp_path, "garbage", "\x00\x00", *step(0), '{"type": "begin_en', app_id="torn")
    (tmp_path / "proj" / "no-log").mkdir()
    (tmp_path / "proj" / "a-file").write_text("x")
    (tmp_path / "not a project!").mkdir()
    (tmp_path / "stray.json").write_text("{}")
    result = run("list", "--storage-dir", tmp_path, "--json")
    assert result.returncode == 0
    found = {entry["app_id"]: entry["status"] for entry in json.loads(result.stdout)}
    assert found == {"good": "ok", "empty": "empty", "torn": "ok"}


def test_hostile_app_ids_do_not_act(tmp_path):
    """A folder may be called anything; the list shows it without obeying it."""
    write_run(tmp_path, *step(0, "\x1b[2J"), app_id="\x1b]0;owned\x07\u202e[bold]x")
    code, drawn = run_in_terminal("list", "--storage-dir", tmp_path, columns=120)
    assert code == 0
    for acting in ("\x1b]", "\x1b[2J", "\x07", "\u202e"):
        assert acting not in drawn
    assert "[bold]x" in drawn


def test_list_reads_only_the_ends_of_a_long_log(tmp_path):
    """A log of hundreds of megabytes costs no more than a short one: only its ends are read."""
    path = write_run(tmp_path, *step(0, "first"))
    hole = 10**12  # a sparse file: reading it whole would take minutes, and parsing it for ever
    with (path / "log.jsonl").open("r+b") as log:
        log.seek(hole)
        log.write(b"\n" + "\n".join(map(json.dumps, step(999, "last"))).encode() + b"\n")
    result = run("list", "--storage-dir", tmp_path, "--json")
    (found,) = json.loads(result.stdout)
    assert (found["last_action"], found["steps"]) == ("last", 1000)


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "a"),
        ("open", "a"),
        ("materialize", "a"),
        ("diff", "a", "a"),
        ("replay", "a", "--dry-run"),
        ("recover", "a"),
    ],
)
def test_partition_tells_runs_of_one_id_apart(tmp_path, arguments):
    """One id in two partitions is two runs: the message names the option, and the option chooses."""
    with manual_roots(), capture_spans() as spans:
        tracker = OtelTracker("proj", tmp_path / "store", tracer_provider=spans.provider)
        for key in ("ann", "ben"):
            apps.counter(tracker, app_id="a", partition_key=key).step()
        tracker.close()
    where = (*arguments, "--storage-dir", tmp_path / "store", "--json")
    unclear = run(*where)
    assert unclear.returncode == 3
    assert "may mean 2 runs: --partition ann, --partition ben. Add one of these." in unclear.stderr
    assert run(*where, "--partition", "ben").returncode == 0
    if arguments[0] == "show":
        assert json.loads(run(*where, "--partition", "ben").stdout)["partition_key"] == "ben"


def test_list_filters(recorded, tmp_path):
    """--status, --partition and --since narrow the list, alone and together."""

    def listed(*filters):
        result = run("list", "--storage-dir", recorded, "-n", "0", "--json", *filters)
        assert result.returncode == 0
        return {f"{run['project']}/{run['app_id']}" for run in json.loads(result.stdout)}

    failed = {
        "demo_chatbot/chat-6-demonstrate-errors",
        "demo_chatbot_with_traces/chat-6-demonstrate-errors",
    }
    assert listed("--status", "failed") == failed
    assert listed("--status", "failed", "-p", "demo_counter") == set()
    assert listed("--partition", "user_0") == {"demo_counter/count-to-1"}
    assert listed("--since", "1h") == set()
    assert len(listed("--since", "2000-01-01")) == 21
    # the fixture's logs were written at 1,700,000,000 s and each one second later
    assert len(listed("--since", "2023-11-14T22:13:38Z")) == 3
    result = run("list", "--storage-dir", recorded, "--since", "1h")
    assert "--since" in result.stdout


@pytest.mark.parametrize("since", ["yesterday", "2x", "-1h", "1M", "h", "2024-13-01"])
def test_a_time_that_is_none_is_refused(recorded, since):
    """The message shows what is understood."""
    result = run("list", "--storage-dir", recorded, f"--since={since}")
    assert result.returncode == 2
    assert since in result.stderr
    assert "2h" in result.stderr


def test_limit_counts_runs_that_pass_the_filters(recorded):
    """The limit is not spent on runs that are filtered away."""
    result = run("list", "--storage-dir", recorded, "--status", "failed", "--limit", "1", "--json")
    assert len(json.loads(result.stdout)) == 1


# --- show -----------------------------------------------------------------------------------------


def test_show_draws_a_recorded_run(recorded):
    """A run of plain Burr is drawn whole: header, steps in order, failure with its message."""
    result = run(
        "show", "chat-6", "--storage-dir", recorded, "--project", "demo_chatbot_with_traces"
    )
    assert result.returncode == 0
    assert not result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "demo_chatbot_with_traces/chat-6-demonstrate-errors  failed"
    assert str(recorded) in result.stdout
    names = [line[2:].split("  ")[1].strip() for line in lines if line[4:6] in ("0 ", "1 ", "2 ")]
    assert [name.split()[1] for name in names] == ["prompt", "check_safety", "decide_mode"]
    assert "AuthenticationError: Error code: 401" in result.stdout
    assert "\x1b" not in result.stdout


def test_show_json_is_the_same_run_for_programs(recorded):
    """Spans as a flat list, each with the position of its parent."""
    result = run(
        "show",
        "chat-1-giraffe",
        "-p",
        "demo_chatbot_with_traces",
        "--storage-dir",
        recorded,
        "--json",
    )
    found = json.loads(result.stdout)
    assert found["app_id"] == "chat-1-giraffe"
    assert found["ends_without_begin"] == 25
    spans = found["spans"]
    assert [span["parent"] for span in spans[:3]] == [None, 0, 1]
    assert all(span["parent"] is None or span["parent"] < n for n, span in enumerate(spans))
    prompt = spans[1]
    assert (prompt["kind"], prompt["name"], prompt["outcome"]) == ("step", "prompt", "ok")
    assert prompt["inputs"] == {"prompt": "Please draw a giraffe."}
    assert prompt["state"]["prompt"] == "Please draw a giraffe."
    assert spans[2]["attributes"]["prompt"] == "Please draw a giraffe."


@pytest.mark.parametrize("columns", [40, 80])
def test_show_in_a_terminal_is_coloured_and_fits(recorded, columns):
    """Failures are red, and the waterfall keeps to the width."""
    code, drawn = run_in_terminal(
        "show", "chat-6", "-p", "demo_chatbot", "--storage-dir", recorded, columns=columns
    )
    assert code == 0
    assert "\x1b[31m✗" in drawn
    waterfall = without_colour(drawn).partition("\n\n")[2]
    assert "AuthenticationError" in waterfall
    assert max(cell_len(line) for line in waterfall.splitlines()) <= columns


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colour_where_none_is_wanted(recorded, variables):
    """NO_COLOR and dumb terminals get the same picture in plain text."""
    code, drawn = run_in_terminal(
        "show", "chat-6", "-p", "demo_chatbot", "--storage-dir", recorded, **variables
    )
    assert code == 0
    assert "\x1b[3" not in drawn
    assert "✗" in drawn


@pytest.mark.parametrize("arguments", [("show", "count-to-1"), ("list",)])
def test_a_c_locale_gets_ascii(recorded, arguments):
    """A terminal without Unicode shows stand-ins and no traceback."""
    result = run(
        *arguments, "-p", "demo_counter", "--storage-dir", recorded,
        LC_ALL="C", PYTHONIOENCODING="ascii", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0",
    )  # fmt: skip
    assert result.returncode == 0
    assert "===" in result.stdout or "---" in result.stdout
    assert " us" in result.stdout
    assert result.stdout.isascii()
    assert "??" not in result.stdout


def test_an_unknown_run_names_the_nearest(recorded):
    """A typing error is answered with what was probably meant, and exit code 3."""
    result = run("show", "chat-1-girafe", "--storage-dir", recorded)
    assert result.returncode == 3
    assert not result.stdout
    assert "'chat-1-giraffe'" in result.stderr
    assert str(recorded) in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", [("show", "x"), ("diff", "x", "y"), ("list",), ("open", "x")])
def test_an_unknown_project_has_the_exit_code_of_an_unknown_run(recorded, command):
    """A script need not tell them apart: there is no such run."""
    result = run(*command, "--storage-dir", recorded, "-p", "demo_count")
    assert result.returncode == 3
    assert "'demo_counter'" in result.stderr


def test_a_line_break_in_an_id_forges_no_message(tmp_path):
    """An error is one line, whatever names stand in it."""
    for number in (1, 2):
        write_run(tmp_path, *step(0), app_id=f"x\nError: {number} all is lost")
    result = run("show", "x", "--storage-dir", tmp_path)
    assert result.returncode == 3
    assert len(result.stderr.splitlines()) == 1


def test_a_line_break_in_an_id_forges_no_line(tmp_path):
    """Neither in what is drawn nor in what became of a run."""
    forged = "x\nSent 9 runs"
    write_run(tmp_path, *step(0, forged, "Traceback\nValueError: gone"), "garbage", app_id=forged)
    for arguments in (
        ("list",),
        ("show", "x"),
        ("replay", "--dry-run"),
        ("replay", "--dry-run", "x"),
        ("materialize", "x", "--to", tmp_path / "to"),
    ):
        drawn = run(*arguments, "--storage-dir", tmp_path)
        assert drawn.returncode in (0, 1), drawn.stderr
        lines = (drawn.stdout + drawn.stderr).splitlines()
        assert not [line for line in lines if line.startswith("Sent 9 runs")]


def test_an_ambiguous_id_names_the_candidates(recorded):
    """The same id in two projects, or a prefix of several, is not guessed."""
    result = run("show", "chat-1-giraffe", "--storage-dir", recorded)
    assert result.returncode == 3
    assert "demo_chatbot/chat-1-giraffe" in result.stderr
    assert "demo_chatbot_with_traces/chat-1-giraffe" in result.stderr
    assert "--project" in result.stderr
    result = run("show", "count-to", "--storage-dir", recorded)
    assert result.returncode == 3
    assert "5 runs" in result.stderr


def test_an_exact_id_wins_over_longer_ones(recorded):
    """count-to-1 is a run, although count-to-10 and count-to-100 begin so too."""
    result = run("show", "count-to-1", "--storage-dir", recorded)
    assert result.returncode == 0
    assert result.stdout.startswith("demo_counter/count-to-1 ")


@pytest.mark.parametrize("app_id", ["../x", "/etc", "", ".", "a\nb", "x" * 5000])
def test_ids_that_are_no_ids_are_unknown(recorded, app_id):
    """Nothing outside the store is ever looked at."""
    result = run("show", app_id, "--storage-dir", recorded)
    assert result.returncode == 3
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("arguments", [("show", "count-to-100"), ("list", "--json"), ("list",)])
def test_a_closed_pipe_is_quiet(recorded, arguments):
    """`burr-otel show … | head -1` prints one line and no complaint."""
    reader, writer = os.pipe()
    process = subprocess.Popen(
        command(*arguments, "--storage-dir", recorded),
        env=environment(),
        stdout=writer,
        stderr=subprocess.PIPE,
    )
    os.close(reader)
    os.close(writer)
    _, errors = process.communicate(timeout=60)
    assert errors == b""
    assert process.returncode == 141


def test_a_damaged_log_is_shown_with_what_was_skipped(tmp_path):
    """The sound part is drawn, the rest is named."""
    write_run(
        tmp_path, *step(0, "good"), "garbage", *step(1, "also_good", second=1), '{"type": "be'
    )
    result = run("show", "app", "--storage-dir", tmp_path)
    assert result.returncode == 0
    assert "0 good" in result.stdout
    assert "1 also_good" in result.stdout
    assert "skipped" in result.stdout


def test_a_store_of_a_later_version_is_shown_as_far_as_it_is_understood(tmp_path, capfd):
    """Unknown records and members are passed over; known ones of another form are named."""
    broken = step(1)[1] | {"end_time": 5}
    later = {"type": "otel_later", "version": 2, "otel": [1]}
    write_run(tmp_path, later, *step(0, "known"), later, {**step(1)[0], "later": {}}, broken)

    def called(*arguments):
        with pytest.raises(SystemExit) as exited:
            main([*arguments, "--storage-dir", str(tmp_path)])
        assert exited.value.code == 0
        return capfd.readouterr().out

    [listed] = json.loads(called("list", "--json"))
    assert (listed["last_action"], listed["status"]) == ("act", "crashed")
    shown = called("show", "app")
    assert "0 known" in shown
    assert "1 act" in shown
    assert "skipped" in shown
    assert "end_time" in shown
    assert "known" in called("show", "app", "--html", "-")
    assert "Would send 1 run (3 spans)" in called("replay", "app", "--dry-run")


def test_hostile_strings_do_not_act(tmp_path):
    """Escape sequences and markup in names and messages reach the terminal neutralised."""
    write_run(
        tmp_path,
        *step(0, "\x1b]0;owned\x07[bold]x[/bold]", "Traceback\nValueError: \x1b[2J\u202egone"),
        app_id="app",
    )
    code, drawn = run_in_terminal("show", "app", "--storage-dir", tmp_path, columns=100)
    assert code == 0
    for acting in ("\x1b]", "\x1b[2J", "\x07", "\u202e"):
        assert acting not in drawn
    assert "[bold]x[/bold]" in drawn


def test_permission_denied_is_one_clear_line(tmp_path, monkeypatch, capsys):
    """A log of another user is an error that names the file (faked: tests may run as root)."""
    log = write_run(tmp_path, *step(0)) / "log.jsonl"

    def denied(self, ends=None):
        raise PermissionError(13, "Permission denied", str(log))

    monkeypatch.setattr(StoredRun, "records", denied)
    with pytest.raises(SystemExit) as exited:
        main(["show", "app", "--storage-dir", str(tmp_path)])
    assert exited.value.code == 1
    errors = capsys.readouterr().err
    assert str(log) in errors
    assert "Permission denied" in errors
    assert len(errors.splitlines()) == 1
