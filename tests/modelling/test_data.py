from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch

from dfad_bench.errors import DataError, UsageError
from dfad_bench.modelling import data
from dfad_bench.modelling.data import (
    UNREADABLE_FACE,
    UNREADABLE_GAZE_MAP,
    Batches,
    FaceDataset,
    LoadedBatch,
    Request,
    check_inputs,
    require_readable,
)
from dfad_bench.modelling.preprocess import Preprocess
from dfad_bench.records.manifest import header_features
from dfad_bench.types import Input, ModelSpec
from tests.modelling.builders import CLASSES, SHADE, make_faces

CPU = torch.device("cpu")
RAW = Preprocess(size=None, mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255))


def _spec(*inputs: Input) -> ModelSpec:
    return replace(SHADE, inputs=inputs, preprocess=RAW if "image" in inputs else None)


def _epoch(
    dataset: FaceDataset, batch_size: int, seed: int | None, number: int = 0, workers: int = 0
) -> list[LoadedBatch]:
    return list(Batches(dataset, batch_size, seed=seed, workers=workers, device=CPU).epoch(number))


def _load(dataset: FaceDataset, rows: list[int], randomness: tuple[int, int] | None = None) -> LoadedBatch:
    return dataset[Request(np.array(rows), randomness)]


def _drop_gaze(table: pa.Table) -> pa.Table:
    for column in ("gaze_file_name", "gaze_pitch", "gaze_yaw"):
        place = table.schema.get_field_index(column)
        table = table.set_column(place, table.schema.field(place), pa.nulls(len(table), table.schema.field(place).type))
    return table


@pytest.mark.parametrize("batch_size", [1, 3, 4, 10, 11, 12, 100])
@pytest.mark.parametrize("seed", [None, 0])
def test_an_epoch_holds_every_face_once_whatever_the_batch_size(
    tmp_path: Path, batch_size: int, seed: int | None
) -> None:
    dataset = FaceDataset(_spec(), make_faces(tmp_path, 11, generators=["real"]))
    batches = _epoch(dataset, batch_size, seed)
    assert sorted(row for loaded in batches for row in loaded.rows) == list(range(11))
    assert max(len(loaded.rows) for loaded in batches) <= batch_size
    assert all(loaded.batch.size == len(loaded.rows) for loaded in batches)


def test_no_epoch_ends_on_a_batch_of_one(tmp_path: Path) -> None:
    dataset = FaceDataset(_spec(), make_faces(tmp_path, 11, generators=["real"]))
    assert [len(loaded.rows) for loaded in _epoch(dataset, 5, None)] == [4, 4, 3]
    assert Batches(dataset, 5, seed=0, workers=0, device=CPU).sizes == [4, 4, 3]


def test_evaluation_keeps_the_tables_order_and_training_shuffles_each_epoch_anew(tmp_path: Path) -> None:
    dataset = FaceDataset(_spec(), make_faces(tmp_path, 10))

    def order(seed: int | None, number: int) -> list[int]:
        return [int(row) for loaded in _epoch(dataset, 4, seed, number) for row in loaded.rows]

    assert order(None, 0) == order(None, 1) == list(range(30))
    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(0, 0)), tuple(order(0, 1)), tuple(order(1, 0)), tuple(order(None, 0))}) == 4


def test_an_image_is_the_stored_face_in_rgb(tmp_path: Path) -> None:
    faces = make_faces(tmp_path, 2)
    stored = cv2.imread(str(tmp_path / faces["file_name"][1].as_py()))
    loaded = _load(FaceDataset(_spec("image"), faces, CLASSES), [1])
    assert loaded.batch.image is not None and loaded.batch.image.dtype == torch.float32
    np.testing.assert_allclose(loaded.batch.image[0].numpy().transpose(1, 2, 0), stored[..., ::-1], atol=1e-3)


