"""The contracts of plugins, for our tests and for those of plugin authors: each check raises ContractError with a reason."""

from __future__ import annotations

import math
import pickle
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dfad_bench import registry
from dfad_bench.interfaces import FaceDetector, GazeEstimator, Source
from dfad_bench.modelling.weights import load_weights, save_weights
from dfad_bench.prepare.gaze_map import HEIGHT, WIDTH
from dfad_bench.records.manifest import HEADER_FEATURES
from dfad_bench.scoring.views import AttributionView, DetectionView, Metric, Task, Undefined
from dfad_bench.taxonomy import FAMILIES, FORGERY_TYPES, Generator
from dfad_bench.types import REAL, Annotation, Batch, Defect, Gaze, Leaf, ModelSpec, Output, RawImage, WeightsFile


class ContractError(AssertionError):
    """A plugin does not do what its interface promises."""


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ContractError(otherwise)


# --- models --------------------------------------------------------------------------------------------------------

LEAVES = (
    Leaf("real", "real", "real"),
    Leaf("ddim", "diffusion", "efs"),
    Leaf("stylegan3", "gan", "efs"),
    Leaf("simswap", "gan", "fs"),
)
"""The leaf classes that a model is built for unless others are given."""

_TOLERANCE = 1e-5


def check_model(model: str | ModelSpec, classes: Sequence[Leaf] = LEAVES, face_size: int = 256) -> None:
    """Check a model against the contract of ``ModelSpec``, on random faces and on the CPU.

    model: a registered name, the path of a model file, or a spec; face_size: side in pixels of the square faces that
    its preprocessing is given. Raises ContractError for the first promise that is broken.
    """
    spec: ModelSpec = registry.get("models", model) if isinstance(model, str) else model
    _check_metadata(spec)
    _check_preprocess(spec, face_size)
    torch.manual_seed(0)
    module = spec.build(classes)
    batch = _random_batch(spec, len(classes), faces=5, face_size=face_size)
    module.eval()
    _check_output(module, batch, len(classes))
    _check_evaluation(module, batch, len(classes))
    _check_round_trip(module, spec, classes, batch)
    if hasattr(module, "loss"):
        _check_training(module, spec, classes, face_size)


def _check_metadata(spec: ModelSpec) -> None:
    _require(bool(spec.reference.strip()), "ModelSpec.reference is empty: name the paper, or say 'none'")
    _require(bool(spec.licence.strip()), "ModelSpec.licence is empty")
    known = ("image", "gaze_map", "gaze", "header")
    _require(set(spec.inputs) <= set(known), f"ModelSpec.inputs {spec.inputs}: only {', '.join(known)} are known")
    _require(
        ("image" in spec.inputs) == (spec.preprocess is not None),
        "ModelSpec.preprocess must be given exactly when inputs has 'image'",
    )
    for name, weights in spec.backbone_weights.items():
        _require(len(weights.sha256) == 64, f"backbone weights {name!r}: sha256 must have 64 hexadecimal digits")
        _require(bool(weights.licence and weights.training_data), f"backbone weights {name!r}: say licence and data")
    _require(
        bool(spec.backbone_weights) == (spec.load_backbone is not None),
        "ModelSpec.load_backbone must be given exactly when there are backbone_weights",
    )


def _check_preprocess(spec: ModelSpec, face_size: int) -> None:
    if spec.preprocess is None:
        return
    transform = spec.preprocess
    try:
        pickle.dumps(transform)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ContractError(f"preprocess cannot be sent to a worker process: {error}") from None
    face = np.random.default_rng(0).integers(0, 256, (face_size, face_size, 3), dtype=np.uint8)
    before = face.copy()
    once, again, training = transform(face, None), transform(face, None), transform(face, np.random.default_rng(1))
    _require(np.array_equal(face, before), "preprocess changes the face it is given")
    _require(
        once.dtype == np.float32 and once.ndim == 3 and once.shape[0] == 3,
        f"preprocess must return [3, h, w] float32, it returns {list(once.shape)} {once.dtype}",
    )
    _require(bool(np.isfinite(once).all()), "preprocess returns values that are not finite")
    _require(np.array_equal(once, again), "preprocess must not be random in evaluation, where rng is None")
    _require(once.shape == training.shape, "preprocess must return one shape in training and in evaluation")


