"""CNNSpot blurs and compresses some of its training faces, none in evaluation, and is a ResNet-50 with two heads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dfad_bench.baselines import cnnspot
from dfad_bench.baselines.cnnspot import MODEL, BlurJpegWindow, configure
from numpy.typing import NDArray

from dfad_bench.errors import DataError
from dfad_bench.modelling.data import FaceDataset, Request
from dfad_bench.modelling.device import seed_everything
from dfad_bench.modelling.preprocess import Preprocess
from dfad_bench.modelling.weights import find_backbone
from dfad_bench.types import Batch
from tests.modelling.builders import CLASSES, make_faces


def _noise(side: int = 64, seed: int = 0) -> NDArray[np.uint8]:
    """Return grey white noise [side, side, 3]: as much of every frequency."""
    grey = np.random.default_rng(seed).integers(0, 256, (side, side, 1), dtype=np.uint8)
    return grey.repeat(3, axis=2)


def _augmented(face: NDArray[np.uint8], seeds: int, augment: float) -> list[NDArray[np.uint8]]:
    transform = BlurJpegWindow(crop=8, augment=augment)
    return [transform.augmented(face, np.random.default_rng(seed)) for seed in range(seeds)]


def _high_share(face: NDArray[np.uint8]) -> float:
    """Return the share of the power, but for the mean's, above a quarter of a cycle per pixel in either direction."""
    power = np.abs(np.fft.fft2(face[..., 1] - face[..., 1].mean())) ** 2
    frequency = np.abs(np.fft.fftfreq(len(face)))
    high = (frequency[:, None] > 0.25) | (frequency[None, :] > 0.25)
    return float(power[high].sum() / power.sum())


