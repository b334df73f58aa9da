from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dfad_bench.modelling.predict import predict
from dfad_bench.types import Batch, Output, Precision
from tests.modelling.builders import CLASSES, SHADE, Shade, make_faces

CPU = torch.device("cpu")


@pytest.mark.parametrize("batch_size", [1, 4, 5, 13, 64])
def test_every_face_is_answered_once_and_in_order_whatever_the_batch_size(tmp_path: Path, batch_size: int) -> None:
    faces = make_faces(tmp_path, 13, generators=["real"])
    done: list[int] = []
    answers = list(predict(Shade(3), SHADE, faces, batch_size=batch_size, device=CPU, on_progress=done.append))
    assert [id_ for answer in answers for id_ in answer.faces["id"].to_pylist()] == faces["id"].to_pylist()
    assert sum(len(answer.fake_score) for answer in answers) == sum(done) == 13
    assert all(answer.logits is not None and answer.logits.shape == (answer.faces.num_rows, 3) for answer in answers)


def test_the_answers_do_not_depend_on_the_batch_size(tmp_path: Path) -> None:
    faces = make_faces(tmp_path, 7)
    module = Shade(3)

    def scores(batch_size: int) -> np.ndarray:
        return np.concatenate(
            [answer.fake_score for answer in predict(module, SHADE, faces, batch_size=batch_size, device=CPU)]
        )

    np.testing.assert_allclose(scores(1), scores(21), atol=1e-5)
    np.testing.assert_allclose(scores(4), scores(21), atol=1e-5)


@pytest.mark.parametrize(
    ("precision", "computed"),
    [("bfloat16", torch.bfloat16), ("float32", torch.float32), ("auto", torch.float32)],
)
def test_the_network_runs_in_the_precision_that_is_asked_for_and_the_answers_are_float32(
    tmp_path: Path, precision: Precision, computed: torch.dtype
) -> None:
    seen: list[torch.dtype] = []
    module = Shade(3)
    module.linear.register_forward_hook(lambda _, inputs, output: seen.append(output.dtype))
    (answer,) = predict(module, SHADE, make_faces(tmp_path, 2), batch_size=6, device=CPU, precision=precision)
    assert seen == [computed]
    assert answer.logits is not None and answer.logits.dtype == answer.fake_score.dtype == np.float32


def test_an_unreadable_face_is_reported_and_the_others_keep_their_answers(tmp_path: Path) -> None:
    faces = make_faces(tmp_path, 4)
    module = Shade(3)
    whole = np.concatenate([each.fake_score for each in predict(module, SHADE, faces, batch_size=5, device=CPU)])
    broken = [1, 6]
    for row in broken:
        (tmp_path / faces["file_name"][row].as_py()).write_bytes(b"")
    answers = list(predict(module, SHADE, faces, batch_size=5, device=CPU))
    missing = [pair for answer in answers for pair in answer.unreadable]
    assert missing == [(faces["id"][row].as_py(), "unreadable face") for row in broken]
    kept = [row for row in range(12) if row not in broken]
    assert [id_ for answer in answers for id_ in answer.faces["id"].to_pylist()] == faces["id"].take(kept).to_pylist()
    np.testing.assert_allclose(np.concatenate([answer.fake_score for answer in answers]), whole[kept], atol=1e-6)


def test_a_batch_of_unreadable_faces_does_not_reach_the_model(tmp_path: Path) -> None:
    faces = make_faces(tmp_path, 2)
    for path in (tmp_path / "faces").iterdir():
        path.unlink()
    answers = list(predict(Shade(3), SHADE, faces, batch_size=6, device=CPU))
    assert [(answer.faces.num_rows, len(answer.unreadable)) for answer in answers] == [(0, 6)]


def test_the_model_is_in_evaluation_mode_and_never_shown_a_label(tmp_path: Path) -> None:
    class Detector(nn.Module):
        def forward(self, batch: Batch) -> Output:
            assert batch.target is None and not self.training and not torch.is_grad_enabled()
            return Output(None, torch.arange(batch.size, dtype=torch.float64))

    (answer,) = predict(Detector().train(), SHADE, make_faces(tmp_path, 2), batch_size=6, device=CPU)
    assert answer.logits is None and answer.fake_score.tolist() == [0, 1, 2, 3, 4, 5]


def test_generators_that_are_no_class_can_be_tested(tmp_path: Path) -> None:
    faces = make_faces(tmp_path, 2, generators=["real", "glow"])
    assert "glow" not in {leaf.name for leaf in CLASSES}
    assert sum(answer.faces.num_rows for answer in predict(Shade(3), SHADE, faces, batch_size=8, device=CPU)) == 4
