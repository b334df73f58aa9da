"""The plain data that rooms hand to each other; no behaviour beyond construction and checks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from torch import nn

REAL = "real"
LEVELS = ("authenticity", "forgery_type", "family", "generator")
"""The four questions one class head answers, from coarse to fine."""


# --- from a source -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Annotation:
    """What a dataset itself says about the face in an image.

    box: (x0, y0, x1, y1) in pixels of the upright original; landmarks: [5, 2] float32 in the same pixels, in the order
    eye at image left, eye at image right, nose tip, mouth corner at image left, mouth corner at image right;
    gaze: (pitch, yaw) in radians, pitch > 0 up, yaw > 0 towards image right.
    """

    box: tuple[float, float, float, float] | None = None
    landmarks: NDArray[np.float32] | None = None
    gaze: tuple[float, float] | None = None


class Payload(Protocol):
    """Where an image's encoded bytes come from. Picklable, so that a worker process can read it."""

    def read(self) -> bytes:
        """Return the encoded file; raise OSError or DataError when it cannot be had."""
        ...

    def stamp(self) -> str:
        """Return a short text that changes when the bytes change (size and time of a file, seed of a renderer)."""
        ...


@dataclass(frozen=True, slots=True)
class RawImage:
    """One image of a source before anything was done to it: its labels, and how to read it.

    ``key`` is unique within (source, generator) and stable between runs. ``generator`` is ``real`` or a generator's
    canonical name; ``domain`` names the real data behind the face; ``identities`` lists everyone who is in it, the one
    whose picture it is first (a swap has two: target, source).
    """

    key: str
    generator: str
    family: str
    forgery_type: str
    domain: str
    licence: str
    payload: Payload
    annotation: Annotation | None = None
    generator_version: str | None = None
    source_split: str | None = None
    video: str | None = None
    frame: int | None = None
    identities: tuple[str, ...] = ()
    mask: Payload | None = None
    """A grey picture of the same size in which the manipulated face is bright: it says which of several faces is meant."""


@dataclass(frozen=True, slots=True)
class Defect:
    """What is wrong with a dataset as it lies on disk, beyond files that are missing: those are rows of the ledger.

    kind: one word, such as ``empty_clip``, ``wrong_label`` or ``in_two_splits``; detail: a phrase that names the place.
    """

    kind: str
    detail: str


OnDefect = Callable[[Defect], None]
"""What a source tells its defects to."""


# --- faces and gaze ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Detection:
    """A face found in an image: box (x0, y0, x1, y1) and optional [5, 2] landmarks in pixels, score in 0..1 or None."""

    box: tuple[float, float, float, float]
    score: float | None = None
    landmarks: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Gaze:
    """Gaze of N faces.

    pitch, yaw [N] float32: radians in the camera's frame, pitch > 0 up, yaw > 0 towards image right, NaN where unknown.
    head_pitch, head_yaw [N] float32: the same gaze seen from the head (0, 0 looks straight out of the face), NaN where
    unknown. features [N, D] float32: what the estimator computed the angles from, NaN rows where unknown. confidence
    [N] float32 in 0..1. flags: for each face one word why it has no gaze (``closed_eyes``, ``profile``,
    ``no_landmarks``), or None. What an estimator does not give is None; flags may then be empty.
    """

    pitch: NDArray[np.float32]
    yaw: NDArray[np.float32]
    head_pitch: NDArray[np.float32] | None = None
    head_yaw: NDArray[np.float32] | None = None
    features: NDArray[np.float32] | None = None
    confidence: NDArray[np.float32] | None = None
    flags: tuple[str | None, ...] = ()


# --- models --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Leaf:
    """One class of the attribution head: ``real`` or a generator of the train split, with its coarser labels."""

    name: str
    family: str
    forgery_type: str

    def value(self, level: str) -> str:
        """Return this leaf's value at ``authenticity``, ``forgery_type``, ``family`` or ``generator``."""
        return level_value(level, self.name, self.family, self.forgery_type)


def level_value(level: str, generator: str, family: str, forgery_type: str) -> str:
    """Return the value of a face at one of the four levels."""
    if level == "authenticity":
        return REAL if generator == REAL else "fake"
    return {"generator": generator, "family": family, "forgery_type": forgery_type}[level]


Input = Literal["image", "gaze_map", "gaze", "header"]
"""What a model may ask for: the face, its 2-channel gaze map, (pitch, yaw), or the file's metadata."""


