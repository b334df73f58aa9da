"""Manifest of loose files → packed manifest: the same rows in the same order, their images inside a few large Parquet files.

Ten files instead of a hundred thousand, readable by ``load_dataset`` and any reader of Parquet, and still with random access:
``records.face_files`` says how. The folder is a manifest like any other, so its faces give the same fingerprints and scores.
``metadata.parquet`` is written last; a run that was killed goes on with the shards that it had not finished.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dfad_bench.engines.local import LocalEngine
from dfad_bench.errors import DataError, DfadError, UsageError
from dfad_bench.interfaces import Engine
from dfad_bench.prepare.card import packed_card
from dfad_bench.prepare.ledger import AtomicParquet
from dfad_bench.prepare.plan import Progress
from dfad_bench.prepare.shards import STATE, Shard, ShardPacker, cut_into_shards, is_packed_already, rows_path
from dfad_bench.prepare.sole_writer import sole_writer
from dfad_bench.records.face_files import SHARDS, shard_name
from dfad_bench.records.features import features_shape
from dfad_bench.records.gaze import (
    OTHER_GAZE,
    added_estimators,
    faces_digest,
    features_name,
    gaze_path,
    is_gaze_sound,
    read_gaze_footer,
    with_gaze_footer,
)
from dfad_bench.records.json_files import write_text
from dfad_bench.records.manifest import COLUMNS, FEATURES, METADATA, REPORT, SKIPPED, Footer, read_footer, with_footer

SHARD_BYTES = 512 * 2**20


@dataclass(frozen=True, slots=True)
class PackReport:
    """The outcome of packing a manifest into ``root``."""

    root: Path
    source: str
    faces: int
    shards: int
    resumed: int
    """Shards that an earlier run had finished."""
    bytes: int
    """Of all shards."""
    gaze: tuple[str, ...]
    """Estimators whose added gaze came along."""
    gaze_left_out: tuple[str, ...]
    """Estimators whose added gaze is damaged, or of other faces than the manifest now holds."""


def packed_folder(root: Path, source: str) -> Path:
    """Return where a manifest is packed to by default: ``<data>-packed/<source>`` beside the data folder.

    A folder called as its source, in a data folder of its own, so that ``--data`` alone says which of the two is meant.
    """
    data = root.parent if root.parent.name else root.absolute().parent
    return data.with_name(f"{data.name}-packed") / source


def pack(
    root: Path,
    out: Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    engine: Engine | None = None,
    on_progress: Progress | None = None,
) -> PackReport:
    """Pack the manifest in ``root`` into the folder ``out``; the same manifest and ``shard_bytes`` give the same bytes.

    shard_bytes: of images in a file. Raises UsageError where there is no manifest, where ``out`` holds something else, lies
    in the manifest's folder or is not called as the source; DataError for an image that is missing or whose pixels are not
    those that its row was hashed from, and for a disk that is full. A second call then goes on where this one stopped.
    """
    footer = read_footer(root)
    _check_folders(root, out, footer)
    if footer.feature_dim:
        features_shape(root)  # what is missing is told before hours of work
    with sole_writer(out, out / STATE / "lock"):
        return _pack_locked(root, out, footer, shard_bytes, engine or LocalEngine(), on_progress)


def _check_folders(root: Path, out: Path, footer: Footer) -> None:
    inner, outer = out.resolve(), root.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise UsageError(f"{out} and {root} lie in each other. Choose another --output.")
    if out.absolute().name != footer.source:
        raise UsageError(
            f"A manifest's folder is called what its source is called: give --output {out / footer.source}."
        )
    if out.is_dir() and not (out / STATE).is_dir() and any(out.iterdir()):
        raise UsageError(f"{out} holds files that 'dfad-bench pack' did not write. Choose another --output.")


def _pack_locked(
    root: Path, out: Path, footer: Footer, shard_bytes: int, engine: Engine, on_progress: Progress | None
) -> PackReport:
    sizes: dict[int, int] = {}
    wanted: set[int] = set()
    for shard in cut_into_shards(root, shard_bytes):
        sizes[shard.number] = shard.rows.num_rows
        if not is_packed_already(out, shard.number, shard.digest):
            wanted.add(shard.number)
    if not sizes:
        raise DataError(f"{root} holds no face. Prepare the source again.")
    files = [out / shard_name(number) for number in sizes]
    stale = _stale(out, {*files, *(rows_path(out, number) for number in sizes)})
    if wanted or stale or not _says(out, footer):
        # The old manifest goes first: killed from here on, the folder has none rather than one of other faces.
        (out / METADATA).unlink(missing_ok=True)
    for path in stale:
        path.unlink()
    total = sum(sizes.values())
    done = total - sum(sizes[number] for number in wanted)
    if on_progress:
        on_progress(done, total)
    if wanted:
        for packed in engine.map(
            partial(_wanted_shards, root, shard_bytes, frozenset(wanted)), partial(ShardPacker, root, out)
        ):
            done += packed.faces
            if on_progress:
                on_progress(done, total)
    _copy_beside(root, out, footer)
    # complete, but not yet under its name: the gaze that was added is held against it
    with AtomicParquet(out / STATE / METADATA, with_footer(COLUMNS, footer)) as metadata:
        for number in sizes:
            metadata.add(pq.read_table(rows_path(out, number), columns=COLUMNS.names).cast(COLUMNS))
    gaze, left_out = _copy_gaze(root, out)
    (out / STATE / METADATA).replace(out / METADATA)
    size = sum(file.stat().st_size for file in files)
    return PackReport(out, footer.source, total, len(sizes), len(sizes) - len(wanted), size, gaze, left_out)


def _says(out: Path, footer: Footer) -> bool:
    """Return whether there is a manifest with that footer."""
    try:
        return read_footer(out) == footer
    except DfadError:
        return False


def _stale(out: Path, keep: set[Path]) -> list[Path]:
    """Return the files of other shards, and what a run left that was killed."""
    found = {*(out / SHARDS).glob("*"), *(out / STATE).glob("*.parquet*")}
    return sorted(found - keep)


def _wanted_shards(root: Path, shard_bytes: int, wanted: frozenset[int]) -> Iterator[Shard]:
    return (shard for shard in cut_into_shards(root, shard_bytes) if shard.number in wanted)


# --- what lies beside the faces ------------------------------------------------------------------------------------


def _copy_beside(root: Path, out: Path, footer: Footer) -> None:
    for name in (SKIPPED, REPORT, FEATURES):
        if (root / name).is_file():
            _copy(root / name, out / name)
        else:
            (out / name).unlink(missing_ok=True)
    write_text(out / "README.md", packed_card(footer))


def _copy_gaze(root: Path, out: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Copy the gaze that was added to a manifest, and return the estimators whose gaze came along, and the others.

    The digest of the faces depends on the folders they lie in, which are others in a packed manifest.
    """
    sound = tuple(name for name in added_estimators(root) if is_gaze_sound(root, name))
    digest = faces_digest(out / STATE)[1] if sound else ""
    for name in sound:
        path, copy = gaze_path(root, name), gaze_path(out, name)
        copy.parent.mkdir(exist_ok=True)
        copy.unlink(missing_ok=True)  # the table goes first and comes last, as where a gaze is added
        footer = read_gaze_footer(root, name).model_copy(update={"faces_sha256": digest})
        if footer.recipe.feature_dim:
            _copy(root / OTHER_GAZE / features_name(name), out / OTHER_GAZE / features_name(name))
        with AtomicParquet(copy, with_gaze_footer(footer)) as table, pq.ParquetFile(path) as stored:
            for batch in stored.iter_batches():
                table.add(pa.Table.from_batches([batch]))
    return sound, tuple(name for name in added_estimators(root) if name not in sound)


def _copy(path: Path, to: Path) -> None:
    temporary = to.with_name(f".{to.name}.part")
    shutil.copyfile(path, temporary)
    temporary.replace(to)