def _random_batch(spec: ModelSpec, classes: int, faces: int, face_size: int, seed: int = 0) -> Batch:
    """Return random faces as the model would get them, the last one's gaze unknown; all inputs it did not ask for None."""
    rng = np.random.default_rng(seed)
    image = gaze_map = gaze = header = None
    if spec.preprocess is not None:
        pixels = rng.integers(0, 256, (faces, face_size, face_size, 3), dtype=np.uint8)
        image = torch.from_numpy(np.stack([spec.preprocess(face, None) for face in pixels]))
    if "gaze_map" in spec.inputs:
        gaze_map = torch.from_numpy(rng.random((faces, 2, HEIGHT, WIDTH), dtype=np.float32))
        gaze_map[-1] = 0
    if "gaze" in spec.inputs:
        gaze = torch.from_numpy(rng.uniform(-0.8, 0.8, (faces, 2)).astype(np.float32))
        gaze[-1] = torch.nan
    if "header" in spec.inputs:
        header = torch.from_numpy(rng.random((faces, len(HEADER_FEATURES)), dtype=np.float32))
    target = torch.from_numpy(rng.permutation(np.arange(faces) % classes))
    return Batch(faces, image, gaze_map, gaze, header, target)


def _check_output(module: nn.Module, batch: Batch, classes: int) -> None:
    output = _answer(module, batch)
    scores = output.fake_score
    _require(
        list(scores.shape) == [batch.size],
        f"fake_score must be [B] = [{batch.size}], it is {list(scores.shape)}",
    )
    _require(bool(scores.isfinite().all()), "fake_score is not finite (one face's gaze is unknown: NaN, empty map)")
    if output.logits is not None:
        expected = [batch.size, classes]
        _require(
            list(output.logits.shape) == expected,
            f"logits must be [B, C] = {expected}, they are {list(output.logits.shape)}",
        )
        _require(bool(output.logits.isfinite().all()), "logits are not finite")


def _check_evaluation(module: nn.Module, batch: Batch, classes: int) -> None:
    """In evaluation, an answer depends on the face alone: not on chance, on the batch, or on the label."""
    output = _answer(module, batch)
    _require(_difference(output, _answer(module, batch)) == 0, "two passes over one batch differ in eval mode")
    assert batch.target is not None
    unlabelled = _answer(module, replace(batch, target=None))
    mislabelled = _answer(module, replace(batch, target=(batch.target + 1) % classes))
    _require(
        _difference(output, unlabelled) == 0 and _difference(output, mislabelled) == 0,
        "the answer depends on the labels",
    )
    apart = [_answer(module, _rows(batch, row, row + 1)) for row in range(batch.size)]
    alone = Output(
        None if output.logits is None else torch.cat([each.logits for each in apart if each.logits is not None]),
        torch.cat([each.fake_score for each in apart]),
    )
    worst = _difference(output, alone)
    _require(worst <= _TOLERANCE, f"a face's answer depends on its batch: it moves by {worst:.2g} in eval mode")


def _check_round_trip(module: nn.Module, spec: ModelSpec, classes: Sequence[Leaf], batch: Batch) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_weights(module, path, {})
        other = spec.build(classes).eval()
        load_weights(other, path)
    _require(
        _difference(_answer(module, batch), _answer(other, batch)) == 0,
        "saving and loading the state dict changes the answer: something it needs is in no parameter and no buffer",
    )


