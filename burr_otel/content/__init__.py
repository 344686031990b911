"""What a span shows of a value: captured, pruned, redacted and cut, without OpenTelemetry."""

from burr_otel.content.exceptions import capture_exception, raised_of_text
from burr_otel.content.messages import new_messages, shown_messages
from burr_otel.content.objects import Failure, call_safely, text_safely
from burr_otel.content.policy import Attribute, Capture, ContentPolicy, Kind
from burr_otel.content.redact import with_name
