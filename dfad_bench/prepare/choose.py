"""Which of several faces an image is about, and how much of it the image's border cuts off."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dfad_bench.types import Detection

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels."""

SAME_PERSON = 0.3
"""Least intersection over union of one person's boxes in frames that follow each other: a head turned or moved by half its
width keeps 0.33, and the box of someone sitting next to them has none."""


def choose(detections: Sequence[Detection], previous: Box | None, mask: NDArray[np.uint8] | None) -> Detection:
    """Return the face that an image is about; the order of ``detections``, of which there is at least one, does not matter.

    With a mask [H, W], in the same pixels as the boxes and bright where the image was manipulated, it is the face that
    covers the masked area best. Where there is none, or it touches no face, it is the face that was chosen in the previous
    frame of the clip, if a box overlaps that one's by ``SAME_PERSON``; else the largest face.
    """
    ordered = sorted(detections, key=_rank)
    if mask is not None:
        covered = [_masked(each.box, mask) for each in ordered]
        if max(covered) > 0:
            return ordered[int(np.argmax(covered))]
    if previous is not None:
        overlaps = [overlap(each.box, previous) for each in ordered]
        if max(overlaps) >= SAME_PERSON:
            return ordered[int(np.argmax(overlaps))]
    return ordered[0]


def _rank(detection: Detection) -> tuple[float, float, Box]:
    """Sort the largest first, then the surest; boxes decide between equals, so that input order never does."""
    return -_area(detection.box), -(detection.score or 0.0), detection.box


def overlap(one: Box, other: Box) -> float:
    """Return the intersection over union of two boxes, 0..1."""
    shared = _area(_shared(one, other))
    return shared / (_area(one) + _area(other) - shared) if shared else 0.0


def cut_off(box: Box, width: int, height: int) -> float:
    """Return the share 0..1 of a box's area that lies outside a width × height image; the box is not empty."""
    return 1 - _area(_shared(box, (0, 0, width, height))) / _area(box)


def _shared(one: Box, other: Box) -> Box:
    return max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])


def _area(box: Box) -> float:
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def _masked(box: Box, mask: NDArray[np.uint8]) -> float:
    """Return the intersection over union of a box and the masked area, where a half-bright pixel counts half.

    The share of the mask alone would prefer whatever box is largest, and the share of the box whatever is smallest.
    """
    height, width = mask.shape
    x0, y0, x1, y1 = (round(edge) for edge in _shared(box, (0, 0, width, height)))
    inside = mask[y0 : max(y1, y0), x0 : max(x1, x0)]
    if not inside.size or not inside.any():
        return 0.0
    brightest = float(mask.max())
    shared = float(inside.sum()) / brightest
    return shared / (inside.size + float(mask.sum()) / brightest - shared)
