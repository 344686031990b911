"""`burr-otel show --step` and `burr-otel diff`, through the real executable."""

import json

import pytest
from cli_support import RECORDED, run, run_in_terminal, without_colour

GIRAFFE = ("chat-1-giraffe", "-p", "demo_chatbot", "--storage-dir", RECORDED)


def test_show_step_of_a_recorded_run():
    """Inputs, result and the change of state, of a log that plain Burr wrote."""
    result = run("show", *GIRAFFE, "--step", "6")
    assert result.returncode == 0
    assert not result.stderr
    assert result.stdout.startswith("step 6 prompt  ok\n")
    assert '  prompt: "' in result.stdout
    assert '\n  + chat_history[2]: {"role": "user", "content": "' in result.stdout
    assert "\n  - response: " in result.stdout
    assert "keys unchanged: " in run("show", *GIRAFFE, "--step", "8").stdout


def test_show_step_json():
    """The same for programs, with the whole states."""
    found = json.loads(run("show", *GIRAFFE, "--step", "6", "--json").stdout)
    assert (found["step"]["name"], found["step"]["outcome"]) == ("prompt", "ok")
    assert len(found["state_after"]["chat_history"]) == 3
    assert len(found["state_before"]["chat_history"]) == 2
    assert {change["kind"] for change in found["changes"]} == {"added", "changed", "removed"}


def test_show_step_of_a_failure_has_its_traceback():
    """The exception stands above its traceback."""
    arguments = ("chat-6", "-p", "demo_chatbot", "--storage-dir", RECORDED, "--step", "3")
    code, drawn = run_in_terminal("show", *arguments)
    assert code == 0
    assert "\x1b[31mAuthenticationError: Error code: 401" in drawn
    assert "Traceback (most recent call last):" in without_colour(drawn)


@pytest.mark.parametrize("number", ["30", "-1"])
def test_an_unknown_step_exits_with_3(number):
    """The message says which steps there are."""
    result = run("show", *GIRAFFE, "--step", number)
    assert result.returncode == 3
    assert f"has no step {number}; it has steps 0 to 29" in result.stderr


def test_diff_of_different_runs_exits_with_4():
    """Scripts can tell from the exit code; the text says where and how."""
    result = run("diff", "count-to-42", "count-to-10", "--storage-dir", RECORDED)
    assert result.returncode == 4
    assert "part at once, at step 0" in result.stdout
    assert "~ count_to: 42 -> 10" in result.stdout
    found = json.loads(
        run("diff", "count-to-42", "count-to-10", "--storage-dir", RECORDED, "--json").stdout
    )
    assert found["same"] is False
    assert found["changes"]["state"] == [
        {"path": ["count_to"], "kind": "changed", "before": 42, "after": 10}
    ]


def test_diff_in_a_narrow_terminal_is_coloured():
    """What is gone is red and what is new is green; long lines wrap, and are not cut."""
    arguments = ("diff", "count-to-1", "count-to-10", "--storage-dir", RECORDED)
    code, drawn = run_in_terminal(*arguments, columns=40)
    assert code == 4
    assert "\x1b[31m- " in drawn
    assert "\x1b[32m+ " in drawn
    assert "10 result" in without_colour(drawn)


def test_diff_ignores_what_it_is_told_to():
    """Then the runs part only where the shorter one ends its counting."""
    result = run(
        "diff", "count-to-42", "count-to-10", "--storage-dir", RECORDED, "--ignore", "count_to"
    )
    assert result.returncode == 4
    assert "after 10 equal steps, at step 10" in result.stdout


def test_a_run_does_not_differ_from_itself():
    """And the exit code says so."""
    result = run("diff", "count-to-42", "count-to-42", "--storage-dir", RECORDED)
    assert result.returncode == 0
    assert "are the same: 43 steps" in result.stdout


def test_diff_with_an_unknown_run_exits_with_3():
    """As `show` does."""
    result = run("diff", "count-to-42", "count-to-43", "--storage-dir", RECORDED)
    assert result.returncode == 3
    assert "'count-to-42'" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("diff", "a", "a"), "step 0 of p/a cannot be compared"),
        (("diff", "a", "a", "--ignore", "x"), None),
        (("test-case", "a", "--action", "m:a", "-o", "none"), "nested too deeply"),
        (("show", "a", "--step", "0"), None),
    ],
)
def test_a_value_that_is_nested_too_deeply_is_an_error_in_a_sentence(tmp_path, arguments, says):
    """Burr's own client writes such states; ours refuses them."""
    folder = tmp_path / "p" / "a"
    folder.mkdir(parents=True)
    step = {"action": "a", "sequence_id": 0}
    inputs = {"x": "DEEP"} if "test-case" in arguments else {}
    begin = {"type": "begin_entry", "start_time": "2024-01-01T00:00:00.0", **step}
    end = {"type": "end_entry", "end_time": "2024-01-01T00:00:00.1", "result": {}, **step}
    records = {**begin, "inputs": inputs}, {**end, "exception": None, "state": {"x": "DEEP"}}
    lines = "".join(f"{json.dumps(record)}\n" for record in records)
    (folder / "log.jsonl").write_text(lines.replace('"DEEP"', "[" * 980 + "]" * 980))
    result = run(*arguments, "--storage-dir", tmp_path)
    assert "Traceback" not in result.stderr
    if result.returncode != 0:  # Python 3.12 and later encode much deeper values
        assert says is not None
        assert says in result.stderr
