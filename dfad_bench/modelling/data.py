"""Feeds a selection's faces to a model in batches, reading only what the model asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from dfad_bench.errors import DataError, UsageError
from dfad_bench.modelling.perturb import Level
from dfad_bench.prepare.gaze_map import HEIGHT, WIDTH
from dfad_bench.records.face_files import read_file
from dfad_bench.records.manifest import header_features
from dfad_bench.types import Batch, Leaf, ModelSpec

UNREADABLE_FACE, UNREADABLE_GAZE_MAP = "unreadable face", "unreadable gaze map"

HELD = 256 * 2**20
"""Bytes of decoded images that a dataset for training keeps in memory, all its worker processes together."""
_END_OF_PNG = b"IEND\xaeB`\x82"
_GAZE_COLUMNS = {"gaze_map": "gaze_file_name", "gaze": "gaze_pitch"}


def check_inputs(name: str, spec: ModelSpec, tables: Sequence[pa.Table]) -> None:
    """Raise UsageError where a model asks for what the faces do not have, before any work starts.

    A source counts as having gaze when one of its faces has: a face whose gaze could not be estimated is fed to the
    model as unknown.
    """
    if "image" in spec.inputs and spec.preprocess is None:
        raise UsageError(f"{name} asks for images but has no preprocess. Set ModelSpec.preprocess in its file.")
    for column in (_GAZE_COLUMNS[asked] for asked in spec.inputs if asked in _GAZE_COLUMNS):
        has: dict[str, bool] = {}
        for table in tables:
            for source in pc.unique(table["source"]).to_pylist():
                cells = table[column].filter(pc.equal(table["source"], source))
                has[source] = has.get(source, False) or cells.null_count < len(cells)
        for source in (source for source, known in has.items() if not known):
            what = "gaze maps" if column == "gaze_file_name" else "gaze"
            raise UsageError(
                f"{name} needs {what}, and {source} has none. "
                f"Run 'dfad-bench prepare --source {source} --gaze-estimator …'."
            )


# --- reading faces -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A row of the table whose file is missing, cut off or broken; ``root`` is its manifest's folder."""

    row: int
    reason: str
    file: Path
    root: Path


@dataclass(frozen=True, slots=True)
class LoadedBatch:
    """A batch, the rows [B] int64 of the table that it holds, and those that should be in it but could not be read."""

    batch: Batch
    rows: NDArray[np.int64]
    unreadable: tuple[Unreadable, ...] = ()

    def pin_memory(self) -> LoadedBatch:
        """Return it in page-locked memory; the DataLoader calls this where it feeds a CUDA device."""
        return replace(self, batch=_each_tensor(self.batch, torch.Tensor.pin_memory))


@dataclass(frozen=True, slots=True)
class Request:
    """Which rows to load, and in training the (seed, epoch) that their random changes derive from."""

    rows: NDArray[np.int64]
    randomness: tuple[int, int] | None = None


