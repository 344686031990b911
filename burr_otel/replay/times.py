"""When a record was written, also one of Burr's own client, which tells no time zone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from burr_otel.replay.build import exact_time
from burr_otel.replay.parts import otel_of
from burr_otel.view.times import Moment, WriterZone, moment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["RecordTimes"]

_TIME_KEYS: Final = (
    "start_time",
    "end_time",
    "time_logged",
    "stream_init_time",
    "first_item_time",
)


class RecordTimes:
    """Gives the times of a run's records.

    Args:
        records: Reads the run from its beginning: where its writer's clock stood may only be told
            by a later record. Asked once, and only for a log that needs it.
    """

    def __init__(self, records: Callable[[], Iterable[Mapping[str, Any]]]) -> None:
        self._records = records
        self._zone: WriterZone | None = None

    def __call__(self, record: Mapping[str, Any]) -> int | None:
        """Unix time of a record in nanoseconds; `None` when it tells none."""
        exact = exact_time(record)
        if exact is not None or "session" in otel_of(record):
            return exact  # what our records tell besides is less exact, and would mix with it
        found = _moment(record)
        if found is None or not found.local:
            return None if found is None else found.ns
        if self._zone is None:
            self._zone = self._learnt()
        return self._zone.ns(found)

    def _learnt(self) -> WriterZone:
        zone = WriterZone()
        for record in self._records():
            found = _moment(record)
            exact = exact_time(record)
            if found is not None and found.local and exact is not None:
                zone.pair(found.ns, exact)
            elif found is not None:
                zone.observe(found)
            if zone.known:
                break
        return zone


def _moment(record: Mapping[str, Any]) -> Moment | None:
    return next((found for key in _TIME_KEYS if (found := moment(record.get(key)))), None)
