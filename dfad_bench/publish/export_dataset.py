"""Exports prepared faces as a Hugging Face dataset: Parquet with the images inside, a configuration per protocol, a card that
says what the faces are not for, and a Croissant description."""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dfad_bench.config import file_sha256
from dfad_bench.errors import DataError, UsageError, shorten
from dfad_bench.prepare.crop_files import Unsound, read_sound
from dfad_bench.prepare.ledger import file_stem
from dfad_bench.publish.croissant import Exported, File, Publication, croissant
from dfad_bench.publish.dataset_card import dataset_card
from dfad_bench.publish.licences import licence_url
from dfad_bench.records.face_files import is_packed
from dfad_bench.records.image_columns import IMAGE, IMAGES, ROWS_PER_GROUP, with_images
from dfad_bench.records.json_files import write_text
from dfad_bench.records.manifest import COLUMNS, Manifest, read_manifest
from dfad_bench.records.protocol import load_protocol
from dfad_bench.records.selection import open_manifests, resolve

CARD, CROISSANT_FILE = "README.md", "croissant.json"
SHARD_BYTES = 256 * 2**20
"""Bytes of images after which a new file begins."""

_NOT_COPIED = ("file_name", "gaze_file_name", "identities")
_LABELS = tuple(name for name in COLUMNS.names if name not in _NOT_COPIED)

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Faces [N] with ``root``, and for each configuration and split (in order) which of them are in it, [N, K]."""

    faces: pa.Table
    splits: tuple[tuple[str, str], ...]
    members: NDArray[np.bool_]
    manifests: Mapping[str, Manifest]
    warnings: tuple[str, ...]


def export_dataset(
    data: Path,
    sources: Sequence[str],
    protocols: Sequence[str],
    out: Path,
    *,
    publication: Publication | None = None,
    metadata_only: bool = False,
    shard_bytes: int = SHARD_BYTES,
    on_progress: Progress | None = None,
) -> list[Path]:
    """Write a dataset folder and return its files; the same faces give the same bytes.

    data: the folder of prepared sources; sources: those to export, by default all that the protocols name; protocols: each
    becomes a configuration with the splits ``train``, ``validation`` and ``test_<subset>``. Without protocols there is one,
    ``default``, whose one split ``faces`` holds every face. A face is stored once, whatever splits it is in.
    out: a folder that does not exist, or is empty; it appears when all is written, or not at all.
    metadata_only: leave the images out. shard_bytes: of images in a file, beyond which at most a group of rows goes.
    on_progress: called with faces done and faces in all.

    Labels are held in memory (some hundred bytes a face), images a group of rows at a time. Raises UsageError for names that
    do not fit together or an ``out`` in use; DataError for a licence that does not let images be passed on (unless
    ``metadata_only``), an image that is missing or changed, and what ``resolve`` raises.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"{out} is in use. Give a folder that does not exist, or an empty one.")
    chosen = _choose(data, sources, protocols)
    if not metadata_only:
        _refuse_unlicensed(chosen.faces)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
        folder = Path(temporary) / "folder"
        (folder / "data").mkdir(parents=True)
        exported = _write(folder, chosen, publication or Publication(out.name), metadata_only, shard_bytes, on_progress)
        write_text(folder / CARD, dataset_card(exported, chosen.faces))
        described = json.dumps(croissant(exported), indent=1, ensure_ascii=False, allow_nan=False)
        write_text(folder / CROISSANT_FILE, described + "\n")
        if out.exists():
            out.rmdir()
        folder.rename(out)
    return [out / CARD, out / CROISSANT_FILE, *(out / each.path for each in exported.files)]


# --- which faces ---------------------------------------------------------------------------------------------------


