from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch
from dfad_bench.baselines.spectral import BINS, spectral_profile
from sklearn.metrics import roc_auc_score
from torch import nn

from dfad_bench import registry
from dfad_bench.errors import DataError
from dfad_bench.modelling.device import seed_everything
from dfad_bench.modelling.predict import predict
from dfad_bench.modelling.train import train
from dfad_bench.modelling.weights import load_backbone
from dfad_bench.types import ModelSpec
from tests.modelling import builders
from tests.modelling.builders import CLASSES, make_faces

CPU = torch.device("cpu")


def _trained(name: str, folder: Path, train_faces: pa.Table, val_faces: pa.Table) -> tuple[nn.Module, ModelSpec]:
    spec: ModelSpec = registry.get("models", name)
    seed_everything(0, CPU)
    module = spec.build(CLASSES)
    train(module, spec, CLASSES, train_faces, val_faces, recipe=spec.recipe, seed=0, folder=folder / name, device=CPU)
    return module, spec


def _scores(module: nn.Module, spec: ModelSpec, faces: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    answers = list(predict(module, spec, faces, batch_size=7, device=CPU))
    logits = np.concatenate([answer.logits for answer in answers if answer.logits is not None])
    return np.concatenate([answer.fake_score for answer in answers]), logits


def _is_fake(faces: pa.Table) -> list[bool]:
    return [generator != "real" for generator in faces["generator"].to_pylist()]


def _nowhere(faces: pa.Table) -> pa.Table:
    place = faces.schema.get_field_index("root")
    return faces.set_column(place, "root", pa.array(["/nowhere"] * len(faces), pa.string()).dictionary_encode())


def test_chance_learns_the_class_frequencies_and_has_an_auc_of_exactly_one_half(tmp_path: Path) -> None:
    many_real = pa.concat_tables([make_faces(tmp_path, 10), make_faces(tmp_path, 10, generators=["real"], seed=1)])
    module, spec = _trained("chance", tmp_path, _nowhere(many_real), _nowhere(many_real))
    faces = _nowhere(make_faces(tmp_path, 9, seed=2))
    scores, logits = _scores(module, spec, faces)
    assert len(set(scores)) == 1
    assert roc_auc_score(_is_fake(faces), scores) == 0.5
    shares = np.exp(logits[0]) / np.exp(logits[0]).sum()
    np.testing.assert_allclose(shares, [0.5, 0.25, 0.25], atol=0.02)


def test_file_header_finds_a_format_shortcut_without_opening_an_image(tmp_path: Path) -> None:
    faces = [_nowhere(make_faces(tmp_path, 12, seed=seed)) for seed in range(3)]
    module, spec = _trained("file_header", tmp_path, faces[0], faces[1])
    scores, _ = _scores(module, spec, faces[2])
    assert roc_auc_score(_is_fake(faces[2]), scores) == 1.0


def test_file_header_finds_nothing_where_the_files_are_alike(tmp_path: Path) -> None:
    def alike(seed: int) -> pa.Table:
        table = make_faces(tmp_path, 12, seed=seed)
        coding = dict.fromkeys(("jpeg_quality", "jpeg_chroma_quality", "jpeg_subsampling"))
        for column, value in ({"original_format": "PNG", "original_width": 16} | coding).items():
            field = table.schema.field(column)
            table = table.set_column(
                table.schema.get_field_index(column), field, pa.array([value] * len(table), field.type)
            )
        return _nowhere(table)

    module, spec = _trained("file_header", tmp_path, alike(0), alike(1))
    scores, _ = _scores(module, spec, alike(2))
    assert len(set(scores)) == 1


def _noise(side: int, seed: int = 0, faces: int = 8) -> torch.Tensor:
    """Return faces of white noise of variance 0.01 around 0.5."""
    rng = np.random.default_rng(seed)
    grey = rng.normal(0.5, 0.1, (faces, 1, side, side)).astype(np.float32)
    return torch.from_numpy(grey.repeat(3, axis=1))


@pytest.mark.parametrize("side", [64, 97, 256])
def test_white_noise_has_a_flat_spectrum_at_the_height_of_its_variance(side: int) -> None:
    profile = spectral_profile(_noise(side)).mean(dim=0)
    assert profile.shape == (BINS,)
    inner = profile[3:-3]  # the outermost rings hold a handful of frequencies, and the mean was taken from the first
    torch.testing.assert_close(inner, torch.full_like(inner, float(np.log(0.01))), atol=0.5, rtol=0)


def test_the_spectrum_is_finite_for_flat_faces_and_any_shape() -> None:
    assert spectral_profile(torch.full((2, 3, 33, 50), 0.3)).isfinite().all()


def test_a_wave_stands_out_in_the_ring_of_its_frequency() -> None:
    wave = 0.5 + 0.3 * torch.sin(2 * torch.pi * 0.25 * torch.arange(128)).expand(1, 3, 128, 128)
    assert abs(int(spectral_profile(wave).argmax()) / (BINS - 1) * 0.5**0.5 - 0.25) < 0.01


def test_zero_inserted_upsampling_shows_at_high_frequencies_and_nowhere_else() -> None:
    smooth = torch.nn.functional.avg_pool2d(_noise(264), 9, stride=1)
    upsampled = smooth.clone()
    upsampled[:, :, 1::2, :] = 0
    upsampled[:, :, :, 1::2] = 0
    change = (spectral_profile(upsampled * 4) - spectral_profile(smooth)).mean(dim=0)
    at = torch.linspace(0, 0.5**0.5, BINS)
    assert change[(at > 0.02) & (at < 0.06)].abs().max() < 1.0
    assert change[(at > 0.45) & (at < 0.5)].min() > 3.0


def test_spectral_learns_to_tell_upsampled_faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pixels(generator: str, rng: np.random.Generator, size: int) -> np.ndarray:
        side = size if generator == "real" else size // 2
        small = np.clip(rng.normal(128, 30, (side, side, 3)), 0, 255).astype(np.uint8)
        how = cv2.INTER_NEAREST if generator == "ddim" else cv2.INTER_CUBIC
        return cv2.resize(small, (size, size), interpolation=how)

    monkeypatch.setattr(builders, "face_pixels", pixels)
    faces = [make_faces(tmp_path, 12, seed=seed, size=48) for seed in range(3)]
    module, spec = _trained("spectral", tmp_path, faces[0], faces[1])
    scores, logits = _scores(module, spec, faces[2])
    assert roc_auc_score(_is_fake(faces[2]), scores) > 0.99
    names = [CLASSES[index].name for index in logits.argmax(axis=1)]
    assert np.mean(np.array(names) == np.array(faces[2]["generator"].to_pylist())) > 0.95


def test_resnet18_takes_published_weights_but_for_its_head(tmp_path: Path) -> None:
    spec: ModelSpec = registry.get("models", "resnet18")
    assert spec.load_backbone is not None
    torch.manual_seed(0)
    state = {key: value for key, value in spec.build(CLASSES).state_dict().items() if key.startswith("backbone.")}
    # torchvision's file is older than the counts of batches
    published = {key.removeprefix("backbone."): value for key, value in state.items() if "num_batches" not in key}
    published |= {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    module = spec.build(CLASSES)
    before = module.state_dict()["head.weight"].clone()
    torch.save(published, tmp_path / "whole.pth")
    spec.load_backbone(module, tmp_path / "whole.pth")
    after = module.state_dict()
    assert torch.equal(after["backbone.conv1.weight"], published["conv1.weight"])
    assert torch.equal(after["head.weight"], before)
    torch.save({key: value for key, value in published.items() if key != "layer1.0.conv1.weight"}, tmp_path / "cut.pth")
    with pytest.raises(DataError, match=r"missing layer1\.0\.conv1\.weight"):
        spec.load_backbone(module, tmp_path / "cut.pth")


def test_resnet18_without_its_named_weights_is_an_error_and_not_a_random_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DFAD_BENCH_HOME", str(tmp_path))
    monkeypatch.delenv("DFAD_BENCH_WEIGHTS", raising=False)
    spec: ModelSpec = registry.get("models", "resnet18")
    with pytest.raises(DataError, match=r"resnet18-f37072fd\.pth could not be downloaded .*DFAD_BENCH_WEIGHTS"):
        load_backbone(spec.build(CLASSES), "resnet18", spec, "imagenet", offline=True)


def test_resnet18_can_be_trained_for_a_step(tmp_path: Path) -> None:
    spec: ModelSpec = registry.get("models", "resnet18")
    faces = make_faces(tmp_path, 1, size=128)
    recipe = replace(spec.recipe, epochs=1, batch_size=2)
    seed_everything(0, CPU)
    summary = train(
        spec.build(CLASSES), spec, CLASSES, faces, faces, recipe=recipe, seed=0, folder=tmp_path / "run", device=CPU
    )
    assert summary.epochs == 1 and np.isfinite(summary.val_loss)
