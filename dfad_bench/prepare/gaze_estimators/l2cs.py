"""L2CS-Net (Abdelrahman et al., arXiv:2203.03339) with the authors' ResNet-50 weights for Gaze360.

Order of the two heads: ``L2CS.forward`` returns ``fc_yaw_gaze`` first. The authors' train.py unpacks that as "pitch, yaw"
and fits it to GazeHub's label ``[yaw, pitch]``, read as "pitch, yaw" by their datasets.py: two swaps that cancel, so the
heads are what they are *called*. Their pipeline.py keeps only the first swap, so what it calls pitch is yaw (issues 32 and
45 of L2CS-Net). Mirroring faces agrees, as others saw on these weights: ``fc_yaw_gaze`` changes its sign and
``fc_pitch_gaze`` does not (pull request 472 of libreyolo). Which way the angles point is derived in ``prepare.gaze_bins``.

The network is written in plain torch below, with torchvision's names for a ResNet-50: torchvision itself does not import
beside a CPU-only torch, and torch is imported only when the estimator is built.
"""

from __future__ import annotations

import logging
import multiprocessing
import pickle
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from dfad_bench.errors import DataError, shorten
from dfad_bench.prepare.gaze_bins import BINS, gaze_of, network_input
from dfad_bench.types import Annotation, Gaze, WeightsFile
from dfad_bench.weights import fetch

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

_STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))
"""Width and number of blocks of ResNet-50's stages (He et al., CVPR 2016, table 1)."""
_EXPANSION = 4
_FEATURES = 512 * _EXPANSION
_EPSILON = 1e-5
_UNREADABLE = (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError)
"""What torch.load raises for files that are not weights, broken or worse."""
_BATCH = {"cuda": 16, "cpu": 1}
"""On a CPU a batch of four was no faster than four faces one by one."""


class L2CS:
    """Estimates gaze from the whole face, 10.4° mean error on Gaze360 (the paper's number).

    Its features are the 2048 values that both heads read. The authors publish no checksum: the one pinned here is that
    which several unrelated projects recorded for this file.
    """

    weights: ClassVar[tuple[WeightsFile, ...]] = (
        WeightsFile(
            name="L2CSNet_gaze360.pkl",
            url="https://drive.google.com/uc?export=download&id=18S956r4jnHtSeT8z8t3z8AoJZjVnNqPJ",
            sha256="8a7f3480d868dd48261e1d59f915b0ef0bb33ea12ea00938fb2168f212080665",
            bytes=95_849_977,
            licence="MIT",
            training_data="Gaze360 (research use only)",
            commercial_use="no",
        ),
    )
    feature_dim: int = _FEATURES

    def __init__(self) -> None:
        """Load the network, on CUDA where there is one.

        Raises DataError where the weights are missing, not the published ones, or not those of this network.
        """
        import torch

        (file,) = self.weights
        state = read_state(fetch(file))
        self.weights_sha256: str | None = file.sha256
        if multiprocessing.parent_process() is not None:
            torch.set_num_threads(1)  # in a worker: threads of several processes fight for the same cores
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        log.info("l2cs runs on %s.", self._device)
        self._layers = {name: (w.to(self._device), b.to(self._device)) for name, (w, b) in _layers(state).items()}

    def estimate(
        self,
        faces: NDArray[np.uint8],
        landmarks: NDArray[np.float32],
        annotations: Sequence[Annotation | None],
    ) -> Gaze:
        """Return the gaze of crops [N, S, S, 3] RGB; landmarks and annotations are not looked at."""
        import torch

        batch = _BATCH[self._device]
        found = np.empty((len(faces), _FEATURES + 2 * BINS), np.float32)
        # TF32 would round angles differently from a CPU, and by the batch they are in
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            for start in range(0, len(faces), batch):
                rows = slice(start, start + batch)
                images = torch.from_numpy(network_input(faces[rows])).to(self._device)
                found[rows] = torch.cat(_forward(self._layers, images), dim=1).cpu().numpy()
        features, yaw, pitch = np.split(found, [_FEATURES, _FEATURES + BINS], axis=1)
        return gaze_of(yaw, pitch, features)


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Return the parameters of a weights file by name, without unpickling anything but tensors.

    Raises DataError for a file that holds anything else, and for one whose names or shapes are not those of the network.
    """
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(
            f"{path} does not hold plain weights ({why}). Get the file from {L2CS.weights[0].url}."
        ) from None
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise DataError(f"{path} holds a {type(state).__name__}, expected the tensors of L2CS-Net's ResNet-50 by name.")
    found = {name: value for name, value in state.items() if not str(name).endswith("num_batches_tracked")}
    if complaint := _differences(found):
        raise DataError(f"{path} is not L2CS-Net's ResNet-50 with {BINS} bins: it {complaint}.")
    return {name: value.float() for name, value in found.items()}


def _differences(state: Mapping[str, torch.Tensor]) -> str:
    expected = state_shapes()
    both = expected.keys() & state.keys()
    wrong = {
        "lacks": expected.keys() - both,
        "has the unknown": state.keys() - both,
        "has the wrong shape of": {name for name in both if state[name].shape != expected[name]},
    }
    return "; it ".join(f"{what} {shorten(sorted(map(str, names)), 3)}" for what, names in wrong.items() if names)


def state_shapes() -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every parameter of the network; ``fc_finetune`` is in the file but not in use."""
    convolutions: dict[str, tuple[str, tuple[int, ...]]] = {"conv1": ("bn1", (64, 3, 7, 7))}
    for block, inputs, width, projects in _blocks():
        outputs = width * _EXPANSION
        convolutions[f"{block}.conv1"] = (f"{block}.bn1", (width, inputs, 1, 1))
        convolutions[f"{block}.conv2"] = (f"{block}.bn2", (width, width, 3, 3))
        convolutions[f"{block}.conv3"] = (f"{block}.bn3", (outputs, width, 1, 1))
        if projects:
            convolutions[f"{block}.downsample.0"] = (f"{block}.downsample.1", (outputs, inputs, 1, 1))
    shapes: dict[str, tuple[int, ...]] = {}
    for convolution, (norm, shape) in convolutions.items():
        shapes[f"{convolution}.weight"] = shape
        shapes |= {f"{norm}.{part}": shape[:1] for part in ("weight", "bias", "running_mean", "running_var")}
    for head, shape in (
        ("yaw_gaze", (BINS, _FEATURES)),
        ("pitch_gaze", (BINS, _FEATURES)),
        ("finetune", (3, _FEATURES + 3)),
    ):
        shapes |= {f"fc_{head}.weight": shape, f"fc_{head}.bias": shape[:1]}
    return shapes


