"""A dataset of the Hugging Face Hub at a pinned revision, or a local folder in one of its formats, read by a label map."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from dfad_bench.config import Strict, read_yaml
from dfad_bench.errors import UsageError, did_you_mean, shorten
from dfad_bench.prepare.cells import SPLITS, identities, numbers, text
from dfad_bench.prepare.folder_map import Meaning, declared
from dfad_bench.prepare.hub import HubDataset, HubImage, arrow_files, arrow_table
from dfad_bench.prepare.labels import Label, Labeller, check_frame
from dfad_bench.taxonomy import Generator
from dfad_bench.types import Defect, OnDefect, RawImage

IGNORE = "ignore"
"""The value in a label map that leaves a label's images out."""
_MOST_LABELS = 1000
"""A column of more values than this is no column of labels."""
_AT_ONCE = 1024
"""Rows whose cells are held at a time."""
_TEXT, _BYTES = ("string", "large_string"), ("binary", "large_binary")


class Columns(Strict):
    """Which columns of the dataset hold what else is known of an image."""

    key: str | None = None
    video: str | None = None
    frame: str | None = None
    identities: str | None = None
    source_split: str | None = None
    domain: str | None = None
    generator_version: str | None = None
    licence: str | None = None

    def named(self) -> dict[str, str]:
        """Return what → column for those that are given."""
        return {what: column for what, column in self.model_dump().items() if column is not None}


class HubMap(Strict):
    """The contents of the YAML file: ``labels`` by name, ``columns``, and what holds for every image."""

    labels: dict[str, str | Meaning] = Field(min_length=1)
    columns: Columns = Columns()
    domain: str | None = None
    licence: str = "unspecified"


