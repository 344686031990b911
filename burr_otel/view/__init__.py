"""Stored runs as something to look at: a tree of spans, a waterfall, tables and pages."""
