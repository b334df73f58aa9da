"""The gaze of a manifest's faces, by its own estimator or by one that was added later.

``<manifest>/other_gaze/<estimator>.parquet`` holds one row per face in the manifest's order: ``id`` and the manifest's own
``gaze_*`` columns. ``<estimator>.safetensors`` beside it holds the features [N, D] where the estimator gives any. A file of
its own per estimator, because the manifest's table decides the protocols' fingerprints and must not change by a byte, and
because one estimator's gaze is then added, renewed or deleted without a look at any other's. No gaze maps: a map is drawn
from the two angles by ``prepare.gaze_map``, and an image that no row of the manifest names would be one face more, without
labels, to whoever opens the folder as an imagefolder.

The footer names the estimator, its weights and the software that computed the angles, and digests what they were computed
from: ids, crops' hashes and landmarks. A manifest that has changed since is told by that and the added gaze refused, since
its rows may be those of other faces.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dfad_bench.config import Strict, validate
from dfad_bench.errors import DataError, shorten
from dfad_bench.records.features import features_shape, read_features
from dfad_bench.records.manifest import (
    COLUMNS,
    FEATURES,
    PrepareRecipe,
    read_batches,
    read_footer,
    read_manifest,
    without_split_words,
)

GAZE_SCHEMA_VERSION = 1
OTHER_GAZE = "other_gaze"
GAZE_COLUMNS = pa.schema(
    [
        COLUMNS.field("id"),
        *(COLUMNS.field(name) for name in COLUMNS.names if name.startswith("gaze_") and "file" not in name),
    ]
)
"""As in the manifest; ``gaze_flag`` may also be one of CROP_FLAGS."""
CROP_FLAGS = ("missing_crop", "unreadable_crop", "changed_crop")
"""Why no estimator has seen a face: its file is gone, is no image, or holds other pixels than the manifest's row says."""
_FOOTER_KEY = b"dfad_bench_gaze"


class GazeRecipe(Strict):
    """What gave the gaze; ``feature_dim`` is 0 where there are no features."""

    estimator: str
    estimator_sha256: str | None
    feature_dim: int
    software: dict[str, str]


class GazeFooter(Strict):
    """What an added gaze says about itself, stored as JSON in the Parquet footer.

    faces_sha256: of what the gaze was computed from, see ``faces_digest``; without_gaze: faces by their flag.
    """

    schema_version: int
    source: str
    recipe: GazeRecipe
    faces: int
    faces_sha256: str
    with_gaze: int
    without_gaze: dict[str, int]


@dataclass(frozen=True, slots=True)
class FaceGaze:
    """Gaze of a manifest's N faces, in its order.

    pitch, yaw [N] float32: radians in the camera's frame, pitch > 0 up, yaw > 0 towards image right, NaN where unknown.
    features [N, D] float32, NaN rows where unknown; None where the estimator gives none or they were not asked for.
    flags: for each face one word why it has no gaze, or None. estimator and weights_sha256: two gazes that differ in
    either are not to be compared. own: whether it is the gaze of the manifest's own table.
    """

    estimator: str
    weights_sha256: str | None
    own: bool
    ids: list[str]
    pitch: NDArray[np.float32]
    yaw: NDArray[np.float32]
    flags: list[str | None]
    features: NDArray[np.float32] | None


def read_gaze(root: Path, estimator: str | None = None, *, with_features: bool = True) -> FaceGaze:
    """Read the gaze of a manifest's faces by its own estimator (None, or by its name) or by one that was added.

    Raises UsageError where there is no manifest; DataError where it has no gaze by that estimator, naming those there are
    and the command that adds it, where the added gaze is of other faces than the manifest's, or where a file is damaged.
    """
    footer = read_footer(root)
    if estimator is None or estimator in own_names(footer.recipe):
        table = read_manifest(root, GAZE_COLUMNS.names).table
        recipe, width = footer.recipe, footer.feature_dim
        features = None
        if width and with_features:
            features = _features(root, FEATURES, (table.num_rows, width), "Prepare the source again.")
        return _face_gaze(recipe.gaze_estimator, recipe.gaze_estimator_sha256, True, table, features)
    if estimator not in added_estimators(root):
        there = [f"{footer.recipe.gaze_estimator} (its own)", *added_estimators(root)]
        raise DataError(
            f"{root} has no gaze by {estimator!r}, only by {shorten(there)}. Add it: '{adding_command(root, estimator)}'."
        )
    path = gaze_path(root, estimator)
    renew = f"Renew it: '{adding_command(root, estimator)}'."
    table, added = _read_added(path, root, estimator)
    if (added.faces, added.faces_sha256) != faces_digest(root):
        raise DataError(f"{path} is the gaze of other faces than the manifest now holds. {renew}")
    width, features = added.recipe.feature_dim, None
    if width and with_features:
        features = _features(path.parent, features_name(estimator), (table.num_rows, width), renew)
    return _face_gaze(added.recipe.estimator, added.recipe.estimator_sha256, False, table, features)