class FaceDataset(Dataset[LoadedBatch]):
    """The faces of a selection's table, loaded by the batch.

    classes: the leaf classes, for targets in training and validation; None in testing, where the model must not know.
    flip: mirror half of the faces, where a seed is given. perturbation: what happens to the pixels between the file and
    the model's preprocessing, in evaluation alone; gaze and header stay those of the undisturbed face. Beyond the columns
    it needs, it holds a few numbers per face and, where classes are given, decoded images up to HELD: training reads each
    again in every epoch, and a PNG takes longer to decode than most of what is then done to it.
    """

    def __init__(
        self,
        spec: ModelSpec,
        faces: pa.Table,
        classes: Sequence[Leaf] | None = None,
        flip: bool = False,
        perturbation: Level | None = None,
    ) -> None:
        self._inputs = spec.inputs
        self._preprocess = spec.preprocess
        self._flip = flip
        self._perturbation = perturbation
        self._ids = faces["id"].combine_chunks() if perturbation is not None else None
        self._size: int = faces.num_rows
        self._root = faces["root"].unify_dictionaries().combine_chunks()
        self._face_files = faces["file_name"].combine_chunks() if "image" in spec.inputs else None
        self._gaze_files = faces["gaze_file_name"].combine_chunks() if "gaze_map" in spec.inputs else None
        self._gaze = _gaze(faces) if "gaze" in spec.inputs else None
        self._header = header_features(faces) if "header" in spec.inputs else None
        self._target = None if classes is None else _targets(faces, classes)
        self._holds = classes is not None
        self._held: dict[tuple[int, str], NDArray[np.uint8]] = {}
        self._held_bytes = 0

    def __len__(self) -> int:
        """Return the number of faces, readable or not."""
        return self._size

    def __getitem__(self, request: Request) -> LoadedBatch:
        """Load the rows of a request; those that cannot be read are left out and listed.

        A row's random changes derive from (seed, epoch, row) alone, so that they do not depend on the batch or on the
        number of workers. Raises ValueError where faces are to be perturbed in training.
        """
        if self._perturbation is not None and request.randomness is not None:
            raise ValueError("a perturbation is for evaluation")
        kept: list[int] = []
        flipped: list[bool] = []
        images: list[NDArray[np.float32]] = []
        gaze_maps: list[NDArray[np.float32]] = []
        unreadable: list[Unreadable] = []
        for row in request.rows.tolist():
            # A seed of three words, the order's of two and a 0: NumPy pads seeds with zeros, so row 0 must not end in 0.
            rng = None if request.randomness is None else np.random.default_rng((*request.randomness, row + 1))
            flip = rng is not None and self._flip and rng.random() < 0.5
            try:
                image = self._read_image(row, flip, rng)
                gaze_map = self._read_gaze_map(row, flip)
            except _UnreadableFile as error:
                unreadable.append(Unreadable(row, error.reason, error.file, self._folder(row)))
                continue
            kept.append(row)
            flipped.append(flip)
            images += [image] if image is not None else []
            gaze_maps += [gaze_map] if gaze_map is not None else []
        rows = np.asarray(kept, dtype=np.int64)
        batch = Batch(
            size=len(rows),
            image=torch.from_numpy(np.stack(images)) if images else None,
            gaze_map=torch.from_numpy(np.stack(gaze_maps)) if gaze_maps else None,
            gaze=None if self._gaze is None else torch.from_numpy(_mirrored(self._gaze[rows], flipped)),
            header=None if self._header is None else torch.from_numpy(self._header[rows]),
            target=None if self._target is None else torch.from_numpy(self._target[rows]),
        )
        return LoadedBatch(batch, rows, tuple(unreadable))

    def _folder(self, row: int) -> Path:
        return Path(self._root[row].as_py())

    def _read_image(self, row: int, flip: bool, rng: np.random.Generator | None) -> NDArray[np.float32] | None:
        if self._face_files is None:
            return None
        face = self._decoded(row, self._face_files[row].as_py(), UNREADABLE_FACE)
        if self._perturbation is not None and self._ids is not None:
            face = self._perturbation.disturb(face, self._ids[row].as_py())
        assert self._preprocess is not None, "check_inputs refuses a model that asks for images without a preprocess"
        return self._preprocess(np.ascontiguousarray(face[:, ::-1]) if flip else face, rng)

    def _read_gaze_map(self, row: int, flip: bool) -> NDArray[np.float32] | None:
        if self._gaze_files is None:
            return None
        name = self._gaze_files[row].as_py()
        if name is None:
            # No gaze draws this: a known gaze shows at least the eyeball.
            return np.zeros((2, HEIGHT, WIDTH), np.float32)
        stored = self._decoded(row, name, UNREADABLE_GAZE_MAP)
        discs = stored[:, ::-1, :2] if flip else stored[..., :2]
        return np.ascontiguousarray(discs.transpose(2, 0, 1), np.float32) / np.float32(255)

    def _decoded(self, row: int, name: str, reason: str) -> NDArray[np.uint8]:
        """Return an image's pixels, of which the caller may do what it likes; see ``_read_png``."""
        held = self._held.get((row, reason))
        if held is not None:
            return held.copy()
        pixels = _read_png(self._folder(row), name, reason)
        worker = get_worker_info()
        room = HELD // (worker.num_workers if worker is not None else 1)
        if self._holds and self._held_bytes + pixels.nbytes <= room:
            self._held[row, reason] = pixels.copy()
            self._held_bytes += pixels.nbytes
        return pixels


class _UnreadableFile(Exception):
    def __init__(self, file: Path, reason: str) -> None:
        super().__init__(f"{file}: {reason}")
        self.file, self.reason = file, reason


def _read_png(root: Path, name: str, reason: str) -> NDArray[np.uint8]:
    """Return [H, W, 3] uint8 RGB; raise _UnreadableFile where the file is missing, cut off or broken."""
    try:
        data = read_file(root, name)
    except OSError:
        raise _UnreadableFile(root / name, reason) from None
    whole = data.endswith(_END_OF_PNG)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if whole else None
    if pixels is None:
        raise _UnreadableFile(root / name, reason)
    return pixels.astype(np.uint8, copy=False)


def _gaze(faces: pa.Table) -> NDArray[np.float32]:
    columns = (pc.fill_null(faces[name], float("nan")).to_numpy() for name in ("gaze_pitch", "gaze_yaw"))
    return np.stack([column.astype(np.float32) for column in columns], axis=1)


