"""Spans: their lives, parents and links, and where they are sent."""