def is_gaze_sound(root: Path, estimator: str) -> bool:
    """Return whether ``read_gaze`` would read an added gaze; of the features it looks at the header only."""
    try:
        read_gaze(root, estimator, with_features=False)
        footer = read_gaze_footer(root, estimator)
        shape = (footer.faces, footer.recipe.feature_dim)
        return not shape[1] or features_shape(root / OTHER_GAZE, features_name(estimator)) == shape
    except DataError:
        return False


def read_gaze_footer(root: Path, estimator: str) -> GazeFooter:
    """Read what an added gaze says about itself, and none of its rows; raises DataError where it is missing or damaged."""
    path = gaze_path(root, estimator)
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _damaged(path, root, estimator, error) from None
    try:
        stored = json.loads((schema.metadata or {})[_FOOTER_KEY])
    except (KeyError, ValueError):
        raise _damaged(path, root, estimator, "its footer is missing") from None
    version = stored.get("schema_version") if isinstance(stored, dict) else None
    if version != GAZE_SCHEMA_VERSION:
        raise _damaged(path, root, estimator, f"it has schema version {version}, not {GAZE_SCHEMA_VERSION}")
    return validate(stored, GazeFooter, str(path))


def with_gaze_footer(footer: GazeFooter) -> pa.Schema:
    """Return the schema of an added gaze with the footer stored in its metadata."""
    return GAZE_COLUMNS.with_metadata({_FOOTER_KEY: footer.model_dump_json().encode()})


def own_names(recipe: PrepareRecipe) -> set[str]:
    """Return what the manifest's own estimator is called: as recorded, and without the hash of a plugin file."""
    return {recipe.gaze_estimator, recipe.gaze_estimator.partition(" (file ")[0]}


def added_estimators(root: Path) -> list[str]:
    """Return the names of the estimators whose gaze was added to a manifest, sorted."""
    return sorted(path.stem.replace("+", "") for path in (root / OTHER_GAZE).glob("[!.]*.parquet"))


def gaze_path(root: Path, estimator: str) -> Path:
    """Return where the gaze of an added estimator lies; its name has no ``+``."""
    return root / OTHER_GAZE / f"{without_split_words(estimator)}.parquet"


def features_name(estimator: str) -> str:
    """Return what an added estimator's features are called, in the folder of its gaze."""
    return f"{without_split_words(estimator)}.safetensors"


def adding_command(root: Path, estimator: str) -> str:
    """Return the command that adds an estimator's gaze to a manifest."""
    name, data = root.absolute().name, str(root.parent)
    words = ["dfad-bench", "prepare", "--only-gaze", "--gaze-estimator", estimator, "--name", name, "--data", data]
    return shlex.join(words)


# --- the faces it is computed from ---------------------------------------------------------------------------------

DECISIVE = ("id", "sha256", "box", "landmarks", "crop_scale", "decode_reduction")
"""The columns that decide an added gaze, with the recipe's size, margin and alignment."""
MOST_IN_PART = 256


@dataclass(frozen=True, slots=True)
class FacePart:
    """Faces that follow each other in a manifest and lie in one folder: the digest of what decides their gaze, and their
    rows of DECISIVE, ``file_name`` and ``generator``."""

    digest: str
    table: pa.Table


