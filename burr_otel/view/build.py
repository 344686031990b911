"""Records of a log -> a `RunView`. Pure: no files, no clock, no terminal.

Logs are read as they are found: records of several sessions interleaved, begins without an end
(the process died, or still runs), ends without a begin (old Burr versions, torn logs), and logs
of plain `LocalTrackingClient`, which have neither sessions nor trace ids.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from burr_otel import semconv
from burr_otel.view.model import RUNNING, UNFINISHED, Failure, Mark, ViewSpan
from burr_otel.view.times import Moment, WriterZone, moment

__all__ = ["Alive", "SessionBuilder", "parse_failure"]

Alive = Callable[[Mapping[str, Any] | None, int], bool]
"""Whether the writer of a session lives: its `otel_root` record (``None`` for a log of plain
Burr) and the time of its last record."""

_TIME_KEYS: Final = (
    "start_time",
    "end_time",
    "time_logged",
    "stream_init_time",
    "first_item_time",
    "time",
)
_TRACEBACK: Final = "Traceback (most recent call last):"
_EXCEPTION_LINE: Final = re.compile(r"([A-Za-z_][\w.<>]*)(?:: ?(.*))?\Z", re.DOTALL)
_LOST: Final = "(begin not recorded)"


def parse_failure(text: Any) -> Failure | None:
    """Type and message of the exception at the end of a recorded traceback."""
    if not text:
        return None
    text = str(text)
    block = text[text.rfind(_TRACEBACK) :] if _TRACEBACK in text else text
    lines = block.splitlines()
    if lines and lines[0].endswith(_TRACEBACK):
        # Frames are indented; the exception's line is the first that is not, and its message
        # may go on over the lines after it.
        first = next((i for i, line in enumerate(lines[1:], 1) if line[:1].strip()), len(lines))
        lines = lines[first:]
    last = "\n".join(lines).strip()
    found = _EXCEPTION_LINE.match(last)
    if not found:
        return Failure("", last, text)
    return Failure(found[1].rpartition(".")[2], (found[2] or "").strip(), text)


class SessionBuilder:
    """Takes records one by one, in file order, and makes the tree of spans."""

    def __init__(
        self,
        project: str,
        app_id: str,
        *,
        writes: Mapping[str, Iterable[str]] | None = None,
        details: bool = False,
    ) -> None:
        """Prepare for the records of one run.

        Args:
            project: Its project.
            app_id: Its application id.
            writes: State keys that each action writes; their values make the ``state`` detail.
            details: Whether steps keep inputs, result and written state.
        """
        self.sessions: list[ViewSpan] = []
        self.stray_ends = 0
        self._project, self._app_id = project, app_id
        self._writes, self._details = dict(writes or {}), details
        self._zone = WriterZone()
        self._local: dict[tuple[int, str], ViewSpan | Mark] = {}
        self._roots: dict[str | None, ViewSpan] = {}
        self._root_records: dict[str | None, Mapping[str, Any]] = {}
        self._steps: dict[tuple[str | None, int], ViewSpan] = {}
        self._newest_step: dict[int, ViewSpan] = {}
        self._spans: dict[tuple[int, str], ViewSpan] = {}
        self._ended: set[int] = set()
        self._handlers: dict[str, Callable[[Mapping[str, Any]], None]] = {
            "otel_root": self._root,
            "otel_root_end": self._root_end,
            "begin_entry": self._begin_step,
            "end_entry": self._end_step,
            "begin_span": self._begin_span,
            "end_span": self._end_span,
            "attribute": self._attribute,
            "begin_stream": self._stream_mark,
            "first_item_stream": self._stream_mark,
            "end_stream": self._stream_mark,
        }

    def add(self, record: Mapping[str, Any]) -> None:
        """Take the next record; types of another version of the store are passed over."""
        handler = self._handlers.get(str(record.get("type")))
        if handler is not None:
            handler(record)

    def finish(self, alive: Alive) -> list[ViewSpan]:
        """Settle what is still open and return the sessions in file order."""
        for (_, field), owner in self._local.items():
            setattr(owner, field, self._zone.ns(Moment(getattr(owner, field), local=True)))
        for root in self.sessions:
            self._settle(root, alive)
        return self.sessions

    # --- one method a record type ---------------------------------------------------------------

    def _root(self, record: Mapping[str, Any]) -> None:
        otel = _otel(record)
        session = _text(otel.get("session"))
        self._root_records[session] = record
        self._roots[session] = self._new_root(record, session)

    def _root_end(self, record: Mapping[str, Any]) -> None:
        otel = _otel(record)
        root = self._roots.get(_text(otel.get("session")))
        # A second end is that of a step which a killed process left open when the first had come.
        if root is not None and id(root) not in self._ended:
            self._set_time(root, "end_ns", record)
            root.outcome = _text(otel.get("outcome")) or semconv.OK
            self._ended.add(id(root))

    def _begin_step(self, record: Mapping[str, Any]) -> None:
        step = self._new_step(record)
        step.name = _text(record.get("action")) or "?"
        if self._details:
            step.details["inputs"] = record.get("inputs")

    def _end_step(self, record: Mapping[str, Any]) -> None:
        otel = _otel(record)
        sequence_id = _int(record.get("sequence_id"))
        step = self._steps.get((_text(otel.get("session")), sequence_id))
        if step is None or id(step) in self._ended:
            step = self._new_step(record)
            step.begun = False
        step.name = _text(record.get("action")) or step.name
        self._set_time(step, "end_ns", record)
        if not step.begun and not step.children and not step.marks:
            self._set_time(step, "start_ns", record)
        step.failure = parse_failure(record.get("exception"))
        failed = semconv.ERROR if step.failure else semconv.OK
        step.outcome = _text(otel.get("outcome")) or failed
        self._ended.add(id(step))
        if self._details:
            step.details["result"] = record.get("result")
            state = record.get("state")
            if isinstance(state, Mapping):
                keys = self._writes.get(step.name, ())
                step.details["state"] = {key: state[key] for key in keys if key in state}

    def _begin_span(self, record: Mapping[str, Any]) -> None:
        step = self._step_of(record)
        burr_id = _text(record.get("span_id")) or "?"
        # Burr's older logs name a parent for the step itself, which never begins.
        parent = self._spans.get((id(step), _text(record.get("parent_span_id")) or ""), step)
        span = ViewSpan(
            "span",
            _text(record.get("span_name")) or "?",
            0,
            outcome=RUNNING,
            app_id=self._app_id,
            session=step.session,
            sequence_id=step.sequence_id,
            burr_id=burr_id,
        )
        self._identify(span, record)
        span.trace_id = span.trace_id or step.trace_id
        self._set_time(span, "start_ns", record)
        parent.children.append(span)
        self._spans[id(step), burr_id] = span

    def _end_span(self, record: Mapping[str, Any]) -> None:
        step = self._step_of(record, make=False)
        span = self._spans.get((id(step), _text(record.get("span_id")) or "")) if step else None
        if span is None or id(span) in self._ended:
            self.stray_ends += 1
            return
        self._set_time(span, "end_ns", record)
        span.outcome = _text(_otel(record).get("outcome")) or semconv.OK
        self._ended.add(id(span))

    def _attribute(self, record: Mapping[str, Any]) -> None:
        step = self._step_of(record)
        found = moment(record.get("time_logged"))
        if found is not None:
            self._zone.observe(found)
        target = self._spans.get((id(step), _text(record.get("span_id")) or ""), step)
        target.attributes[str(record.get("key"))] = record.get("value")

    def _stream_mark(self, record: Mapping[str, Any]) -> None:
        step = self._step_of(record)
        name = {"begin_stream": "stream begins", "first_item_stream": "first item"}.get(
            str(record["type"]), "stream ends"
        )
        items = record.get("items_streamed")
        mark = Mark(name, 0, items if isinstance(items, int) else None)
        self._set_time(mark, "time_ns", record)
        step.marks.append(mark)

    # --- helpers --------------------------------------------------------------------------------

    def _new_root(self, record: Mapping[str, Any], session: str | None) -> ViewSpan:
        root = ViewSpan(
            "application",
            f"{semconv.ROOT_NAME_PREFIX} {self._project}",
            0,
            outcome=RUNNING,
            app_id=self._app_id,
            session=session,
        )
        self._identify(root, record)
        self._set_time(root, "start_ns", record)
        self.sessions.append(root)
        return root

    def _root_of(self, record: Mapping[str, Any]) -> ViewSpan:
        session = _text(_otel(record).get("session"))
        root = self._roots.get(session)
        if root is None:
            root = self._roots[session] = self._new_root(record, session)
            # Its own record is lost; what it was given as so far is the span of this record.
            root.span_id = _text(_otel(record).get("root_span_id"))
        return root

    def _new_step(self, record: Mapping[str, Any]) -> ViewSpan:
        root = self._root_of(record)
        sequence_id = _int(record.get("sequence_id", record.get("action_sequence_id")))
        step = ViewSpan(
            "step",
            _LOST,
            0,
            outcome=RUNNING,
            app_id=self._app_id,
            session=root.session,
            sequence_id=sequence_id,
        )
        self._identify(step, record)
        self._set_time(step, "start_ns", record)
        root.children.append(step)
        self._steps[root.session, sequence_id] = step
        self._newest_step[sequence_id] = step
        return step

    def _step_of(self, record: Mapping[str, Any], *, make: bool = True) -> Any:
        """The step that a span, attribute or stream record belongs to."""
        sequence_id = _int(record.get("action_sequence_id", record.get("sequence_id")))
        session = _text(_otel(record).get("session"))
        step = self._steps.get((session, sequence_id)) or self._newest_step.get(sequence_id)
        if step is None and make:
            step = self._new_step(record)
            step.begun = False
        return step

    def _identify(self, span: ViewSpan, record: Mapping[str, Any]) -> None:
        otel = _otel(record)
        span.trace_id = _text(otel.get("trace_id"))
        span.span_id = _text(otel.get("span_id"))
        links = otel.get("links")
        if isinstance(links, list):
            span.links = [dict(link) for link in links if isinstance(link, Mapping)]

    def _set_time(self, owner: ViewSpan | Mark, field: str, record: Mapping[str, Any]) -> None:
        found = next((m for key in _TIME_KEYS if (m := moment(record.get(key)))), None)
        exact = _otel(record).get("time_unix_nano")
        if isinstance(exact, int) and exact > 0:
            if found is not None and found.local:
                self._zone.pair(found.ns, exact)
            found = Moment(exact, local=False)
        if found is None:
            return
        self._zone.observe(found)
        setattr(owner, field, found.ns)
        if found.local:
            self._local[id(owner), field] = owner
        else:
            self._local.pop((id(owner), field), None)

    def _settle(self, root: ViewSpan, alive: Alive) -> None:
        """Give every open span of a session its outcome."""
        record = self._root_records.get(root.session)
        last_ns = root.last_ns
        # A session's span may end by idling while its application lives on and runs more steps.
        root.lives = alive(record, last_ns)
        open_outcome = RUNNING if root.lives else semconv.CRASHED
        newest = root.children[-1] if root.children else None
        for step in root.children:
            ended = id(step) in self._ended
            if not ended:
                # Plain Burr has one endless session: a step that another one followed is over.
                step.outcome = open_outcome if step is newest or record else semconv.CRASHED
            for span, depth in step.walk():
                if depth and id(span) not in self._ended:
                    span.outcome = UNFINISHED if ended else step.outcome
                    span.end_ns = step.end_ns
        if id(root) in self._ended:
            return
        if record is not None:
            root.outcome = open_outcome
        elif newest is not None:
            root.outcome = newest.outcome  # plain Burr records no end of an application


def _otel(record: Mapping[str, Any]) -> Mapping[str, Any]:
    otel = record.get("otel")
    return otel if isinstance(otel, Mapping) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _int(value: Any) -> int:
    return value if isinstance(value, int) else -1