def _choose(data: Path, sources: Sequence[str], protocols: Sequence[str]) -> _Chosen:
    read = [load_protocol(name) for name in dict.fromkeys(protocols)]
    needed = list(dict.fromkeys(source for protocol in read for source in protocol.sources))
    wanted = list(dict.fromkeys(sources)) or needed
    if not wanted:
        raise UsageError("There is nothing to export. Name a source, or a protocol.")
    if lacking := [name for name in needed if name not in wanted]:
        raise UsageError(f"The protocols need {shorten(lacking)} too. Add it to the sources, or name no source at all.")
    if read and (idle := [name for name in wanted if name not in needed]):
        raise UsageError(f"No protocol selects faces of {shorten(idle)}. Leave it out, or name a protocol that does.")
    if len({protocol.name for protocol in read}) < len(read):
        raise UsageError("Two protocols have one name, and so would two configurations. Rename one of them.")
    splits: dict[tuple[str, str], pa.ChunkedArray] = {}
    for protocol in read:
        selection = resolve(protocol, open_manifests(protocol, data))
        splits[protocol.name, "train"] = selection.train["id"]
        splits[protocol.name, "validation"] = selection.val["id"]
        for subset, table in selection.test.items():
            key = (protocol.name, split_name(subset))
            if key in splits:
                raise DataError(f"Protocol {protocol.name}: two subsets would both be the split {key[1]}. Rename one.")
            splits[key] = table["id"]
    manifests = {name: read_manifest(data / name) for name in wanted}
    faces = pa.concat_tables(
        [
            each.table.append_column("root", pa.array([str(each.root)] * each.table.num_rows))
            for each in manifests.values()
        ]
    )
    if not read:
        splits["default", "faces"] = faces["id"]
    members = np.stack(
        [pc.is_in(faces["id"], value_set=ids.combine_chunks()).to_numpy() for ids in splits.values()], axis=1
    )
    used = members.any(axis=1)
    warnings = dict.fromkeys(protocol.warning for protocol in read if protocol.warning is not None)
    return _Chosen(faces.filter(pa.array(used)), tuple(splits), members[used], manifests, tuple(warnings))


def split_name(subset: str) -> str:
    """Return a test subset's name as ``load_dataset`` allows one: letters, digits and underscores."""
    name = re.sub(r"\W+", "_", subset, flags=re.ASCII)
    return name if name == "test" or name.startswith("test_") else f"test_{name}"


def _refuse_unlicensed(faces: pa.Table) -> None:
    counted = Counter(zip(faces["source"].to_pylist(), faces["licence"].to_pylist(), strict=True))
    refused = {key: count for key, count in sorted(counted.items()) if licence_url(key[1]) is None}
    if refused:
        told = shorten(
            f"{source}: {licence!r} ({count} rows)" if licence.strip() else f"{source}: no licence ({count} rows)"
            for (source, licence), count in refused.items()
        )
        raise DataError(
            f"Images of {sum(refused.values())} of {faces.num_rows} rows may not be passed on, as far as their licences say: "
            f"{told}. Leave these sources out, or export the rows without images: --metadata-only."
        )


# --- writing -------------------------------------------------------------------------------------------------------


def _write(
    folder: Path,
    chosen: _Chosen,
    publication: Publication,
    metadata_only: bool,
    shard_bytes: int,
    on_progress: Progress | None,
) -> Exported:
    """Write the Parquet files, one group of faces after the other, and return what was written."""
    schema = _schema(metadata_only)
    paths: dict[tuple[str, str], list[str]] = {split: [] for split in chosen.splits}
    files: list[File] = []
    done = 0
    for name, inside, rows in _groups(chosen):
        faces = chosen.faces.take(pa.array(rows))
        held = 0
        for path, count in _write_shards(folder, name, faces, schema, shard_bytes):
            done, held = done + count, held + count
            if path is not None:
                written = folder / path
                files.append(File(path, held, written.stat().st_size, file_sha256(written)))
                held = 0
                for split in inside:
                    paths[split].append(path)
            elif on_progress is not None:
                on_progress(done, chosen.faces.num_rows)
    configs: dict[str, dict[str, list[str]]] = {}
    for (config, name), of_split in paths.items():
        configs.setdefault(config, {})[name] = of_split
    licences = sorted(set(pc.unique(chosen.faces["licence"]).to_pylist()))
    return Exported(
        publication=publication,
        files=tuple(files),
        configs=configs,
        schema=schema,
        faces=chosen.faces.num_rows,
        licences={licence: licence_url(licence) for licence in licences},
        recipes={name: manifest.footer.recipe for name, manifest in chosen.manifests.items()},
        homepages={name: manifest.footer.homepage for name, manifest in chosen.manifests.items()},
        warnings=chosen.warnings,
        metadata_only=metadata_only,
    )


