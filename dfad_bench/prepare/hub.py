"""Fetches a dataset of the Hugging Face Hub at one commit, or opens a local folder, and reads images from its Arrow files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from dfad_bench.errors import DataError, DfadError, UsageError
from dfad_bench.prepare.decode import SkippedInput
from dfad_bench.prepare.payloads import FilePayload

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHORT_COMMIT = re.compile(r"[0-9a-f]{7,39}")
_BRANCHES = ("main", "master", "HEAD")


@dataclass(frozen=True, slots=True)
class HubDataset:
    """A repository ``org/name`` at a revision (a full commit or a tag), or a local folder that begins with ``.``, ``~`` or
    ``/``; ``config`` where there are several."""

    repo: str
    revision: str | None = None
    config: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether it is a folder on this machine."""
        return self.repo.startswith((".", "~")) or Path(self.repo).is_absolute()

    @property
    def name(self) -> str:
        """The last part of the repository's or the folder's name."""
        return self._local.resolve().name if self.is_local else self.repo.rpartition("/")[2]

    @property
    def _local(self) -> Path:
        return Path(self.repo).expanduser()

    def load(self) -> dict[str, Any]:
        """Return the splits by name, as ``datasets.Dataset`` whose images were not decoded.

        What is not in the cache is downloaded where ``repo`` is a repository. Raises UsageError for a missing revision, an
        unknown repository, revision or configuration, and without the package; DataError where the Hub is gated or cannot be
        reached, the cache holds another commit, or the files are broken.
        """
        if self.is_local and self.revision is not None:
            raise UsageError(f"A local folder has no revision: write hf:{self.repo}, without @{self.revision}.")
        if self.is_local and not self._local.is_dir():
            raise UsageError(
                f"There is no folder {self._local}. Expected one that holds Parquet files or an imagefolder."
            )
        if not self.is_local:
            self._refuse_unpinned()
        try:
            import datasets
        except ImportError:
            raise UsageError("hf needs the package datasets. Install it: pip install 'dfad-bench[hub]'.") from None
        try:
            commit = None if self.is_local else self._commit()
            path = str(self._local) if self.is_local else self.repo
            loaded: dict[str, Any] = datasets.load_dataset(path, self.config, revision=commit)
        except Exception as error:
            if (explained := _explained(error, self.repo)) is None:
                raise
            raise explained from None
        for split in loaded.values() if commit else ():
            for arrow in arrow_files(split):
                # without a network, datasets takes whatever revision it finds in its cache
                if (cached := Path(arrow).parent.name) != commit:
                    raise DataError(
                        f"The cache of datasets holds {self.repo} at {cached}, not at {commit}, and the Hub cannot be "
                        "reached. Run the same command once where there is a network."
                    )
        return loaded

    def folders(self) -> tuple[str, ...]:
        """Return the folders that paths in the rows may lead into: the local one, or the caches of this repository."""
        if self.is_local:
            return (str(self._local.absolute()),)
        import datasets
        import huggingface_hub.constants as hub

        cache = Path(hub.HF_HUB_CACHE) / f"datasets--{self.repo.replace('/', '--')}"
        return (str(cache), str(datasets.config.DOWNLOADED_DATASETS_PATH))

    def _refuse_unpinned(self) -> None:
        repo, revision = self.repo, self.revision
        if revision is None or revision in _BRANCHES or _SHORT_COMMIT.fullmatch(revision):
            wrong = (
                "no revision" if revision is None else f"{revision!r} for revision, which is no full commit and no tag"
            )
            raise UsageError(
                f"hf:{repo} has {wrong}. Pin one, so that the data stay the same: take a commit's 40 digits "
                f"from https://huggingface.co/datasets/{repo}/commits/main and write hf:{repo}@COMMIT."
            )

    def _commit(self) -> str:
        """Return the revision's commit, asking the Hub where a tag is given."""
        import huggingface_hub

        assert self.revision is not None
        if _COMMIT.fullmatch(self.revision):
            return self.revision
        return str(huggingface_hub.HfApi().dataset_info(self.repo, revision=self.revision, timeout=30).sha)


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
        value = arrow_table(self.arrow).column(self.column)[self.row].as_py()
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
def arrow_table(arrow: str) -> pa.Table:
    """Map an Arrow file into memory: what is not touched is not read, and workers share what is."""
    try:
        with pa.memory_map(arrow) as file:
            return pa.ipc.open_stream(file).read_all()
    except FileNotFoundError:
        raise DataError(f"{arrow} has gone from the cache of datasets. Run the same command again.") from None
    except pa.ArrowException as error:
        raise DataError(f"{arrow} is broken ({error}). Delete it and run the same command again.") from None


def arrow_files(split: Any) -> list[str]:
    """Return the Arrow files of a ``datasets.Dataset``, in order."""
    return [file["filename"] for file in split.cache_files]


def _explained(error: Exception, repo: str) -> DfadError | None:
    """Return one line for what ``load_dataset`` raises when the user or the world is at fault, None for anything else."""
    import datasets.exceptions as of_datasets
    import huggingface_hub.errors as of_hub

    # of the HTTP client, which differs from one version of huggingface_hub to the next
    http_error = getattr(of_hub, "HTTPError", ConnectionError)
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
    if isinstance(error, ConnectionError | of_hub.LocalEntryNotFoundError | http_error):
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
