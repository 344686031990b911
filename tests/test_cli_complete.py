"""Completion in the shell."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time

import pytest
from cli_support import LONGEST_S, RECORDED, environment, run

# What a shell acts on, or that looks like an option or a home directory.
HOSTILE = (
    "an$(touch PWNED)",
    "an`touch PWNED`",
    "an;touch PWNED",
    "an&touch PWNED",
    "an|tee PWNED",
    "an>PWNED",
    "an\ntouch PWNED\n",
    "an\nplain,an-evil",
    "an b",
    "an*",
    "an'",
    'an"',
    "an\\",
    "an!x",
    "an{a,b}",
    "an,b",
    "an#b",
    "an\x1b[2J",
    "an\u202ex",
    "~an",
    "--an",
    "=an",
)
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'eval "$(burr-otel completion bash)"'),
    "zsh": (
        ["zsh", "-f", "-i"],
        'autoload -U compinit; compinit -u -D; eval "$(burr-otel completion zsh)"',
    ),
    "fish": (["fish", "--no-config", "-i"], "burr-otel completion fish | source"),
}


def write_run(folder):
    """A run of which nothing matters but its place."""
    folder.mkdir(parents=True)
    (folder / "log.jsonl").touch()


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
    assert set(offered("-")) == {"--version", "-h", "--help"}
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
    """What a shell would act on, and what is a line or an option of its own, is left out."""
    for name in (*HOSTILE, "an-1.b_c@d+e:f", "anön"):
        write_run(tmp_path / "proj" / name)
    found = offered("show", "--storage-dir", tmp_path, "an")
    assert sorted(found) == ["an-1.b_c@d+e:f", "anön"]
    assert sorted(offered("show", "--storage-dir", tmp_path, "")) == sorted(found)


def test_hostile_projects_are_not_offered(tmp_path):
    """A folder in the storage directory may have any name, too."""
    for name in (*HOSTILE, "an-1"):
        (tmp_path / name).mkdir()
    assert offered("list", "--storage-dir", tmp_path, "-p", "") == ["an-1"]


class Shell:
    """A shell in a terminal, in which `burr-otel COMMAND` only writes down its arguments."""

    def __init__(self, name, folder):
        if not shutil.which(name):
            pytest.skip(f"{name} is not installed")
        arguments, completion = SHELLS[name]
        self._argv = folder / "argv"
        program = folder / "bin" / "burr-otel"
        program.parent.mkdir()
        program.write_text(
            "#!/bin/sh\n"
            f'if [ -n "$_BURR_OTEL_COMPLETE" ] || [ "$1" = completion ]; then\n'
            f'  exec "{sys.executable}" -m burr_otel.cli "$@"\nfi\n'
            f"printf '%s\\n' \"$@\" >'{self._argv}'\necho 'has'' run'\n"
        )
        program.chmod(0o700)
        variables = environment(HOME=str(folder), PS1="$ ", TERM="xterm")
        variables["PATH"] = f"{program.parent}{os.pathsep}{variables['PATH']}"
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            os.chdir(folder)
            os.execvpe(arguments[0], arguments, variables)
        self._drawn = b""
        self._type(f"{completion}; echo 'rea''dy'\n")
        self._read_until("ready")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self._fd)
        os.kill(self._pid, 9)
        os.waitpid(self._pid, 0)

    def complete(self, line, until=None):
        """Type a line, a tab and, when it has completed, Enter; the arguments that came of it."""
        self._drawn = b""
        self._type(f"{line}\t")
        if until:
            self._read_until(until)
        self._type("\n")
        self._read_until("has run")
        return self._argv.read_text().splitlines()

    def _type(self, keys):
        os.write(self._fd, keys.encode())

    def _read_until(self, text):
        deadline = time.monotonic() + LONGEST_S
        while text.encode() not in self._drawn:
            assert time.monotonic() < deadline, f"no {text!r} in {self._drawn!r}"
            if select.select([self._fd], [], [], 1.0)[0]:
                self._drawn += os.read(self._fd, 65536)


@pytest.mark.parametrize("name", SHELLS)
def test_a_tab_in_a_real_shell_runs_nothing_that_stands_in_an_id(name, tmp_path):
    """Plain ids are completed; of others nothing reaches the command line, so Enter is harmless."""
    store = tmp_path / "store"
    for app_id in (*HOSTILE, "good-1:b"):
        write_run(store / "proj" / app_id)
    with Shell(name, tmp_path) as shell:
        typed = f"burr-otel show --storage-dir {store}"
        assert shell.complete(f"{typed} go", "good-1") == [
            "show",
            "--storage-dir",
            str(store),
            "good-1:b",
        ]
        assert shell.complete(f"{typed} an") == ["show", "--storage-dir", str(store), "an"]
        assert shell.complete("burr-otel mater", "materialize") == ["materialize"]
    assert not list(tmp_path.rglob("PWNED"))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_one_that_the_shell_reads(shell):
    """What `completion` prints is a program for that shell."""
    result = run("completion", shell)
    assert result.returncode == 0
    assert "_BURR_OTEL_COMPLETE" in result.stdout
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=result.stdout, text=True, check=True, timeout=60)
