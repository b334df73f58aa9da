"""What gaze by itself is worth: everything where generators look elsewhere, nothing where they do not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from dfad_bench.baselines.gaze_only import MODEL, GazeOnly, gaze_functions
from sklearn.metrics import roc_auc_score
from torch import nn

from dfad_bench.modelling.device import seed_everything
from dfad_bench.modelling.predict import predict
from dfad_bench.modelling.train import train
from dfad_bench.types import Batch
from tests.modelling.builders import CLASSES, make_faces

CPU = torch.device("cpu")
Looks = Mapping[str, tuple[float, float, float]]
"""By generator: mean pitch, mean yaw and the deviation of both, in radians; NaN where its gaze is unknown."""
ALIKE: Looks = dict.fromkeys(("real", "ddim", "stylegan3"), (0.05, -0.1, 0.2))


def _faces(folder: Path, looks: Looks, seed: int, per_generator: int = 40) -> pa.Table:
    """Return faces that look so, whose files are not there."""
    table = make_faces(folder, per_generator, gaze=True, seed=seed)
    rng = np.random.default_rng(seed)
    looking = [looks[generator] for generator in table["generator"].to_pylist()]
    for place, column in enumerate(("gaze_pitch", "gaze_yaw")):
        angles = [float(rng.normal(look[place], look[2])) if look[2] == look[2] else None for look in looking]
        field = table.schema.field(column)
        table = table.set_column(table.schema.get_field_index(column), field, pa.array(angles, field.type))
    nowhere = pa.array(["/nowhere"] * len(table), pa.string()).dictionary_encode()
    return table.set_column(table.schema.get_field_index("root"), "root", nowhere)


def _trained(folder: Path, looks: Looks, per_generator: int = 40) -> tuple[nn.Module, float]:
    """Return the trained model and its loss on val."""
    seed_everything(0, CPU)
    module = MODEL.build(CLASSES)
    faces = [_faces(folder, looks, seed, per_generator) for seed in (0, 1)]
    done = train(module, MODEL, CLASSES, *faces, recipe=MODEL.recipe, seed=0, folder=folder / "run", device=CPU)
    return module, done.val_loss


def _auc(module: nn.Module, faces: pa.Table) -> float:
    scores = np.concatenate([each.fake_score for each in predict(module, MODEL, faces, batch_size=50, device=CPU)])
    return float(roc_auc_score([generator != "real" for generator in faces["generator"].to_pylist()], scores))


def test_it_tells_generators_that_look_elsewhere_without_opening_an_image(tmp_path: Path) -> None:
    looks = {"real": (0.0, 0.0, 0.1), "ddim": (0.4, 0.0, 0.1), "stylegan3": (0.0, -0.4, 0.1)}
    module, loss = _trained(tmp_path, looks)
    assert loss < 0.5 * np.log(3)
    faces = _faces(tmp_path, looks, seed=2)
    assert _auc(module, faces) > 0.97
    logits = np.concatenate(
        [each.logits for each in predict(module, MODEL, faces, batch_size=50, device=CPU) if each.logits is not None]
    )
    names = np.array([leaf.name for leaf in CLASSES])[logits.argmax(axis=1)]
    assert np.mean(names == np.array(faces["generator"].to_pylist())) > 0.9


def test_it_tells_generators_that_only_look_around_less(tmp_path: Path) -> None:
    looks = {"real": (0.0, 0.0, 0.4), "ddim": (0.0, 0.0, 0.08), "stylegan3": (0.0, 0.0, 0.08)}
    module, _ = _trained(tmp_path, looks)
    assert _auc(module, _faces(tmp_path, looks, seed=2)) > 0.9


def test_it_is_at_chance_where_all_look_alike(tmp_path: Path) -> None:
    module, loss = _trained(tmp_path, ALIKE, per_generator=100)
    assert abs(loss - np.log(3)) < 0.05
    assert abs(_auc(module, _faces(tmp_path, ALIKE, seed=2, per_generator=300)) - 0.5) < 0.06


def test_unknown_gaze_is_a_case_of_its_own_and_not_an_angle(tmp_path: Path) -> None:
    nan = float("nan")
    looks = {"real": (0.0, 0.0, 0.2), "ddim": (nan, nan, nan), "stylegan3": (0.0, 0.0, 0.2)}
    module, _ = _trained(tmp_path, looks)
    ddim = 1
    gaze = torch.tensor([[nan, nan], [0.3, nan], [nan, -0.3], [0.0, 0.0]])
    with torch.no_grad():
        logits = module.eval()(Batch(4, gaze=gaze)).logits
    assert (logits[:3].argmax(dim=1) == ddim).all()
    assert torch.equal(logits[0], logits[1]) and torch.equal(logits[0], logits[2])
    assert logits[3].argmax() != ddim


def test_that_gaze_is_unknown_is_an_input_besides_the_functions_of_gaze() -> None:
    torch.manual_seed(0)
    module = GazeOnly(3).eval()
    with torch.no_grad():
        module.layers[0].weight[:, :-1] = 0  # the functions of gaze no longer count
        logits = module(Batch(3, gaze=torch.tensor([[0.3, -0.2], [0.0, 0.0], [torch.nan, torch.nan]]))).logits
    torch.testing.assert_close(logits[0], logits[1])
    assert (logits[2] - logits[0]).abs().max() > 1e-3


def test_a_batch_of_unknown_gaze_can_be_learned_from_and_measures_nothing() -> None:
    module = GazeOnly(3).train()
    loss = module.loss(Batch(3, gaze=torch.full((3, 2), torch.nan), target=torch.arange(3)))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite() and all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
    assert module.standardize.count == 0


def test_only_known_gaze_is_measured() -> None:
    module = GazeOnly(3).train()
    module(Batch(4, gaze=torch.tensor([[0.1, 0.2], [0.3, -0.4], [torch.nan, 0.9], [torch.nan, torch.nan]])))
    assert module.standardize.count == 2
    torch.testing.assert_close(module.standardize.mean[:2], torch.tensor([0.2, -0.1]))


def test_the_functions_of_gaze_are_its_first_and_second_powers() -> None:
    torch.testing.assert_close(
        gaze_functions(torch.tensor([[0.5, -0.2]])), torch.tensor([[0.5, -0.2, 0.25, 0.04, -0.1]])
    )
