"""What show, diff, the page and --json print is redacted as spans are."""

import json
import stat

import pytest
from cli_support import run

SECRETS = ("hunter2", "sk-live-9", "tr0ub4dor", "0p3n", "c0rrect")


def write_run(folder, app_id, pin):
    """A failed run of plain Burr with a secret in everything that user code fills."""
    path = folder / "proj" / app_id
    path.mkdir(parents=True)
    begin = {"span_id": "0:0", "action_sequence_id": 0, "sequence_id": 0}
    records = [
        {
            "type": "begin_entry",
            "start_time": "2024-01-01T00:00:00.000000",
            "action": "ask",
            "inputs": {"login": {"password": "hunter2"}, "question": "why"},
            "sequence_id": 0,
        },
        {
            "type": "begin_span",
            "start_time": "2024-01-01T00:00:00.000001",
            "span_name": "login with password=tr0ub4dor",
            "parent_span_id": None,
            "span_dependencies": [],
            **begin,
        },
        {
            "type": "attribute",
            "key": "api_key",
            "value": "0p3n",
            "tags": {},
            "time_logged": "2024-01-01T00:00:00.000002",
            **begin,
        },
        {"type": "end_span", "end_time": "2024-01-01T00:00:00.000003", **begin},
        {
            "type": "end_entry",
            "end_time": "2024-01-01T00:00:01.000000",
            "action": "ask",
            "result": {"api_key": "sk-live-9", "answer": "because"},
            "exception": "Traceback (most recent call last):\nValueError: password=c0rrect is wrong",
            "state": {"user": {"password": pin}, "answer": "because"},
            "sequence_id": 0,
        },
    ]
    (path / "log.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in records))


@pytest.fixture
def store(tmp_path):
    write_run(tmp_path / "store", "a", "hunter2-a")
    write_run(tmp_path / "store", "b", "hunter2-b")
    return tmp_path / "store"


COMMANDS = {
    "show": ("show", "a"),
    "show --json": ("show", "a", "--json"),
    "show --step": ("show", "a", "--step", "0"),
    "show --step --json": ("show", "a", "--step", "0", "--json"),
    "page": ("show", "a", "--html", "-"),
    "diff": ("diff", "a", "b"),
    "diff --json": ("diff", "a", "b", "--json"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_secrets_are_hidden_unless_asked_for(name, store):
    """By key and by pattern, in inputs, results, states, attributes, span names and errors."""
    shown = run(*COMMANDS[name], "--storage-dir", store)
    assert shown.returncode in (0, 4), shown.stderr
    assert [secret for secret in SECRETS if secret in shown.stdout] == []
    assert "[redacted]" in shown.stdout
    whole = run(*COMMANDS[name], "--storage-dir", store, "--unredacted").stdout
    assert any(secret in whole for secret in SECRETS)
    assert "[redacted]" not in whole


def test_the_json_keeps_its_form(store):
    """What is no secret stands where it stood, with its type."""
    where = ("show", "a", "--storage-dir", store, "--json")
    redacted = json.loads(run(*where).stdout)["spans"][1]
    whole = json.loads(run(*where, "--unredacted").stdout)["spans"][1]
    assert redacted["inputs"] == {"login": {"password": "[redacted]"}, "question": "why"}
    assert redacted["result"] == {"api_key": "[redacted]", "answer": "because"}
    assert redacted["error"]["message"] == "password=[redacted] is wrong"
    assert redacted.keys() == whole.keys()
    assert whole["inputs"]["login"] == {"password": "hunter2"}


def test_that_a_secret_differs_is_told(store):
    """Two runs that differ in a password differ, although it is not shown."""
    found = run("diff", "a", "b", "--storage-dir", store, "--json")
    assert found.returncode == 4
    assert json.loads(found.stdout)["changes"] == {
        "state": [
            {
                "path": ["user", "password"],
                "kind": "changed",
                "before": "[redacted]",
                "after": "[redacted]",
            }
        ]
    }


def test_what_a_step_changed_is_told_of_a_secret_too(store):
    """The step that set the password is still the one that set it."""
    found = json.loads(run("show", "a", "--step", "0", "--storage-dir", store, "--json").stdout)
    assert {tuple(change["path"]) for change in found["changes"]} == {("user",), ("answer",)}
    assert found["state_after"] == {"user": {"password": "[redacted]"}, "answer": "because"}


def test_the_settings_of_spans_count(store):
    """Capture and key patterns of the variables, as for the tracker that reads them."""
    where = ("show", "a", "--storage-dir", store, "--json")
    off = run(*where, BURR_OTEL_CAPTURE="off").stdout
    assert [text for text in (*SECRETS, "because", "why") if f'"{text}' in off] == []
    keys = json.loads(run(*where, BURR_OTEL_REDACT_KEYS="question").stdout)["spans"][1]
    assert keys["inputs"]["question"] == "[redacted]"
    none = run(*where, BURR_OTEL_REDACT="false").stdout
    assert "hunter2" in none


# --- the page's file ------------------------------------------------------------------------------


def test_a_page_has_the_mode_of_the_stores_files(store, tmp_path):
    """Also in place of one that others could read."""
    page = tmp_path / "run.html"
    page.write_text("old")
    page.chmod(0o644)
    assert run("show", "a", "--storage-dir", store, "--html", page).returncode == 0
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert page.read_text().startswith("<!doctype html>")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_missing_folder_is_named_as_it_was_written(store, tmp_path):
    """Not by the name of a temporary file that nobody asked for."""
    missing = tmp_path / "nowhere" / "run.html"
    done = run("show", "a", "--storage-dir", store, "--html", missing)
    assert done.returncode == 1
    assert str(missing) in done.stderr
    assert "there is no folder" in done.stderr
    assert len(done.stderr.splitlines()) == 1