@pytest.mark.parametrize("augment", [0.0, 0.1, 0.5, 1.0])
def test_blur_and_jpeg_come_as_often_as_asked_and_independently(
    augment: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sigmas: list[float] = []
    qualities: list[int] = []

    def blur(face: Any, _: Any, sigma: float) -> Any:
        done.append("blur")
        sigmas.append(sigma)
        return face

    def jpeg(by: str) -> Any:
        def compress(face: Any, quality: int) -> Any:
            done.append(by)
            qualities.append(quality)
            return face

        return compress

    monkeypatch.setattr(cnnspot.cv2, "GaussianBlur", blur)
    monkeypatch.setattr(cnnspot, "compressed", jpeg("pillow"))
    monkeypatch.setattr(cnnspot, "_compressed_by_opencv", jpeg("opencv"))
    faces, both = 4000, 0
    transform, rng = BlurJpegWindow(crop=4, augment=augment), np.random.default_rng(0)
    for _ in range(faces):
        before = len(done)
        transform(np.zeros((4, 4, 3), np.uint8), rng)
        both += len(done) - before == 2
    counts = [done.count("blur"), done.count("pillow") + done.count("opencv")]
    # Four standard deviations of a binomial count.
    assert counts == pytest.approx([faces * augment] * 2, abs=4 * (faces * augment * (1 - augment)) ** 0.5)
    assert both == pytest.approx(faces * augment**2, abs=4 * (faces * augment**2 * (1 - augment**2)) ** 0.5)
    if augment == 1:
        assert done.count("opencv") == pytest.approx(faces / 2, abs=4 * faces**0.5 / 2)
        assert 0 < min(sigmas) < 0.05 and 2.95 < max(sigmas) <= 3 and np.mean(sigmas) == pytest.approx(1.5, abs=0.06)
        assert {*qualities} == {*range(30, 101)}
        assert done[0] == "blur"


def test_the_blur_lowers_high_frequencies_by_as_much_as_its_gaussian(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("compressed", "_compressed_by_opencv"):
        monkeypatch.setattr(cnnspot, name, lambda face, quality: face)
    face = _noise(128)
    shares = [_high_share(blurred) for blurred in _augmented(face, 60, augment=1.0)]
    assert _high_share(face) == pytest.approx(0.75, abs=0.03)
    assert max(shares) < 0.76 and np.median(shares) < 0.05
    assert np.mean([blurred.mean() for blurred in _augmented(face, 5, augment=1.0)]) == pytest.approx(
        face.mean(), abs=1
    )


@pytest.mark.parametrize("by", ["compressed", "_compressed_by_opencv"])
def test_a_jpeg_quantises_the_cosines_of_its_blocks(by: str) -> None:
    """At quality 30 the fastest cosines of noise on a ramp are multiples of libjpeg's step, which they were not before."""
    compress = getattr(cnnspot, by)
    face = (_noise(64) // 4 + np.arange(64, dtype=np.uint8)[None, :, None]).astype(np.uint8)

    def fast_cosine(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the coefficient of the luminance's highest frequency in each 8x8 block."""
        wave = np.cos((2 * np.arange(8) + 1) * 7 * np.pi / 16) / 2
        blocks = picture[..., 1].reshape(8, 8, 8, 8).astype(float)
        return np.einsum("arbc,r,c->ab", blocks, wave, wave)

    step = 99 * 5000 / 30 / 100  # libjpeg's table has 99 there, scaled by 5000 / quality per cent
    before = fast_cosine(face) / step
    assert np.abs(before - before.round()).max() > 0.2
    left = fast_cosine(compress(face, 30)) / step
    assert np.abs(left - left.round()).max() < 0.05
    assert np.abs(compress(face, 100).astype(int) - face).max() <= 4


def test_red_stays_red_in_a_jpeg_by_either_library() -> None:
    face = np.zeros((16, 16, 3), np.uint8)
    face[..., 0] = 200
    for compress in (cnnspot.compressed, cnnspot._compressed_by_opencv):
        np.testing.assert_allclose(compress(face, 90).mean(axis=(0, 1)), [200, 0, 0], atol=3)


def test_nothing_happens_in_evaluation_and_the_same_seed_is_the_same_face() -> None:
    face, transform = _noise(48), BlurJpegWindow(crop=32, augment=1.0)
    centre = Preprocess(size=None, crop=32)
    np.testing.assert_array_equal(transform(face, None), centre(face, None))
    once, again = (transform(face, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, transform(face, np.random.default_rng(4)))
    rng = np.random.default_rng(5)
    untouched = BlurJpegWindow(crop=32, augment=0.0).augmented(face, rng)
    assert np.array_equal(untouched, face)


def test_the_options_reach_the_preprocessing_and_faces_smaller_than_the_window_are_refused() -> None:
    assert MODEL.preprocess == BlurJpegWindow(crop=224, augment=0.1)
    other = configure(augment=0.5, size=128)
    assert other.preprocess == BlurJpegWindow(crop=128, augment=0.5)
    demo = _noise(128)
    assert other.preprocess(demo, None).shape == (3, 128, 128)
    with pytest.raises(DataError, match=r"window of 224 px, which does not fit into faces of 128x128 px"):
        MODEL.preprocess(demo, None)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [({"augment": 1.5}, "augment is 1.5"), ({"augment": float("nan")}, "augment is nan"), ({"size": 16}, "size is 16")],
)
def test_an_option_out_of_range_is_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=f"{complaint}: it must be"):
        configure(**options)


def test_it_takes_resnet_50s_published_weights_and_nothing_less(tmp_path: Path) -> None:
    torch.manual_seed(1)
    state = {key: torch.rand_like(value) for key, value in MODEL.build(CLASSES).state_dict().items() if value.ndim}
    state = {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
    torch.save(state | {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}, tmp_path / "resnet50.pth")
    module: Any = MODEL.build(CLASSES)
    heads = {key: value.clone() for key, value in module.heads.state_dict().items()}
    cnnspot.MODEL.load_backbone(module, tmp_path / "resnet50.pth")
    assert torch.equal(module.backbone.state_dict()["layer4.2.conv3.weight"], state["layer4.2.conv3.weight"])
    assert all(torch.equal(value, heads[key]) for key, value in module.heads.state_dict().items())
    del state["layer1.0.bn1.running_var"]
    torch.save(state, tmp_path / "resnet50.pth")
    with pytest.raises(DataError, match=r"missing layer1\.0\.bn1\.running_var"):
        cnnspot.MODEL.load_backbone(module, tmp_path / "resnet50.pth")
    (tmp_path / "resnet50.pth").unlink()


def test_it_starts_from_imagenet_unless_told_otherwise() -> None:
    assert find_backbone("cnnspot", MODEL, MODEL.default_backbone_weights).name == "resnet50-0676ba61.pth"


def test_a_few_steps_lower_the_loss_of_both_heads(tmp_path: Path) -> None:
    spec = replace(configure(size=32), configure=None)
    table = make_faces(tmp_path, 3, size=40)
    batch = FaceDataset(spec, table, CLASSES)[Request(np.arange(len(table)), randomness=(0, 1))].batch
    seed_everything(0, torch.device("cpu"))
    module: Any = spec.build(CLASSES).train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=spec.recipe.learning_rate)

    def losses() -> tuple[float, float]:
        with torch.no_grad():
            output = module(Batch(batch.size, image=batch.image))
        assert batch.target is not None
        attribution = torch.nn.functional.cross_entropy(output.logits, batch.target)
        detection = torch.nn.functional.binary_cross_entropy(output.fake_score, (batch.target != 0).float())
        return attribution.item(), detection.item()

    before = losses()
    assert module.loss(batch).item() == pytest.approx(sum(before), rel=1e-4)
    for _ in range(5):
        loss = module.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(after < 0.8 * first for after, first in zip(losses(), before, strict=True))
