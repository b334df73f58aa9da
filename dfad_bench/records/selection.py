"""A protocol resolved against manifests: the faces of train, val and test, and the leaf classes."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dfad_bench import registry
from dfad_bench.errors import DataError, UsageError, shorten
from dfad_bench.records.leakage import KINDS, find_overlaps
from dfad_bench.records.manifest import Manifest, fingerprint, generator_labels, read_manifest
from dfad_bench.records.protocol import Protocol, Split, Where
from dfad_bench.records.sampling import assign, connected_groups, sample
from dfad_bench.types import REAL, Leaf

FACE_COLUMNS = (
    *(
        "id",
        "file_name",
        "gaze_file_name",
        "source",
        "generator",
        "family",
        "forgery_type",
        "generator_version",
        "domain",
    ),
    *("source_split", "video", "identities", "gaze_pitch", "gaze_yaw"),
    *("original_width", "original_height", "original_format", "sha256"),
    *("jpeg_quality", "jpeg_chroma_quality", "jpeg_subsampling"),
)
"""What a selection keeps of a manifest, plus ``root``: the manifest's folder."""
_FINGERPRINTED = (
    *("id", "sha256", "generator", "family", "forgery_type", "domain", "video", "identities", "gaze_pitch", "gaze_yaw"),
    *("original_width", "original_height", "original_format"),
    *("jpeg_quality", "jpeg_chroma_quality", "jpeg_subsampling"),
)
"""All that a model may see of a face or a score may depend on."""


@dataclass(frozen=True, slots=True)
class Selection:
    """A protocol's faces: one table each for train, val and every test subset, and the leaf classes.

    ``departures`` says in what this selection is not what the protocol's author published; with any, a result is not
    eligible for the leaderboard.
    """

    protocol: Protocol
    classes: tuple[Leaf, ...]
    train: pa.Table
    val: pa.Table
    test: Mapping[str, pa.Table]
    fingerprint: str
    manifests: Mapping[str, Manifest]
    departures: tuple[str, ...] = field(default=())

    @property
    def test_faces(self) -> int:
        """The number of faces over all test subsets."""
        return sum(table.num_rows for table in self.test.values())


def open_manifests(protocol: Protocol, data: Path) -> dict[str, Manifest]:
    """Return the manifests a protocol needs by the names of their sources.

    Raises UsageError naming those missing and the commands that prepare them, DataError for one that is not what its
    folder is called.
    """
    missing = [name for name in protocol.sources if not (data / name / "metadata.parquet").is_file()]
    if missing:
        options = [protocol.prepare.get(name) or _source_options(name) for name in missing]
        commands = [f"dfad-bench prepare {each} --data {shlex.quote(str(data))}" for each in options]
        lacking = f"Protocol {protocol.name} needs {', '.join(missing)}, which {data} does not hold."
        if len(commands) == 1:
            raise UsageError(f"{lacking} Run: {commands[0]} (or point --data at the folder that has it).")
        listed = "\n".join(commands)  # a line each, to be copied as they are
        raise UsageError(f"{lacking} Point --data at the folder that has them, or run:\n{listed}")
    manifests = {name: read_manifest(data / name, FACE_COLUMNS) for name in protocol.sources}
    for name, manifest in manifests.items():
        if manifest.name != name:
            raise DataError(f"{manifest.root} says that it is {manifest.name}. Give the folder its name back.")
    return manifests


def _source_options(name: str) -> str:
    if name not in registry.entries("sources"):
        return f"--source … --name {name} --root …"
    return f"--source {name} --root …" if registry.get("sources", name).needs_root else f"--source {name}"


