"""The package's version, read by the build and stamped on the instrumentation scope."""

__version__ = "0.1.0"
