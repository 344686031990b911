"""scripts/install_backends.sh, with a stand-in for Go: what it tells, and what it does again."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "install_backends.sh"
GO = """#!/bin/bash
echo "$*" >>"$CALLS"
case "$*" in
"env GOVERSION") echo go1.24.1 ;;
*"mod download -json"*) mkdir -p "$MODULE" && printf '\\t"Dir": "%s"\\n' "$MODULE" ;;
*"mod download -x"*) echo "# get https://proxy.example/a.zip" ;;
*"list -deps"*) printf 'one\\ntwo\\nthree\\n' ;;
*build*)
  printf 'one\\ntwo\\n'
  [[ -z $BROKEN ]] || { echo "two/x.go:7: undefined: y" && exit 1; }
  while [[ $1 != -o ]]; do shift; done
  printf '#!/bin/sh\\n' >"$2" && chmod +x "$2" ;;
esac
"""


@pytest.fixture
def install(tmp_path):
    """Run the script for a part; its result, and the calls of Go that it made."""
    if not all(map(shutil.which, ("bash", "flock"))):
        pytest.skip("bash or flock is not installed")
    go = tmp_path / "bin" / "go"
    go.parent.mkdir()
    go.write_text(GO)
    go.chmod(0o700)
    calls = tmp_path / "calls"

    def run(*parts, **variables):
        calls.write_text("")
        done = subprocess.run(
            [SCRIPT, *parts],
            env={
                **os.environ,
                "PATH": f"{go.parent}{os.pathsep}{os.environ['PATH']}",
                "BURR_OTEL_BACKENDS": str(tmp_path / "cache"),
                "BURR_OTEL_TELL_EVERY_S": "0",
                "MODULE": str(tmp_path / "module"),
                "CALLS": str(calls),
                "BROKEN": "",
                **variables,
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done, calls.read_text().splitlines()

    return run


def test_a_build_says_what_it_does_and_how_far_it_is(install):
    """Each stage by its name, and the packages compiled of those there are."""
    done, _ = install("jaeger")
    assert done.returncode == 0, done.stderr
    assert "part 1 of 1: jaeger" in done.stdout
    assert "downloading modules" in done.stdout
    assert "compiling packages: 1 of at most 3" in done.stdout
    assert "compiling packages: 2 of at most 3" in done.stdout
    assert "jaeger installed" in done.stdout


def test_what_is_there_is_not_built_again(install):
    """A second run calls Go for nothing."""
    install("jaeger")
    done, calls = install("jaeger")
    assert done.returncode == 0
    assert "is there" in done.stdout
    assert calls == []


def test_a_build_that_fails_shows_why_and_is_tried_again(install):
    """The end of the compiler's output stands in the message; no stamp says that it is there."""
    done, _ = install("jaeger", BROKEN="1")
    assert done.returncode == 1
    assert "two/x.go:7: undefined: y" in done.stderr
    assert "compiling packages failed" in done.stderr
    done, calls = install("jaeger")
    assert done.returncode == 0
    assert any(" build " in call for call in calls)


def test_an_unknown_part_is_named(install):
    """With those that there are."""
    done, calls = install("jeager")
    assert done.returncode == 1
    assert "jeager" in done.stderr
    assert "jaeger" in done.stderr
    assert calls == []
