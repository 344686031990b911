"""The records of a run's log, the source of all that spans, commands and resumes say of it."""

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
    BEGIN_ENTRY,
    END_ENTRY,
    NO_DOCUMENT,
    ROOT,
    ROOT_END,
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
    sound_text,
)
from burr_otel.records.write import encode, encode_end_step, link_data, local_time
