"""When a record was written, in nanoseconds since the epoch.

Burr writes the times of steps and spans without a time zone (the writer's local time) and the
times of attributes and streams in UTC. A log that was recorded in one zone and is read in another
would be shifted by hours against itself. So the writer's distance from UTC is taken from the log,
where a record tells it, and only else from the reading machine.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

_EPOCH: Final = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - compared with naive times only
_QUARTER_HOUR_NS: Final = 900_000_000_000
_LARGEST_OFFSET_NS: Final = 15 * 3600 * 1_000_000_000


class Moment(NamedTuple):
    """A time as recorded: nanoseconds since the epoch, read as UTC when `local` (no zone told)."""

    ns: int
    local: bool


def moment(text: Any) -> Moment | None:
    """The moment that an ISO text stands for; ``None`` when it is not one."""
    if not isinstance(text, str):
        return None
    try:
        # Python 3.10 does not read the Z that pydantic writes.
        parsed = dt.datetime.fromisoformat(text[:-1] + "+00:00" if text[-1:] == "Z" else text)
    except ValueError:
        return None
    offset = parsed.utcoffset()
    since = parsed.replace(tzinfo=None) - _EPOCH
    whole_us = (since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds
    if offset is None:
        return Moment(whole_us * 1000, local=True)
    return Moment(whole_us * 1000 - int(offset.total_seconds()) * 1_000_000_000, local=False)


class WriterZone:
    """The writer's distance from UTC, learnt from moments in the order of the log."""

    def __init__(self) -> None:
        self._last_local_ns: int | None = None
        self._offset_ns: int | None = None

    @property
    def known(self) -> bool:
        """Whether the log has told it."""
        return self._offset_ns is not None

    def observe(self, found: Moment) -> None:
        """Learn from the next moment of the log."""
        if found.local:
            self._last_local_ns = found.ns
        elif self._last_local_ns is not None:
            self.pair(self._last_local_ns, found.ns)

    def learn(self, record: Mapping[str, Any]) -> None:
        """Learn from the next record of the log."""
        found, otel = record_moment(record), record.get("otel")
        exact = otel.get("time_unix_nano") if isinstance(otel, Mapping) else None
        if found is not None and found.local and isinstance(exact, int):
            self.pair(found.ns, exact)
        elif found is not None:
            self.observe(found)

    def pair(self, local_ns: int, utc_ns: int) -> None:
        """Learn from two readings of (nearly) one moment; the first pair counts."""
        if self._offset_ns is None and abs(local_ns - utc_ns) <= _LARGEST_OFFSET_NS:
            self._offset_ns = round((local_ns - utc_ns) / _QUARTER_HOUR_NS) * _QUARTER_HOUR_NS

    def ns(self, found: Moment) -> int:
        """`found` in nanoseconds since the epoch."""
        if not found.local:
            return found.ns
        if self._offset_ns is not None:
            return found.ns - self._offset_ns
        naive = _EPOCH + dt.timedelta(microseconds=found.ns // 1000)
        try:
            offset = naive.astimezone().utcoffset()
        except (OverflowError, OSError, ValueError):
            offset = None
        return found.ns - int(offset.total_seconds() if offset else 0) * 1_000_000_000


_TIME_KEYS: Final = (
    "start_time",
    "end_time",
    "time_logged",
    "stream_init_time",
    "first_item_time",
)
_MOST_LEARNT_FROM: Final = 2_000  # records


class RecordTimes:
    """Gives the Unix times of a run's records in nanoseconds; 0 for one that tells none.

    `records` reads the run from its beginning: where its writer's clock stood may only be told by a
    later record. It is called once, and only for a log that needs it.
    """

    def __init__(self, records: Callable[[], Iterable[Mapping[str, Any]]]) -> None:
        self._records = records
        self._zone: WriterZone | None = None

    def __call__(self, record: Mapping[str, Any]) -> int:
        """The time of a record."""
        otel = record.get("otel")
        if isinstance(otel, Mapping):
            exact = otel.get("time_unix_nano")
            if isinstance(exact, int) and exact > 0:
                return exact
            if "session" in otel:
                return 0  # what our records tell besides is less exact, and would mix with it
        return self._ns(record_moment(record))

    def of_text(self, text: str) -> int:
        """The time that a text of this log stands for."""
        return self._ns(moment(text))

    def _ns(self, found: Moment | None) -> int:
        if found is None or not found.local:
            return 0 if found is None else found.ns
        if self._zone is None:
            self._zone = self._learnt()
        return self._zone.ns(found)

    def _learnt(self) -> WriterZone:
        zone = WriterZone()
        for record in itertools.islice(self._records(), _MOST_LEARNT_FROM):
            zone.learn(record)
            if zone.known:
                break
        return zone


def record_moment(record: Mapping[str, Any]) -> Moment | None:
    """The time that a record tells as text."""
    return next((found for key in _TIME_KEYS if (found := moment(record.get(key)))), None)