def _check_training(module: nn.Module, spec: ModelSpec, classes: Sequence[Leaf], face_size: int) -> None:
    """The loss is a finite scalar, and within three steps its gradient has reached every trainable parameter.

    Three, because a layer that starts at zero lets nothing through to those before it until it has moved.
    """
    loss_of: Callable[[Batch], torch.Tensor] = getattr(module, "loss")  # noqa: B009  # nn.Module types it as a Tensor
    trainable = {name: p for name, p in module.named_parameters() if p.requires_grad}
    _require(bool(trainable), "the module has a loss but no trainable parameter")
    optimizer = torch.optim.AdamW(trainable.values(), lr=1e-3)
    unreached = set(trainable)
    module.train()
    for step in range(3):
        loss = loss_of(_random_batch(spec, len(classes), faces=len(classes) + 1, face_size=face_size, seed=step + 1))
        _require(loss.ndim == 0 and bool(loss.isfinite()), f"loss must be a finite scalar, it is {loss}")
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for name, parameter in trainable.items():
            if parameter.grad is not None:
                _require(bool(parameter.grad.isfinite().all()), f"the gradient of {name} is not finite")
                unreached -= {name} if bool(parameter.grad.any()) else set()
        optimizer.step()
    _require(not unreached, f"no gradient reaches {', '.join(sorted(unreached))}; freeze them or use them")


def _answer(module: nn.Module, batch: Batch) -> Output:
    with torch.no_grad():
        output = module(batch)
    _require(isinstance(output, Output), f"the module must return an Output, it returns {type(output).__name__}")
    assert isinstance(output, Output)
    return output


def _difference(one: Output, other: Output) -> float:
    """Return the largest difference between two answers, relative to the largest value where that exceeds 1."""
    parts = [(one.fake_score, other.fake_score)]
    if one.logits is not None and other.logits is not None:
        parts.append((one.logits, other.logits))
    return max(float(((a - b).abs().max() / a.abs().max().clamp(min=1)).detach()) for a, b in parts)