def resolve(protocol: Protocol, manifests: Mapping[str, Manifest], limit: int | None = None) -> Selection:
    """Select a protocol's faces.

    limit: keep at most so many faces per generator in each split (for a quick try; the result is marked).
    Raises DataError for leakage, for labels named but absent, and for labels that contradict each other.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"A limit of {limit} leaves no face. Give 1 or more.")
    _same_crop(manifests)
    faces = pa.concat_tables([_with_root(manifest) for manifest in manifests.values()])
    faces = faces.append_column("partition", _partition(protocol, faces))
    labels = generator_labels(faces, f"protocol {protocol.name}")
    named = {"train": protocol.train, "val": protocol.val, **protocol.test}
    chosen = {name: _choose(split, faces, protocol.seed, name) for name, split in named.items()}
    _refuse_leaks(protocol, chosen)
    if limit is not None:
        chosen = {name: _at_most(limit, table, protocol.seed) for name, table in chosen.items()}
    classes = tuple(
        Leaf(name, *labels[name]) for name in _real_first(pc.unique(chosen["train"]["generator"]).to_pylist())
    )
    _check_classes(protocol, classes, chosen)
    total = sum(table.num_rows for table in chosen.values())
    mark = fingerprint(
        (split, *map(str, row.values()))
        for split, table in chosen.items()
        for row in table.select(list(_FINGERPRINTED)).to_pylist()
    )
    return Selection(
        protocol=protocol,
        classes=classes,
        train=chosen.pop("train"),
        val=chosen.pop("val"),
        test=chosen,
        fingerprint=mark,
        manifests=manifests,
        departures=tuple(_departures(protocol, manifests, limit, total, mark)),
    )


def _same_crop(manifests: Mapping[str, Manifest]) -> None:
    """Refuse faces cut in different ways: the cut would tell sources, and so generators, apart."""
    recipes = {name: manifest.footer.recipe for name, manifest in manifests.items()}
    if len({(recipe.size, recipe.margin, recipe.border, recipe.align) for recipe in recipes.values()}) > 1:
        told = ", ".join(
            f"{name} {recipe.size} px margin {recipe.margin}{' aligned' if recipe.align else ''}"
            for name, recipe in recipes.items()
        )
        raise DataError(
            f"The manifests were cut differently ({told}). Prepare them with the same --size, --margin and --align."
        )


def _with_root(manifest: Manifest) -> pa.Table:
    root = pa.array([str(manifest.root)] * manifest.table.num_rows, pa.string()).dictionary_encode()
    return manifest.table.select(list(FACE_COLUMNS)).append_column("root", root)


def _partition(protocol: Protocol, faces: pa.Table) -> pa.Array:
    rule = protocol.partition
    if rule is None:
        return pa.nulls(faces.num_rows, pa.string())
    memberships = []
    for row in faces.select(["id", "identities", "video"]).to_pylist():
        members = [f"identity {each}" for each in row["identities"]] if "identities" in rule.by else []
        if "video" in rule.by and row["video"] is not None:
            members.append(f"video {row['video']}")
        memberships.append(members or [f"id {row['id']}"])
    return pa.array(assign(connected_groups(memberships), protocol.seed, rule.fractions), pa.string())


def _choose(split: Split, faces: pa.Table, seed: int, name: str) -> pa.Table:
    among = faces.filter(pa.array(_matches(split.where, faces)))
    masks = [_matches(alternative, among) for alternative in split.any_of]
    found = among.filter(pa.array(np.logical_or.reduce(masks))) if masks else among
    if not found.num_rows:
        told = " or ".join(map(_told, split.any_of or [split.where]))
        raise DataError(f"{name}: no face matches {told}.")
    if name != "val":  # a small generator may leave val empty, which changes no score
        _refuse_absent(split.where, found, name)
        for alternative, mask in zip(split.any_of, masks, strict=True):
            _refuse_absent(alternative, among.filter(pa.array(mask)), name)
    return found if split.per_generator is None else _at_most(split.per_generator, found, seed)


def _matches(where: Where, faces: pa.Table) -> NDArray[np.bool_]:
    mask = np.ones(faces.num_rows, dtype=bool)
    for column, values in where.items():
        mask &= pc.fill_null(pc.is_in(faces[column], pa.array(values, pa.string())), False).to_numpy()
    return mask


def _refuse_absent(where: Where, found: pa.Table, name: str) -> None:
    """Refuse values that none of the faces has that were found by ``where``: a misspelt one would select less, unnoticed."""
    for column, values in where.items():
        absent = sorted(set(values) - set(pc.unique(found[column]).to_pylist()))
        if absent:
            raise DataError(
                f"{name}: no face with {column} {shorten(absent)} matches {_told(where)}. "
                "Check the names with 'dfad-bench audit', or prepare the source that has them."
            )


def _at_most(most: int, faces: pa.Table, seed: int) -> pa.Table:
    """Keep the first faces of each generator in hash order."""
    generators = np.asarray(faces["generator"].to_pylist(), dtype=object)
    ids = np.asarray(faces["id"].to_pylist(), dtype=object)
    keep = [
        rows[sample(ids[rows].tolist(), seed, most)]
        for rows in (np.flatnonzero(generators == name) for name in np.unique(generators))
    ]
    return faces.take(pa.array(np.sort(np.concatenate(keep))))


def _told(where: Mapping[str, Sequence[str]]) -> str:
    return ", ".join(f"{column} in [{shorten(values)}]" for column, values in where.items()) or "any face"


def _refuse_leaks(protocol: Protocol, chosen: Mapping[str, pa.Table]) -> None:
    test = pa.concat_tables([table for name, table in chosen.items() if name not in ("train", "val")])
    overlaps = find_overlaps({"train": chosen["train"], "val": chosen["val"], "test": test})
    refused = [overlap for overlap in overlaps if overlap.column not in protocol.allow_overlap]
    if refused:
        raise DataError(
            f"Protocol {protocol.name} leaks: {'; '.join(map(str, refused[:3]))}. Split by {KINDS[refused[0].column]}, "
            "or say why this is right under allow_overlap."
        )


def _real_first(generators: Sequence[str]) -> list[str]:
    return sorted(generators, key=lambda name: (name != REAL, name))


def _check_classes(protocol: Protocol, classes: Sequence[Leaf], chosen: Mapping[str, pa.Table]) -> None:
    if classes[0].name != REAL or len(classes) < 2:
        raise DataError(f"Protocol {protocol.name}: train needs real faces and at least one generator.")
    strangers = set(pc.unique(chosen["val"]["generator"]).to_pylist()) - {leaf.name for leaf in classes}
    if strangers:
        raise DataError(f"Protocol {protocol.name}: val holds {shorten(sorted(strangers))}, which train does not.")
    for level, mapping in protocol.attribution.assume.items():
        known = {leaf.value(level) for leaf in classes}
        for unseen, counted_as in mapping.items():
            if unseen in known or counted_as not in known:
                raise DataError(
                    f"Protocol {protocol.name}: assume.{level} says {unseen} counts as {counted_as}, but the first must be "
                    f"absent from train and the second present (train has {', '.join(sorted(known))})."
                )


def _departures(
    protocol: Protocol, manifests: Mapping[str, Manifest], limit: int | None, total: int, mark: str
) -> list[str]:
    found = []
    if limit is not None:
        found.append(f"limited to {limit} faces per generator and split")
    found += [f"source {name} was prepared with --limit" for name, m in manifests.items() if m.footer.limit is not None]
    if protocol.expect.faces not in (None, total):
        found.append(f"{total} faces where the protocol expects {protocol.expect.faces}")
    if protocol.expect.fingerprint not in (None, mark):
        found.append("the data's fingerprint is not the one the protocol was published with")
    return found
