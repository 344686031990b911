"""The engine that keeps runs in an object store: S3, Google Cloud Storage or Azure Blob Storage."""
