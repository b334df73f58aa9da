"""A protocol resolved against manifests: the faces of train, val and test, and the leaf classes."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from dfad_bench import registry
from dfad_bench.errors import DataError, UsageError, shorten
from dfad_bench.records.choice import Choice, choose
from dfad_bench.records.face_stream import PARTITION, ROOT, FaceStream, Rows, schema_of
from dfad_bench.records.fingerprint import Fingerprint
from dfad_bench.records.leakage import KINDS, overlaps_between
from dfad_bench.records.manifest import AnyManifest, StoredManifest, open_manifest
from dfad_bench.records.partition import partitioned
from dfad_bench.records.protocol import Protocol
from dfad_bench.records.stored_rows import StoredRows
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
_GATHERED = (*FACE_COLUMNS, ROOT.name, PARTITION.name)
_FINGERPRINTED = (
    *("id", "sha256", "generator", "family", "forgery_type", "domain", "video", "identities", "gaze_pitch", "gaze_yaw"),
    *("original_width", "original_height", "original_format"),
    *("jpeg_quality", "jpeg_chroma_quality", "jpeg_subsampling"),
)
"""All that a model may see of a face or a score may depend on."""

MOST_IN_MEMORY = 500_000
"""Of more faces than so many, the rows are put into files; so many take some 250 MB."""


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
    manifests: Mapping[str, AnyManifest]
    departures: tuple[str, ...] = field(default=())

    @property
    def test_faces(self) -> int:
        """The number of faces over all test subsets."""
        return sum(table.num_rows for table in self.test.values())


def open_manifests(protocol: Protocol, data: Path) -> dict[str, StoredManifest]:
    """Return the manifests a protocol needs by the names of their sources, each row checked and left on disk.

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
    manifests = {name: open_manifest(data / name, FACE_COLUMNS) for name in protocol.sources}
    for name, manifest in manifests.items():
        if manifest.name != name:
            raise DataError(f"{manifest.root} says that it is {manifest.name}. Give the folder its name back.")
    return manifests


def _source_options(name: str) -> str:
    if name not in registry.entries("sources"):
        return f"--source … --name {name} --root …"
    return f"--source {name} --root …" if registry.get("sources", name).needs_root else f"--source {name}"


def resolve(protocol: Protocol, manifests: Mapping[str, AnyManifest], limit: int | None = None) -> Selection:
    """Select a protocol's faces.

    The manifests' rows are read several times, a few thousand at a time; what is held of each is some numbers. The faces
    that were chosen are held in memory, or in the folder for temporary files where they are more than MOST_IN_MEMORY.

    limit: keep at most so many faces per generator in each split (for a quick try; the result is marked).
    Raises DataError for leakage, for labels named but absent, and for labels that contradict each other; UsageError where
    the folder for temporary files is full.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"A limit of {limit} leaves no face. Give 1 or more.")
    _same_crop(manifests)
    faces = partitioned(protocol.partition, FaceStream(list(manifests.values())), protocol.seed)
    splits = {"train": protocol.train, "val": protocol.val, **protocol.test}
    choices = {name: Choice(name, split, limit) for name, split in splits.items()}
    labels = choose(list(choices.values()), faces, protocol.seed).of_generators(f"protocol {protocol.name}")
    for choice in choices.values():
        choice.refuse_absent()
    _refuse_leaks(protocol, faces, {name: choice.chosen() for name, choice in choices.items()})
    classes = tuple(Leaf(name, *labels[name]) for name in _real_first(choices["train"].generators))
    _check_classes(protocol, classes, choices["val"].generators)
    tables, mark = _gathered(faces, {name: choice.limited() for name, choice in choices.items()})
    total = sum(table.num_rows for table in tables.values())
    return Selection(
        protocol=protocol,
        classes=classes,
        train=tables.pop("train"),
        val=tables.pop("val"),
        test=tables,
        fingerprint=mark,
        manifests=manifests,
        departures=tuple(_departures(protocol, manifests, limit, total, mark)),
    )


def _gathered(faces: FaceStream, chosen: Mapping[str, Rows]) -> tuple[dict[str, pa.Table], str]:
    """Return each split's faces and the fingerprint of them all."""
    schema = schema_of(_GATHERED)
    is_large = sum(map(len, chosen.values())) > MOST_IN_MEMORY
    # A file that is mapped into memory stays until the table goes, though the folder is deleted at once.
    with tempfile.TemporaryDirectory(prefix="dfad-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        paths = [folder / f"split-{number}.arrow" if is_large else None for number in range(len(chosen))]
        try:
            stored = {split: StoredRows(schema, path) for split, path in zip(chosen, paths, strict=True)}
            with Fingerprint(folder) as mark:
                for split, rows in faces.read_rows(chosen, _GATHERED):
                    stored[split].add(rows)
                    mark.add(split, rows.select(list(_FINGERPRINTED)))
                return {split: rows.table() for split, rows in stored.items()}, mark.value()
        except OSError as error:
            raise UsageError(
                f"The faces of this protocol could not be put aside in {folder.parent} ({error.strerror or error}). "
                "Set TMPDIR to a folder with more room."
            ) from None


def _same_crop(manifests: Mapping[str, AnyManifest]) -> None:
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


def _refuse_leaks(protocol: Protocol, faces: FaceStream, chosen: Mapping[str, Rows]) -> None:
    def read(columns: Sequence[str]) -> Iterator[tuple[str, pa.RecordBatch]]:
        for name, rows in faces.read_rows(chosen, columns):
            yield name if name in ("train", "val") else "test", rows

    columns = [column for column in KINDS if column not in protocol.allow_overlap]
    refused = overlaps_between(("train", "val", "test"), read, columns)
    if refused:
        raise DataError(
            f"Protocol {protocol.name} leaks: {'; '.join(map(str, refused[:3]))}. Split by {KINDS[refused[0].column]}, "
            "or say why this is right under allow_overlap."
        )


def _real_first(generators: Iterable[str]) -> list[str]:
    return sorted(generators, key=lambda name: (name != REAL, name))


def _check_classes(protocol: Protocol, classes: Sequence[Leaf], in_val: Set[str]) -> None:
    if classes[0].name != REAL or len(classes) < 2:
        raise DataError(f"Protocol {protocol.name}: train needs real faces and at least one generator.")
    strangers = in_val - {leaf.name for leaf in classes}
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
    protocol: Protocol, manifests: Mapping[str, AnyManifest], limit: int | None, total: int, mark: str
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