def test_targets_are_the_generators_places_among_the_classes_and_absent_without_classes(tmp_path: Path) -> None:
    faces = make_faces(tmp_path, 2)
    batch = _load(FaceDataset(_spec(), faces, CLASSES), [0, 1, 2, 3]).batch
    assert batch.target is not None and batch.target.tolist() == [0, 1, 2, 0]
    assert _load(FaceDataset(_spec(), faces), [0]).batch.target is None


def test_the_gaze_map_has_the_eyeball_first_and_the_iris_second(tmp_path: Path) -> None:
    faces = make_faces(tmp_path, 2, gaze=True)
    gaze_map = _load(FaceDataset(_spec("gaze_map"), faces), [0]).batch.gaze_map
    assert gaze_map is not None
    stored = cv2.imread(str(tmp_path / faces["gaze_file_name"][0].as_py()))
    np.testing.assert_allclose(gaze_map[0, 0].numpy() * 255, stored[..., 2], atol=1e-4)
    np.testing.assert_allclose(gaze_map[0, 1].numpy() * 255, stored[..., 1], atol=1e-4)
    assert gaze_map.max() <= 1 and gaze_map[0, 0].sum() > gaze_map[0, 1].sum() > 0


def test_an_unknown_gaze_is_nan_and_its_map_empty(tmp_path: Path) -> None:
    faces = _drop_gaze(make_faces(tmp_path, 1, gaze=True))
    batch = _load(FaceDataset(_spec("gaze_map", "gaze"), faces), [0]).batch
    assert batch.gaze is not None and batch.gaze.isnan().all()
    assert batch.gaze_map is not None and not batch.gaze_map.any()


def test_a_flip_mirrors_face_and_gaze_map_and_negates_yaw_but_not_pitch(tmp_path: Path) -> None:
    faces = make_faces(tmp_path, 20, gaze=True)
    spec = _spec("image", "gaze_map", "gaze")
    plain = _load(FaceDataset(spec, faces), list(range(60))).batch
    changed = _load(FaceDataset(spec, faces, flip=True), list(range(60)), (0, 0)).batch
    assert plain.image is not None and plain.gaze is not None and plain.gaze_map is not None
    assert changed.image is not None and changed.gaze is not None and changed.gaze_map is not None
    flipped = (changed.gaze[:, 1] != plain.gaze[:, 1]).nonzero().flatten()
    kept = (changed.gaze[:, 1] == plain.gaze[:, 1]).nonzero().flatten()
    assert 15 < len(flipped) < 45
    assert torch.equal(changed.gaze[:, 0], plain.gaze[:, 0])
    assert torch.equal(changed.gaze[flipped, 1], -plain.gaze[flipped, 1])
    assert torch.equal(changed.image[flipped], plain.image[flipped].flip(-1))
    assert torch.equal(changed.gaze_map[flipped], plain.gaze_map[flipped].flip(-1))
    assert torch.equal(changed.image[kept], plain.image[kept])


def test_nothing_is_flipped_in_evaluation_or_where_the_recipe_says_no(tmp_path: Path) -> None:
    faces = make_faces(tmp_path, 10)
    plain = _load(FaceDataset(_spec("image"), faces), list(range(30))).batch.image
    evaluated = _load(FaceDataset(_spec("image"), faces, flip=True), list(range(30))).batch.image
    unflipped = _load(FaceDataset(_spec("image"), faces, flip=False), list(range(30)), (0, 0)).batch.image
    assert plain is not None and evaluated is not None and unflipped is not None
    assert torch.equal(plain, evaluated) and torch.equal(plain, unflipped)


