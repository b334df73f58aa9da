"""How long the commands that do no work take, against importing torch, which none of them needs."""

from __future__ import annotations

import sys
from pathlib import Path

from measure import median, record

BIN = Path(sys.executable).parent
LIMITS = {"dfad-bench --help": 0.3, "dfad-bench list models": 0.5}


def main() -> None:
    """Measure, record, and fail where a limit of the project is passed."""
    torch = median([sys.executable, "-c", "import torch"], runs=3)
    rows = [
        {
            "command": "python -c 'import torch'",
            "seconds": torch.seconds,
            "share_of_torch": 1.0,
            "peak_mib": torch.peak_mib,
        }
    ]
    for command in LIMITS:
        program, *arguments = command.split()
        taken = median([str(BIN / program), *arguments])
        rows.append(
            {
                "command": command,
                "seconds": taken.seconds,
                "share_of_torch": taken.seconds / torch.seconds,
                "peak_mib": taken.peak_mib,
                "limit_seconds": LIMITS[command],
            }
        )
    record("startup", rows)
    slow = [row["command"] for row in rows if float(str(row.get("limit_seconds", "inf"))) < float(str(row["seconds"]))]
    if slow:
        raise SystemExit(f"slower than the project promises: {', '.join(map(str, slow))}")


if __name__ == "__main__":
    main()
