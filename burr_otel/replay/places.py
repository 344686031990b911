"""Where the spans of a run stand: their ids, parents and links, as recorded or derived.

A span that was never given an id gets the same one wherever its run is replayed: the first 8 bytes
(of a trace 16) of the SHA-256 of the texts ``burr-otel/1``, ``span`` (or ``trace``), project, app
id, session id (empty in a log of Burr's own client) and what the span is within the session, each
in UTF-8 behind its length in bytes as a decimal number and a colon.
"""

from __future__ import annotations

import functools
import hashlib
from typing import Any, Final, TypeGuard

from burr_otel import semconv
from burr_otel.errors import BurrOtelError
from burr_otel.history.fold import Fold
from burr_otel.history.read import Pointer, pointer_of
from burr_otel.history.tree import SessionNode, SpanNode, session_of
from burr_otel.records import BeginInner, LinkIds, Origin, SpanIds
from burr_otel.store import Store, StoredRun

_SCHEME: Final = "burr-otel/1"
_TRACE_BYTES, _SPAN_BYTES = 16, 8
_MOST_REMEMBERED: Final = 64  # runs
_DEEPEST: Final = 200  # runs that spawn runs
_SAMPLED: Final = 1


class Places:
    """The ids, parents and links of the spans of one run."""

    def __init__(self, run: StoredRun, relatives: Relatives) -> None:
        self._run, self._relatives = run, relatives
        self._roots: dict[str | None, tuple[SpanIds, SpanIds | None]] = {}

    def of(self, span: SpanNode) -> Origin:
        """Ids, parent and links of a span."""
        if isinstance(span, SessionNode):
            return self._session(span.top)
        ids, origin = self.ids(span), getattr(span.begin, "origin", None)
        over = None if span.above is None else self.ids(span.above)
        if origin is not None and _is_sampled(origin.ids):
            return Origin(ids, origin.parent or over, origin.links)
        return Origin(ids, over, self._dependencies(span))

    def ids(self, span: SpanNode) -> SpanIds:
        """The ids of a span."""
        if isinstance(span, SessionNode):
            return self._root(span.top)[0]
        if _is_sampled(span.ids):
            return span.ids
        session, step = session_of(span), span.step or span
        place = [str(step.sequence_id or 0), str(step.occurrence)]
        if span.kind == "step":
            derived = self._derived(_SPAN_BYTES, session, "step", *place)
        else:
            place += [span.burr_id or "", str(span.occurrence)]
            derived = self._derived(_SPAN_BYTES, session, "inner", *place)
        return SpanIds(self.ids(session).trace_id, derived)

    def _session(self, session: SessionNode) -> Origin:
        if _is_sampled(session.ids):
            return session.root.origin or Origin(session.ids)
        ids, parent = self._root(session)
        fork = self._pointed(session, "parent_pointer", self._run.parent_pointer)
        before = session.previous
        last_step = None if before is None else before.last_step
        links = _links(
            (fork, semconv.LINK_FORK),
            (None if before is None else self.ids(before), semconv.LINK_RESUME),
            (None if last_step is None else self.ids(last_step), semconv.LINK_RESUME),
        )
        return Origin(ids, parent, links)

    def _root(self, session: SessionNode) -> tuple[SpanIds, SpanIds | None]:
        """Ids of an application span, and its derived parent."""
        if _is_sampled(session.ids):
            return session.ids, None
        if session.session not in self._roots:
            spawner = self._run.spawning_parent_pointer
            parent = self._pointed(session, "spawning_parent_pointer", spawner)
            if session.ids is not None:
                trace_id = session.ids.trace_id  # runs that it spawned have recorded this one
            elif parent is not None:
                trace_id = parent.trace_id
            else:
                trace_id = self._derived(_TRACE_BYTES, session)
            if parent is not None and parent.trace_id != trace_id:
                parent = None
            ids = SpanIds(trace_id, self._derived(_SPAN_BYTES, session, "root"))
            self._roots[session.session] = ids, parent
        return self._roots[session.session]

    def _pointed(self, session: SessionNode, name: str, default: Any) -> SpanIds | None:
        """The step that a session's record, or else its run, points to."""
        pointer = pointer_of(session.root.fields.get(name, default))
        return None if pointer is None else self._relatives.find_step(pointer, session.start_ns)

    def _derived(self, size_bytes: int, session: SessionNode, *place: str) -> int:
        digest = hashlib.sha256()
        kind = "span" if place else "trace"
        run = self._run.project, self._run.app_id, session.session or ""
        for text in (_SCHEME, kind, *run, *place):
            data = text.encode("utf-8", "surrogatepass")
            digest.update(b"%d:%b" % (len(data), data))
        return int.from_bytes(digest.digest()[:size_bytes], "big") or 1  # zero means "no id"

    def _dependencies(self, span: SpanNode) -> tuple[LinkIds, ...]:
        if not isinstance(span.begin, BeginInner) or not span.begin.dependencies:
            return ()
        named: dict[str, SpanNode] = {}
        for other, _ in (span.step or span).walk():
            if other is not span and other.start_ns <= span.start_ns:
                named[other.name] = other
        wanted = [named[name] for name in span.begin.dependencies if name in named]
        return _links(*((self.ids(other), semconv.LINK_DEPENDENCY) for other in wanted))


def _is_sampled(ids: SpanIds | None) -> TypeGuard[SpanIds]:
    return ids is not None and bool(ids.flags & _SAMPLED)


def _links(*targets: tuple[SpanIds | None, str]) -> tuple[LinkIds, ...]:
    found: dict[tuple[int, int], LinkIds] = {}
    for ids, kind in targets:
        if ids is not None:
            found.setdefault((ids.trace_id, ids.span_id), LinkIds(ids, kind))
    return tuple(found.values())


class Relatives:
    """Finds steps of other runs of a project by Burr's pointers."""

    def __init__(self, store: Store) -> None:
        self._store, self._depth = store, 0
        self._steps_of = functools.lru_cache(_MOST_REMEMBERED)(self._read)

    def find_step(self, pointer: Pointer, before_ns: int) -> SpanIds | None:
        """The span of the step that a pointer names, of several the last begun by `before_ns`."""
        if self._depth >= _DEEPEST:
            return None
        places, steps = self._steps_of(pointer.app_id)
        begun = steps.get(pointer.sequence_id, [])
        earlier = [step for step in begun if step.start_ns <= before_ns]
        self._depth += 1
        try:
            if places is None or not begun:
                return None
            return places.ids(earlier[-1] if earlier else begun[0])
        finally:
            self._depth -= 1

    def _read(self, app_id: str) -> tuple[Places | None, dict[int | None, list[SpanNode]]]:
        """The steps of a run by number, in order of their start."""
        found: list[SpanNode] = []
        try:
            run = self._store.read(app_id)
            fold = Fold.of_run(run, keep=False)
            for span in fold.spans(run.records(), lambda _fields, _last_ns: False):
                if span.kind == "step" and span.begin is not None:
                    span.let_go()
                    span.children = []
                    found.append(span)
        except (BurrOtelError, OSError):
            return None, {}  # another store has it, or none
        steps: dict[int | None, list[SpanNode]] = {}
        for step in sorted(found, key=lambda each: each.start_ns):
            steps.setdefault(step.sequence_id, []).append(step)
        return Places(run, self), steps
