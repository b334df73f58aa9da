"""SFHQ-T2I: faces that five text-to-image models made of no real person, as flat images and a CSV."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from dfad_bench.errors import DataError, UsageError, did_you_mean, shorten
from dfad_bench.prepare.labels import Label, Labeller
from dfad_bench.prepare.listing import IMAGE_SUFFIXES
from dfad_bench.prepare.payloads import FilePayload
from dfad_bench.records.manifest import is_inside
from dfad_bench.taxonomy import Generator, known
from dfad_bench.types import Defect, OnDefect, RawImage

GENERATORS = ("flux1_pro", "flux1_dev", "flux1_schnell", "sdxl", "dalle3")
TABLE = "SFHQ_T2I_dataset.csv"
_FOLDERS = ("images", "images/images", ".")
"""Where the images lie: as published, as Kaggle's archive unpacks, and beside the table."""
_FILE = ("image_filename", "filename", "file_name", "image")
_MODEL = ("model_used", "model")
"""Columns by preference: the published name first, then those of re-packed copies."""


@dataclass(frozen=True)
class SfhqT2iSource:
    """Option: ``table``, the CSV's name below the root. There is nobody in the pictures, so ``identities`` is empty."""

    table: str = TABLE

    title: ClassVar[str] = "SFHQ-T2I (Beniaguev, 2024)"
    homepage: ClassVar[str] = "https://github.com/SelfishGene/SFHQ-T2I-dataset"
    licence: ClassVar[str] = "MIT (repository); the providers' terms on outputs of FLUX.1 and DALL-E 3 stay in force"
    instructions: ClassVar[str] = (
        "Download it from https://www.kaggle.com/datasets/selfishgene/sfhq-t2i-synthetic-faces-from-text-2-image-models "
        f"and unpack it. Then give --root FOLDER, which holds {TABLE} and the folder images."
    )
    needs_root: ClassVar[bool] = True
    default_face_detector: ClassVar[str] = "yunet"
    default_gaze_estimator: ClassVar[str] = "openvino_adas"

    def generators(self, root: Path | None) -> Sequence[Generator]:
        """Return the taxonomy's entries of the five models."""
        return tuple(known().get(name) for name in GENERATORS)

    def images(self, root: Path | None, on_defect: OnDefect) -> Iterator[RawImage]:
        """Yield one image per row in the table's order; files that are missing are listed too.

        Tells of ``no_real`` (always), ``image_without_row``, ``row_without_image``, ``repeated_row``, ``contradicting_rows``
        (left out: nobody knows which model made them) and ``hostile_path`` (left out).
        """
        assert root is not None
        rows = _rows(self._table(root), on_defect)
        folder, present = self._folder(root, rows)
        _tell_differences(rows, present, on_defect)
        for name, label in rows.items():
            yield RawImage(
                key=name,
                generator=label.generator,
                family=label.family,
                forgery_type=label.forgery_type,
                domain="sfhq-t2i",
                licence=self.licence,
                payload=FilePayload(root, name if folder == "." else f"{folder}/{name}"),
            )

    def _table(self, root: Path) -> Path:
        if not is_inside(self.table) or not (root / self.table).is_file():
            raise UsageError(f"{root} holds no table {self.table}. {self.instructions}")
        return root / self.table

    def _folder(self, root: Path, rows: dict[str, Label]) -> tuple[str, set[str]]:
        """Return the folder that holds an image of the table, and the names of all images in it."""
        for folder in _FOLDERS:
            present = _image_names(root / folder)
            if not present.isdisjoint(rows):
                return folder, present
        raise UsageError(f"{root} holds none of the {len(rows)} images of {self.table}. {self.instructions}")


def _image_names(folder: Path) -> set[str]:
    if not folder.is_dir():
        return set()
    paths = (path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    return {path.name for path in paths if not path.name.startswith(".")}


def _tell_differences(rows: Collection[str], present: set[str], on_defect: OnDefect) -> None:
    on_defect(Defect("no_real", "every face is generated: detection needs the real faces of another source"))
    without_row = sorted(present.difference(rows))
    if without_row:
        on_defect(Defect("image_without_row", f"{len(without_row)} images are in no row: {shorten(without_row)}"))
    without_image = sorted(name for name in rows if name not in present)
    if without_image:
        on_defect(Defect("row_without_image", f"{len(without_image)} rows have no image: {shorten(without_image)}"))


def _rows(table: Path, on_defect: OnDefect) -> dict[str, Label]:
    """Return file name → label in the table's order, without rows that cannot be believed."""
    labeller = Labeller()
    labels: dict[str, Label] = {}
    rows: dict[str, Label] = {}
    repeated: list[str] = []
    contradicting: set[str] = set()
    hostile: list[str] = []
    for number, name, model in _cells(table):
        if model not in labels:
            where = f"{table.name} row {number}"
            labels[model] = labeller.label(_generator(model, where), None, None, where)
        label = labels[model]
        if not is_inside(name):
            hostile.append(repr(name))
        elif name not in rows:
            rows[name] = label
        elif rows[name] == label:
            repeated.append(name)
        else:
            contradicting.add(name)
    for name in contradicting:
        del rows[name]
    for kind, names, what in (
        ("hostile_path", hostile, "names lead out of the folder and are left out"),
        ("contradicting_rows", sorted(contradicting), "images have rows of two models and are left out"),
        ("repeated_row", repeated, "rows repeat an earlier one"),
    ):
        if names:
            on_defect(Defect(kind, f"{table.name}: {len(names)} {what}: {shorten(names)}"))
    return rows


def _cells(table: Path) -> Iterator[tuple[int, str, str]]:
    """Yield number, file name and model of every row."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, strict=True)
            columns = list(reader.fieldnames or ())
            file, model = (_column(columns, names, table) for names in (_FILE, _MODEL))
            for number, row in enumerate(reader, start=1):
                if not row[file] or not row[model]:
                    raise UsageError(f"{table.name} row {number}: {file} or {model} is empty.")
                yield number, row[file], row[model]
    except (csv.Error, ValueError) as error:
        raise DataError(f"{table} cannot be read as csv: {error}.") from None


def _column(columns: Sequence[str], names: Sequence[str], table: Path) -> str:
    for name in names:
        if name in columns:
            return name
    hint = did_you_mean(names[0], columns)
    raise UsageError(f"{table.name} has no column {' or '.join(names)}.{hint} It has: {', '.join(columns) or 'none'}.")


def _generator(model: str, where: str) -> str:
    found = known().find(model)
    if found is None or found.name not in GENERATORS:
        raise UsageError(f"{where}: {model!r} is no model of SFHQ-T2I. Expected: {', '.join(GENERATORS)}.")
    return found.name


SOURCE = SfhqT2iSource
