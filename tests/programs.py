"""Programs that tests run as processes of their own, and children that they fork."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import traceback
from pathlib import Path

WITHOUT_PANDAS = str(Path(__file__).parent / "without_pandas")
"""What to put first on the path of a program, to spare it half the time of its start."""


def run_program(code, folder, *, command=(), check=True, timeout_s=120, **environ):
    """Run a program with our tests' applications on its path.

    Args:
        code: Its source.
        folder: Its working directory and home.
        command: What stands before ``python``, such as ``opentelemetry-instrument``.
        check: Whether it must succeed; its output is shown when it does not.
        timeout_s: The longest that it may take.
        **environ: Variables beside those of this process.
    """
    program = Path(folder) / "program.py"
    program.write_text(textwrap.dedent(code))
    done = subprocess.run(
        [*command, sys.executable, program],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(
                [WITHOUT_PANDAS, str(Path(__file__).parent), *filter(None, sys.path)]
            ),
            "HOME": str(folder),
            **environ,
        },
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert not check or done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done


def start_child(work) -> int:
    """Do something in a forked child; its process id."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def in_child(work) -> int:
    """Do something in a forked child; its exit code, which is 0 unless it fails or hangs."""
    pid = start_child(work)
    # Not `signal.alarm` in the child, which may hang before anything of this runs there.
    killer = threading.Timer(60, os.kill, (pid, signal.SIGKILL))
    killer.start()
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        killer.cancel()
