"""A real server in a process of its own, on a port that the system chose."""

import contextlib
import os
import socket
import subprocess
import sys


@contextlib.contextmanager
def serve(application, *, workers=1, env, cwd, log=None):
    """Run uvicorn until the block ends; its address.

    The listening socket is handed over, so that no port is guessed and connections wait in its
    queue while the server starts.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        listener.set_inheritable(True)
        fd = listener.fileno()
        server = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "uvicorn",
                application,
                "--fd",
                str(fd),
                "--log-level",
                "warning",
            ]
            + (["--workers", str(workers)] if workers > 1 else []),
            env={**os.environ, **env},
            cwd=cwd,
            pass_fds=[fd],
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.terminate()
            try:
                server.wait(30)
            finally:
                server.kill()
                server.wait()
