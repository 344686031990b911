"""The records of a run's log, the source of all that spans, commands and resumes say of it."""

from burr_otel.records.kinds import (
    BEGIN_ENTRY,
    END_ENTRY,
    ROOT,
    ROOT_END,
)
from burr_otel.records.read import (
    DamageError,
    kind_of_line,
    parse,
    read,
    read_ids,
    read_links,
    salvage,
)
from burr_otel.records.types import (
    NO_DOCUMENT,
    BeginInner,
    BeginRoot,
    BeginStep,
    Document,
    EndInner,
    EndRoot,
    EndStep,
    Fragments,
    LinkIds,
    Logged,
    Origin,
    Raised,
    Record,
    SpanIds,
    StreamMark,
    StreamTimes,
    Usage,
    encode_json,
    encode_text,
)
from burr_otel.records.write import encode, encode_end_step, link_data, local_time