def _groups(chosen: _Chosen) -> Iterator[tuple[str, list[tuple[str, str]], NDArray[np.intp]]]:
    """Yield a file name, the splits and the rows of all faces that are in the same splits.

    Files belong to splits as wholes, so that a face in the splits of several protocols need not be stored several times.
    """
    patterns, group = np.unique(chosen.members, axis=0, return_inverse=True)
    for number, pattern in reversed(list(enumerate(patterns))):
        inside = [split for split, member in zip(chosen.splits, pattern, strict=True) if member]
        name = "-".join(inside[0]) if len(inside) == 1 else f"shared-{len(patterns) - 1 - number:03}"
        yield name, inside, np.flatnonzero(group.reshape(-1) == number)


def _schema(metadata_only: bool) -> pa.Schema:
    """Return the columns of every file: every one may be empty, as ``datasets`` has it, and says which hold images."""
    labels = [pa.field(name, COLUMNS.field(name).type) for name in _LABELS] + [pa.field("identities_count", pa.int32())]
    if metadata_only:
        return pa.schema(labels)
    return with_images(labels)


def _write_shards(
    folder: Path, name: str, faces: pa.Table, schema: pa.Schema, shard_bytes: int
) -> Iterator[tuple[str | None, int]]:
    """Write faces to files, yielding the rows of each group of rows, and the path of each file once it is closed."""
    shards, held = 0, 0
    writer: pq.ParquetWriter | None = None
    path = ""
    try:
        for start in range(0, faces.num_rows, ROWS_PER_GROUP):
            rows, size = _rows(faces.slice(start, ROWS_PER_GROUP), schema)
            if writer is not None and held + size > shard_bytes:
                writer.close()
                writer = None
                yield path, 0
            if writer is None:
                path, held = f"data/{name}-{shards:05}.parquet", 0
                shards += 1
                writer = pq.ParquetWriter(folder / path, schema, compression="zstd", write_page_index=True)
            writer.write_table(rows, row_group_size=ROWS_PER_GROUP)
            held += size
            yield None, rows.num_rows
    finally:
        if writer is not None:
            writer.close()
    yield path, 0


def _rows(faces: pa.Table, schema: pa.Schema) -> tuple[pa.Table, int]:
    """Return rows as they are stored, and the bytes of their images."""
    columns: dict[str, Any] = {name: faces[name].combine_chunks() for name in _LABELS}
    columns["identities_count"] = pc.list_value_length(faces["identities"]).combine_chunks()
    size = 0
    if "image" in schema.names:
        images = [
            {name: _embedded(row, name) for name in IMAGES}
            for row in faces.select(["root", "id", "file_name", "gaze_file_name", "sha256"]).to_pylist()
        ]
        size = sum(len(image["bytes"]) for row in images for image in row.values() if image is not None)
        columns |= {name: pa.array([row[name] for row in images], IMAGE) for name in IMAGES}
    arrays = [columns[each.name].cast(each.type) for each in schema]
    return pa.Table.from_arrays(arrays, schema=schema), size


def _embedded(row: Mapping[str, Any], column: str) -> dict[str, Any] | None:
    """Return an image's bytes and path; None where there is none. A face must hold the pixels it was hashed from."""
    root, name = Path(row["root"]), row[IMAGES[column]]
    if name is None:
        return None
    data = read_sound(root, name, row["sha256"] if column == "image" else None)
    if isinstance(data, Unsound):
        raise DataError(f"{row['id']}: {data.detail}. Prepare {root} again.")
    return {"bytes": data, "path": f"{file_stem(row['id'])}.png" if is_packed(name) else name}
