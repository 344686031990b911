"""Completion in the shell."""

import shutil
import subprocess

import pytest
from cli_support import RECORDED, run


def offered(*words):
    """What bash would be offered after these words; the last one is being typed."""
    result = run(
        _BURR_OTEL_COMPLETE="bash_complete",
        COMP_WORDS=" ".join(["burr-otel", *map(str, words)]),
        COMP_CWORD=str(len(words)),
    )
    assert result.stderr == ""
    return [line.partition(",")[2] for line in result.stdout.splitlines() if line]


def test_commands_and_options_are_offered():
    """What can come next."""
    assert offered("sh") == ["show"]
    assert "--follow" in offered("show", "--f")
    assert offered("list", "--status", "c") == ["crashed", "cancelled"]


def test_app_ids_and_projects_are_offered():
    """Those of the storage directory that was typed before."""
    where = ("show", "--storage-dir", RECORDED)
    assert sorted(offered(*where, "count-to-1")) == ["count-to-1", "count-to-10", "count-to-100"]
    assert offered(*where, "-p", "demo_counter", "chat") == []
    assert offered(*where, "-p", "demo_cou") == ["demo_counter"]


def test_a_store_that_is_not_there_is_no_error(tmp_path):
    """Nobody wants a message in the middle of typing."""
    assert offered("show", "--storage-dir", tmp_path / "nowhere", "x") == []


def test_hostile_ids_are_not_offered(tmp_path):
    """A folder's name cannot put lines of its own into what the shell reads."""
    for name in ("good", "go\nplain,evil", "go\x1b[2J"):
        (tmp_path / "proj" / name).mkdir(parents=True)
    assert offered("show", "--storage-dir", tmp_path, "go") == ["good"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_one_that_the_shell_reads(shell):
    """What `completion` prints is a program for that shell."""
    result = run("completion", shell)
    assert result.returncode == 0
    assert "_BURR_OTEL_COMPLETE" in result.stdout
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=result.stdout, text=True, check=True, timeout=60)
