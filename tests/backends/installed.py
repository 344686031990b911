"""Where the servers are, and what a test does when one is not there."""

from __future__ import annotations

import os
import pathlib
from typing import NoReturn

import pytest


def backends_folder() -> pathlib.Path:
    """Where scripts/install_backends.sh puts the servers."""
    return pathlib.Path(
        os.environ.get("BURR_OTEL_BACKENDS") or "~/.cache/burr-otel/backends"
    ).expanduser()


def absent(part: str, where: object) -> NoReturn:
    """Skip or fail the test, because a server is not installed."""
    reason = f"{part} is not installed ({where}); run scripts/install_backends.sh {part}"
    if os.environ.get("BURR_OTEL_REQUIRE_BACKENDS") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def installed(part: str, relative: str) -> pathlib.Path:
    """The path of an installed server's program; skips or fails the test when it is absent."""
    path = backends_folder() / relative
    if not os.access(path, os.X_OK):
        absent(part, path)
    return path
