"""`OtelTracker`: its settings, store and lifetime. What it does when Burr calls is in `hooks`."""

from __future__ import annotations

import html
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from burr.tracking.client import LocalTrackingClient
from opentelemetry.metrics import MeterProvider, NoOpMeterProvider, get_meter_provider
from opentelemetry.trace import TraceFlags, TracerProvider
from typing_extensions import Self, Unpack

from burr_otel import forks
from burr_otel.config import DEFAULT_STORAGE_DIR, OtelConfig, OtelSettings, default_storage_dir
from burr_otel.errors import BurrOtelError, ConfigError, UnknownRunError
from burr_otel.hooks import RunHooks
from burr_otel.live import burr_patches
from burr_otel.live.registry import Owner, Spawner, registry
from burr_otel.live.shared import Shared, session_settings
from burr_otel.loader import RunLoader
from burr_otel.records.read import read_ids
from burr_otel.recover import Recovered, Send, recover_run
from burr_otel.spans import inside, keeper, provider, shield
from burr_otel.spans.facts import content_policy
from burr_otel.spans.signals import step_metrics
from burr_otel.spans.start import SpanStarter
from burr_otel.store import ALL, Store, is_url, without_password
from burr_otel.trace_url import TracePlace, trace_url

if TYPE_CHECKING:
    from burr_otel.view.drawing import RunView


