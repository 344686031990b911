"""Reading a log: its sound records, the newest ones of a kind, and states that are made whole."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson

from burr_otel.printable import logger
from burr_otel.records import BEGIN_ENTRY, END_ENTRY, ROOT
from burr_otel.records.read import DamageError, kind_of_line, parse, salvage
from burr_otel.store import delta, port
from burr_otel.store.port import Line, RunLog

# Kinds by which engines find records of a type.
_KINDS: Final = {
    BEGIN_ENTRY: (port.BEGIN,),
    END_ENTRY: (port.END,),
    ROOT: (port.ROOT, port.INHERITED),
}
_WITH_STATE: Final = (port.END, port.INHERITED)
_INT64_BITS: Final = 64  # what an index keeps
_MOST_SESSIONS: Final = 16  # whose newest states are kept while a log is read forward
_MOST_FOREIGN: Final = 1024  # records of others that are looked past
_CHANGES: Final = frozenset(("delta", "exact", "exact_patch"))
_UNSOUND: Final = (ValueError, LookupError, TypeError, AttributeError, RecursionError)


class Part(NamedTuple):
    """A sound line (with its `record`) or a damaged stretch (with the `reason`)."""

    position: int
    end: int
    data: bytes
    complete: bool
    record: dict[str, Any] | None
    reason: str


def sound_parts(lines: Iterable[Line]) -> Iterator[Part]:
    """What is sound of the lines of a log, and what is not."""
    for position, end, data, complete in lines:
        if not data:
            yield Part(position, end, data, False, None, "NULs")
            continue
        try:
            yield Part(position, end, data, complete, parse(data), "")
        except DamageError as error:
            salvaged = salvage(data)
            if salvaged is not None:
                at, record = salvaged
                begin = position + at
                yield Part(position, begin, data[:at], False, None, "bytes before a record")
                yield Part(begin, end, data[at:], complete, record, "")
                continue
            reason = str(error) if complete else f"torn line, {error}"
            yield Part(position, end, data, complete, None, reason)


def kinds_of(types: Iterable[str], *, with_state: bool = False) -> tuple[int, ...]:
    """The kinds by which engines find records of such types, or those of them that have a state."""
    kinds = [kind for each in types for kind in _KINDS.get(each, ())]
    return tuple(kind for kind in kinds if not with_state or kind in _WITH_STATE)


def entry_of(line: bytes, record: Mapping[str, Any]) -> tuple[int, int] | None:
    """Kind and sequence id of a sound record that is looked for; None: it never is."""
    kind, sequence_id = kind_of_line(line) or ("", None)
    if kind == ROOT:
        if not isinstance(record.get("state"), dict):
            return port.ROOT, -1
        number = inherited_id(record)
        fits = number is not None and number.bit_length() < _INT64_BITS
        return port.INHERITED, number if fits and number is not None else -1
    if kind not in _KINDS or sequence_id is None or sequence_id.bit_length() >= _INT64_BITS:
        return None
    return _KINDS[kind][0], sequence_id


def object_of(data: bytes | None) -> dict[str, Any] | None:
    """A JSON object; None when it is missing or damaged."""
    try:
        found = json.loads(data or b"")
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def metadata_of(data: bytes | None) -> dict[str, Any] | None:
    """What ``metadata.json`` holds; None when it is missing or damaged."""
    try:
        return parse(data or b"")
    except DamageError:
        return None


def inherited_id(record: Mapping[str, Any]) -> int | None:
    """The sequence id of the state that an otel_root record carries."""
    number = record.get("inherited_sequence_id")
    return number if type(number) is int else None


def otel_of(record: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The `otel` object of a record, if it has one."""
    otel = None if record is None else record.get("otel")
    return otel if isinstance(otel, dict) else None


# --- the newest records ---------------------------------------------------------------------------


def newest_record(
    run: RunLog,
    kinds: Sequence[str],
    *,
    sequence_id: int | None = None,
    with_state: bool = False,
    accept: Callable[[dict[str, Any]], bool] | None = None,
) -> dict[str, Any] | None:
    """The newest sound record of such types: of one step, or of any; `accept` may pass it over.

    With `with_state` only records will do from which a run can be resumed; the state is whole.
    """
    for position, record in newest_records(run, kinds, sequence_id, with_state=with_state):
        if accept is not None and not accept(record):
            continue
        if not with_state:
            return record
        ends = newest_records(run, (END_ENTRY,), before=position)
        whole = resolve(record, (end for _, end in ends))
        if whole is not None:
            return whole
        if not run.extent().size_bytes:  # deleted meanwhile: no older state takes its place
            return None
        logger.warning(
            "%s: step %s is passed over, because a record that its state builds on is lost",
            run.place,
            record.get("sequence_id"),
        )
    return None