def _blocks() -> Iterator[tuple[str, int, int, bool]]:
    """Yield the name, input channels and width of every bottleneck, and whether its shortcut is a projection."""
    inputs = 64
    for stage, (width, count) in enumerate(_STAGES, start=1):
        for number in range(count):
            yield f"layer{stage}.{number}", inputs, width, number == 0
            inputs = width * _EXPANSION


def _layers(state: Mapping[str, torch.Tensor]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return weight and bias of every layer in use, each batch normalisation folded into the convolution before it."""
    layers = {name: (state[f"{name}.weight"], state[f"{name}.bias"]) for name in ("fc_yaw_gaze", "fc_pitch_gaze")}
    for key in state:
        name = key.removesuffix(".weight")
        if state[key].ndim == 4:
            norm = f"{name[:-1]}1" if name.endswith("downsample.0") else name.replace("conv", "bn")
            scale = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + _EPSILON).sqrt()
            shift = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale
            layers[name] = (state[key] * scale[:, None, None, None], shift)
    return layers


def _forward(
    layers: Mapping[str, tuple[torch.Tensor, torch.Tensor]], images: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return features [B, 2048], yaw logits [B, 90] and pitch logits [B, 90] of images [B, 3, H, W]."""
    from torch.nn import functional

    def convolve(x: torch.Tensor, name: str, stride: int = 1) -> torch.Tensor:
        weight, bias = layers[name]
        return functional.conv2d(x, weight, bias, stride, padding=weight.shape[-1] // 2)

    x = functional.max_pool2d(convolve(images, "conv1", 2).relu(), 3, stride=2, padding=1)
    for block, _, width, projects in _blocks():
        stride = 2 if projects and width > 64 else 1  # the first block of every stage but the first halves the picture
        y = convolve(x, f"{block}.conv1").relu()
        y = convolve(y, f"{block}.conv2", stride).relu()
        y = convolve(y, f"{block}.conv3")
        x = (y + (convolve(x, f"{block}.downsample.0", stride) if projects else x)).relu()
    features = x.mean(dim=(2, 3))
    return (
        features,
        functional.linear(features, *layers["fc_yaw_gaze"]),
        functional.linear(features, *layers["fc_pitch_gaze"]),
    )


GAZE_ESTIMATOR = L2CS
