"""A dataset of the Hugging Face Hub at a pinned revision, or a local folder in one of its formats, read by a label map."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from dfad_bench.config import Strict, read_yaml
from dfad_bench.errors import DataError, DfadError, UsageError, did_you_mean, shorten
from dfad_bench.prepare.cells import SPLITS, identities, numbers, text
from dfad_bench.prepare.decode import SkippedInput
from dfad_bench.prepare.labels import Label, Labeller, check_frame
from dfad_bench.prepare.payloads import FilePayload
from dfad_bench.prepare.sources.folder import Meaning, declared
from dfad_bench.taxonomy import Generator
from dfad_bench.types import Defect, OnDefect, RawImage

IGNORE = "ignore"
"""The value in a label map that leaves a label's images out."""
_MOST_LABELS = 1000
"""A column of more values than this is no column of labels."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHORT_COMMIT = re.compile(r"[0-9a-f]{7,39}")
_TEXT = ("string", "large_string")
_BRANCHES = ("main", "master", "HEAD")


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


@dataclass(frozen=True, slots=True)
class HubImage:
    """One row of the Arrow file into which ``datasets`` turned a split.

    ``version`` says which state of the dataset it is; ``folders`` are those that a path in the row may lead into: rows may
    hold a path in place of the bytes, and nobody has looked at what it names.
    """

    arrow: str
    row: int
    column: str
    version: str
    folders: tuple[str, ...]

    def read(self) -> bytes:
        """Return the encoded image.

        Raises DataError where the cache has gone, SkippedInput where the row holds neither bytes nor a path, and what
        ``FilePayload.read`` raises for a path.
        """
        value = _table(self.arrow).column(self.column)[self.row].as_py()
        data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
        if isinstance(data, bytes):
            return data
        path = path or data
        if not path:
            raise SkippedInput("empty_file", f"row {self.row} of {Path(self.arrow).name} holds no image")
        inside = (folder for folder in self.folders if Path(path).is_relative_to(folder))
        return FilePayload(Path(next(inside, self.folders[0])), path).read()

    def stamp(self) -> str:
        """Return the dataset's version and the row."""
        return f"{self.version}:{self.row}"


@lru_cache(maxsize=16)
def _table(arrow: str) -> pa.Table:
    """Map an Arrow file into memory: what is not touched is not read, and workers share what is."""
    try:
        with pa.memory_map(arrow) as file:
            return pa.ipc.open_stream(file).read_all()
    except FileNotFoundError:
        raise DataError(f"{arrow} has gone from the cache of datasets. Run the same command again.") from None
    except pa.ArrowException as error:
        raise DataError(f"{arrow} is broken ({error}). Delete it and run the same command again.") from None


