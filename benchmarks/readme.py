"""Puts the measured figures into the README, between its benchmark markers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from measure import RESULTS

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"


def rows(name: str) -> list[dict[str, Any]]:
    """Return the rows of one benchmark's result."""
    kept: list[dict[str, Any]] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["rows"]
    return kept


def lines() -> list[str]:
    """Return the table, a line each."""
    told = ["| what | measured | against |", "|---|---|---|"]
    for row in rows("startup")[1:]:
        share = f"{row['share_of_torch']:.0%} of importing torch"
        told.append(f"| `{row['command']}` | {row['seconds']:.2f} s | {share} |")
    for row in rows("prepare"):
        speed = f"{row['faces_per_second']:.0f} faces/s" if "faces_per_second" in row else f"{row['seconds']:.2f} s"
        memory = f", {row['peak_mib']:.0f} MiB at most in any process" if "peak_mib" in row else ""
        ratio = f"{row['speed_over_bare_loop']:.2f} × the bare loop" if "speed_over_bare_loop" in row else ""
        told.append(f"| prepare: {row['what']} | {speed}{memory} | {ratio} |")
    told += [
        f"| score {row['faces']:,} faces, {row['ours_numbers']} numbers | {row['ours_seconds']:.1f} s "
        f"| {row['speed_per_number']:.1f} × scikit-learn, called number by number |"
        for row in rows("scoring")
    ]
    machine = json.loads((RESULTS / "prepare.json").read_text(encoding="utf-8"))["machine"]
    return [*told, "", f"On {machine['cores']} cores, Python {machine['python']}, {machine['platform']}."]


def main() -> None:
    """Rewrite the region."""
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text("\n".join([before + BEGIN, *lines(), END + after]), encoding="utf-8")


if __name__ == "__main__":
    main()
