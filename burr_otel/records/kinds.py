"""The types of records, as they stand in a log."""

from __future__ import annotations

from typing import Final

BEGIN_ENTRY: Final = "begin_entry"
END_ENTRY: Final = "end_entry"
BEGIN_SPAN: Final = "begin_span"
END_SPAN: Final = "end_span"
ATTRIBUTE: Final = "attribute"
ROOT: Final = "otel_root"
ROOT_END: Final = "otel_root_end"
STEP_END: Final = "otel_step_end"
STREAM_TIMES: Final = {
    "begin_stream": "stream_init_time",
    "first_item_stream": "first_item_time",
    "end_stream": "end_time",
}
