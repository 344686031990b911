"""The engine that keeps runs in an object store: S3, Google Cloud Storage or Azure Blob Storage."""

from burr_otel.store.objects.engine import ObjectEngine

__all__ = ["ObjectEngine"]
