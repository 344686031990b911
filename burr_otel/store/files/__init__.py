"""The engine that keeps runs in local files, in the layout of Burr's `LocalTrackingClient`."""

try:
    import fcntl as _fcntl  # noqa: F401
except ImportError as error:
    raise ImportError(
        "burr-otel keeps runs in files on Linux, macOS and other POSIX systems only, since it "
        "needs their file locks; on Windows run it in WSL."
    ) from error