def _mirrored(gaze: NDArray[np.float32], flipped: Sequence[bool]) -> NDArray[np.float32]:
    """Return gaze [B, 2] as it is after the flips [B]: a flip negates yaw and leaves pitch."""
    sign = np.where(np.asarray(flipped, dtype=bool), np.float32(-1), np.float32(1))
    return np.stack([gaze[:, 0], gaze[:, 1] * sign], axis=1)


def _targets(faces: pa.Table, classes: Sequence[Leaf]) -> NDArray[np.int64]:
    indices = pc.index_in(faces["generator"], value_set=pa.array([leaf.name for leaf in classes], pa.string()))
    if indices.null_count:
        raise ValueError("a face of a generator that is no class cannot be a target")
    targets: NDArray[np.int64] = indices.to_numpy().astype(np.int64)
    return targets


# --- batches -------------------------------------------------------------------------------------------------------

Share = Callable[[list[NDArray[np.int64]]], list[NDArray[np.int64]]]


class Batches:
    """The batches of a dataset, epoch after epoch, every face once in each.

    seed: shuffle and augment, differently in each epoch, for training; None: the table's order, for evaluation. An
    epoch is cut into batches of nearly equal size, at most ``batch_size``, so that none ends on a batch of one face,
    whose variance batch normalisation cannot take. Batches are the same for any number of ``workers`` (processes; 0
    loads in this one). share: what this rank is to load of the rows of an epoch's batches, such as
    ``distributed.Ranks.part_of_each``; all by default.
    """

    def __init__(
        self,
        dataset: FaceDataset,
        batch_size: int,
        *,
        seed: int | None,
        workers: int,
        device: torch.device,
        share: Share = list,
    ) -> None:
        self._requests = _Requests(len(dataset), batch_size, seed, share)
        self._loader: DataLoader[LoadedBatch] = DataLoader(
            dataset,
            sampler=self._requests,
            batch_size=None,
            collate_fn=_as_loaded,  # the default would look for tensors to stack
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
            worker_init_fn=_single_threaded if workers else None,
            # The loader draws a number for its workers at every epoch, which would otherwise come out of the model's.
            generator=torch.Generator(),
        )

    @property
    def sizes(self) -> list[int]:
        """The number of faces in each batch of an epoch, whoever loads it, known before any is loaded."""
        return self._requests.sizes

    def __len__(self) -> int:
        """Return the number of batches that this rank loads in an epoch."""
        return len(self._requests)

    def epoch(self, number: int = 0) -> Iterator[LoadedBatch]:
        """Yield this rank's batches of epoch ``number``."""
        self._requests.epoch = number
        yield from self._loader


class _Requests(Sampler[Request]):
    """Yields the requests of one epoch."""

    def __init__(self, faces: int, batch_size: int, seed: int | None, share: Share) -> None:
        self._faces, self._batch_size, self._seed, self._share = faces, batch_size, seed, share
        self.epoch = 0

    def __len__(self) -> int:
        return len(self._share(self._cut(self._in_order())))

    @property
    def sizes(self) -> list[int]:
        return [len(rows) for rows in self._cut(self._in_order())]

    def __iter__(self) -> Iterator[Request]:
        order = self._in_order()
        randomness = None
        if self._seed is not None:
            randomness = (self._seed, self.epoch)
            np.random.default_rng((*randomness, 0)).shuffle(order)
        yield from (Request(rows, randomness) for rows in self._share(self._cut(order)))

    def _in_order(self) -> NDArray[np.int64]:
        return np.arange(self._faces, dtype=np.int64)

    def _cut(self, order: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        return cut(order, self._batch_size)


def cut(order: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """Return rows [N] in batches of nearly equal size, at most ``batch_size``."""
    return np.array_split(order, -(-len(order) // batch_size)) if len(order) else []


def _as_loaded(loaded: Any) -> Any:
    return loaded


def _single_threaded(worker: int) -> None:
    # OpenCV's threads do not survive a fork, and more threads than cores slow every worker down.
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Return the batch on a device; from pinned memory the copy overlaps with computing."""
    return _each_tensor(batch, lambda tensor: tensor.to(device, non_blocking=True))


def _each_tensor(batch: Batch, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
    def changed(tensor: torch.Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else change(tensor)

    return Batch(
        size=batch.size,
        image=changed(batch.image),
        gaze_map=changed(batch.gaze_map),
        gaze=changed(batch.gaze),
        header=changed(batch.header),
        target=changed(batch.target),
    )


def require_readable(loaded: LoadedBatch) -> Batch:
    """Return a training batch; raise DataError naming the first face that could not be read.

    Training on fewer faces than the protocol says, or on another face in its place, would go unseen in the result.
    """
    if loaded.unreadable:
        first = loaded.unreadable[0]
        raise DataError(f"{first.file}: {first.reason}. Run 'dfad-bench check manifest {first.root}'.")
    return loaded.batch
