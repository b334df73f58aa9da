"""The seven defects that were found in the tools of this field, each beside the right answer that ours must give."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import nn

from dfad_bench.errors import DataError
from dfad_bench.modelling.data import Batches, FaceDataset
from dfad_bench.modelling.device import pick_device
from dfad_bench.modelling.weights import load_weights, save_weights
from dfad_bench.prepare.video import frame_number
from dfad_bench.records.predictions import read_predictions
from dfad_bench.scoring.score import Options, score
from tests.modelling.builders import CLASSES, SHADE, make_faces
from tests.prepare.clips import break_packet, clip
from tests.prepare.test_video import frames, whole
from tests.records.builders import face, select_in_memory, toy_faces, write_predictions
from tests.scoring.builders import Face, pick, predictions

METHODS = ("gan_a", "diffusion_a", "swap_a", "flow_a")
VIDEOS = 140


def seven_hundred_videos() -> dict[str, tuple[list[dict[str, object]], list[float], None]]:
    """140 real videos and, of each of four methods, 140 fakes that bear the same names; two frames each.

    A video's score is its own (standard deviation 1 for reals, 1.655 for fakes, 2.22 apart) and its frames lie evenly
    around it.
    """
    rng = np.random.default_rng(0)
    real = rng.normal(size=VIDEOS)
    fake = 2.22 + 1.655 * rng.normal(size=(len(METHODS), VIDEOS))
    named = {("real", f"{number:03}"): real[number] for number in range(VIDEOS)}
    for method, scores in zip(METHODS, fake, strict=True):
        named |= {(method, f"{number:03}_{number + 1:03}"): scores[number] for number in range(VIDEOS)}
    rows, values = [], []
    for (method, name), value in named.items():
        for frame, beside in ((0, -0.25), (1, 0.25)):
            rows.append(face(f"{name}_{frame}", method, video=f"toy/{method}/{name}"))
            values.append(float(value + beside))
    return {"seen": (rows, values, None)}


def test_1_videos_of_one_name_are_not_one_video(tmp_path: Path) -> None:
    answers = seven_hundred_videos()
    rows, values, _ = answers["seen"]
    by_folder: defaultdict[str, list[float]] = defaultdict(list)
    for row, value in zip(rows, values, strict=True):
        by_folder[str(row["video"]).rpartition("/")[2]].append(value)
    collapsed = roc_auc_score(["_" in name for name in by_folder], [np.mean(each) for each in by_folder.values()])
    assert (len(by_folder), round(collapsed, 4)) == (280, 0.9498), "what peers print"

    path = write_predictions(tmp_path / "p.parquet", answers, subsets={"seen": "generator"})
    found = pick(score(read_predictions(path), Options(0)).scores, "auc", "pooled", unit="video")
    assert (found.n, round(found.value or 0, 4)) == (700, 0.8660)


def test_2_evenly_spaced_frames_are_not_the_first_ones() -> None:
    numbers = [frame_number(position, 32, 270) for position in range(32)]
    assert numbers != list(range(32))
    assert numbers[0] is not None and numbers[0] < 9 and numbers[-1] is not None and numbers[-1] > 261
    assert set(np.diff(np.asarray(numbers, dtype=int))) <= {8, 9}


def test_3_a_fake_of_a_test_clip_cannot_train() -> None:
    shared = {"video": "toy/swap_a/id0_id1_0000", "identities": ["id0", "id1"]}
    rows = [*toy_faces(1), *(face(f"clip in {split}", source_split=split, **shared) for split in ("train", "test"))]
    with pytest.raises(DataError, match="leaks"):
        select_in_memory(rows)


def test_4_one_frame_that_cannot_be_decoded_costs_only_itself(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mp4", 24, gop=1)
    before = len(whole(frames(path, 24)))
    broken = break_packet(path, 7)
    found = frames(path, 24)
    assert before == len(found) == 24, "it is a row with a reason, not a gap"
    assert [number for number, each in enumerate(found) if not whole([each])] == [broken]


def test_5_weights_that_do_not_fit_end_the_run_and_a_broken_face_becomes_no_other(tmp_path: Path) -> None:
    save_weights(nn.Linear(3, 2), tmp_path / "model.safetensors", {})
    with pytest.raises(DataError, match="of another shape"):
        load_weights(nn.Linear(3, 4), tmp_path / "model.safetensors")
    faces = make_faces(tmp_path, 2)
    (tmp_path / faces["file_name"][1].as_py()).write_bytes(b"")
    batches = Batches(FaceDataset(SHADE, faces, CLASSES), 8, seed=None, workers=0, device=pick_device("cpu"))
    loaded = next(iter(batches.epoch()))
    assert loaded.rows.tolist() == [0, 2, 3, 4, 5]
    assert [each.row for each in loaded.unreadable] == [1]


def test_6_nan_is_an_error_and_a_value_has_an_interval_or_says_why_not(tmp_path: Path) -> None:
    """The scoring side of it: a Fréchet distance of gaze is held to the same in tests/analysis."""
    assert np.isnan(np.mean([0.1, np.nan])), "what a mean makes of one NaN, silently"
    with pytest.raises(DataError, match=r"toy/gan_a/b is not finite"):
        write_predictions(tmp_path / "p.parquet", {"seen": ([face("a"), face("b", "gan_a")], [0.1, np.nan], None)})
    people = [Face(name, fake_score=(i + 3 * (name != "real")) / 16) for name in ("real", "ddpm") for i in range(9)]
    found = pick(score(predictions(people)).scores, "auc", "ddpm")
    assert found.low is not None and found.high is not None and found.delong is not None
    assert found.low < (found.value or 0) < found.high
    alone = pick(score(predictions(people[:10])).scores, "auc", "ddpm")
    assert (alone.low, alone.interval) == (None, None) and alone.no_interval


@pytest.mark.parametrize("workers", [2, 4, 7])
def test_7_a_face_that_pads_a_batch_counts_once(tmp_path: Path, workers: int) -> None:
    right: NDArray[np.bool_] = np.asarray([True] * 9 + [False])
    padded = np.resize(
        np.argsort(right), -(-len(right) // workers) * workers
    )  # as DistributedSampler pads: from the start
    if len(padded) > len(right):
        assert right[padded].mean() != 0.9, "what a mean over padded ranks says"
    rows = [face(str(number), "gan_a") for number in padded.tolist()]
    if len(padded) > len(right):
        doubled = tmp_path / "doubled.parquet"
        write_predictions(doubled, {"seen": (rows, [0.5] * len(rows), None)})
        with pytest.raises(DataError, match="stands twice"):
            read_predictions(doubled)
    logits = [[0.0, 4.0 * hit, 0.0] if hit else [4.0, 0.0, 0.0] for hit in right[padded[: len(right)]].tolist()]
    path = write_predictions(tmp_path / "p.parquet", {"seen": (rows[: len(right)], [0.5] * len(right), logits)})
    found = pick(score(read_predictions(path), Options(0)).scores, "accuracy", "gan_a", level="generator")
    assert (found.value, found.n) == (0.9, 10)
