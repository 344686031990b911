"""Absent servers: a reason for people, a failure for continuous integration."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent
NEEDS_JAEGER = HERE / "test_servers.py::test_a_missing_trace_is_reported_with_what_is_there"


@pytest.mark.parametrize(("required", "outcome"), [("", "1 skipped"), ("1", "1 error")])
def test_an_absent_server_skips_or_fails(
    required: str, outcome: str, tmp_path: pathlib.Path
) -> None:
    """Without servers a test is skipped and says what to run; when they are required, it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n0", "-rs", "-p", "no:cacheprovider", NEEDS_JAEGER],
        env={
            **os.environ,
            "BURR_OTEL_BACKENDS": os.fspath(tmp_path),
            "BURR_OTEL_REQUIRE_BACKENDS": required,
        },
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert outcome in done.stdout
    assert "run scripts/install_backends.sh jaeger" in done.stdout
    assert (done.returncode == 0) is not bool(required)
