"""NPR sees how pixels differ within their 2x2 blocks, on the face's own grid, and nothing else."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from dfad_bench.baselines.npr import MODEL, SIZE, EvenWindow, PixelRelations
from numpy.typing import NDArray
from torch import nn

from dfad_bench.errors import DataError
from dfad_bench.modelling.device import seed_everything
from dfad_bench.modelling.image_classifier import ImageDetector
from dfad_bench.types import Batch
from tests.modelling.builders import CLASSES


def _natural(side: int, seed: int = 0, seen: float = 1.0) -> NDArray[np.uint8]:
    """Return a picture [side, side, 3] with contrast at every scale, blurred by a Gaussian of ``seen`` pixels."""
    noise = np.random.default_rng(seed).normal(128, 60, (side, side, 3))
    return np.clip(cv2.GaussianBlur(noise, (0, 0), seen), 0, 255).astype(np.uint8)


def _enlarged(side: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return a picture whose 2x2 blocks are of one colour each."""
    small = _natural(side // 2, seed)
    return cv2.resize(small, (side, side), interpolation=cv2.INTER_NEAREST).astype(np.uint8)


def _relations(face: NDArray[np.uint8]) -> torch.Tensor:
    assert MODEL.preprocess is not None
    return PixelRelations()(torch.from_numpy(MODEL.preprocess(face, None))[None])


def test_a_pixel_is_compared_with_the_top_left_one_of_its_block() -> None:
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    block = torch.tensor([[0.0, 1.0], [4.0, 5.0]])
    assert torch.equal(PixelRelations()(image)[0, 0], block.repeat(2, 2))


def test_nothing_is_left_of_nearest_neighbour_up_sampling_and_something_of_a_natural_picture() -> None:
    assert not _relations(_enlarged(256)).any()
    natural = _relations(_natural(256))
    assert natural[..., ::2, ::2].abs().max() == 0
    assert min(natural[..., row::2, column::2].std() for row, column in ((0, 1), (1, 0), (1, 1))) > 0.05


def test_brightness_does_not_reach_it() -> None:
    image = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(PixelRelations()(image + 3), PixelRelations()(image))


@pytest.mark.parametrize("side", [128, 130, 254, 256])
def test_windows_lie_on_the_faces_own_grid_in_training_and_in_evaluation(side: int) -> None:
    face = _enlarged(side)
    windows = [EvenWindow(SIZE)(face, rng) for rng in (None, *map(np.random.default_rng, range(12)))]
    assert all(not PixelRelations()(torch.from_numpy(window)[None]).any() for window in windows)
    assert (len({window.tobytes() for window in windows}) > 1) == (side > SIZE)
    # Which is what makes them zero: one column further, the blocks straddle the copies.
    if side > SIZE:
        assert PixelRelations()(torch.from_numpy(EvenWindow(SIZE)(face[:, 1:], None))[None]).std() > 0.1


def test_a_window_reaches_every_corner_and_evaluation_the_centre() -> None:
    row, column = np.mgrid[:12, :12].astype(np.uint8)
    face = np.stack([row, column, row], axis=2)
    window = EvenWindow(8)
    step = 1 / (255 * 0.229)
    tops = {
        round(float((window(face, np.random.default_rng(seed))[0, 0, 0] + 0.485 / 0.229) / step)) for seed in range(40)
    }
    assert tops == {0, 2, 4}
    assert round(float((window(face, None)[0, 0, 0] + 0.485 / 0.229) / step)) == 2


def test_a_face_smaller_than_the_window_is_refused() -> None:
    with pytest.raises(DataError, match=r"window of 128 px, which does not fit into faces of 128x96 px"):
        EvenWindow(SIZE)(np.zeros((96, 200, 3), np.uint8), None)


def test_it_is_the_first_two_stages_of_resnet_50() -> None:
    module = MODEL.build(CLASSES)
    assert isinstance(module, ImageDetector)
    # Stem 9,408 + 128, stages 215,808 and 1,219,584 (He et al., 2016, table 1), counted without the heads.
    assert sum(parameter.numel() for parameter in module.backbone.parameters()) == 1_444_928
    with torch.no_grad():
        assert module.eval()(Batch(2, image=torch.randn(2, 3, 64, 64))).embedding.shape == (2, 512)


def test_it_learns_to_tell_up_samplings_apart_by_their_pixel_relations() -> None:
    """Real pictures are as blurred as bilinear ones; what tells is the blocks, whose phase the window keeps."""

    def face(number: int, seed: int) -> NDArray[np.float32]:
        pixels = {
            0: lambda: _natural(40, seed, seen=1.3),
            1: lambda: cv2.resize(_natural(20, seed, seen=0.8), (40, 40), interpolation=cv2.INTER_LINEAR),
            2: lambda: _enlarged(40, seed),
        }[number]()
        return EvenWindow(32)(pixels, np.random.default_rng(seed))

    def faces(seed: int) -> Batch:
        target = np.arange(36) % 3
        image = np.stack([face(int(number), seed + index) for index, number in enumerate(target)])
        return Batch(36, image=torch.from_numpy(image), target=torch.from_numpy(target))

    seed_everything(0, torch.device("cpu"))
    module: Any = MODEL.build(CLASSES).train()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 0.5  # 0.1 is for hundreds of steps: the variances would still be their start's
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    losses = []
    for step in range(20):
        loss = module.loss(faces(100 * step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    batch = faces(90_000)
    with torch.no_grad():
        output = module.eval()(batch)
    assert batch.target is not None
    assert (output.logits.argmax(dim=1) == batch.target).float().mean() > 0.8
    assert output.fake_score[batch.target > 0].mean() > output.fake_score[batch.target == 0].mean() + 0.4
