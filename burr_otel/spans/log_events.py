"""Log lines inside a step as events of its span.

A factory of log records sees each line in the thread and context of the code that logs it,
whichever handlers there are. A handler of ours would silence `logging.basicConfig`, and Python's
handler of last resort.
"""

import logging
import threading
from typing import Any, Final, NamedTuple

from burr_otel import semconv
from burr_otel.content import ContentPolicy, capture_exception
from burr_otel.records import Raised
from burr_otel.spans import shield
from burr_otel.spans.describe import exception_attributes
from burr_otel.spans.scope import innermost_scope

_NOT_OF_STEPS: Final = ("burr", "burr_otel", "opentelemetry")  # Burr logs what a step raises
_MOST_LINES: Final = 100  # of a step
_LONGEST_MESSAGE: Final = 2_000  # characters
_MOST_EXCEPTION_BYTES: Final = 16 * 1024


class LogEvents(NamedTuple):
    """From which level on log lines are events, and how they are shown."""

    level: int
    policy: ContentPolicy


class _ThreadState(threading.local):
    looks = False


class _Factory:
    """Makes log records by the factory that was there before, and looks at them."""

    def __init__(self, previous: Any) -> None:
        self.previous = previous
        self.is_on = True

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record: logging.LogRecord = self.previous(*args, **kwargs)
        # A redactor may log, and so may a `__str__`.
        if self.is_on and not _state.looks:
            _state.looks = True
            try:
                _look_at(record)
            except Exception as error:
                shield.report("adding a log line to a span", error)
            finally:
                _state.looks = False
        return record


_state = _ThreadState()
_factory: _Factory | None = None


def install() -> None:
    """See log lines from now on; idempotent."""
    global _factory
    if _factory is None or not _factory.is_on:
        _factory = _Factory(logging.getLogRecordFactory())
        logging.setLogRecordFactory(_factory)


def remove() -> None:
    """See none any more; idempotent."""
    global _factory
    if _factory is not None:
        _factory.is_on = False  # all that can be done where another factory has been put around it
        if logging.getLogRecordFactory() is _factory:
            logging.setLogRecordFactory(_factory.previous)
        _factory = None


def _look_at(record: logging.LogRecord) -> None:
    level = getattr(record, "levelno", None)
    scope = innermost_scope() if level else None  # `logging.makeLogRecord` fills in the level later
    if scope is None or level is None or scope.left:
        return
    step = scope.tag
    events = step.log_events
    is_wanted = events is not None and level >= events.level and step.log_lines < _MOST_LINES
    if events is None or not is_wanted or record.name.partition(".")[0] in _NOT_OF_STEPS:
        return
    step.log_lines += 1
    message = events.policy.attribute(semconv.LOG_MESSAGE, _text(record)[:_LONGEST_MESSAGE])
    told: dict[str, Any] = {
        semconv.LOG_SEVERITY: record.levelname,
        semconv.LOG_LOGGER: events.policy.name(record.name),
    }
    if message is not None:
        told[semconv.LOG_MESSAGE] = message.value
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        raised = Raised(*capture_exception(error, _MOST_EXCEPTION_BYTES))
        told |= exception_attributes(events.policy, raised)
    scope.current.add_event(semconv.EVENT_LOG, told)


def _text(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:
        return "<unreadable>"