class OtelTracker(RunHooks, RunLoader):
    """Traces Burr applications with OpenTelemetry and keeps the state that resumes them.

    Pass it to ``ApplicationBuilder.with_tracker(...)`` and, to resume or fork,
    to ``initialize_from(...)``. One tracker may serve any number of applications, in any thread;
    it can be copied and pickled. It is a context manager: leaving it ends open application spans
    and flushes them.

    Args:
        project: Name of the project: a folder below `storage_dir`, part of the application span's
            name, and the service name unless ``OTEL_SERVICE_NAME`` or a provider says otherwise.
            Letters, digits, ``_``, ``-`` and ``:``.
        storage_dir: Where runs are kept: a folder, in the layout of Burr's
            ``LocalTrackingClient``, or the URL of a PostgreSQL database (``postgresql://``) or of a
            bucket (``s3://``, ``gs://``, ``az://``). Default: ``BURR_OTEL_STORAGE_DIR``, else
            ``~/.burr``.
        serde_kwargs: Passed to Burr's serialisers and deserialisers.
        tracer_provider: Makes the spans. Default: the global provider when one has been set by the
            time an application is built, else one from the ``OTEL_*`` variables. Pickling leaves
            it behind: in another process that process's own is used.
        meter_provider: Makes the instruments. Default: the global one.
        config: Settings as one object. Default: from ``BURR_OTEL_*`` variables.
        clock: Gives Unix time in nanoseconds; tests inject one.
        **settings: Single settings by name, see `OtelConfig`; they win over `config`.

    Attributes:
        project_id: The project.
        raw_storage_dir: `storage_dir` as it was given; a URL without its password.
        storage_dir: Folder of the project's runs, as a string; a URL without its password.
        serde_kwargs: As given.
        config: The settings in force.

    Raises:
        InvalidIdentifierError: A project that cannot be a folder name.
        ConfigError: An unknown setting or a value that is not allowed.
    """

    GRAPH_FILENAME = "graph.json"
    LOG_FILENAME = "log.jsonl"
    METADATA_FILENAME = "metadata.json"
    CHILDREN_FILENAME = "children.jsonl"
    DEFAULT_STORAGE_DIR = DEFAULT_STORAGE_DIR

    def __init__(
        self,
        project: str,
        storage_dir: str | os.PathLike[str] = DEFAULT_STORAGE_DIR,
        serde_kwargs: dict[str, Any] | None = None,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        config: OtelConfig | None = None,
        clock: Callable[[], int] = time.time_ns,
        **settings: Unpack[OtelSettings],
    ) -> None:
        self.config = OtelConfig.resolve(config, settings)
        for given, method in ((tracer_provider, "get_tracer"), (meter_provider, "get_meter")):
            if given is not None and not hasattr(given, method):
                raise ConfigError(f"{given!r} is no provider; use one that has {method}().")
        self.project_id = project
        root = os.fspath(storage_dir)
        root = default_storage_dir() if root == DEFAULT_STORAGE_DIR else root
        self.raw_storage_dir = without_password(root)
        # Absolute, since a copy may be made after a `chdir` or in a process that works elsewhere.
        in_place = is_url(root) or root.startswith("~")
        self._storage_root = root if in_place else str(Path(root).absolute())
        self.serde_kwargs = dict(serde_kwargs or {})
        self._tracer_provider = tracer_provider
        self._meter_provider = meter_provider
        self._clock = clock
        self._spawner = Spawner()
        self._home = registry.process
        self._owner = Owner()
        self._open()

    def _open(self) -> None:
        config = self.config
        self._store = Store(
            self.project_id,
            self._storage_root,
            serde_kwargs=self.serde_kwargs,
            durability=config.durability,
            exclusive=config.exclusive,
            delta=config.snapshots == "delta",
        )
        self.storage_dir = self._store.place
        self._policy = content_policy(config)
        self._made: tuple[tuple[Any, ...], Shared] | None = None
        burr_patches.install(OtelTracker)

    def _shared(self) -> Shared:
        forks.notice()
        made_by = provider.tracer_provider(self._tracer_provider, self.project_id)
        given = self._meter_provider
        meters = get_meter_provider() if given is None else given
        made_for = (made_by, meters, registry.process)
        if self._made is not None:
            known, shared = self._made
            # By identity: two providers of others may be unhashable, or say that they are equal.
            if all(a is b for a, b in zip(known, made_for, strict=True)):
                return shared
        starter = None
        try:
            starter = SpanStarter(provider.tracer(made_by), self._policy)
            if self.config.child_spans != "off":
                inside.child_spans(made_by)
        except Exception as error:
            shield.report("getting a tracer", error)
        try:
            metrics = step_metrics(meters, self.project_id)
        except Exception as error:
            shield.report("making instruments", error)
            metrics = step_metrics(NoOpMeterProvider(), self.project_id)
        shared = Shared(
            owner=self._owner,
            at_home=self._home == registry.process,
            project=self.project_id,
            serde_kwargs=self.serde_kwargs,
            config=self.config,
            policy=self._policy,
            settings=session_settings(self.config),
            starter=starter,
            metrics=metrics,
            clock=self._clock,
        )
        self._made = made_for, shared
        return shared

    # --- copies ------------------------------------------------------------------------------

    def copy(self) -> Self:
        """A tracker of the same settings for a sub-application.

        Burr calls this inside the spawning step, before it starts the thread, task or process of
        the sub-application, so the copy also remembers that step.
        """
        twin = type(self).__new__(type(self))  # a subclass may have a constructor of its own
        twin.__setstate__(
            {
                **self.__getstate__(),
                "_tracer_provider": self._tracer_provider,
                "_meter_provider": self._meter_provider,
                "_owner": Owner(self._owner),
                "_spawner": registry.spawner(),
            }
        )
        return twin

    def __getstate__(self) -> dict[str, Any]:
        """Settings only: providers, spans and files belong to a process."""
        left_out = {"_tracer_provider", "_meter_provider", "_store", "_policy", "_owner", "_made"}
        return {key: value for key, value in self.__dict__.items() if key not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the same store in this process; spans go to this process's provider."""
        self._tracer_provider = self._meter_provider = None
        self._owner = Owner()
        self.__dict__.update(state)
        self._open()

    # --- looking at runs ---------------------------------------------------------------------

    def trace_url(self, app_id: str) -> str | None:
        """The address of a run's newest trace in the backend, for log lines and support tickets.

        Args:
            app_id: The run: one of this process, or a stored one.

        Returns:
            The address, by the setting `trace_url`; `None` when the run was not traced (it was not
            sampled, nothing made spans, or with ``empty_runs="drop"`` it has not been run yet).

        Raises:
            InvalidIdentifierError: The app id cannot be the name of a folder.
            UnknownRunError: There is no such run; the error names the nearest ones.
        """
        live = (run for run in registry.runs(app_id) if run.owner.is_within(self._owner))
        run, now = next(live, None), self._clock()
        if run is not None and run.is_open:
            ids, began_ns = run.root.ids, run.root.begin.time_ns
        elif run is not None and not self._store.exists(app_id):
            return None
        else:
            history = self._store.history(self._store.read(app_id).app_id)
            root = (history.last_root if history else None) or {}
            ids, began_ns = read_ids(root), int(root.get("time_unix_nano") or now)
        if ids is None or not ids.flags & TraceFlags.SAMPLED:
            return None
        place = TracePlace(f"{ids.trace_id:032x}", self.project_id, app_id, began_ns, now)
        return trace_url(self.config.trace_url, place)

    def run(self, app_id: str | None = None, partition_key: str | None = None) -> RunView:
        """A run to look at: a notebook draws its waterfall, ``print`` writes it as text.

        What is shown is redacted as spans are. It does not change afterwards; ask again for what
        has happened since.

        Args:
            app_id: The run. Default: the last one that this tracker recorded, else the one of the
                project that was written to last.
            partition_key: Its partition key, where one id has several.

        Raises:
            UnknownRunError: There is no such run.
        """
        from burr_otel.view.content import load  # noqa: PLC0415 - drawing takes long to import
        from burr_otel.view.drawing import RunView  # noqa: PLC0415 - likewise

        if app_id is None:
            app_id, partition_key = self._newest_run()
        stored = self._store.read(app_id, ALL if partition_key is None else partition_key)
        tree = load(stored, self._store, self._policy, ends=RunView.ENDS)
        return RunView(tree, self.trace_url(app_id))

    def _newest_run(self) -> tuple[str, str | None]:
        if self._last_run is not None and self._store.exists(*self._last_run):
            return self._last_run
        newest = max(self._store.runs(), key=lambda run: run.changed_ns, default=None)
        if newest is None:
            raise UnknownRunError("(none yet)", self._store.place)
        return newest.app_id, newest.partition_key

    def __repr__(self) -> str:
        """Project and place."""
        return f"{type(self).__name__}({self.project_id!r}, {self.raw_storage_dir!r})"

    def _repr_html_(self) -> str:
        own = f"<code>{html.escape(repr(self))}</code>"
        try:
            return own + self.run()._repr_html_()
        except (BurrOtelError, OSError):
            return own  # no run yet, or none that can be read

    # --- lifetime ----------------------------------------------------------------------------

    def close(self) -> None:
        """End the open application spans of this tracker and of its copies, and flush them.

        Applications that go on afterwards are still recorded; their steps hang off the ended span.
        """
        keeper.keeper.sweep()
        for run in registry.runs():
            if run.owner.is_within(self._owner):
                run.end_open_spans()
        others = (run for run in registry.runs() if not run.owner.is_within(self._owner))
        if self.config.log_events and not any(run.shared.log_events for run in others):
            inside.overlook_log_lines()
        self._flush()

    def _flush(self) -> None:
        provider.flush(self._tracer_provider, self.project_id)

    def _leave_nothing_open(self) -> None:
        """End what is idle and flush: this process may be killed as soon as its task is done."""
        keeper.keeper.sweep()
        for run in registry.runs():
            if run.owner.is_within(self._owner) and not run.root.busy:
                run.root.finish()
        self._flush()

    def recover(
        self, app_id: str, send: Send | None = None, *, partition_key: str | None = None
    ) -> list[Recovered]:
        """Complete what crashed sessions of a run left behind, as its next builder would.

        Sends the root and step spans that a killed process left open, once, whoever asks first; and
        mends a log that was torn. Sessions whose process lives are left alone.

        Args:
            app_id: The run.
            send: Sends spans in place of the provider, and says whether they were taken.
            partition_key: The run's own; without one, the run without, else the first of that id.

        Returns:
            One item for each session that this call took on; one whose spans were not taken stays
            for the next call.

        Raises:
            InvalidIdentifierError: The app id cannot be the name of a folder.
            UnknownRunError: There is no such run; the error names the nearest ones.
            OSError: The log cannot be mended.
        """
        key = partition_key if self._store.exists(app_id, partition_key) else ALL
        self._store.read(app_id, key).log.repair()
        shared, dead_before_ns = self._shared(), self.config.dead_before_ns(self._clock())
        return recover_run(
            self._store, app_id, key, dead_before_ns, shared.policy, shared.starter, send
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


# Hosts of Burr applications ask for the client that ours replaces.
LocalTrackingClient.register(OtelTracker)
