"""Where a step's time goes: functions of the pipeline are wrapped, and their own time is added up.

A part's time is that of its functions less that of other parts which they call. `PARTS` maps each
part to functions, written ``module:name`` or ``module:Class.method``; a name that does not exist
any more is reported, and its time stays with its caller. Times are by wall clock, with the exporter
at rest until the end; of all steps the middle half counts, so that other processes disturb little.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import itertools
import statistics
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from burr.lifecycle import PreRunStepHook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PARTS = {
    "hooks, and what no other part is": (
        "burr_otel.tracker:OtelTracker.pre_run_step",
        "burr_otel.tracker:OtelTracker.post_run_step",
    ),
    "find the run": ("burr_otel.live.registry:Registry.resolve",),
    "encode inputs, state and result": (
        "burr_otel.live.step_end:encode_state",
        "burr_otel.live.capture:encode_mapping",
    ),
    "make the records' JSON": (
        "burr_otel.store.session:encode_begin_step",
        "burr_otel.store.session:encode_end_step",
    ),
    "append (lock, look at the file, index)": ("burr_otel.store.files.log_file:LogFile.append",),
    "`write(2)`": ("os:write",),
    "make and end the span": (
        "burr_otel.spans.start:SpanStarter.start",
        "burr_otel.spans.burr_span:BurrSpan.begin",
        "burr_otel.spans.burr_span:BurrSpan.finish",
    ),
    "attach and detach": (
        "burr_otel.spans.scope:Scope.enter",
        "burr_otel.spans.scope:Scope.leave",
    ),
    "span processors, queue": (
        "opentelemetry.sdk.trace:SynchronousMultiSpanProcessor.on_start",
        "opentelemetry.sdk.trace:SynchronousMultiSpanProcessor.on_end",
    ),
    "metrics": (
        "burr_otel.spans.signals:StepMetrics.step_began",
        "burr_otel.spans.signals:StepMetrics.step_ended",
    ),
    "describe: redact, truncate, JSON for display": ("burr_otel.spans.describe:step",),
    "OTLP encoder": (
        "opentelemetry.exporter.otlp.proto.common.trace_encoder:encode_spans",
        "contenders:encode_spans",
    ),
}


CALIBRATING = "(nothing)"


def nothing() -> None:
    """Timed to learn what timing costs."""


class Recorder(PreRunStepHook):
    """Times of the parts, step by step; as a hook it sees where a step begins."""

    def __init__(self) -> None:
        table = {**PARTS, CALIBRATING: (f"{__name__}:nothing",)}
        self._titles = list(table)
        self._spent_ns = [0] * len(table)
        self._calls = [0] * len(table)
        self._nested = [0] * len(table)  # timed calls by this part
        self._running = [(-1, 0)]  # a part, and the time of the timed calls by it
        self._steps: list[list[int]] = []
        self._missing: list[str] = []
        bare_ns = self._loop_ns()
        for part, names in enumerate(table.values()):
            for name in names:
                self._wrap(name, part)
        whole_ns = self._loop_ns() - bare_ns
        self._inside_ns = self._spent_ns[-1] / self._calls[-1]
        self._outside_ns = whole_ns - self._inside_ns

    @staticmethod
    def _loop_ns(count: int = 20_000) -> float:
        start = time.perf_counter_ns()
        for _ in range(count):
            nothing()
        return (time.perf_counter_ns() - start) / count

    def _wrap(self, name: str, part: int) -> None:
        """Time a function where it stands, and where our modules imported it by name."""
        module_name, _, path = name.partition(":")
        *classes, attribute = path.split(".")
        try:
            owner = importlib.import_module(module_name)
            for class_name in classes:
                owner = getattr(owner, class_name)
            function = inspect.getattr_static(owner, attribute)
        except (ImportError, AttributeError):
            self._missing.append(name)
            return
        timed = self._timed(function, part)
        setattr(owner, attribute, timed)
        ours = [sys.modules[each] for each in list(sys.modules) if each.startswith("burr_otel")]
        for module in [] if classes else ours:
            for alias, value in list(vars(module).items()):
                if value is function:
                    setattr(module, alias, timed)

    def _timed(self, function: Any, part: int) -> Any:
        if isinstance(function, staticmethod | classmethod):
            return type(function)(self._timed(function.__func__, part))
        spent_ns, calls, nested, running = self._spent_ns, self._calls, self._nested, self._running
        clock, this_thread = time.perf_counter_ns, threading.get_ident
        thread = this_thread()

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if this_thread() != thread:
                return function(*args, **kwargs)
            running.append((part, 0))
            start = clock()
            try:
                return function(*args, **kwargs)
            finally:
                taken = clock() - start
                spent_ns[part] += taken - running.pop()[1]
                calls[part] += 1
                caller, below = running[-1]
                running[-1] = (caller, below + taken)
                if caller >= 0:
                    nested[caller] += 1

        return timed

    def pre_run_step(self, **_told: Any) -> None:
        self._steps.append([*self._spent_ns, *self._calls, *self._nested])

    def start(self) -> None:
        """Forget what was."""
        self._steps.clear()

    def finish(self, flush: Callable[[], None]) -> dict[str, Any]:
        """What a step takes on its own thread, and then its export, on this thread too."""
        self.pre_run_step()
        columns = zip(*self._steps, strict=True)
        own = [_middle(now - then for then, now in itertools.pairwise(each)) for each in columns]
        last, count = self._steps[-1], len(self._steps) - 1
        flush()
        self.pre_run_step()
        export = [(now - then) / count for then, now in zip(last, self._steps[-1], strict=True)]
        return {
            "own": self._by_title(own),
            "export": self._by_title(export),
            "missing": self._missing,
        }

    def _by_title(self, numbers: list[float]) -> dict[str, tuple[float, float]]:
        """Calls and µs of the parts that were called, without what timing them took."""
        width = len(self._titles)
        found = {}
        for part, title in enumerate(self._titles):
            spent_ns, calls, nested = numbers[part::width]
            timing_ns = calls * self._inside_ns + nested * self._outside_ns
            if calls:
                found[title] = (calls, (spent_ns - timing_ns) / 1000)
        return found


def _middle(values: Iterable[int]) -> float:
    """The mean of the middle half."""
    ordered = sorted(values)
    quarter = len(ordered) // 4
    return statistics.fmean(ordered[quarter : len(ordered) - quarter])
