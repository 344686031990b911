"""What a span says of a value: encoding, redaction and cutting, without OpenTelemetry."""

from burr_otel.content.policy import Attribute, Capture, ContentPolicy, ExceptionContent

__all__ = ["Attribute", "Capture", "ContentPolicy", "ExceptionContent"]