@dataclass(frozen=True)
class HubSource:
    """Options: ``repo`` (``org/name``, or a local folder beginning with ``./`` or ``/``), ``revision`` (a commit or tag,
    needed for a repository), ``config``, ``split`` (all unless given), ``image_column`` and ``label_column`` (found when
    there is one), and ``map``, a YAML file that is always needed.

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

    def generators(self, root: Path | None) -> Sequence[Generator]:
        """Return the generators that the map declares and the taxonomy does not know."""
        return () if self.map is None else declared(list(self._map().labels.values()), str(self.map))

    def images(self, root: Path | None, on_defect: OnDefect) -> Iterator[RawImage]:
        """Yield the images split by split, in the dataset's order; its files are fetched if a repository is named.

        Tells of ``unlabelled_rows`` (left out) and of an ``unused_label`` of the map.
        """
        hub_map = self._map()
        splits = self._load(root)
        layout = self._layout(next(iter(splits.values())).features, hub_map.columns)
        labels = self._labels(splits, layout, hub_map, on_defect)
        for name, split in splits.items():
            unlabelled = 0
            for image, number, row in _rows(split, layout, self._folders()):
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

    @property
    def _is_local(self) -> bool:
        return self.repo is not None and (self.repo.startswith((".", "~")) or Path(self.repo).is_absolute())

    def _load(self, root: Path | None) -> dict[str, Any]:
        """Return the splits by name, as ``datasets.Dataset``."""
        if self.repo is None:
            raise UsageError(f"hf needs a repository. {self.instructions}")
        if root is not None:
            raise UsageError("hf takes no --root. Write --source hf:./folder for a folder on this machine.")
        path = self.repo
        if self._is_local:
            path = str(Path(self.repo).expanduser())
            if not Path(path).is_dir():
                raise UsageError(f"There is no folder {path}. {self.instructions}")
        else:
            self._refuse_unpinned(self.repo)
        try:
            import datasets
        except ImportError:
            raise UsageError("hf needs the package datasets. Install it: pip install 'dfad-bench[hub]'.") from None
        try:
            commit = None if self._is_local else self._commit(self.repo)
            loaded = datasets.load_dataset(path, self.config, revision=commit)
        except Exception as error:
            if (explained := _explained(error, self.repo)) is None:
                raise
            raise explained from None
        if self.split is not None and self.split not in loaded:
            raise UsageError(f"{self.repo} has no split {self.split!r}. It has: {', '.join(loaded)}.")
        for split in loaded.values():
            for arrow in _arrow_files(split):
                # without a network, datasets takes whatever revision it finds in its cache
                if commit is not None and (cached := Path(arrow).parent.name) != commit:
                    raise DataError(
                        f"The cache of datasets holds {self.repo} at {cached}, not at {commit}, and the Hub cannot be "
                        "reached. Run the same command once where there is a network."
                    )
        return {name: loaded[name] for name in loaded if self.split in (None, name)}

    def _refuse_unpinned(self, repo: str) -> None:
        revision = self.revision
        if revision is None or revision in _BRANCHES or _SHORT_COMMIT.fullmatch(revision):
            wrong = (
                "no revision" if revision is None else f"{revision!r} for revision, which is no full commit and no tag"
            )
            raise UsageError(
                f"hf:{repo} has {wrong}. Pin one, so that the data stay the same: take a commit's 40 digits "
                f"from https://huggingface.co/datasets/{repo}/commits/main and write hf:{repo}@COMMIT."
            )

    def _commit(self, repo: str) -> str:
        """Return the revision's commit, asking the Hub where a tag is given."""
        import huggingface_hub

        assert self.revision is not None
        if _COMMIT.fullmatch(self.revision):
            return self.revision
        return str(huggingface_hub.HfApi().dataset_info(repo, revision=self.revision, timeout=30).sha)

    def _folders(self) -> tuple[str, ...]:
        """Return the folders that paths in the rows may lead into: the local one, or the caches of this repository."""
        assert self.repo is not None
        if self._is_local:
            return (str(Path(self.repo).expanduser().absolute()),)
        import datasets
        import huggingface_hub.constants as hub

        cache = Path(hub.HF_HUB_CACHE) / f"datasets--{self.repo.replace('/', '--')}"
        return (str(cache), str(datasets.config.DOWNLOADED_DATASETS_PATH))

    def _layout(self, features: Mapping[str, Any], columns: Columns) -> _Layout:
        assert self.repo is not None
        wanted = {"image_column": self.image_column, "label_column": self.label_column}
        for what, column in (*wanted.items(), *columns.named().items()):
            if column is not None and column not in features:
                hint = did_you_mean(column, features)
                raise UsageError(f"{self.repo} has no column {column!r} ({what}).{hint} It has: {', '.join(features)}.")
        images = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
        labels = [name for name, feature in features.items() if hasattr(feature, "names")]
        image = self.image_column or _only(images, f"{self.repo}: image_column", features)
        label = self.label_column or _only(labels, f"{self.repo}: label_column", features)
        names = {column: feature.names for column, feature in features.items() if hasattr(feature, "names")}
        kind = getattr(features[label], "dtype", "")
        numbered = all(name.isdigit() for name in names[label]) if label in names else kind not in _TEXT
        if numbered:
            raise UsageError(
                f"{self.repo}: the labels in column {label!r} are {kind or 'lists'} without names, so nobody can tell which "
                "of them is real. Name a column of text or of named classes with --set label_column=NAME."
            )
        return _Layout(image, label, names, columns)

    def _labels(
        self, splits: Mapping[str, Any], layout: _Layout, hub_map: HubMap, on_defect: OnDefect
    ) -> dict[str, tuple[Meaning, Label]]:
        """Return what each label met in the data means, without the ignored ones; complain before the first image."""
        met: set[str] = set()
        for split in splits.values():
            for arrow in _arrow_files(split):
                values = pc.unique(_table(arrow).column(layout.label)).to_pylist()
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
            domain=cells.get("domain") or meaning.domain or hub_map.domain or self._name,
            licence=cells.get("licence") or meaning.licence or hub_map.licence,
            payload=found.payload,
            generator_version=cells.get("generator_version") or meaning.version,
            source_split=SPLITS.get((given or split).lower()),
            video=cells.get("video"),
            frame=None if frames is None else check_frame(frames[0], where),
            identities=() if people is None else identities(row, people, where),
        )

    @property
    def _name(self) -> str:
        assert self.repo is not None
        return Path(self.repo).expanduser().resolve().name if self._is_local else self.repo.rpartition("/")[2]


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

    def name(self, row: Mapping[str, Any], column: str) -> str | None:
        """Return a cell as text, a class by its name; None where it is empty or, as -1 says, unknown."""
        value = row.get(column)
        if column in self.names and isinstance(value, int):
            return self.names[column][value] if 0 <= value < len(self.names[column]) else None
        return text(row, column)


