"""What a span shows of a value: captured, pruned, redacted and cut, without OpenTelemetry."""

from burr_otel.content.exceptions import Raised, capture_exception, raised_of_text
from burr_otel.content.policy import Attribute, Capture, ContentPolicy, ExceptionContent

__all__ = [
    "Attribute",
    "Capture",
    "ContentPolicy",
    "ExceptionContent",
    "Raised",
    "capture_exception",
    "raised_of_text",
]