@dataclass(frozen=True, slots=True)
class Batch:
    """B faces as a model sees them; what the model did not ask for is None.

    image [B, 3, H, W] float32 after the model's own preprocessing; gaze_map [B, 2, h, w] float32 in 0..1;
    gaze [B, 2] float32 (pitch, yaw) in radians, NaN where unknown; header [B, F] float32 (see
    ``records.manifest.HEADER_FEATURES``); target [B] int64 index of the leaf class, only in training and validation.
    """

    size: int
    image: torch.Tensor | None = None
    gaze_map: torch.Tensor | None = None
    gaze: torch.Tensor | None = None
    header: torch.Tensor | None = None
    target: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """A model's answer: logits [B, C] over the leaf classes (None for a pure detector), fake_score [B], higher = more fake.

    embedding [B, D]: what the head read, where a model has such a thing: new classes are looked for in it.
    """

    logits: torch.Tensor | None
    fake_score: torch.Tensor
    embedding: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """A published weights file: where it lies, what it must hash to, and on what terms it may be used.

    bytes: its size, None where nobody has published it (the hash decides then); training_data: what it was trained on and
    on what terms; commercial_use: what licence and training data together allow; refused: the first digits of hashes of
    files that once went by this name, with what is wrong with them.
    """

    name: str
    url: str
    sha256: str
    bytes: int | None
    licence: str
    training_data: str
    commercial_use: Literal["yes", "no", "unclear"] = "unclear"
    refused: Mapping[str, str] = field(default_factory=dict)


Precision = Literal["auto", "float32", "bfloat16"]
"""What a network computes in: ``auto`` is bfloat16 on CUDA and float32 elsewhere."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is trained unless the user says otherwise (AdamW, cosine schedule with warm-up, early stopping on val).

    batch_size: faces per batch, in prediction too; accumulate: batches whose gradients are added up before one step of
    the optimiser, as those of the mean over all their faces: a step sees batch_size × accumulate faces.
    learning_rate: the highest rate of the schedule, which counts the optimiser's steps; backbone_learning_rate: that of
    the parameters which the module's ``backbone_parameters()`` yields, None for the same as all others: the schedule
    moves both by the same factor. warmup_fraction: the share of all steps in 0..1 in which the rate rises.
    clip_norm: the highest Euclidean norm of all gradients together, longer ones are scaled down to it; None: any.
    patience: epochs without a better one after which training ends. horizontal_flip: mirror half of the training faces.
    precision: what the network computes in, in training, validation and prediction (torch's autocast); ``auto`` is
    bfloat16 on CUDA and float32 elsewhere. Parameters and their optimiser's state are float32 always.
    """

    epochs: int = 20
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warmup_fraction: float = 0.05
    patience: int = 5
    horizontal_flip: bool = True
    backbone_learning_rate: float | None = None
    accumulate: int = 1
    clip_norm: float | None = None
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        """Raise ValueError, naming the field and what it may be, for a recipe that nothing can be trained by."""
        for name in ("epochs", "batch_size", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be 1 or more")
        for name in ("learning_rate", "backbone_learning_rate", "weight_decay"):
            rate = getattr(self, name)
            if rate is not None and not 0 <= rate < math.inf:
                raise ValueError(f"{name} is {rate}: it must be 0 or more, and finite")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm is {self.clip_norm}: it must be more than 0, or None")
        if self.precision not in get_args(Precision):
            raise ValueError(f"precision is {self.precision!r}: it must be one of {', '.join(get_args(Precision))}")


Transform = Callable[[NDArray[np.uint8], "np.random.Generator | None"], NDArray[np.float32]]
"""A model's preprocessing: face [H, W, 3] uint8 RGB, and a random generator in training or None in evaluation → [3, h, w]."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Everything dfad-bench needs to know about a model; a model file exposes one as ``MODEL``.

    ``build(classes)`` returns an ``nn.Module`` that maps a Batch to an Output and, to be trainable, has ``loss(batch)``;
    its optional ``backbone_parameters()`` yields those that came with pre-trained weights (``Recipe``).
    ``load_backbone(module, path)`` fills the module from one of ``backbone_weights``, or from a file of the user's;
    ``default_backbone_weights`` is the one that a run starts from unless told otherwise, ``none`` for random weights,
    ``published`` where the user must give the file since nobody publishes its checksum.
    ``configure`` returns this model with other options: its keyword parameters are the options, their defaults what
    ``MODEL`` is, each a bool, int, float or str; a Literal annotation lists the choices of a str. ``trained_on`` names
    datasets that published weights have seen, so that a leaderboard can mark contamination. ``light``: it needs no weights and
    learns the demo's faces in about a minute on two cores, so that ``demo`` shows it.
    """

    build: Callable[[Sequence[Leaf]], nn.Module]
    inputs: tuple[Input, ...]
    reference: str
    licence: str
    preprocess: Transform | None = None
    recipe: Recipe = field(default_factory=Recipe)
    backbone_weights: Mapping[str, WeightsFile] = field(default_factory=dict)
    default_backbone_weights: str = "none"
    load_backbone: Callable[[nn.Module, Path], None] | None = None
    configure: Callable[..., ModelSpec] | None = None
    trained_on: tuple[str, ...] = ()
    light: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)
