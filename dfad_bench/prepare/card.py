"""Writes the dataset card that lies beside a manifest."""

from __future__ import annotations

import yaml

from dfad_bench.interfaces import Source
from dfad_bench.records.manifest import FEATURES, METADATA, SKIPPED, Footer


def dataset_card(footer: Footer, source: Source) -> str:
    """Return the README.md of a prepared source: Hugging Face front matter, what it is, how it was made, what it is not for."""
    front = {
        "pretty_name": footer.source,
        "license": "other",
        "license_name": "per-row",
        "task_categories": ["image-classification"],
        "tags": ["face-forgery", "deepfake", "attribution", "gaze"],
    }
    recipe = footer.recipe
    skipped = ", ".join(f"{count} {reason}" for reason, count in footer.skipped.items()) or "none"
    defects = ", ".join(f"{count} {kind}" for kind, count in footer.defects.items()) or "nothing that was noticed"
    features = (
        f"- `{FEATURES}`: one row of {footer.feature_dim} gaze features per face, in the order of the table.\n"
        if footer.feature_dim
        else ""
    )
    return f"""---
{yaml.safe_dump(front, sort_keys=False).strip()}
---

# {footer.source}

{source.title}. Prepared by dfad-bench from: {footer.homepage}.
Licence of the source: {source.licence} (each row names its own).

- `{METADATA}`: one row per face ({footer.kept} of {footer.declared} inputs), a Hugging Face *imagefolder* table.
- `{SKIPPED}`: one row per input that did not become a face: {skipped}.
- `faces/`: {recipe.size} px crops, margin {recipe.margin}, detector `{recipe.face_detector}`. `gaze/`: gaze maps, estimator
  `{recipe.gaze_estimator}` (red: eyeball, green: iris).
- `report.json`: what became of each generator's images, and what is wrong with the dataset: {defects}.
{features}- `gaze_pitch`, `gaze_yaw` are radians; pitch > 0 looks up, yaw > 0 looks towards image right.

Faces are personal data. Do not identify anyone with them, do not infer attention, health or emotion from gaze, and pass
them on only as the licence of each row allows. Scores on them are no proof in any legal sense.
"""
