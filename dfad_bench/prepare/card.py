"""Writes the dataset card that lies beside a manifest."""

from __future__ import annotations

from typing import Any

import yaml

from dfad_bench.interfaces import Source
from dfad_bench.records.face_files import SHARDS
from dfad_bench.records.manifest import FEATURES, METADATA, SKIPPED, Footer

_NOT_FOR = """\
Faces are personal data. Do not identify anyone with them, do not infer attention, health or emotion from gaze, and pass
them on only as the licence of each row allows. Scores on them are no proof in any legal sense.
"""


def dataset_card(footer: Footer, source: Source) -> str:
    """Return the README.md of a prepared source: Hugging Face front matter, what it is, how it was made, what it is not for."""
    recipe = footer.recipe
    defects = ", ".join(f"{count} {kind}" for kind, count in footer.defects.items()) or "nothing that was noticed"
    return f"""{_head(footer)}
{source.title}. Prepared by dfad-bench from: {footer.homepage}.
Licence of the source: {source.licence} (each row names its own).

{_tables(footer)}
- `faces/`: {recipe.size} px crops, margin {recipe.margin}, detector `{recipe.face_detector}`. `gaze/`: gaze maps, estimator
  `{recipe.gaze_estimator}` (red: eyeball, green: iris).
- `report.json`: what became of each generator's images, and what is wrong with the dataset: {defects}.
{_gaze(footer)}
{_NOT_FOR}"""


def packed_card(footer: Footer) -> str:
    """Return the README.md of a packed manifest; its front matter says which files ``load_dataset`` loads."""
    recipe = footer.recipe
    return f"""{_head(footer, configs=[{"config_name": "default", "data_files": f"{SHARDS}/*.parquet"}])}
Prepared by dfad-bench from: {footer.homepage}. Packed by `dfad-bench pack`. Each row names its own licence.

- `{SHARDS}/`: one row per face ({footer.kept} of {footer.declared} inputs): `image`, a {recipe.size} px crop, margin
  {recipe.margin}, detector `{recipe.face_detector}`; `gaze_map`, estimator `{recipe.gaze_estimator}` (red: eyeball, green:
  iris); and all that is known of the face. PNGs are not compressed again: each lies in its file in one piece.
- `{METADATA}`: the same rows for dfad-bench, without images: `file_name` is `shard@offset+length`, a PNG's bytes in its shard.
- `{SKIPPED}`: one row per input that did not become a face: {_skipped(footer)}.
{_gaze(footer)}
{_NOT_FOR}"""


def _head(footer: Footer, **more: Any) -> str:
    front = {
        "pretty_name": footer.source,
        "license": "other",
        "license_name": "per-row",
        "task_categories": ["image-classification"],
        "tags": ["face-forgery", "deepfake", "attribution", "gaze"],
        **more,
    }
    return f"---\n{yaml.safe_dump(front, sort_keys=False).strip()}\n---\n\n# {footer.source}\n"


def _skipped(footer: Footer) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in footer.skipped.items()) or "none"


def _gaze(footer: Footer) -> str:
    angles = "- `gaze_pitch`, `gaze_yaw` are radians; pitch > 0 looks up, yaw > 0 looks towards image right.\n"
    if not footer.feature_dim:
        return angles
    return (
        f"- `{FEATURES}`: one row of {footer.feature_dim} gaze features per face, in the order of the table.\n{angles}"
    )


def with_counts(card: str, before: Footer, after: Footer) -> str:
    """Return a card that tells the faces of ``before`` with those of ``after``; what somebody wrote anew stays."""
    return card.replace(_tables(before), _tables(after))


def _tables(footer: Footer) -> str:
    return (
        f"- `{METADATA}`: one row per face ({footer.kept} of {footer.declared} inputs), a Hugging Face *imagefolder* table.\n"
        f"- `{SKIPPED}`: one row per input that did not become a face: {_skipped(footer)}."
    )
