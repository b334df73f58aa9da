"""The contract of a source."""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path

from dfad_bench import registry
from dfad_bench.interfaces import Source
from dfad_bench.taxonomy import FAMILIES, FORGERY_TYPES, Generator
from dfad_bench.testing.contract import ContractError, require
from dfad_bench.types import REAL, Defect, RawImage


def check_source(source: Source, root: Path | None) -> None:
    """Check that a source lists the same images on each call, names them uniquely, and labels them by the vocabulary.

    Nothing is decoded, and of the files only what ``stamp`` looks at is looked at. Raises ContractError.
    """
    for name in ("title", "homepage", "licence", "instructions", "default_face_detector", "default_gaze_estimator"):
        require(bool(getattr(source, name, "").strip()), f"{name} is empty")
    registry.find("face_detectors", source.default_face_detector)
    registry.find("gaze_estimators", source.default_gaze_estimator)
    declared = {generator.name: generator for generator in source.generators(root)}
    require(REAL not in declared, "generators() must not list 'real'")
    images = 0
    clips: set[str] = set()
    clip = None
    seen: set[str] = set()
    defects: list[Defect] = []
    for image, again in zip_longest(source.images(root, defects.append), source.images(root, defects.append)):
        require(
            image is not None and again is not None and _described(image) == _described(again),
            "two calls of images() must list the same images in the same order",
        )
        images += 1
        name = f"{image.generator}/{image.key}"
        require(name not in seen, f"{name} is listed twice")
        seen.add(name)
        _check_image(image, declared)
        here = None if image.video is None else f"{image.generator}/{image.video}"
        require(
            here is None or here == clip or here not in clips, f"{here}: images of one video must follow each other"
        )
        clips |= set() if here is None else {here}
        clip = here
    require(images > 0, "images() lists nothing")
    words = all(re.fullmatch("[a-z0-9_]+", defect.kind) and defect.detail for defect in defects)
    require(words, "a defect's kind must be one word of a-z, 0-9 and _, and its detail a phrase")


def _described(image: RawImage) -> tuple[object, ...]:
    return (image.generator, image.key, image.family, image.forgery_type, image.domain, image.payload.stamp())


def _check_image(image: RawImage, declared: Mapping[str, Generator]) -> None:
    where = f"{image.generator}/{image.key}"
    require(bool(image.key and image.domain and image.licence), f"{where}: key, domain and licence are needed")
    require(image.family in FAMILIES, f"{where}: no family is called {image.family!r}")
    require(image.forgery_type in FORGERY_TYPES, f"{where}: no forgery type is called {image.forgery_type!r}")
    reals = {image.generator == REAL, image.family == REAL, image.forgery_type == REAL}
    require(len(reals) == 1, f"{where}: real at one level must be real at all")
    entry = declared.get(image.generator)
    if entry is not None:
        agrees = (entry.family, entry.forgery_type) == (image.family, image.forgery_type)
        require(agrees, f"{where}: labelled other than generators() declares")
    require(image.source_split in (None, "train", "val", "test"), f"{where}: source_split is {image.source_split!r}")
    try:
        pickle.dumps(image)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ContractError(f"{where} cannot be sent to a worker process: {error}") from None
    note = image.annotation
    if note is not None and note.gaze is not None:
        require(all(abs(angle) < math.pi / 2 for angle in note.gaze), f"{where}: gaze {note.gaze} is not in radians")