@dataclass(frozen=True)
class HubSource:
    """Options: ``repo`` (``org/name``, or a local folder beginning with ``./`` or ``/``), ``revision`` (a commit or tag,
    needed for a repository), ``config``, ``split`` (all unless given), ``image_column`` and ``label_column`` (found when
    there is one), and ``map``, a YAML file that is always needed. A lone split called ``train`` is no split.

    In the YAML, ``labels`` maps each label, by name, to a generator (a name, or a mapping with name, family,
    forgery_type, domain, licence, version) or to ``ignore``; ``columns`` names the columns that hold ``key``, ``video``,
    ``frame``, ``identities``, ``source_split``, ``domain``, ``generator_version`` and ``licence``. Numbers without names
    are no labels: whether 1 means real or fake differs from one mirror to the next. No code of a repository is run.
    """

    repo: str | None = None
    revision: str | None = None
    config: str | None = None
    split: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    map: Path | None = None

    title: ClassVar[str] = "A dataset of the Hugging Face Hub, or a local folder in its formats"
    homepage: ClassVar[str] = "https://huggingface.co/datasets"
    licence: ClassVar[str] = "as the repository says; mirrors do not change the terms of what they mirror"
    instructions: ClassVar[str] = (
        "Write --source hf:org/name@COMMIT (or hf:./folder) and --set map=FILE, a YAML whose 'labels' maps "
        "each label of the dataset to a generator."
    )
    needs_root: ClassVar[bool] = False
    default_face_detector: ClassVar[str] = "yunet"
    default_gaze_estimator: ClassVar[str] = "openvino_adas"

    @property
    def terms_subject(self) -> str:
        """What the terms are accepted for: each repository by itself."""
        return f"hf:{self.repo}"

    def generators(self, root: Path | None) -> Sequence[Generator]:
        """Return the generators that the map declares and the taxonomy does not know."""
        return () if self.map is None else declared(list(self._map().labels.values()), str(self.map))

    def images(self, root: Path | None, on_defect: OnDefect) -> Iterator[RawImage]:
        """Yield the images split by split, in the dataset's order; its files are fetched if a repository is named.

        Tells of ``unlabelled_rows`` (left out) and of an ``unused_label`` of the map.
        """
        hub_map = self._map()
        dataset = self._dataset(root)
        splits = self._splits(dataset)
        layout = self._layout(splits, hub_map.columns, dataset.name)
        labels = self._labels(splits, layout, hub_map, on_defect)
        for name, split in splits.items():
            unlabelled = 0
            for image, number, row in _rows(split, layout, dataset.folders()):
                label = layout.name(row, layout.label)
                if label is None:
                    unlabelled += 1
                elif (found := labels.get(label)) is not None:
                    yield self._image(_Row(image, name, number, row), layout, hub_map, *found)
            if unlabelled:
                on_defect(Defect("unlabelled_rows", f"split {name}: {unlabelled} rows have no label and are left out"))

    def _map(self) -> HubMap:
        if self.map is None:
            raise UsageError(f"hf needs a label map. {self.instructions}")
        return read_yaml(self.map, HubMap)

    def _dataset(self, root: Path | None) -> HubDataset:
        if self.repo is None:
            raise UsageError(f"hf needs a repository. {self.instructions}")
        if root is not None:
            raise UsageError("hf takes no --root. Write --source hf:./folder for a folder on this machine.")
        return HubDataset(self.repo, self.revision, self.config)

    def _splits(self, dataset: HubDataset) -> dict[str, Any]:
        splits = dataset.load()
        if self.split is not None and self.split not in splits:
            raise UsageError(f"{self.repo} has no split {self.split!r}. It has: {', '.join(splits)}.")
        return {name: split for name, split in splits.items() if self.split in (None, name)}

    def _layout(self, splits: Mapping[str, Any], columns: Columns, domain: str) -> _Layout:
        features = next(iter(splits.values())).features
        wanted = {"image_column": self.image_column, "label_column": self.label_column}
        for what, column in (*wanted.items(), *columns.named().items()):
            if column is not None and column not in features:
                hint = did_you_mean(column, features)
                raise UsageError(f"{self.repo} has no column {column!r} ({what}).{hint} It has: {', '.join(features)}.")
        for what, column in columns.named().items():
            if what != "identities" and type(features[column]).__name__ not in ("Value", "ClassLabel"):
                raise UsageError(f"{self.repo}: column {column!r} ({what}) holds no text and no numbers.")
        names = {column: feature.names for column, feature in features.items() if hasattr(feature, "names")}
        images = [column for column, feature in features.items() if _is_image(feature)]
        image = self.image_column or _only(images, f"{self.repo}: image_column", features)
        label = self.label_column or _only(list(names), f"{self.repo}: label_column", features)
        if not (image in images or getattr(features[image], "dtype", "") in (*_BYTES, *_TEXT)):
            raise UsageError(f"{self.repo}: column {image!r} holds neither images nor bytes nor paths of files.")
        kind = getattr(features[label], "dtype", "")
        numbered = all(name.isdigit() for name in names[label]) if label in names else kind not in _TEXT
        if numbered:
            raise UsageError(
                f"{self.repo}: the labels in column {label!r} are {kind or 'lists'} without names, so nobody can tell which "
                "of them is real. Name a column of text or of named classes with --set label_column=NAME."
            )
        return _Layout(image, label, names, columns, domain, is_split=list(splits) != ["train"])

    def _labels(
        self, splits: Mapping[str, Any], layout: _Layout, hub_map: HubMap, on_defect: OnDefect
    ) -> dict[str, tuple[Meaning, Label]]:
        """Return what each label met in the data means, without the ignored ones; complain before the first image."""
        met: set[str] = set()
        for split in splits.values():
            for arrow in arrow_files(split):
                values = pc.unique(arrow_table(arrow).column(layout.label)).to_pylist()
                met |= {name for value in values if (name := layout.name({layout.label: value}, layout.label))}
        if len(met) > _MOST_LABELS:
            raise UsageError(f"{self.repo}: column {layout.label!r} holds {len(met)} values, which are hardly labels.")
        if unknown := sorted(met - hub_map.labels.keys()):
            hint = did_you_mean(unknown[0], hub_map.labels)
            raise UsageError(
                f"{self.map} does not say what label {shorten(map(repr, unknown))} of {self.repo} means.{hint}"
            )
        for unused in sorted(hub_map.labels.keys() - met):
            on_defect(Defect("unused_label", f"no image is labelled {unused!r}, which {self.map} describes"))
        labeller = Labeller()
        meanings = {
            name: given if isinstance(given, Meaning) else Meaning(name=given)
            for name, given in hub_map.labels.items()
            if name in met and given != IGNORE
        }
        if not meanings:
            raise UsageError(f"{self.map} ignores every label of {self.repo}.")
        return {
            name: (m, labeller.label(m.name, m.family, m.forgery_type, f"{self.map}: label {name!r}"))
            for name, m in meanings.items()
        }

    def _image(self, found: _Row, layout: _Layout, hub_map: HubMap, meaning: Meaning, label: Label) -> RawImage:
        row, split = found.cells, found.split
        where = f"{self.repo} split {split} row {found.number}"
        cells = {what: layout.name(row, column) for what, column in layout.columns.named().items()}
        people, frame = layout.columns.identities, layout.columns.frame
        frames = None if frame is None else numbers(row, frame, 1, where)
        given = cells.get("source_split")
        if given is not None and given.lower() not in SPLITS:
            raise UsageError(f"{where}: source_split is {given!r}, expected one of {', '.join(SPLITS)}.")
        if "key" in cells and cells["key"] is None:
            raise UsageError(f"{where}: the key in column {layout.columns.key!r} is empty.")
        return RawImage(
            key=cells.get("key") or f"{split}/{found.number:08d}",
            generator=label.generator,
            family=label.family,
            forgery_type=label.forgery_type,
            domain=cells.get("domain") or meaning.domain or hub_map.domain or layout.domain,
            licence=cells.get("licence") or meaning.licence or hub_map.licence,
            payload=found.payload,
            generator_version=cells.get("generator_version") or meaning.version,
            source_split=SPLITS.get((given or (split if layout.is_split else "")).lower()),
            video=cells.get("video"),
            frame=None if frames is None else check_frame(frames[0], where),
            identities=() if people is None else identities(row, people, where),
        )