def newest_records(
    run: RunLog,
    kinds: Sequence[str],
    sequence_id: int | None = None,
    *,
    with_state: bool = False,
    before: int | None = None,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Position and record of all such sound records, newest first."""
    numbers = kinds_of(kinds, with_state=with_state)
    starts = [b'{"type":"%b"' % kind.encode() for kind in kinds]
    for line in run.newest(numbers, sequence_id, before):
        kind, number = kind_of_line(line.data) or (None, None)
        is_one = kind in kinds and (kind == ROOT or sequence_id in (None, number))
        # There may be one behind a torn record on the same line.
        if not is_one and not any(line.data.find(start, 1) > 0 for start in starts):
            continue
        for position, _, _, complete, record, reason in sound_parts([line]):
            if record is None and complete:  # else it is being written, or its writer was killed
                logger.warning("a damaged %s record is passed over: %s", kind, reason)
            if record is None or record["type"] not in kinds:
                continue
            own = inherited_id(record) if record["type"] == ROOT else record["sequence_id"]
            if sequence_id in (None, own) and (
                not with_state or isinstance(record.get("state"), dict)
            ):
                yield position, record


# --- states that build on one another -------------------------------------------------------------


class _Link(NamedTuple):
    """Where in which chain a record stands; number 0 has the whole state that it begins with."""

    session: str
    number: int
    checksum: int
    base_checksum: int | None

    def follows(self, before: _Link) -> bool:
        """Whether its record builds on that one."""
        return (before.number, before.checksum) == (self.number - 1, self.base_checksum)


def _is_delta(record: Mapping[str, Any]) -> bool:
    """Whether a record carries what changed, and not a whole state."""
    return isinstance((otel_of(record) or {}).get("delta"), dict)


def _link(record: Mapping[str, Any]) -> _Link | None:
    otel = otel_of(record)
    if otel is None or record["type"] != END_ENTRY or "state_crc" not in otel:
        return None
    change = otel.get("delta", {"number": 0, "base_crc": None})
    try:
        link = _Link(otel["session"], change["number"], otel["state_crc"], change["base_crc"])
    except (KeyError, TypeError):
        return None
    if type(link.number) is not int or not isinstance(link.session, str):
        return None
    return link if (link.number > 0) == ("delta" in otel) else None


def resolve(record: dict[str, Any], earlier: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """A record with its whole state by earlier END records, newest first; None: some are lost."""
    if not _is_delta(record):
        return record
    chain: list[Mapping[str, Any]] = [record]
    link, foreign = _link(record), 0
    for other in earlier:
        if link is None or foreign > _MOST_FOREIGN:
            break
        if (otel_of(other) or {}).get("session") != link.session:
            foreign += 1
            continue
        before = _link(other)
        if before == link:  # the line is there twice
            continue
        if before is None or not link.follows(before):
            break
        link = before
        if not link.number:
            try:
                document = delta.apply(None, other)
                for each in reversed(chain):
                    document = delta.apply(document, each)
                return _made_whole(record, document)
            except _UNSOUND:
                break
        chain.append(other)
    return None


def _made_whole(record: Mapping[str, Any], document: delta.DeltaState) -> dict[str, Any]:
    otel = {key: value for key, value in record["otel"].items() if key not in _CHANGES}
    patches = orjson.loads(document.exact)
    if patches:
        otel["exact"] = patches
    return {**record, "state": document.state(int64=otel.get("int64") is True), "otel": otel}


class Unfolding:
    """Makes records whole while a log is read forward."""

    def __init__(self) -> None:
        # By session. Whole states are kept as lines, since what we return may be changed.
        self._newest: OrderedDict[str, tuple[_Link, delta.DeltaState | bytes]] = OrderedDict()

    def whole(self, record: dict[str, Any], line: bytes) -> dict[str, Any] | None:
        """The next record of the log with its whole state; None: what it builds on is lost."""
        link = _link(record)
        if link is None:
            return None if record["type"] == END_ENTRY and _is_delta(record) else record
        before, base = self._newest.pop(link.session, (None, b""))
        made: dict[str, Any] = record
        kept: delta.DeltaState | bytes = line
        if link.number:
            if before is None or not (before == link or link.follows(before)):
                return None
            try:
                document = delta.apply(None, parse(base)) if isinstance(base, bytes) else base
                kept = document if before == link else delta.apply(document, record)
                made = _made_whole(record, kept)
            except _UNSOUND:
                return None
        self._newest[link.session] = link, kept
        if len(self._newest) > _MOST_SESSIONS:
            self._newest.popitem(last=False)
        return made