def test_a_faces_random_changes_depend_on_seed_epoch_and_row_but_not_on_its_batch(tmp_path: Path) -> None:
    spec = replace(_spec("image"), preprocess=Preprocess(size=None, crop=8))
    dataset = FaceDataset(spec, make_faces(tmp_path, 4), flip=True)

    def image(rows: list[int], randomness: tuple[int, int]) -> torch.Tensor:
        loaded = _load(dataset, rows, randomness).batch.image
        assert loaded is not None
        return loaded

    together = image([5, 3, 0], (1, 2))
    assert torch.equal(together[1], image([3], (1, 2))[0])
    assert not torch.equal(image(list(range(12)), (1, 2)), image(list(range(12)), (1, 3)))
    assert not torch.equal(image(list(range(12)), (1, 2)), image(list(range(12)), (2, 2)))


def test_batches_are_the_same_for_any_number_of_workers(tmp_path: Path) -> None:
    dataset = FaceDataset(SHADE, make_faces(tmp_path, 5), CLASSES, flip=True)
    here = Batches(dataset, 4, seed=1, workers=0, device=CPU)
    there = Batches(dataset, 4, seed=1, workers=2, device=CPU)
    for number in (0, 1):
        for one, other in zip(here.epoch(number), there.epoch(number), strict=True):
            assert np.array_equal(one.rows, other.rows)
            assert one.batch.image is not None and other.batch.image is not None
            assert torch.equal(one.batch.image, other.batch.image)


def test_header_features_come_without_a_single_file(tmp_path: Path) -> None:
    faces = make_faces(tmp_path, 3)
    place = faces.schema.get_field_index("root")
    nowhere = faces.set_column(place, "root", pa.array([str(tmp_path / "nowhere")] * 9).dictionary_encode())
    loaded = _load(FaceDataset(_spec("header"), nowhere), [4, 2])
    assert loaded.batch.image is None and not loaded.unreadable
    assert loaded.batch.header is not None
    np.testing.assert_array_equal(loaded.batch.header.numpy(), header_features(faces)[[4, 2]])


def test_faces_of_several_manifests_are_found_in_their_own_folders(tmp_path: Path) -> None:
    one = make_faces(tmp_path / "one", 1, source="one")
    two = make_faces(tmp_path / "two", 1, source="two", seed=5)
    both = pa.concat_tables([one, two])
    loaded = _load(FaceDataset(_spec("image"), both), list(range(6)))
    assert loaded.batch.size == 6


@pytest.mark.parametrize("damage", ["missing", "empty", "cut off", "altered", "no image"])
def test_an_unreadable_face_is_left_out_and_named_never_replaced(tmp_path: Path, damage: str) -> None:
    faces = make_faces(tmp_path, 2)
    path = tmp_path / faces["file_name"][2].as_py()
    data = path.read_bytes()
    middle = len(data) // 2
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(
            {
                "empty": b"",
                "cut off": data[:middle],
                "altered": data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :],
                "no image": b"<html></html>",
            }[damage]
        )
    loaded = _load(FaceDataset(_spec("image"), faces, CLASSES), [1, 2, 3])
    assert loaded.rows.tolist() == [1, 3]
    assert loaded.batch.image is not None and len(loaded.batch.image) == 2
    assert loaded.batch.target is not None and loaded.batch.target.tolist() == [1, 0]
    assert [(each.row, each.reason, each.file) for each in loaded.unreadable] == [(2, UNREADABLE_FACE, path)]
    with pytest.raises(DataError, match=rf"{path.name}: unreadable face. Run 'dfad-bench check manifest {tmp_path}'"):
        require_readable(loaded)


def test_an_unreadable_gaze_map_is_named_as_such(tmp_path: Path) -> None:
    faces = make_faces(tmp_path, 1, gaze=True)
    (tmp_path / faces["gaze_file_name"][0].as_py()).unlink()
    loaded = _load(FaceDataset(_spec("gaze_map"), faces), [0, 1])
    assert loaded.rows.tolist() == [1]
    assert [each.reason for each in loaded.unreadable] == [UNREADABLE_GAZE_MAP]


def test_a_batch_without_one_readable_face_is_empty(tmp_path: Path) -> None:
    faces = make_faces(tmp_path, 1)
    for path in (tmp_path / "faces").iterdir():
        path.unlink()
    loaded = _load(FaceDataset(_spec("image"), faces, CLASSES), [0, 1, 2])
    assert loaded.batch.size == 0 and len(loaded.unreadable) == 3


