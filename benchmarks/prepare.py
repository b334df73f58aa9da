"""Speed and memory of `prepare`: workers against one, ours against a bare loop, 5,000 faces against 500."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from measure import Measured, record, run, timed

BIN = Path(sys.executable).parent


def prepare(data: Path, source: str, workers: int, *more: str) -> Measured:
    """Run `dfad-bench prepare` into a fresh folder."""
    command = [str(BIN / "dfad-bench"), "prepare", "--source", source, "--data", str(data), "--workers", str(workers)]
    crops = [] if source == "demo" else ["--face-detector", "whole_image", "--gaze-estimator", "annotated"]
    return run([*command, *crops, *more])


def write_photographs(root: Path, count: int) -> None:
    """Write 1024 px JPEGs of smooth noise, as large as a real portrait's file."""
    rng = np.random.default_rng(0)
    (root / "real").mkdir(parents=True)
    for index in range(count):
        coarse = rng.integers(0, 256, (128, 128, 3), np.uint8)
        pixels = cv2.resize(coarse, (1024, 1024), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(root / "real" / f"{index:05d}.jpg"), pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])


def bare_loop(root: Path, out: Path) -> None:
    """What a script would do: read, resize, write; no labels, hashes, ledger or resume."""
    cv2.setNumThreads(1)
    for path in sorted((root / "real").iterdir()):
        face = cv2.resize(cv2.imread(str(path)), (256, 256), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(out / f"{path.stem}.png"), face)


def main() -> None:
    """Measure and record."""
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for faces in (500, 5000):
            taken = prepare(folder / f"demo{faces}", "demo", 2, "--set", f"faces={faces}")
            rows.append(
                {
                    "what": f"demo, {faces} faces, 2 workers",
                    "seconds": taken.seconds,
                    "faces_per_second": faces / taken.seconds,
                    "peak_mib": taken.peak_mib,
                }
            )
        images = 1500
        write_photographs(folder / "photos", images)
        (folder / "bare").mkdir()
        bare, _ = timed(bare_loop, folder / "photos", folder / "bare")
        rows.append({"what": "bare loop, 1024 px JPEG", "seconds": bare, "faces_per_second": images / bare})
        for workers in (1, 2):
            taken = prepare(folder / f"photos{workers}", "folder", workers, "--root", str(folder / "photos"))
            rows.append(
                {
                    "what": f"folder, 1024 px JPEG, {workers} workers",
                    "seconds": taken.seconds,
                    "faces_per_second": images / taken.seconds,
                    "peak_mib": taken.peak_mib,
                    "speed_over_bare_loop": bare / taken.seconds,
                }
            )
        again = prepare(folder / "photos2", "folder", 2, "--root", str(folder / "photos"))
        rows.append({"what": "the same again, nothing to do", "seconds": again.seconds, "peak_mib": again.peak_mib})
    record("prepare", rows)


if __name__ == "__main__":
    main()