def _rows(batch: Batch, start: int, stop: int) -> Batch:
    def cut(tensor: torch.Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else tensor[start:stop]

    return Batch(
        stop - start,
        cut(batch.image),
        cut(batch.gaze_map),
        cut(batch.gaze),
        cut(batch.header),
        cut(batch.target),
    )


# --- sources -------------------------------------------------------------------------------------------------------


def check_source(source: Source, root: Path | None) -> None:
    """Check that a source lists the same images on each call, names them uniquely, and labels them by the vocabulary.

    Nothing is decoded, and of the files only what ``stamp`` looks at is looked at. Raises ContractError.
    """
    for name in ("title", "homepage", "licence", "instructions", "default_face_detector", "default_gaze_estimator"):
        _require(bool(getattr(source, name, "").strip()), f"{name} is empty")
    registry.find("face_detectors", source.default_face_detector)
    registry.find("gaze_estimators", source.default_gaze_estimator)
    declared = {generator.name: generator for generator in source.generators(root)}
    _require(REAL not in declared, "generators() must not list 'real'")
    images = 0
    clips: set[str] = set()
    clip = None
    seen: set[str] = set()
    defects: list[Defect] = []
    for image, again in zip_longest(source.images(root, defects.append), source.images(root, defects.append)):
        _require(
            image is not None and again is not None and _described(image) == _described(again),
            "two calls of images() must list the same images in the same order",
        )
        images += 1
        name = f"{image.generator}/{image.key}"
        _require(name not in seen, f"{name} is listed twice")
        seen.add(name)
        _check_image(image, declared)
        here = None if image.video is None else f"{image.generator}/{image.video}"
        _require(
            here is None or here == clip or here not in clips, f"{here}: images of one video must follow each other"
        )
        clips |= set() if here is None else {here}
        clip = here
    _require(images > 0, "images() lists nothing")
    words = all(re.fullmatch("[a-z0-9_]+", defect.kind) and defect.detail for defect in defects)
    _require(words, "a defect's kind must be one word of a-z, 0-9 and _, and its detail a phrase")


def _described(image: RawImage) -> tuple[object, ...]:
    return (image.generator, image.key, image.family, image.forgery_type, image.domain, image.payload.stamp())


def _check_image(image: RawImage, declared: Mapping[str, Generator]) -> None:
    where = f"{image.generator}/{image.key}"
    _require(bool(image.key and image.domain and image.licence), f"{where}: key, domain and licence are needed")
    _require(image.family in FAMILIES, f"{where}: no family is called {image.family!r}")
    _require(image.forgery_type in FORGERY_TYPES, f"{where}: no forgery type is called {image.forgery_type!r}")
    reals = {image.generator == REAL, image.family == REAL, image.forgery_type == REAL}
    _require(len(reals) == 1, f"{where}: real at one level must be real at all")
    entry = declared.get(image.generator)
    if entry is not None:
        agrees = (entry.family, entry.forgery_type) == (image.family, image.forgery_type)
        _require(agrees, f"{where}: labelled other than generators() declares")
    _require(image.source_split in (None, "train", "val", "test"), f"{where}: source_split is {image.source_split!r}")
    try:
        pickle.dumps(image)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ContractError(f"{where} cannot be sent to a worker process: {error}") from None
    note = image.annotation
    if note is not None and note.gaze is not None:
        _require(all(abs(angle) < math.pi / 2 for angle in note.gaze), f"{where}: gaze {note.gaze} is not in radians")


# --- face detectors and gaze estimators ----------------------------------------------------------------------------


def _annotated_faces(count: int = 3, side: int = 96) -> tuple[list[NDArray[np.uint8]], list[Annotation | None]]:
    """Return random images and what a source might say of them; of the last one it says nothing."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (side + index, side, 3), dtype=np.uint8) for index in range(count)]
    landmarks = np.array([[30, 40], [66, 40], [48, 55], [36, 70], [60, 70]], np.float32)
    notes = [Annotation((16, 16, 80, 80), landmarks, (0.1, -0.2 * index)) for index in range(count - 1)]
    return images, [*notes, None]


def check_face_detector(detector: FaceDetector) -> None:
    """Check that every image gets a list of finite boxes, best first, whatever the batch, and that images are not changed."""
    _check_weights(detector.weights, detector.weights_sha256)
    images, notes = _annotated_faces()
    before = [image.copy() for image in images]
    found = detector.detect(images, notes)
    _require(len(found) == len(images), "detect() must return one list per image")
    _require(all(np.array_equal(*pair) for pair in zip(images, before, strict=True)), "detect() changes its images")
    for detections in found:
        scores = [d.score for d in detections if d.score is not None]
        _require(scores == sorted(scores, reverse=True), "detections must come best first")
        for each in detections:
            x0, y0, x1, y1 = each.box
            _require(
                bool(np.isfinite(each.box).all()) and x0 < x1 and y0 < y1, f"box {each.box} is empty or not finite"
            )
            _require(each.landmarks is None or each.landmarks.shape == (5, 2), "landmarks must be [5, 2]")
    alone = [detector.detect([image], [note])[0] for image, note in zip(images, notes, strict=True)]
    _require(
        [[d.box for d in detections] for detections in alone] == [[d.box for d in detections] for detections in found],
        "an image's faces depend on the batch it is in",
    )
    _require(detector.detect([], []) == [], "detect() of nothing must be nothing")


def _check_weights(weights: Sequence[WeightsFile], sha256: str | None) -> None:
    for each in weights:
        _require(
            len(each.sha256) in (0, 64), f"{each.name}: sha256 must have 64 hexadecimal digits, or none if unknown"
        )
        _require(bool(each.licence and each.training_data), f"{each.name}: say its licence and what it was trained on")
    _require(bool(sha256) or not weights, "weights_sha256 must say which weights are in use")


def check_gaze_estimator(estimator: GazeEstimator, side: int = 96) -> None:
    """Check shapes, radians, independence of the batch, and that a face without landmarks or annotation is no error."""
    _check_weights(estimator.weights, estimator.weights_sha256)
    images, notes = _annotated_faces(side=side)
    faces = np.stack([image[:side] for image in images])
    landmarks = np.full((len(faces), 5, 2), np.nan, np.float32)
    gaze = estimator.estimate(faces, landmarks, notes)
    for angle in (gaze.pitch, gaze.yaw, gaze.head_pitch, gaze.head_yaw):
        if angle is not None:
            _require(angle.shape == (len(faces),) and angle.dtype == np.float32, "angles must be [N] float32")
            _require(bool((np.abs(angle[np.isfinite(angle)]) <= np.pi / 2).all()), "angles must be radians within ±π/2")
    known = np.isfinite(gaze.pitch)
    _require(bool((known == np.isfinite(gaze.yaw)).all()), "pitch and yaw are unknown together")
    _check_gaze_extras(gaze, known, estimator.feature_dim)
    for row in range(len(faces)):
        one = estimator.estimate(faces[row : row + 1], landmarks[row : row + 1], notes[row : row + 1])
        same = np.allclose((one.pitch[0], one.yaw[0]), (gaze.pitch[row], gaze.yaw[row]), atol=1e-4, equal_nan=True)
        _require(same, "a face's gaze depends on the batch it is in")


def _check_gaze_extras(gaze: Gaze, known: NDArray[np.bool_], feature_dim: int) -> None:
    _require((gaze.features is None) == (feature_dim == 0), "features must be given exactly when feature_dim is not 0")
    if gaze.features is not None:
        shape = (len(known), feature_dim)
        _require(gaze.features.shape == shape, f"features must be [N, feature_dim] = {shape}")
        _require(gaze.features.dtype == np.float32, f"features must be float32, they are {gaze.features.dtype}")
    if gaze.confidence is not None:
        sure = gaze.confidence[np.isfinite(gaze.confidence)]
        _require(gaze.confidence.shape == known.shape and bool(((sure >= 0) & (sure <= 1)).all()), "confidence is 0..1")
    _require(len(gaze.flags) in (0, len(known)), "flags must be empty or name one reason, or None, per face")
    flagged = [flag is not None for flag in gaze.flags]
    _require(not any(flagged & known) if flagged else True, "a flagged face must have no gaze: flagged, not guessed")


# --- metrics -------------------------------------------------------------------------------------------------------


def check_metric(metric: Metric) -> None:
    """Check that a metric is a finite number independent of row order, and where undefined says why instead of NaN."""
    _require(set(metric.tasks) <= {"detection", "attribution"} and bool(metric.tasks), f"unknown tasks {metric.tasks}")
    rng = np.random.default_rng(0)
    order = rng.permutation(40)
    for task in metric.tasks:
        view, shuffled, empty = (_view(task, rows) for rows in (np.arange(40), order, np.arange(0)))
        value = metric.compute(view)
        _require(math.isfinite(value), f"{task}: the value is {value}")
        _require(abs(value - metric.compute(shuffled)) < 1e-9, f"{task}: the value depends on the order of faces")
        try:
            undefined = metric.compute(empty)
        except Undefined as reason:
            _require(bool(str(reason)), f"{task}: Undefined must give a reason")
        else:
            raise ContractError(f"{task}: of no face it says {undefined}; raise Undefined with a reason")


def _view(task: Task, rows: NDArray[np.intp]) -> DetectionView | AttributionView:
    rng = np.random.default_rng(1)
    probabilities = rng.dirichlet(np.ones(3), 40)
    values = np.asarray(("real", "gan", "diffusion"), dtype=object)
    true = np.arange(40) % 3
    if task == "detection":
        return DetectionView((true > 0)[rows], 1 - probabilities[rows, 0], 0.5)
    return AttributionView(
        values[true][rows], values[probabilities.argmax(axis=1)][rows], probabilities[rows], tuple(values)
    )
