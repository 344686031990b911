"""When a record was written, in nanoseconds since the epoch.

Burr writes the times of steps and spans without a time zone (the writer's local time) and the
times of attributes and streams in UTC. A log that was recorded in one zone and is read in another
would be shifted by hours against itself. So the writer's distance from UTC is taken from the log,
where two records next to each other tell it, and only else from the reading machine.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from burr_otel.records import moment_of, unix_ns

_TIME_KEYS = ("start_time", "end_time", "time_logged", "stream_init_time", "first_item_time")
_QUARTER_HOUR: Final = dt.timedelta(minutes=15)
_LARGEST_OFFSET: Final = dt.timedelta(hours=15)
_MOST_LEARNT_FROM: Final = 2_000  # records


class RecordTimes:
    """Gives the Unix times of a run's records in nanoseconds; 0 for one that tells none.

    `records` reads the run from its beginning: where its writer's clock stood may only be told by a
    later record. It is called once, and only for a log that needs it.
    """

    def __init__(self, records: Callable[[], Iterable[Mapping[str, Any]]]) -> None:
        self._records = records
        self._zone: dt.tzinfo | None = None
        self._zone_is_known = False

    def __call__(self, record: Mapping[str, Any]) -> int:
        """The time of a record."""
        otel = record.get("otel")
        exact_ns = _exact_ns(otel)
        # What our records tell besides is less exact, and would mix with it.
        if exact_ns or (isinstance(otel, Mapping) and "session" in otel):
            return exact_ns
        moment = _moment(record)
        if moment is None:
            return 0
        if moment.tzinfo is None:
            if not self._zone_is_known:
                self._zone, self._zone_is_known = _writer_zone(self._records()), True
            moment = moment.replace(tzinfo=self._zone)
        return unix_ns(moment)


def _writer_zone(records: Iterable[Mapping[str, Any]]) -> dt.tzinfo | None:
    """The zone of a writer, if its log has two times of nearly one moment, one of them local."""
    local = None
    for record in itertools.islice(records, _MOST_LEARNT_FROM):
        moment, exact_ns = _moment(record), _exact_ns(record.get("otel"))
        if moment is None:
            continue
        if moment.tzinfo is None:
            local = moment
        elif not exact_ns:
            exact_ns = unix_ns(moment)
        if local is not None and exact_ns:
            utc = dt.datetime.fromtimestamp(exact_ns / 1e9, dt.timezone.utc)
            offset = local - utc.replace(tzinfo=None)
            if abs(offset) <= _LARGEST_OFFSET:
                return dt.timezone(round(offset / _QUARTER_HOUR) * _QUARTER_HOUR)
    return None


def _moment(record: Mapping[str, Any]) -> dt.datetime | None:
    return next((found for key in _TIME_KEYS if (found := moment_of(record.get(key)))), None)


def _exact_ns(otel: Any) -> int:
    found = otel.get("time_unix_nano") if isinstance(otel, Mapping) else None
    return found if isinstance(found, int) and found > 0 else 0
