"""Intel's gaze-estimation-adas-0002 with its companions from the Open Model Zoo, through OpenVINO on the CPU.

The chain is that of the zoo's own gaze demo: the head's pose, squares around both eyes turned upright by the head's roll,
the gaze network, and its vector turned back. What its documentation leaves open was decided by evidence, on rendered
faces of known gaze and on real ones:

- The vector's x points to image right and y up; its z is negative where someone looks at the camera, whatever the model
  card says.
- ``left_eye_image`` is the eye at image left: on real faces, image and mirror image then agree better (yaw correlates by
  -0.71 rather than -0.58, median residual 4.0° rather than 6.9°), though rendered faces prefer the other by half a degree.
- Eye squares are 0.7 of the distance between the eyes, between what the rendered and the real faces do best with.
- A single pass is several degrees off to one side. So a face and its mirror image are both estimated and averaged, which
  makes yaw exactly antisymmetric and took the median error on 200 rendered faces from 6.8° to 4.7°.
- Yaw of the head > 0 turns to image right and pitch > 0 bows it, as documented; pose is estimated on the upright face,
  so the roll that the gaze network is told is 0. It is what the gaze network was trained beside; of a turned head it says
  less than half, so the head's own frame, and what counts as a profile, go by the five landmarks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from dfad_bench.prepare.eye_patches import MIRRORED, Floats, eye_distances, rolls, upright_patch, usable
from dfad_bench.prepare.head_pose import angles, head_angles, seen_from_head, turn
from dfad_bench.prepare.openvino_runtime import compile_graph, read_graph
from dfad_bench.types import Annotation, Gaze, WeightsFile
from dfad_bench.weights import fetch, joint_sha256

PROFILE = np.radians(50.0)
"""A head turned further shows one eye only. By its landmarks: the pose network says 0.4 times what they say."""
LEAST_OPEN = 0.05
"""Below this probability both eyes are closed, or hidden. The network is nearly always sure; the limit is low because
glasses that mirror the light make it doubt."""

_EYE_WIDTH = 0.7
_HEAD_WIDTH, _HEAD_RISE = 3.0, 0.1
"""Side of the square for the head's pose, and how far its middle lies above that of the landmarks, in eye distances."""
_FIRST_LOOK, _SECOND_LOOK = 0.6, 2.2
"""Landmarks are first looked for in this share of the crop, then in a square of so many eye distances around the find."""
_MOVED = 0.15
"""Eye distances by which an eye may move between the two looks; more says that the first saw no face. Noise moves them by
0.16 and more, 95 of 100 real faces by less than 0.09."""
_AGREE = np.radians(15.0)
_BATCH = 32
_HIDDEN = "147"
"""The gaze network's last hidden layer, 80 wide: the normalised activations from which a convolution makes the vector."""

_ZOO = "https://storage.openvinotoolkit.org/repositories/open_model_zoo/2023.0/models_bin/1"


def _zoo_file(model: str, suffix: str, sha256: str, size: int, training_data: str) -> WeightsFile:
    return WeightsFile(
        name=f"{model}.{suffix}",
        url=f"{_ZOO}/{model}/FP16/{model}.{suffix}",
        sha256=sha256,
        bytes=size,
        licence="Apache-2.0",
        training_data=training_data,
        commercial_use="yes",
    )


_GAZE = "not disclosed by Intel, who validate on two of 60 people of an internal dataset"
_POSE = "not disclosed by Intel, who validate on Biwi Kinect Head Pose"
_POINTS = "not disclosed by Intel, who validate on VGGFace2"