@pytest.mark.parametrize(("asked", "what"), [("gaze_map", "gaze maps"), ("gaze", "gaze")])
def test_a_model_that_needs_gaze_says_which_source_has_none(tmp_path: Path, asked: Input, what: str) -> None:
    with_gaze = make_faces(tmp_path, 1, gaze=True, source="has")
    without = make_faces(tmp_path, 1, source="ffhq")
    spec = _spec(asked)
    check_inputs("gazeclip", spec, [with_gaze])
    with pytest.raises(UsageError) as error:
        check_inputs("gazeclip", spec, [with_gaze, pa.concat_tables([with_gaze, without])])
    assert str(error.value) == (
        f"gazeclip needs {what}, and ffhq has none. Run 'dfad-bench prepare --source ffhq --gaze-estimator …'."
    )


def test_a_source_with_some_gaze_is_enough(tmp_path: Path) -> None:
    faces = make_faces(tmp_path, 2, gaze=True)
    check_inputs("gazeclip", _spec("gaze_map"), [_drop_gaze(faces.slice(0, 3)), faces.slice(3)])


def test_a_model_that_asks_for_images_needs_a_preprocess(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no preprocess"):
        check_inputs("mine", replace(SHADE, preprocess=None), [make_faces(tmp_path, 1)])


# --- decoded images that are held ----------------------------------------------------------------------------------


def _remove_files(faces: pa.Table) -> None:
    for column in ("file_name", "gaze_file_name"):
        for root, name in zip(faces["root"].to_pylist(), faces[column].to_pylist(), strict=True):
            if name is not None:
                (Path(root) / name).unlink(missing_ok=True)


def test_training_decodes_each_image_once_and_gives_the_same_in_every_epoch(tmp_path: Path) -> None:
    faces = make_faces(tmp_path, 5)
    dataset = FaceDataset(_spec("image", "gaze_map"), faces, CLASSES, flip=True)
    fresh = [_load(FaceDataset(_spec("image", "gaze_map"), faces, CLASSES, flip=True), [3], (0, 7)) for _ in range(2)]
    _load(dataset, list(range(len(faces))), (0, 0))
    _remove_files(faces)
    held = _load(dataset, [3], (0, 7))
    for one in (held, *fresh):
        assert one.unreadable == ()
        assert one.batch.image is not None and held.batch.image is not None
        assert torch.equal(one.batch.image, held.batch.image)
        assert one.batch.gaze_map is not None and held.batch.gaze_map is not None
        assert torch.equal(one.batch.gaze_map, held.batch.gaze_map)


def test_a_preprocess_may_change_the_pixels_it_is_given(tmp_path: Path) -> None:
    def darken(face: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        face //= 2
        return face.transpose(2, 0, 1).astype(np.float32)

    dataset = FaceDataset(replace(_spec("image"), preprocess=darken), make_faces(tmp_path, 2), CLASSES)
    first, again, third = (_load(dataset, [0]).batch.image for _ in range(3))
    assert first is not None and again is not None and third is not None
    assert torch.equal(first, again) and torch.equal(again, third)


def test_no_more_is_held_than_there_is_room_for_and_nothing_in_testing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces = make_faces(tmp_path, 3)
    one = FaceDataset(_spec("image"), faces, CLASSES)
    _load(one, [0])
    monkeypatch.setattr(data, "HELD", one._held_bytes * 2)
    training, testing = FaceDataset(_spec("image"), faces, CLASSES), FaceDataset(_spec("image"), faces)
    everything = list(range(len(faces)))
    for dataset in (training, testing):
        assert _load(dataset, everything).unreadable == ()
    _remove_files(faces)
    assert len(_load(training, everything).rows) == 2
    assert len(_load(testing, everything).rows) == 0
