"""Builds small selections of faces on disk, and the smallest models that can be trained on them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import nn

from dfad_bench.modelling.nn import attribution_loss, classifier_output
from dfad_bench.modelling.preprocess import Preprocess
from dfad_bench.prepare.gaze_map import encode_gaze_map, render_gaze_map
from dfad_bench.records.manifest import COLUMNS
from dfad_bench.records.selection import FACE_COLUMNS
from dfad_bench.types import Batch, Leaf, ModelSpec, Output, Recipe

CLASSES = (
    Leaf("real", "real", "real"),
    Leaf("ddim", "diffusion", "efs"),
    Leaf("stylegan3", "gan", "efs"),
)
SHADES = {"real": 60, "ddim": 120, "stylegan3": 180, "simswap": 220, "glow": 30}
"""The mean grey of each generator's faces: enough to tell them apart."""


def face_pixels(generator: str, rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """Return a face [size, size, 3] uint8: noise around the generator's shade."""
    noise = rng.normal(SHADES[generator], 25, (size, size, 3))
    return np.clip(noise, 0, 255).astype(np.uint8)


def make_faces(
    folder: Path,
    per_generator: int,
    *,
    generators: Sequence[str] = ("real", "ddim", "stylegan3"),
    size: int = 16,
    seed: int = 0,
    source: str = "toy",
    gaze: bool = False,
) -> pa.Table:
    """Write faces (and gaze maps) below ``folder`` and return the table of a selection that holds them."""
    rng = np.random.default_rng(seed)
    (folder / "faces").mkdir(parents=True, exist_ok=True)
    (folder / "gaze").mkdir(exist_ok=True)
    labels = {leaf.name: leaf for leaf in CLASSES}
    rows = []
    for number in range(per_generator * len(generators)):
        generator = generators[number % len(generators)]
        leaf = labels.get(generator, Leaf(generator, "gan", "fs"))
        name = f"{seed}-{number:04}.png"
        pixels = face_pixels(generator, rng, size)
        png = cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()
        (folder / "faces" / name).write_bytes(png)
        pitch, yaw = (float(angle) for angle in rng.uniform(-0.5, 0.5, 2))
        if gaze:
            (folder / "gaze" / name).write_bytes(encode_gaze_map(render_gaze_map(pitch, yaw)))
        rows.append(
            {
                "id": f"{source}/{generator}/{seed}-{number}",
                "file_name": f"faces/{name}",
                "gaze_file_name": f"gaze/{name}" if gaze else None,
                "source": source,
                "generator": generator,
                "family": leaf.family,
                "forgery_type": leaf.forgery_type,
                "generator_version": None,
                "domain": source,
                "source_split": None,
                "video": None,
                "identities": [],
                "gaze_pitch": pitch if gaze else None,
                "gaze_yaw": yaw if gaze else None,
                "original_width": size if generator == "real" else 2 * size,
                "original_height": size,
                "original_format": "JPEG" if generator == "real" else "PNG",
                "jpeg_quality": int(rng.integers(80, 96)) if generator == "real" else None,
                "jpeg_chroma_quality": 80 if generator == "real" else None,
                "jpeg_subsampling": "4:2:0" if generator == "real" else None,
                "sha256": hashlib.sha256(png).hexdigest(),
            }
        )
    table = pa.Table.from_pylist(rows, schema=pa.schema([COLUMNS.field(name) for name in FACE_COLUMNS]))
    return table.append_column("root", pa.array([str(folder)] * len(rows), pa.string()).dictionary_encode())


class Shade(nn.Module):
    """A linear model of the mean colour, with dropout so that randomness matters."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.1)
        self.linear = nn.Linear(3, classes)

    def forward(self, batch: Batch) -> Output:
        assert batch.image is not None
        return classifier_output(self.linear(self.dropout(batch.image.mean(dim=(2, 3)))))

    def loss(self, batch: Batch) -> torch.Tensor:
        return attribution_loss(self(batch), batch)


SHADE = ModelSpec(
    build=lambda classes: Shade(len(classes)),
    inputs=("image",),
    preprocess=Preprocess(size=8),
    reference="none",
    licence="Apache-2.0",
    recipe=Recipe(epochs=4, batch_size=7, learning_rate=0.05, patience=4),
)
