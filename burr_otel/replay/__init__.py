"""Stored runs as the spans that they were, or would have been, sent as."""