def _only(candidates: Sequence[str], what: str, features: Mapping[str, Any]) -> str:
    if len(candidates) == 1:
        return candidates[0]
    found = f"several could be it ({shorten(candidates)})" if candidates else "no column is plainly it"
    option = what.rpartition(" ")[2]
    raise UsageError(f"{what} is needed: {found}. Columns: {', '.join(features)}. Give --set {option}=NAME.")


def _arrow_files(split: Any) -> list[str]:
    return [file["filename"] for file in split.cache_files]


def _rows(split: Any, layout: _Layout, folders: tuple[str, ...]) -> Iterator[tuple[HubImage, int, dict[str, Any]]]:
    """Yield payload, number within the split and the cells that matter of each row, without touching the images."""
    columns = list(dict.fromkeys((layout.label, *layout.columns.named().values())))
    number = 0
    for arrow in _arrow_files(split):
        # the folders that datasets names after the folder or repository, the configuration, the version and the contents
        version = "/".join(Path(arrow).parts[-5:])
        row = 0
        for batch in _table(arrow).select(columns).to_batches(1024):
            for cells in batch.to_pylist():
                yield HubImage(arrow, row, layout.image, version, folders), number, cells
                row, number = row + 1, number + 1


def _explained(error: Exception, repo: str) -> DfadError | None:
    """Return one line for what ``load_dataset`` raises when the user or the world is at fault, None for anything else."""
    import datasets.exceptions as of_datasets
    import huggingface_hub.errors as of_hub

    http_error = getattr(
        of_hub, "HTTPError", ConnectionError
    )  # of the HTTP client, which is not always the same library
    said = " ".join(str(error).split())
    if isinstance(error, of_hub.GatedRepoError) or "gated" in said:
        return DataError(
            f"{repo} is gated. Accept its terms at https://huggingface.co/datasets/{repo}, log in with "
            "'hf auth login' and run the same command."
        )
    if isinstance(
        error, of_datasets.DatasetNotFoundError | of_hub.RepositoryNotFoundError | of_hub.RevisionNotFoundError
    ):
        return UsageError(
            f"{said.rstrip('.')}. Check name and revision; if it is private, log in with 'hf auth login'."
        )
    if isinstance(
        error, ConnectionError | of_hub.LocalEntryNotFoundError | of_hub.OfflineModeIsEnabled | httpx.HTTPError
    ):
        return DataError(
            f"{repo} is not in the cache of datasets, and the Hub cannot be reached ({said.rstrip('.')}). "
            "Run the same command once where there is a network."
        )
    if isinstance(error, RuntimeError) and "scripts are no longer supported" in said:
        return DataError(f"{repo} is read by a script of its own, which is never run. Use a mirror that holds Parquet.")
    if isinstance(error, FileNotFoundError) and "data file" in said:
        return UsageError(f"{repo} holds no file that datasets can read: {said}.")
    if isinstance(error, ValueError) and said.startswith(("Config name is missing", "BuilderConfig")):
        return UsageError(f"{repo}: {said.partition(' Example of usage')[0]}. Choose one with --set config=NAME.")
    if isinstance(error, of_datasets.DatasetsError | pa.ArrowException):
        cause = " ".join(str(error.__cause__ or error).split())
        return DataError(f"{repo} cannot be read: {cause.rstrip('.')}.")
    return None


SOURCE = HubSource
