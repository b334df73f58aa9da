"""Gaze as networks trained on Gaze360 tell it: 90 bins of 4° for each angle; and the face as they want to see it.

Signs and order, from the label to the sign that is kept here:

1. The README of Gaze360's dataset folder: of a gaze vector, positive x points "to the left", positive y up, positive z
   away from the camera, "from the camera's point of view"; ``[-1, 0, 0]`` looks to the right, ``[0, 0, -1]`` into it.
2. GazeHub's preparation of Gaze360, which both networks were trained on, writes the label ``[yaw, pitch]`` with
   ``yaw = arctan2(x, -z)`` and ``pitch = arcsin(y)``: yaw > 0 is image *left*, pitch > 0 is up.
3. The drawing functions of L2CS-Net, gaze-estimation and uniface agree: they move the arrow by ``-sin(first) cos(second)``
   to the right and by ``-sin(second)`` down.

So yaw is negated here and pitch is not. Angles are relative to the line from camera to face (Gaze360's eye coordinates),
which a crop alone cannot tell from the camera's axis.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dfad_bench.types import Gaze

BINS = 90
SIDE = 448
"""Pixels of the network's square input."""
_WIDTH, _FIRST = 4.0, -180.0
"""Degrees per bin, and the angle that bin 0 stands for. A bin stands for its lower edge, as in training."""
_TIGHT = 1.3
"""The face box is this much smaller than a crop of the usual margin."""
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


def network_input(faces: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return crops [N, S, S, 3] uint8 RGB as the network wants them: [N, 3, 448, 448] float32, ImageNet-normalised.

    Only the central 1/1.3 of a crop is shown. GazeHub cut its training faces as the square of the longer side of dlib's
    face box, and a crop of margin 1.3 is 1.3 times that square. The same part is taken of every crop, because a rule
    that looked at landmarks would treat the faces of one detector differently from those of another; a crop that was
    made tighter on purpose (margin below 1.3) is therefore seen somewhat too close.
    """
    size = faces.shape[1]
    edge = round(size * (1 - 1 / _TIGHT) / 2)  # the same on all sides, or a mirrored face would not be the mirror image
    shrinks = size - 2 * edge > SIDE
    prepared = np.empty((len(faces), 3, SIDE, SIDE), np.float32)
    for row, face in enumerate(faces):
        centre = face[edge : size - edge, edge : size - edge].astype(np.float32)
        scaled = cv2.resize(centre, (SIDE, SIDE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        prepared[row] = ((scaled / 255 - _MEAN) / _DEVIATION).transpose(2, 0, 1)
    return prepared


def gaze_of(yaw_logits: NDArray[np.float32], pitch_logits: NDArray[np.float32], features: NDArray[np.float32]) -> Gaze:
    """Return the gaze that two heads' logits [N, 90] stand for, with the features [N, D] that they were computed from.

    An angle is the expectation of its softmax (L2CS-Net, arXiv:2203.03339, section 3). Confidence in 0..1 is one minus
    the mean entropy of the two distributions, 0 where both are uniform. An expectation beyond ±90° is the back of a head
    or a network at a loss: such a face is flagged ``profile`` and has NaN for angles and features, since clipping would
    pile those faces up at a direction that nobody looks in.
    """
    yaw, yaw_entropy = _expectation(yaw_logits)
    pitch, pitch_entropy = _expectation(pitch_logits)
    faces_us = (np.abs(yaw) < np.pi / 2) & (np.abs(pitch) < np.pi / 2)
    confidence = np.clip(1 - (yaw_entropy + pitch_entropy) / (2 * np.log(BINS)), 0, 1)
    return Gaze(
        pitch=np.where(faces_us, pitch, np.nan).astype(np.float32),
        yaw=np.where(faces_us, -yaw, np.nan).astype(np.float32),
        features=np.where(faces_us[:, None], features, np.nan).astype(np.float32),
        confidence=confidence.astype(np.float32),
        flags=tuple(None if face else "profile" for face in faces_us),
    )


def _expectation(logits: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the expected angle in radians, signed as the network signs it, and the entropy in nats, each [N]."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    log_share = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    share = np.exp(log_share)
    return np.radians(share @ (_FIRST + _WIDTH * np.arange(BINS))), -(share * log_share).sum(axis=1)
