"""A process that has imported the command line, and forks for every command that a test runs.

Each command is a process of its own, as the executable is; it only skips the second of imports.
Reads one request a line from standard input, and answers with the exit code.
"""

import atexit
import importlib
import json
import os
import signal
import sys

from burr_otel.cli import app


def main():
    """Serve until standard input ends."""
    for module, _ in app._COMMANDS.values():
        importlib.import_module(f"burr_otel.cli.{module}")
    # Each command imports these when it needs them.
    import burr_otel.check.run
    import burr_otel.cli.sending
    import burr_otel.demo
    import burr_otel.tracker
    import burr_otel.view.page  # noqa: F401

    for line in sys.stdin.buffer:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            run(request)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def run(request):
    """In the child: become the command."""
    code = 70
    try:
        signal.alarm(int(request["longest_s"]))
        for target, path in ((0, os.devnull), (1, request["out"]), (2, request["err"])):
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            os.dup2(fd, target)
            os.close(fd)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        try:
            app.main(request["arguments"])
        except SystemExit as exited:
            code = exited.code or 0
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        atexit._run_exitfuncs()
        os._exit(code)


if __name__ == "__main__":
    main()
