"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

__all__ = ["DEFAULT_STORAGE_DIR", "as_json", "project", "storage_dir"]

DEFAULT_STORAGE_DIR: Final = "~/.burr"

F = TypeVar("F", bound=Callable[..., Any])


def storage_dir(function: F) -> F:
    """``--storage-dir``."""
    return click.option(
        "--storage-dir",
        metavar="DIR",
        default=DEFAULT_STORAGE_DIR,
        show_default=True,
        help="Where runs are kept.",
    )(function)


def project(function: F) -> F:
    """``--project``."""
    return click.option(
        "-p", "--project", metavar="NAME", help="Look in this project only.  [default: all]"
    )(function)


def as_json(function: F) -> F:
    """``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)
