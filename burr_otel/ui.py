"""What the Burr UI's server reads runs with, from any store: ``BURR_BACKEND_IMPL``.

    export BURR_BACKEND_IMPL=burr_otel.ui.StoreBackend BURR_OTEL_STORAGE_DIR=postgresql://…
    burr

Needs ``apache-burr[tracking-server]``.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

try:
    import fastapi
    from burr.tracking.common.models import ApplicationModel, ChildApplicationModel
    from burr.tracking.server import schema
    from burr.tracking.server.backend import BackendBase, BurrSettings
    from pydantic_settings import BaseSettings
except ImportError as error:
    raise ImportError(
        f"the Burr UI's server is not installed here ({error}). "
        'Run: pip install "apache-burr[tracking-server]"'
    ) from error

from burr_otel.config import OtelConfig, default_storage_dir
from burr_otel.errors import BurrOtelError, InvalidIdentifierError, UnknownRunError
from burr_otel.records import BEGIN_ENTRY, END_ENTRY, encode_json
from burr_otel.store import ALL, Store, StoredRun, open_engine
from burr_otel.store.reading import newest_record, otel_of
from burr_otel.trace_url import recorded_place, trace_url

T = TypeVar("T")

TRACE_KEY: Final = "trace"
"""The logged attribute of each step that has the address of its trace."""

_NO_GRAPH: Final[dict[str, Any]] = {"entrypoint": "", "actions": [], "transitions": []}


class StoreBackend(BackendBase):
    """Projects, runs and steps of a store for the Burr UI; states are whole, nothing is written.

    Args:
        storage_dir: As for `OtelTracker`. Default: ``BURR_OTEL_STORAGE_DIR``, else ``~/.burr``.
    """

    def __init__(self, storage_dir: str | None = None) -> None:
        self._storage_dir = storage_dir or default_storage_dir()
        self._trace_url = OtelConfig.resolve().trace_url

    @classmethod
    def settings_model(cls) -> type[BaseSettings]:
        """Of Burr's own settings none is needed."""
        return BurrSettings

    async def list_projects(self, request: fastapi.Request) -> Sequence[schema.Project]:  # noqa: ARG002
        """Projects that have runs."""
        return await _answer(lambda: list(self._projects()))

    async def list_apps(
        self,
        request: fastapi.Request,  # noqa: ARG002
        project_id: str,
        partition_key: str | None,
        limit: int = 100,
        offset: int = 0,
    ) -> tuple[Sequence[schema.ApplicationSummary], int]:
        """Runs, the one written to last first, and how many there are."""

        def work() -> tuple[Sequence[schema.ApplicationSummary], int]:
            key = ALL if partition_key is None else partition_key
            found = list(Store(project_id, self._storage_dir).runs(key))
            found.sort(key=lambda run: (run.changed_ns, run.app_id), reverse=True)
            return [_summary(run) for run in found[offset : offset + limit]], len(found)

        return await _answer(work)

    async def get_application_logs(
        self,
        request: fastapi.Request,  # noqa: ARG002
        project_id: str,
        app_id: str,
        partition_key: str | None,
    ) -> schema.ApplicationLogs:
        """A run with its steps; without a key, the run without one, else the first of that id."""

        def work() -> schema.ApplicationLogs:
            store = Store(project_id, self._storage_dir)
            known = partition_key is not None or store.exists(app_id, None)
            return self._shown(store.read(app_id, partition_key if known else ALL))

        return await _answer(work)

    def _projects(self) -> Iterator[schema.Project]:
        names: list[str] = []
        with contextlib.suppress(FileNotFoundError):  # nothing has been recorded yet
            names = open_engine(self._storage_dir).projects()
        for name in names:
            times = [run.changed_ns for run in Store(name, self._storage_dir).runs()]
            if times:
                yield schema.Project(
                    name=name,
                    id=name,
                    uri="",
                    created=_time(min(times)),
                    last_written=_time(max(times)),
                    num_apps=len(times),
                )

    def _shown(self, run: StoredRun) -> schema.ApplicationLogs:
        lines: list[bytes] = []
        for record in run.records():
            if record["type"] == END_ENTRY and record["state"] is None:
                continue  # what it builds on is lost
            lines.append(encode_json(record))
            if record["type"] == BEGIN_ENTRY:
                lines.extend(self._trace_of(run, record))
        children = []
        for child in run.children:
            with contextlib.suppress(ValueError):
                children.append(ChildApplicationModel.model_validate(child))
        return schema.ApplicationLogs.model_validate(
            {
                "application": ApplicationModel.model_validate(run.graph or _NO_GRAPH),
                "steps": schema.Step.from_logs(lines),
                "children": children,
                **_pointers(run),
            }
        )

    def _trace_of(self, run: StoredRun, record: Mapping[str, Any]) -> Iterator[bytes]:
        """The address of a step's trace, as an attribute that the UI shows beside those logged."""
        place = recorded_place(otel_of(record) or {}, run.project, run.app_id)
        if place is None:
            return
        yield encode_json(
            {
                "type": "attribute",
                "key": TRACE_KEY,
                "action_sequence_id": record["sequence_id"],
                "span_id": None,
                "value": trace_url(self._trace_url, place),
                "tags": {},
            }
        )


def _summary(run: StoredRun) -> schema.ApplicationSummary:
    first = otel_of(next(run.records(), None)) or {}
    began_ns = first.get("time_unix_nano")
    newest = newest_record(run.log, (BEGIN_ENTRY, END_ENTRY))
    return schema.ApplicationSummary.model_validate(
        {
            "app_id": run.app_id,
            "partition_key": run.partition_key,
            "first_written": _time(began_ns if isinstance(began_ns, int) else run.changed_ns),
            "last_written": _time(run.changed_ns),
            "num_steps": 0 if newest is None else newest["sequence_id"] + 1,
            "tags": {},
            **_pointers(run),
        }
    )


def _pointers(run: StoredRun) -> dict[str, Any]:
    """Where a run comes from, in Burr's layout."""
    fork, spawner = run.parent_pointer, run.spawning_parent_pointer
    return {
        "parent_pointer": fork and fork._asdict(),
        "spawning_parent_pointer": spawner and spawner._asdict(),
    }


def _time(time_ns: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(time_ns / 1e9, tz=dt.timezone.utc)


async def _answer(work: Callable[[], T]) -> T:
    """Read off the event loop; what goes wrong has a status and a sentence."""
    try:
        return await asyncio.to_thread(work)
    except (UnknownRunError, InvalidIdentifierError) as error:
        raise fastapi.HTTPException(404, str(error)) from error
    except (BurrOtelError, OSError) as error:
        raise fastapi.HTTPException(503, str(error)) from error