def face_parts(root: Path) -> Iterator[FacePart]:
    """Yield a manifest's faces in its order, in parts that stay the same when other parts are added or change."""
    recipe = read_footer(root).recipe
    opened: list[pa.Table] = []
    folder, held = "", 0
    for batch in read_batches(root, (*DECISIVE, "file_name", "generator")):
        start = 0
        for at, name in enumerate(batch["file_name"].to_pylist()):
            its_folder = name.rpartition("/")[0]
            if held and (its_folder != folder or held == MOST_IN_PART):
                yield _part([*opened, batch.slice(start, at - start)], recipe)
                opened, start, held = [], at, 0
            folder, held = its_folder, held + 1
        opened.append(batch.slice(start))
    if held:
        yield _part(opened, recipe)


def faces_digest(root: Path) -> tuple[int, str]:
    """Return the number of a manifest's faces, and the sha256 of what decides their gaze."""
    return joint_digest((part.table.num_rows, part.digest) for part in face_parts(root))


def joint_digest(parts: Iterator[tuple[int, str]]) -> tuple[int, str]:
    """Return the faces in all and one digest for parts given by their number of faces and their digests."""
    count, joint = 0, hashlib.sha256()
    for faces, digest in parts:
        count += faces
        joint.update(digest.encode())
    return count, joint.hexdigest()


def _part(tables: list[pa.Table], recipe: PrepareRecipe) -> FacePart:
    table = pa.concat_tables(tables).combine_chunks()
    digest = hashlib.sha256(json.dumps([recipe.size, recipe.margin, recipe.align]).encode())
    for name in DECISIVE:
        column = table[name]
        if pa.types.is_string(column.type):
            digest.update(json.dumps(column.to_pylist()).encode())
            continue
        if pa.types.is_list(column.type):
            digest.update(pc.fill_null(pc.list_value_length(column), -1).to_numpy().astype("<i4").tobytes())
            column = pc.list_flatten(column)
        digest.update(column.to_numpy().astype("<f4").tobytes())
    return FacePart(digest.hexdigest(), table)


# --- reading -------------------------------------------------------------------------------------------------------


def _face_gaze(
    estimator: str, weights_sha256: str | None, own: bool, table: pa.Table, features: NDArray[np.float32] | None
) -> FaceGaze:
    pitch, yaw = (
        pc.fill_null(table[name], np.nan).to_numpy().astype(np.float32, copy=False)
        for name in ("gaze_pitch", "gaze_yaw")
    )
    ids, flags = table["id"].to_pylist(), table["gaze_flag"].to_pylist()
    return FaceGaze(estimator, weights_sha256, own, ids, pitch, yaw, flags, features)


def _read_added(path: Path, root: Path, estimator: str) -> tuple[pa.Table, GazeFooter]:
    footer = read_gaze_footer(root, estimator)
    try:
        table = pq.read_table(path)
        table.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, root, estimator, error) from None
    if table.schema.names != GAZE_COLUMNS.names or table.schema.types != GAZE_COLUMNS.types:
        raise _damaged(path, root, estimator, "its columns are others than those of a gaze")
    if table.num_rows != footer.faces:
        raise _damaged(path, root, estimator, f"it has {table.num_rows} rows, promised are {footer.faces}")
    if footer.recipe.estimator.partition(" (file ")[0] != estimator:
        raise _damaged(path, root, estimator, f"it holds the gaze of {footer.recipe.estimator}")
    if not table["id"].equals(read_manifest(root, ("id",)).table["id"]):
        raise DataError(
            f"{path} names other faces than the manifest now holds. Renew it: '{adding_command(root, estimator)}'."
        )
    for field in GAZE_COLUMNS:
        if pa.types.is_floating(field.type) and not pc.all(pc.is_finite(table[field.name]), min_count=0).as_py():
            raise _damaged(path, root, estimator, f"{field.name} holds what is neither finite nor empty")
    return table, footer


def _features(root: Path, name: str, shape: tuple[int, int], again: str) -> NDArray[np.float32]:
    """Return the features of that shape; ``again`` is how the user makes them anew."""
    if not (root / name).is_file():
        raise DataError(f"{root / name} is missing. {again}")
    if (there := features_shape(root, name)) != shape:
        raise DataError(f"{root / name} is {there}, expected {shape}. {again}")
    features = read_features(root, name)
    if np.isinf(features).any():
        raise DataError(f"{root / name} holds infinite features. {again}")
    return features


def _damaged(path: Path, root: Path, estimator: str, why: object) -> DataError:
    told = " ".join(str(why).split())
    return DataError(f"{path} cannot be read as added gaze ({told}). Renew it: '{adding_command(root, estimator)}'.")
