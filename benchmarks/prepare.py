"""Speed and memory of `prepare`: workers against one, ours against a bare loop, 5,000 faces against 500."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from measure import Measured, record, run, timed

from dfad_bench.prepare.decode import decode
from dfad_bench.prepare.demo_faces.casting import DemoPayload
from dfad_bench.prepare.face_detectors.yunet import YuNet
from dfad_bench.prepare.gaze_estimators.openvino_adas import OpenvinoAdas
from dfad_bench.types import REAL
from dfad_bench.weights import find

BIN = Path(sys.executable).parent


def prepare(data: Path, source: str, workers: int, *more: str) -> Measured:
    """Run `dfad-bench prepare` into a fresh folder."""
    command = [str(BIN / "dfad-bench"), "prepare", "--source", source, "--data", str(data), "--workers", str(workers)]
    return run([*command, *more])


SCENES = 40
IMAGES = 4000
CROPS = ("--face-detector", "whole_image", "--gaze-estimator", "annotated")
FACES = ("--face-detector", "yunet", "--gaze-estimator", "openvino_adas")


def write_photographs(root: Path, count: int) -> None:
    """Write 1024 px JPEGs of rendered faces with the grain of a camera, each scene under many names."""
    rng = np.random.default_rng(0)
    (root / "real").mkdir(parents=True)
    scenes = []
    for index in range(SCENES):
        face = decode(DemoPayload(0, REAL, index).read()).pixels
        large = cv2.resize(face, (1024, 1024), interpolation=cv2.INTER_CUBIC)
        grainy = np.clip(large + rng.normal(0, 4, large.shape), 0, 255).astype(np.uint8)
        blue_first = cv2.cvtColor(grainy, cv2.COLOR_RGB2BGR)
        scenes.append(cv2.imencode(".jpg", blue_first, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes())
    for index in range(count):
        path = root / "real" / f"{index:05d}.jpg"
        if index < SCENES:
            path.write_bytes(scenes[index])
        else:
            path.hardlink_to(root / "real" / f"{index % SCENES:05d}.jpg")


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
        write_photographs(folder / "photos", IMAGES)
        (folder / "bare").mkdir()
        bare, _ = timed(bare_loop, folder / "photos", folder / "bare")
        rows.append({"what": "bare loop, 1024 px JPEG", "seconds": bare, "faces_per_second": IMAGES / bare})
        ways = {"crops": CROPS, "found by yunet, gaze by openvino_adas": FACES}
        if not any(find(weights) for weights in YuNet.weights) or not all(find(w) for w in OpenvinoAdas.weights):
            print("The weights of yunet and openvino_adas are not on this machine: only crops are measured.")
            ways = {"crops": CROPS}
        for what, options in ways.items():
            taken = {
                workers: prepare(
                    folder / f"{what}{workers}", "folder", workers, "--root", str(folder / "photos"), *options
                )
                for workers in (1, 2)
            }
            rows += [
                {
                    "what": f"1024 px JPEG, {what}, {workers} worker{'s' if workers > 1 else ''}",
                    "seconds": each.seconds,
                    "faces_per_second": IMAGES / each.seconds,
                    "peak_mib": each.peak_mib,
                    "speed_over_bare_loop": bare / each.seconds,
                    "speed_over_one_worker": taken[1].seconds / each.seconds,
                }
                for workers, each in taken.items()
            ]
        again = prepare(folder / "crops2", "folder", 2, "--root", str(folder / "photos"), *CROPS)
        rows.append({"what": "the same again, nothing to do", "seconds": again.seconds, "peak_mib": again.peak_mib})
    record("prepare", rows)


if __name__ == "__main__":
    main()
