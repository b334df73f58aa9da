"""Faces with gaze, without a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfad_bench.analysis.gaze_samples import GazeFaces, Measuring
from dfad_bench.records.categorical import Categorical
from dfad_bench.scoring.statistics.resampling import find_clusters

ALIKE = Measuring("gradient", None, "yunet", 256, 1.3, False)
LABELS = {
    "real": ("real", "real"),
    "sd15": ("diffusion", "efs"),
    "simswap": ("gan", "fs"),
    "stargan": ("gan", "am"),
    "flux": ("flow", "am"),
}


@dataclass(frozen=True)
class Look:
    """One face and where it looks, pitch and yaw in degrees."""

    generator: str
    pitch: float
    yaw: float
    domain: str = "ffhq"
    identity: str | None = None
    video: str | None = None
    frame: int = -1
    measuring: int = 0


def gaze_faces(looks: Sequence[Look], measurings: tuple[Measuring, ...] = (ALIKE,)) -> GazeFaces:
    """Return the faces as they would be read from prepared sources."""
    identity = Categorical.of([look.identity for look in looks])
    video = Categorical.of([look.video for look in looks])
    return GazeFaces(
        manifests=(),
        measurings=measurings,
        manifest=np.zeros(len(looks), np.int32),
        measuring=np.asarray([look.measuring for look in looks], np.int32),
        id=np.asarray([f"toy/{look.generator}/{number}" for number, look in enumerate(looks)], dtype=object),
        file_name=np.asarray([f"faces/{number}.png" for number in range(len(looks))], dtype=object),
        generator=Categorical.of([look.generator for look in looks]),
        domain=Categorical.of([look.domain for look in looks]),
        identity=identity,
        video=video,
        frame=np.asarray([look.frame for look in looks], np.int32),
        cluster=find_clusters(identity.code, video.code),
        angles=np.radians([[look.pitch, look.yaw] for look in looks]),
        features=None,
        labels=LABELS,
    )


def looking(generator: str, gaze: NDArray[np.float64], domain: str = "ffhq", measuring: int = 0) -> list[Look]:
    """Return one face for each gaze [n, 2] in degrees, each of somebody else."""
    return [Look(generator, float(pitch), float(yaw), domain, measuring=measuring) for pitch, yaw in gaze]


def normal(count: int, seed: int, sd: tuple[float, float] = (8.0, 12.0)) -> NDArray[np.float64]:
    """Return normal gazes [count, 2] in degrees."""
    drawn: NDArray[np.float64] = np.random.default_rng(seed).normal(size=(count, 2)) * sd
    return drawn
