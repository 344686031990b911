"""One line about a run, from the ends of its log: what is read does not grow with the log."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import orjson

from burr_otel import semconv
from burr_otel.store.loading import LogReader
from burr_otel.store.records import ROOT, ROOT_END, check, parse
from burr_otel.store.repair import lines_backward
from burr_otel.view.find import LOG, Found
from burr_otel.view.model import RUNNING
from burr_otel.view.times import Moment, WriterZone, moment

if TYPE_CHECKING:
    from burr_otel.view.build import Alive

__all__ = ["STATUSES", "RunSummary", "partition_key", "status_at_end", "summarise"]

STATUSES: Final = ("ok", "failed", "crashed", "running", "cancelled", "abandoned")
"""What a run's status may be."""

_HEAD_BYTES: Final = 64 * 1024
_HEAD_LINES: Final = 20
_METADATA_BYTES: Final = 64 * 1024
_LONGEST_TAIL_BYTES: Final = 16 * 1024 * 1024  # a larger last state is not read for one line
_LONGEST_SEARCH_BYTES: Final = 1024 * 1024
_ROOT_LINES: Final = (b'{"type":"otel_root"', b'{"type":"otel_root_end"')
_LAST_LINE_BYTES: Final = 16 * 1024
_TELLING_ENDS: Final = (b'{"type":"otel_root_end"', b'{"type": "end_entry"', b'{"type":"end_entry"')
_START: Final = re.compile(rb'"(?:start_time|end_time|time_logged)":\s*"([^"]{10,40})"')
_STEP_TYPES: Final = ("begin_entry", "end_entry")
_STATUS_OF: Final = {semconv.ERROR: "failed"}


@dataclasses.dataclass(frozen=True, slots=True)
class RunSummary:
    """What a table says about a run.

    Attributes:
        project: Its project.
        app_id: Its application id.
        partition_key: Its partition key.
        started_ns: When its first record was written, or ``None`` for an empty log.
        last_ns: When its last record was written.
        steps: How many steps it has begun (by its first and last sequence id).
        last_action: The action begun or ended last.
        status: One of `STATUSES`, or ``empty``.
        trace_id: Of the newest session, when it was traced.
        folder: Where its files are.
    """

    project: str
    app_id: str
    partition_key: str | None = None
    started_ns: int | None = None
    last_ns: int | None = None
    steps: int = 0
    last_action: str | None = None
    status: str = "empty"
    trace_id: str | None = None
    folder: str = ""


def partition_key(folder: str) -> str | None:
    """The partition key of the run in a folder."""
    key = _read_object(f"{folder}/metadata.json").get("partition_key")
    return key if isinstance(key, str) else None


