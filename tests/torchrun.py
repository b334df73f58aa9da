"""Starts ranks as users do, on the CPU, and keeps apart what each of them says."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

CLI = ("-c", "from dfad_bench.cli import app; app()")


@dataclass(frozen=True)
class Said:
    """What one rank wrote."""

    stdout: str
    stderr: str


@dataclass(frozen=True)
class Ranked:
    """How torchrun ended, what it reported, and what each rank wrote."""

    code: int
    report: str
    ranks: tuple[Said, ...]


def torchrun(logs: Path, *arguments: str | Path, ranks: int = 2, expect: int | None = 0, **environment: str) -> Ranked:
    """Run Python with some arguments on several ranks; ``logs`` is a folder that is not there yet."""
    start = ("--standalone", "--nproc-per-node", ranks, "--log-dir", logs, "--redirects", "3", "--no-python")
    command = [sys.executable, "-m", "torch.distributed.run", *start, sys.executable, *arguments]
    answer = subprocess.run(
        list(map(str, command)),
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    folders = [next(logs.glob(f"*/attempt_0/{rank}")) for rank in range(ranks)]
    said = tuple(Said((each / "stdout.log").read_text(), (each / "stderr.log").read_text()) for each in folders)
    assert expect in (None, answer.returncode), f"{answer.stderr}\n{said}"
    return Ranked(answer.returncode, answer.stderr, said)
