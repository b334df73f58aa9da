"""Times whole commands and their memory, and keeps the figures with the command and the machine they came from."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Measured:
    """Wall-clock seconds and the largest resident memory of the process and of any of its children (MiB)."""

    seconds: float
    peak_mib: float


def run(command: Sequence[str], env: dict[str, str] | None = None) -> Measured:
    """Run a command to its end, its output thrown away; raise CalledProcessError where it fails.

    Exit code 3 (finished but incomplete) counts as success.
    """
    # A fresh interpreter waits for the command, so that the children's peak is this command's alone.
    code = (
        "import json, resource, subprocess, sys, time\n"
        "started = time.perf_counter()\n"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)\n"
        "seconds = time.perf_counter() - started\n"
        "sys.stderr.write(done.stderr)\n"
        "peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024\n"
        "print(json.dumps([done.returncode, seconds, peak]))\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, *command],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **(env or {})},
    )
    status, seconds, peak = json.loads(answer.stdout)
    if status not in (0, 3):
        raise subprocess.CalledProcessError(status, command, stderr=answer.stderr)
    return Measured(seconds, peak)


def median(command: Sequence[str], runs: int = 7) -> Measured:
    """Return the median of several runs after one that is not counted."""
    run(command)
    measured = [run(command) for _ in range(runs)]
    return Measured(statistics.median(m.seconds for m in measured), max(m.peak_mib for m in measured))


def timed(function: Any, *arguments: Any) -> tuple[float, Any]:
    """Return a call's wall-clock seconds and its answer."""
    started = time.perf_counter()
    answer = function(*arguments)
    return time.perf_counter() - started, answer


def record(name: str, rows: Sequence[dict[str, Any]]) -> None:
    """Print rows and keep them in ``results/<name>.json``."""
    machine = {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
    }
    kept = {"command": f"python benchmarks/{name}.py", "machine": machine, "rows": list(rows)}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        print(
            "  ".join(
                f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}" for key, value in row.items()
            )
        )
