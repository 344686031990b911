"""Measure everything, write ``results.json``, and render ``README.md`` from it.

    python benchmarks/run.py [--quick] [--only ROW ...] [--render]

Every measurement is a fresh process, and the contenders of a row take turns, many times a second
where that is possible, so that whatever else the machine does hits all of them. ``--quick`` runs
one round of small numbers, prints the tables, and writes nothing; ``--only`` measures single rows
anew and keeps the others.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import report
from rows import ALL, Row

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
PAIRED = ("steps", "calls", "chat", "stall")  # whose contenders take turns in one process
PACKAGES = ("burr-otel", "apache-burr", "opentelemetry-sdk", "orjson", "pydantic")


def measured(measurement: str, contender: str, folder: str, arguments: dict[str, Any]) -> Any:
    """What a fresh process finds, `None` when it fails."""
    command = [sys.executable, str(HERE / "measure.py"), measurement, contender, folder]
    done = subprocess.run(
        [*command, json.dumps(arguments)], check=False, capture_output=True, text=True
    )
    if done.returncode == 0:
        return json.loads(done.stdout)
    print(f"{measurement} {contender}: {done.stderr.strip()[-300:]}", file=sys.stderr)
    return None


def run_row(row: Row, *, quick: bool) -> dict[str, list[Any]]:
    """All rounds of a row, by contender."""
    arguments = {**row.arguments, **(row.quick if quick else {})}
    found: dict[str, list[Any]] = {contender: [] for contender in row.contenders}
    with tempfile.TemporaryDirectory() as top:
        if row.measurement == "load":
            for contender in row.contenders:
                measured("write", contender, f"{top}/{contender}", arguments)
        for number in range(1 if quick else row.rounds):
            if row.measurement in PAIRED:
                folder = f"{top}/{number}"
                told = measured(row.measurement, ",".join(row.contenders), folder, arguments)
                for contender, figures in (told or {}).items():
                    found[contender].append(figures)
                shutil.rmtree(folder, ignore_errors=True)
                continue
            for contender in row.contenders:
                shared = row.measurement == "load"
                folder = f"{top}/{contender}" if shared else f"{top}/{contender}-{number}"
                told = measured(row.measurement, contender, folder, arguments)
                if told is not None:
                    found[contender].append(told)
                if not shared:
                    shutil.rmtree(folder, ignore_errors=True)
    return found


def machine() -> dict[str, Any]:
    """Where and of what this is measured."""
    uname = platform.uname()
    model = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        check=False,
        cwd=HERE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return {
        "at": datetime.now(timezone.utc).isoformat(timespec="minutes"),
        "commit": commit.stdout.strip(),
        "python": platform.python_version(),
        "system": f"{uname.system} {uname.release} {uname.machine}",
        "processor": model[0] if model else uname.processor,
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "packages": {name: version(name) for name in PACKAGES},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small numbers, one round, no files")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="keys of rows, see rows.py")
    parser.add_argument("--render", action="store_true", help="only render README.md again")
    options = parser.parse_args()
    known = {row.key for row in ALL}
    for key in options.only or ():
        if key not in known:
            parser.error(f"no row {key!r}; there are {', '.join(sorted(known))}")
    results: dict[str, Any] = {}
    if RESULTS.exists() and not options.quick:
        results = json.loads(RESULTS.read_text())
    for row in () if options.render else ALL:
        if options.only and row.key not in options.only:
            continue
        start = time.perf_counter()
        results[row.key] = {"machine": machine(), "rounds": run_row(row, quick=options.quick)}
        print(f"{row.key}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
        if not options.quick:
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    text = report.page(results)
    print(text)
    if not options.quick:
        (HERE / "README.md").write_text(text)


if __name__ == "__main__":
    main()
