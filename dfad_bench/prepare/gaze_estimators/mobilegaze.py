"""MobileGaze's ResNet-34 (github.com/yakhyo/gaze-estimation, uniface ≥ 4.2), through onnxruntime.

Not through uniface: importing it needs torch and torchvision, fails beside a CPU-only torch, and it runs one face at a time.

The graph has two outputs, the logits of yaw and of pitch in this order (onnx_export.py since commit 27efe98; uniface reads
them so). Files published before February 2026 call the same two ``pitch`` and ``yaw``, because GazeHub's label
``[yaw, pitch]`` was read the other way round (issues 31, 32 and 34 there): they are refused by hash, and so is any file
that names its outputs in that order. Which way the angles point is derived in ``prepare.gaze_bins``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dfad_bench.errors import DataError, UsageError
from dfad_bench.prepare.gaze_bins import BINS, SIDE, gaze_of, network_input
from dfad_bench.types import Annotation, Gaze, WeightsFile
from dfad_bench.weights import fetch

log = logging.getLogger(__name__)

_BATCH = 16
_SWAPPED = "published before February 2026, with pitch and yaw swapped"


class MobileGaze:
    """Estimates gaze from the whole face, 11.3° mean error on Gaze360 (its authors' number).

    Its features are the 180 logits, yaw's before pitch's: the graph shows nothing deeper. Logits rather than their
    softmax, because most bins always have a share of zero, and a covariance of constant columns is singular.
    """

    weights: ClassVar[tuple[WeightsFile, ...]] = (
        WeightsFile(
            name="resnet34_gaze.onnx",
            url="https://github.com/yakhyo/gaze-estimation/releases/download/weights/resnet34_gaze.onnx",
            sha256="c8e6b14f6095d2425241b9302aa663d9a23b7dfb9d43941352b718c91dc7f2cf",
            bytes=None,
            licence="MIT",
            training_data="Gaze360 (research use only)",
            commercial_use="no",
            refused=MappingProxyType(
                dict.fromkeys(("23d5d7e4", "4457ee5f", "e1eaf98f", "fdcdb84e", "c0b5a4f4"), _SWAPPED)
            ),
        ),
    )
    feature_dim: int = 2 * BINS

    def __init__(self) -> None:
        """Load the network, on CUDA where onnxruntime can use it.

        Raises UsageError where onnxruntime is missing, DataError where the weights are missing or not the published ones.
        """
        try:
            import onnxruntime
        except ImportError:
            raise UsageError("mobilegaze needs onnxruntime. Install it: pip install 'dfad-bench[onnx]'.") from None
        (file,) = self.weights
        path = fetch(file)
        self.weights_sha256: str | None = file.sha256
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # workers are processes, and threads of several fight for the same cores
        self._session = onnxruntime.InferenceSession(str(path), options, providers=_providers(onnxruntime))
        _check_graph(self._session, file.name)
        _tell_provider(self._session, onnxruntime)
        self._input = self._session.get_inputs()[0].name
        self._batch = 1 if isinstance(self._session.get_inputs()[0].shape[0], int) else _BATCH

    def estimate(
        self,
        faces: NDArray[np.uint8],
        landmarks: NDArray[np.float32],
        annotations: Sequence[Annotation | None],
    ) -> Gaze:
        """Return the gaze of crops [N, S, S, 3] RGB; landmarks and annotations are not looked at."""
        logits = np.empty((len(faces), 2, BINS), np.float32)
        for start in range(0, len(faces), self._batch):
            rows = slice(start, start + self._batch)
            yaw, pitch = self._session.run(None, {self._input: network_input(faces[rows])})
            logits[rows, 0], logits[rows, 1] = yaw, pitch
        return gaze_of(logits[:, 0], logits[:, 1], logits.reshape(len(faces), 2 * BINS))


def _providers(onnxruntime: Any) -> list[Any]:
    # TF32 would round angles differently from a CPU, and by the batch they are in
    wanted = {"CUDAExecutionProvider": {"use_tf32": "0"}, "CPUExecutionProvider": {}}
    return [(name, wanted[name]) for name in wanted if name in onnxruntime.get_available_providers()]


def _tell_provider(session: Any, onnxruntime: Any) -> None:
    """Say where the network runs: onnxruntime falls back to the CPU without a word that reaches the user."""
    active = session.get_providers()[0]
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers() and active != "CUDAExecutionProvider":
        log.warning("mobilegaze runs on the CPU: onnxruntime was built for CUDA but could not start it.")
    else:
        log.info("mobilegaze runs on %s.", active)


def _check_graph(session: Any, name: str) -> None:
    shape = [side if isinstance(side, int) else None for side in session.get_inputs()[0].shape]
    outputs = [(output.name, output.shape[-1]) for output in session.get_outputs()]
    if shape[1:] != [3, SIDE, SIDE] or [bins for _, bins in outputs] != [BINS, BINS]:
        raise DataError(
            f"{name} maps {shape} to {outputs}, expected [faces, 3, {SIDE}, {SIDE}] to {BINS} bins of yaw and of pitch. "
            "Remove it, and let it be downloaded again."
        )
    if [output for output, _ in outputs] == ["pitch", "yaw"]:
        raise DataError(f"{name} names its outputs pitch and yaw in this order: it was {_SWAPPED}. Remove it.")


GAZE_ESTIMATOR = MobileGaze