def status_at_end(folder: str) -> str | None:
    """The status of a run, when the last line of its log alone tells it.

    That is so of most runs that are over, and takes a tenth of the time of `summarise`.

    Args:
        folder: Of the run.
    """
    try:
        fd = os.open(f"{folder}/{LOG}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            end = os.pread(fd, _LAST_LINE_BYTES, max(0, size - _LAST_LINE_BYTES))
        finally:
            os.close(fd)
        line = end[end.rfind(b"\n", 0, -1) + 1 :]
    except OSError:
        return None
    if not line.startswith(_TELLING_ENDS) or not line.endswith(b"\n"):
        return None
    record, _ = check(line)
    if record is None or (record["type"] != ROOT_END and "otel" in record):
        return None
    status, _ = _status([record])
    return _STATUS_OF.get(status or "", status)


def summarise(run: Found, alive: Alive) -> RunSummary:
    """Read both ends of a run's log.

    Args:
        run: Which run.
        alive: Whether the writer of an open session lives.

    Raises:
        OSError: The log cannot be read.
    """
    key = partition_key(str(run.folder))
    blank = RunSummary(run.project, run.app_id, key, folder=str(run.folder))
    fd = os.open(run.folder / LOG, os.O_RDONLY | os.O_CLOEXEC)
    try:
        head = os.pread(fd, _HEAD_BYTES, 0)
        tail = _tail(fd)
    finally:
        os.close(fd)
    return _summary(blank, head, tail, alive)


def _tail(fd: int) -> list[Mapping[str, Any]]:
    """The last records in file order, from the last one of a step on."""
    size = os.fstat(fd).st_size
    found: list[Mapping[str, Any]] = []
    for line in lines_backward(fd, size):
        record, _ = check(line.data)
        if record is not None:
            found.append(record)
            if record.get("type") in _STEP_TYPES:
                break
        if size - line.offset > _LONGEST_TAIL_BYTES:
            break
    return found[::-1]


def _summary(
    blank: RunSummary, head: bytes, tail: list[Mapping[str, Any]], alive: Alive
) -> RunSummary:
    first = _START.search(head)
    if first is None:
        return blank
    zone = WriterZone()
    first_step = _first_step(head, zone)
    times = [found for record in tail if (found := _time(record, zone)) is not None]
    began = moment(first[1].decode(errors="replace"))
    otels = [otel for record in tail if isinstance(otel := record.get("otel"), Mapping)]
    steps = [record for record in tail if record.get("type") in _STEP_TYPES]
    last_ns = max((zone.ns(found) for found in times), default=None)
    status, settled = _status(tail)
    if status is not None and not settled:
        # The last step speaks for a run of plain Burr, whose log never says that it has ended, and
        # for one whose session ended by idling before that step.
        settled = not otels or _session_ended(blank.folder, tail[0])
    if not settled:
        lives = alive(_newest_root(blank.folder, tail) if otels else None, last_ns or 0)
        status = RUNNING if lives else semconv.CRASHED
    return dataclasses.replace(
        blank,
        started_ns=zone.ns(began) if began else last_ns,
        last_ns=last_ns,
        steps=_count(first_step, steps),
        last_action=next((str(r.get("action")) for r in reversed(steps)), None),
        status=_STATUS_OF.get(status or "", status or semconv.OK),
        trace_id=next(
            (t for o in reversed(otels) if isinstance(t := o.get("trace_id"), str)), None
        ),
    )


def _newest_root(folder: str, tail: list[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    found = next((record for record in reversed(tail) if record.get("type") == ROOT), None)
    if found is None:
        with LogReader(folder) as reader:
            found = reader.newest([ROOT])
    return found


def _session_ended(folder: str, step: Mapping[str, Any]) -> bool:
    """Whether the session of the last step had ended before it, as far back as is worth reading."""
    otel = step.get("otel")
    session = otel.get("session") if isinstance(otel, Mapping) else None
    fd = os.open(f"{folder}/{LOG}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        for line in lines_backward(fd, size):
            if line.data.startswith(_ROOT_LINES):
                record = _record(line.data) or {}
                found = record.get("otel")
                if isinstance(found, Mapping) and found.get("session") == session:
                    return record.get("type") == ROOT_END
            if size - line.offset > _LONGEST_SEARCH_BYTES:
                break
    finally:
        os.close(fd)
    return False


def _status(tail: list[Mapping[str, Any]]) -> tuple[str | None, bool]:
    """Outcome by the last telling record, and whether it settles the matter."""
    for record in reversed(tail):
        otel = record.get("otel")
        outcome = otel.get("outcome") if isinstance(otel, Mapping) else None
        kind = record.get("type")
        if kind == "otel_root_end":
            return outcome if isinstance(outcome, str) else semconv.OK, True
        if kind == "end_entry":
            recorded = semconv.ERROR if record.get("exception") else semconv.OK
            return outcome if isinstance(outcome, str) else recorded, False
        if kind in ("begin_entry", "otel_root"):
            return None, False
    return None, False


def _first_step(head: bytes, zone: WriterZone) -> int:
    """The first step's sequence id; the records around it teach the zone."""
    first = None
    hinted = b'Z"' in head or b'"otel"' in head
    for line in head.split(b"\n", _HEAD_LINES)[:-1]:
        record = _record(line)
        if record is not None:
            _time(record, zone)
            number = record.get("sequence_id")
            first = number if first is None and type(number) is int else first
        if first is not None and (zone.known or not hinted):
            break
    return first or 0


def _count(first: int, steps: list[Mapping[str, Any]]) -> int:
    last = next((i for r in reversed(steps) if type(i := r.get("sequence_id")) is int), None)
    if last is None:
        return 0
    return max(1, last - first + 1)


def _time(record: Mapping[str, Any], zone: WriterZone) -> Moment | None:
    otel = record.get("otel")
    exact = otel.get("time_unix_nano") if isinstance(otel, Mapping) else None
    for key in ("end_time", "start_time", "time_logged", "first_item_time", "stream_init_time"):
        found = moment(record.get(key))
        if found is None:
            continue
        if type(exact) is int:
            if found.local:
                zone.pair(found.ns, exact)
            return Moment(exact, local=False)
        zone.observe(found)
        return found
    return None


def _record(line: bytes) -> Mapping[str, Any] | None:
    try:
        record = parse(line) if line.strip() else None
    except ValueError:
        return None
    found: Mapping[str, Any] | None = record if isinstance(record, dict) else None
    return found


def _read_object(path: str) -> Mapping[str, Any]:
    try:
        # Plain calls: a file object for each of 100,000 runs would cost more than reading them.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(fd, _METADATA_BYTES)
        finally:
            os.close(fd)
    except OSError:
        return {}
    try:
        found = orjson.loads(text)
    except ValueError:  # it may still be what the standard library takes for JSON
        return _record(text) or {}
    return found if isinstance(found, dict) else {}
