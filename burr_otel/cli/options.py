"""Options that several commands share."""

from __future__ import annotations

import datetime as dt
import functools
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, cast

import click

from burr_otel.cli.complete import project_names
from burr_otel.config import ENV_PREFIX
from burr_otel.store import StoredRun
from burr_otel.view.find import find_run

DEFAULT_STORAGE_DIR: Final = "~/.burr"

F = TypeVar("F", bound=Callable[..., Any])

_AGO: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:I?B)?")
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


if TYPE_CHECKING:
    _Number = click.ParamType[int]
else:
    _Number = click.ParamType  # not generic before click 8.2


class Since(_Number):
    """A moment: an age such as ``2h``, or a date or time. Gives nanoseconds since the epoch."""

    name = "since"

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        self._clock = clock

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> int:
        """Read the text."""
        if isinstance(value, int):
            return value
        text = str(value).strip()
        age = _AGO.fullmatch(text.lower())
        if age:
            return self._clock() - int(float(age[1]) * _UNIT_S[age[2]] * 1e9)
        try:
            # Python 3.10 does not read a Z. A time without a zone is the reader's own.
            moment = dt.datetime.fromisoformat(text.replace("Z", "+00:00"))
            return int(moment.timestamp()) * 10**9
        except (ValueError, OverflowError, OSError):
            self.fail(
                f"{value!r} is no time. Use an age such as 45s, 30m, 2h, 3d or 1w, "
                "or a date or time such as 2025-01-31 or 2025-01-31T14:00.",
                param,
                ctx,
            )


class Size(_Number):
    """A number of bytes, such as ``500M`` or ``5G``."""

    name = "size"

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> int:
        """Read the text."""
        found = _SIZE.fullmatch(str(value).strip().upper())
        if not found:
            self.fail(
                f"{value!r} is no size. Use a number of bytes, or 500M, 5G, 1.5T.", param, ctx
            )
        return int(float(found[1]) * 1024 ** "BKMGT".index(found[2] or "B"))


def storage_dir(function: F) -> F:
    """``--storage-dir``."""
    return click.option(
        "--storage-dir",
        metavar="DIR|URL",
        default=DEFAULT_STORAGE_DIR,
        envvar=f"{ENV_PREFIX}STORAGE_DIR",
        show_envvar=True,
        is_eager=True,  # the completion of project and app id looks there
        show_default=True,
        help="Where runs are kept.",
    )(function)


def project(function: F) -> F:
    """``--project``."""
    return click.option(
        "-p",
        "--project",
        metavar="NAME",
        shell_complete=project_names,
        help="Look in this project only.  [default: all]",
    )(function)


def partition(function: F) -> F:
    """``--partition``."""
    return click.option(
        "--partition", metavar="KEY", help="Only runs of this partition key.  [default: all]"
    )(function)


def as_json(function: F) -> F:
    """``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def unredacted(function: F) -> F:
    """``--unredacted``."""
    return click.option(
        "--unredacted",
        is_flag=True,
        help="Show values as they were recorded, secrets too; else as spans show them.",
    )(function)


class Where(NamedTuple):
    """Which runs a command looks at."""

    storage_dir: str
    project: str | None = None
    partition: str | None = None

    def run(self, app_id: str) -> StoredRun:
        """The run of that id, or the only one whose id begins so."""
        return find_run(self.storage_dir, app_id, self.project, self.partition)


def where(function: F) -> F:
    """``--project``, ``--partition`` and ``--storage-dir``, given as one `Where`."""
    return cast("F", project(partition(storage_dir(_bundled(function)))))


def where_of_project(function: F) -> F:
    """``--project`` and ``--storage-dir``, given as one `Where`."""
    return cast("F", project(storage_dir(_bundled(function))))


def _bundled(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def command(*, storage_dir: str, project: str | None, **given: Any) -> Any:
        partition = given.pop("partition", None)
        return function(where=Where(storage_dir, project, partition), **given)

    return command