class _Row(NamedTuple):
    """A row of a split: how to read its image, and the cells that say what is known of it."""

    payload: HubImage
    split: str
    number: int
    cells: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where in a row things stand; ``names`` are those of the columns that hold numbers of named classes."""

    image: str
    label: str
    names: Mapping[str, Sequence[str]]
    columns: Columns
    domain: str
    """Where neither map nor row names one."""
    is_split: bool
    """Whether the splits say something: what nobody has split, ``datasets`` calls train."""

    def name(self, row: Mapping[str, Any], column: str) -> str | None:
        """Return a cell as text, a class by its name; None where it is empty or, as -1 says, unknown."""
        value = row.get(column)
        if column in self.names and isinstance(value, int):
            return self.names[column][value] if 0 <= value < len(self.names[column]) else None
        return text(row, column)


def _is_image(feature: Any) -> bool:
    """Return whether a column is one of images, or a struct like it that lost the name on its way through Parquet."""
    return type(feature).__name__ == "Image" or (isinstance(feature, dict) and set(feature) == {"bytes", "path"})


def _only(candidates: Sequence[str], what: str, features: Mapping[str, Any]) -> str:
    if len(candidates) == 1:
        return candidates[0]
    found = f"several could be it ({shorten(candidates)})" if candidates else "no column is plainly it"
    option = what.rpartition(" ")[2]
    raise UsageError(f"{what} is needed: {found}. Columns: {', '.join(features)}. Give --set {option}=NAME.")


def _rows(split: Any, layout: _Layout, folders: tuple[str, ...]) -> Iterator[tuple[HubImage, int, dict[str, Any]]]:
    """Yield payload, number within the split and the cells that matter of each row, without touching the images.

    In the dataset's order, but where a column names videos those follow each other.
    """
    arrows = arrow_files(split)
    if not arrows:
        return
    columns = list(dict.fromkeys((layout.label, *layout.columns.named().values())))
    whole = pa.concat_tables([arrow_table(arrow).select(columns) for arrow in arrows])
    starts = np.cumsum([0, *(arrow_table(arrow).num_rows for arrow in arrows)])
    # the folders that datasets names after the folder or repository, the configuration, the version and the contents
    versions = ["/".join(Path(arrow).parts[-5:]) for arrow in arrows]
    keys = [(column, "ascending") for column in (layout.columns.video, layout.label) if column]
    order = pc.sort_indices(whole, sort_keys=keys) if layout.columns.video else None
    for start in range(0, whole.num_rows, _AT_ONCE):
        some = whole.slice(start, _AT_ONCE) if order is None else whole.take(order.slice(start, _AT_ONCE))
        for offset, cells in enumerate(some.to_pylist(), start=start):
            number = offset if order is None else order[offset].as_py()
            file = int(np.searchsorted(starts, number, side="right")) - 1
            row = number - int(starts[file])
            yield HubImage(arrows[file], row, layout.image, versions[file], folders), number, cells


SOURCE = HubSource
