"""Measure, write ``results.json``, and render ``README.md`` from it.

    python benchmarks/run.py [--quick] [--only ROW ...] [--render]

Every measurement is a fresh process, and the contenders of a row take turns, so that whatever else
the machine does hits all of them. ``--quick`` runs one round of small numbers, prints the tables,
and writes nothing; ``--only`` measures single rows anew and keeps the others.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import report
from rows import ROWS, Row

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
PACKAGES = ("burr-otel", "apache-burr", "opentelemetry-sdk", "orjson", "pydantic", "langfuse")
FOREIGN = ("OTEL_", "BURR_", "LANGFUSE_", "PYTHONDONTWRITE")  # settings of whoever measures
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)},
    "OTEL_BSP_MAX_QUEUE_SIZE": "20000",  # nobody's spans are dropped
}


def measured(what: str, contender: str, folder: str, arguments: dict[str, Any]) -> Any:
    """What a fresh process finds."""
    command = [str(HERE / "work.py"), what, contender, folder, json.dumps(arguments)]
    if what == "import":
        command = [str(HERE / "importing.py"), contender]
    done = subprocess.run(
        [sys.executable, *command], check=False, capture_output=True, text=True, env=ENVIRONMENT
    )
    if done.returncode:
        sys.exit(f"{what} {contender} failed:\n{done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout)


def run_row(row: Row, *, quick: bool) -> report.Rounds:
    """All rounds of a row, by contender."""
    arguments = dict(row.arguments)
    contenders = list(row.contenders)
    if quick:
        arguments |= {key: arguments[key] // 5 for key in ("steps", "apps") if key in arguments}
    if "ltc+langfuse" in contenders and find_spec("langfuse") is None:
        print("langfuse (extra `bench`) is not installed: LangfuseBridge is left out.")
        contenders.remove("ltc+langfuse")
    found: report.Rounds = {contender: [] for contender in contenders}
    with tempfile.TemporaryDirectory() as top:
        prepare = {"load": "write", "import": "import"}.get(row.measurement)
        for contender in contenders if prepare else ():  # a run to load; bytecode to import
            measured(prepare, contender, f"{top}/{contender}", arguments)
        for number in range(1 if quick else row.rounds):
            # There and back, so that a machine that grows slower favours nobody.
            for contender in contenders[:: -1 if number % 2 else 1]:
                with tempfile.TemporaryDirectory(dir=top) as fresh:
                    folder = f"{top}/{contender}" if row.measurement == "load" else fresh
                    told = measured(row.measurement, contender, folder, arguments)
                found[contender].append(told)
    return found


def machine() -> dict[str, Any]:
    """Where and of what this is measured."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(": ")[2] for line in lines if "model name" in line), "")
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, check=False, cwd=HERE, capture_output=True, text=True)
    packages = [name for name in PACKAGES if name != "langfuse" or find_spec(name)]
    return {
        "at": datetime.now(timezone.utc).isoformat(timespec="minutes"),
        "commit": commit.stdout.strip(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}, {model}, {os.cpu_count()} cores",
        "load_average": round(os.getloadavg()[0], 1),
        "packages": {name: version(name) for name in packages},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small numbers, one round, no files")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="beginnings of keys, see rows.py")
    parser.add_argument("--render", action="store_true", help="only render README.md again")
    options = parser.parse_args()
    chosen = [row for row in ROWS if row.key.startswith(tuple(options.only or [""]))]
    if not chosen:
        keys = ", ".join(row.key for row in ROWS)
        parser.error(f"no row begins with {' or '.join(options.only)}; there are {keys}")
    results: report.Results = {}
    if RESULTS.exists() and not options.quick:
        results = json.loads(RESULTS.read_text())
    for row in () if options.render else chosen:
        start = time.perf_counter()
        results[row.key] = {"machine": machine(), "rounds": run_row(row, quick=options.quick)}
        print(f"{row.key}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
        if not options.quick:
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    if options.quick:
        print("One round of a fifth of the steps: no figures to quote.\n")
    print(report.tables(results))
    if not options.quick:
        (HERE / "README.md").write_text(report.page(results))


if __name__ == "__main__":
    main()