class OpenvinoAdas:
    """Estimates gaze from both eyes and the head's pose; 7° mean error on its authors' own data.

    Landmarks that are unknown are found by landmarks-regression-retail-0009. features: the gaze network's last hidden
    layer for the face as it is, not mirrored. confidence: the larger of both eyes' probability to be open, times
    exp(-(a / 15°)²) of the angle a between the answers to the face and to its mirror image.
    """

    weights: ClassVar[tuple[WeightsFile, ...]] = (
        _zoo_file(
            "gaze-estimation-adas-0002",
            "xml",
            "7323bc1a755439c525c15230fcd40e99bb17a154f17835db30aa4a95feb22cb4",
            111_481,
            _GAZE,
        ),
        _zoo_file(
            "gaze-estimation-adas-0002",
            "bin",
            "0aed599f452258243b07154fadc09b56ef90418b94210bd33f47bbba90cbb98c",
            3_764_742,
            _GAZE,
        ),
        _zoo_file(
            "head-pose-estimation-adas-0001",
            "xml",
            "0fd0a09413d98a32c604669d955efc154ec55f6634b79f9a12ee1005e4d45a7d",
            88_191,
            _POSE,
        ),
        _zoo_file(
            "head-pose-estimation-adas-0001",
            "bin",
            "a4e66d59e8053681b0c20ef9ee519583d6925e4f6c5002005f36403e414b133e",
            3_823_810,
            _POSE,
        ),
        _zoo_file(
            "landmarks-regression-retail-0009",
            "xml",
            "8480e50732ae4a174d6540c36e0c37287d283fc8e32306987fea820891024c52",
            73_873,
            _POINTS,
        ),
        _zoo_file(
            "landmarks-regression-retail-0009",
            "bin",
            "5d74c26cbb836b3de358ab05d4cbd92c4eb713dc74484cff9de82b2deb3d8527",
            381_232,
            _POINTS,
        ),
        WeightsFile(
            name="open-closed-eye-0001.onnx",
            url="https://download.01.org/opencv/openvino_training_extensions/models/open_closed_eye/open_closed_eye.onnx",
            sha256="4daa100034482525a26c9afb9297c16580a531189e66e3d2b2ac7d32becfd593",
            bytes=46_164,
            licence="Apache-2.0",
            training_data="MRL Eye Dataset (its terms are not stated)",
            commercial_use="unclear",
        ),
    )
    feature_dim: int = 80

    def __init__(self) -> None:
        """Load the four networks, one thread each.

        Raises DataError where the weights are missing or not the published ones.
        """
        paths = [fetch(file) for file in self.weights]
        self.weights_sha256: str | None = joint_sha256(self.weights)
        self._gaze = _compile(paths[0:2], _HIDDEN)
        self._pose = _compile(paths[2:4])
        self._points = _compile(paths[4:6])
        self._open = _compile(paths[6:7])

    def estimate(
        self,
        faces: NDArray[np.uint8],
        landmarks: NDArray[np.float32],
        annotations: Sequence[Annotation | None],
    ) -> Gaze:
        """Return the gaze of crops [N, S, S, 3] RGB by landmarks [N, 5, 2] in crop pixels; annotations are not looked at.

        Flags ``no_landmarks`` where they are impossible, or unknown and not found; ``profile`` and ``closed_eyes``.
        """
        count = len(faces)
        flags: list[str | None] = ["no_landmarks"] * count
        columns = {name: np.full(count, np.nan, np.float32) for name in ("pitch", "yaw", "head_pitch", "head_yaw")}
        features = np.full((count, self.feature_dim), np.nan, np.float32)
        confidence = np.zeros(count, np.float32)
        for start in range(0, count, _BATCH):
            part = slice(start, start + _BATCH)
            known = self._landmarks(faces[part], landmarks[part])
            rows = np.flatnonzero(usable(known, faces.shape[2]))
            if not len(rows):
                continue
            found = self._measure(faces[part][rows], known[rows])
            rows += start
            for row, reason in zip(rows, found.reasons, strict=True):
                flags[row] = reason
            seen = np.array([reason is None for reason in found.reasons])
            for name, values in zip(columns, found.angles, strict=True):
                columns[name][rows[seen]] = values[seen]
            features[rows[seen]], confidence[rows[seen]] = found.features[seen], found.confidence[seen]
        return Gaze(**columns, features=features, confidence=confidence, flags=tuple(flags))

    def _landmarks(self, faces: NDArray[np.uint8], given: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the given landmarks, and those found where none are given; NaN where none can be found."""
        landmarks = np.array(given, np.float32)
        missing = np.flatnonzero(np.isnan(landmarks).any(axis=(1, 2)))
        if not len(missing):
            return landmarks
        side = faces.shape[2]
        middle, width = np.full((len(missing), 2), (side - 1) / 2), np.full(len(missing), _FIRST_LOOK * side)
        first = self._look(faces[missing], middle, width)
        tall = np.linalg.norm(first[:, 3:].mean(axis=1) - first[:, :2].mean(axis=1), axis=1)
        size = np.maximum(
            eye_distances(first), 0.9 * tall
        )  # a turned head brings the eyes together, not eyes and mouth
        second = self._look(faces[missing], first.mean(axis=1), np.maximum(_SECOND_LOOK * size, 1))
        moved = np.linalg.norm(second - first, axis=2)[:, :2].max(axis=1)
        landmarks[missing] = np.where((moved <= _MOVED * size)[:, None, None], second, np.nan)
        return landmarks

    def _look(self, faces: NDArray[np.uint8], middle: Floats, width: Floats) -> NDArray[np.float32]:
        """Return landmarks [N, 5, 2] in crop pixels found in squares around ``middle`` [N, 2], ``width`` [N] px wide."""
        squares = [upright_patch(face, at, wide, (48, 48)) for face, at, wide in zip(faces, middle, width, strict=True)]
        (points,) = _run(self._points, _tensor(squares))
        shares = points.reshape(-1, 5, 2) - 0.5
        return np.asarray(middle[:, None] + shares * width[:, None, None], np.float32)

    def _measure(self, faces: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> _Measured:
        """Return the gaze of faces [N, S, S, 3] whose landmarks [N, 5, 2] are usable."""
        roll, distance = rolls(landmarks), eye_distances(landmarks)
        pitch, yaw = self._head(faces, landmarks)
        eyes = [
            np.stack(
                [
                    upright_patch(face, points[eye], _EYE_WIDTH * wide, (60, 60), tilt)
                    for face, points, wide, tilt in zip(faces, landmarks, distance, roll, strict=True)
                ]
            )
            for eye in (0, 1)
        ]
        straight, features = self._look_of(eyes[0], eyes[1], pitch, yaw)
        mirrored, _ = self._look_of(eyes[MIRRORED[0]][:, :, ::-1], eyes[MIRRORED[1]][:, :, ::-1], pitch, -yaw)
        mirrored *= (-1, 1, 1)
        between = np.arccos(np.clip((straight * mirrored).sum(axis=1), -1, 1))
        gaze = turn(straight + mirrored, roll)
        is_open = np.maximum(self._opened(eyes[0]), self._opened(eyes[1]))
        head_pitch, head_yaw = head_angles(landmarks)
        profile, closed = np.abs(head_yaw) > PROFILE, is_open < LEAST_OPEN
        return _Measured(
            (*angles(gaze), *angles(seen_from_head(gaze, head_pitch, head_yaw, roll))),
            features,
            is_open * np.exp(-np.square(between / _AGREE)),
            ["profile" if p else "closed_eyes" if c else None for p, c in zip(profile, closed, strict=True)],
        )

    def _head(self, faces: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> tuple[Floats, Floats]:
        """Return pitch (up) and yaw (to image right) [N] in radians of heads turned upright, mean of both mirrorings."""
        roll, distance = rolls(landmarks), eye_distances(landmarks)
        up = np.stack([np.sin(roll), -np.cos(roll)], axis=-1)
        middle = landmarks.mean(axis=1) + _HEAD_RISE * distance[:, None] * up
        heads = np.stack(
            [
                upright_patch(face, at, _HEAD_WIDTH * wide, (60, 60), tilt)
                for face, at, wide, tilt in zip(faces, middle, distance, roll, strict=True)
            ]
        )
        straight, mirrored = (self._pose(_tensor(each)) for each in (heads, heads[:, :, ::-1]))
        yaw = (straight["angle_y_fc"] - mirrored["angle_y_fc"])[:, 0].astype(np.float64) / 2
        bowed = (straight["angle_p_fc"] + mirrored["angle_p_fc"])[:, 0].astype(np.float64) / 2
        return -np.radians(bowed), np.radians(yaw)

    def _look_of(
        self, at_left: NDArray[np.uint8], at_right: NDArray[np.uint8], pitch: Floats, yaw: Floats
    ) -> tuple[Floats, NDArray[np.float32]]:
        """Return unit vectors [N, 3] (x right, y up, z to the camera) of upright eyes, and the last hidden layer [N, 80]."""
        pose = np.degrees(np.stack([yaw, -pitch, np.zeros_like(yaw)], axis=-1)).astype(np.float32)
        answer = self._gaze(
            {"left_eye_image": _tensor(at_left), "right_eye_image": _tensor(at_right), "head_pose_angles": pose}
        )
        vector = np.asarray(answer[0], np.float64) * (1, 1, -1)
        vector /= np.maximum(np.linalg.norm(vector, axis=1, keepdims=True), 1e-9)
        return vector, np.array(answer[1], np.float32).reshape(len(vector), -1)

    def _opened(self, eyes: NDArray[np.uint8]) -> Floats:
        """Return the probability [N] that eyes [N, 60, 60, 3] are open.

        The second of the two outputs is ``open``: the model card names them the other way round, the zoo's demo does not.
        """
        small = [cv2.resize(each, (32, 32), interpolation=cv2.INTER_AREA) for each in eyes]
        (states,) = _run(self._open, (_tensor(small) - np.float32(127)) / np.float32(255))
        return np.asarray(states.reshape(-1, 2)[:, 1], np.float64)


@dataclass(frozen=True, slots=True)
class _Measured:
    """angles: pitch, yaw, and both seen from the head, each [N] radians; the rest as ``OpenvinoAdas`` tells."""

    angles: tuple[Floats, Floats, Floats, Floats]
    features: NDArray[np.float32]
    confidence: Floats
    reasons: list[str | None]


def _compile(paths: Sequence[Path], hidden: str | None = None) -> Any:
    """Return a network that takes any number of faces at once; ``hidden`` names a layer that becomes an output too.

    Batches of 8 to 32 are measured a fifth to a quarter faster per face than single ones, of fixed size no faster than
    of any size.
    """
    graph = read_graph(*paths)
    if hidden is not None:
        graph.add_outputs([(hidden, 0)])
    return compile_graph(graph, *([-1, *(int(side) for side in each.shape[1:])] for each in graph.inputs))


def _run(network: Any, batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    return [np.asarray(value) for value in network([batch]).values()]


def _tensor(patches: Sequence[NDArray[Any]] | NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return RGB patches [N, h, w, 3] as the zoo's networks want them: BGR [N, 3, h, w] in 0..255."""
    stacked = np.asarray(patches)[..., ::-1].transpose(0, 3, 1, 2)
    return np.ascontiguousarray(stacked, np.float32)


GAZE_ESTIMATOR = OpenvinoAdas
