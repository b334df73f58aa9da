"""A gaze is read by its estimator's name, and refused where it is damaged or is that of other faces."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from dfad_bench.errors import DataError, UsageError
from dfad_bench.records.features import KEY, FeaturesWriter
from dfad_bench.records.gaze import (
    GAZE_COLUMNS,
    GAZE_SCHEMA_VERSION,
    MOST_IN_PART,
    OTHER_GAZE,
    GazeFooter,
    GazeRecipe,
    added_estimators,
    adding_command,
    face_parts,
    faces_digest,
    is_gaze_sound,
    read_gaze,
    with_gaze_footer,
)
from dfad_bench.records.manifest import read_manifest
from tests.records.builders import Row, face, recipe, toy_faces, write_manifest

WIDTH = 3


def gaze_rows(root: Path) -> list[Row]:
    """A gaze for each face: the first has none."""
    ids = read_manifest(root, ("id",)).table["id"].to_pylist()
    rows: list[Row] = [
        dict.fromkeys(GAZE_COLUMNS.names) | {"id": name, "gaze_pitch": 0.01 * at, "gaze_yaw": -0.02 * at}
        for at, name in enumerate(ids)
    ]
    rows[0] |= {"gaze_pitch": None, "gaze_yaw": None, "gaze_flag": "profile"}
    return rows


def features_of(count: int, width: int = WIDTH) -> np.ndarray[Any, np.dtype[np.float32]]:
    features = np.arange(count * width, dtype=np.float32).reshape(count, width)
    features[0] = np.nan
    return features


def add(
    root: Path, name: str = "bright", rows: Sequence[Row] | None = None, width: int = WIDTH, **changes: Any
) -> Path:
    """Add a sound gaze to a manifest; changes go into its footer."""
    listed = gaze_rows(root) if rows is None else rows
    faces, digest = faces_digest(root)
    made = GazeRecipe(estimator=name, estimator_sha256="ab" * 32, feature_dim=width, software={"dfad-bench": "0"})
    footer = GazeFooter(
        **{
            "schema_version": GAZE_SCHEMA_VERSION,
            "source": "toy",
            "recipe": made,
            "faces": faces,
            "faces_sha256": digest,
            "with_gaze": faces - 1,
            "without_gaze": {"profile": 1},
            **changes,
        }
    )
    folder = root / OTHER_GAZE
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.parquet"
    pq.write_table(pa.Table.from_pylist(list(listed), schema=with_gaze_footer(footer)), path)
    if width:
        with FeaturesWriter(folder, len(listed), width, f"{name}.safetensors") as file:
            file.add(features_of(len(listed), width))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_manifest(tmp_path, toy_faces(2))


def refusal(root: Path, estimator: str = "bright") -> str:
    with pytest.raises(DataError) as caught:
        read_gaze(root, estimator)
    assert not is_gaze_sound(root, estimator)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- what is read --------------------------------------------------------------------------------------------------


def test_without_a_name_it_is_the_manifests_own(root: Path) -> None:
    for gaze in (read_gaze(root), read_gaze(root, "annotated")):
        assert (gaze.estimator, gaze.weights_sha256, gaze.own, gaze.features) == ("annotated", None, True, None)
        assert gaze.ids == [row["id"] for row in toy_faces(2)]
        np.testing.assert_array_equal(gaze.pitch, np.full(30, 0.1, np.float32))
        np.testing.assert_array_equal(gaze.yaw, np.full(30, -0.2, np.float32))
        assert gaze.flags == [None] * 30


def test_an_unknown_gaze_is_nan_with_its_flag(tmp_path: Path) -> None:
    seen, blind = face("a"), face("b", gaze_pitch=None, gaze_yaw=None, gaze_flag="closed_eyes", gaze_file_name=None)
    gaze = read_gaze(write_manifest(tmp_path, [seen, blind]))
    np.testing.assert_array_equal(gaze.pitch, np.array([0.1, np.nan], np.float32))
    assert gaze.pitch.dtype == gaze.yaw.dtype == np.float32
    assert gaze.flags == [None, "closed_eyes"]


def test_the_manifests_own_features_come_along(tmp_path: Path) -> None:
    root = write_manifest(tmp_path, [face("a"), face("b")], feature_dim=WIDTH)
    with pytest.raises(DataError, match=r"gaze_features\.safetensors is missing\. Prepare the source again"):
        read_gaze(root)
    with FeaturesWriter(root, 2, WIDTH) as file:
        file.add(features_of(2))
    np.testing.assert_array_equal(read_gaze(root).features, features_of(2))
    assert read_gaze(root, with_features=False).features is None


def test_an_added_gaze_is_read_by_its_name_and_leaves_the_own(root: Path) -> None:
    add(root)
    gaze = read_gaze(root, "bright")
    assert (gaze.estimator, gaze.weights_sha256, gaze.own) == ("bright", "ab" * 32, False)
    assert gaze.ids == read_gaze(root).ids
    np.testing.assert_array_equal(gaze.pitch[1:], (0.01 * np.arange(1, 30)).astype(np.float32))
    assert np.isnan(gaze.pitch[0]) and np.isnan(gaze.yaw[0]) and gaze.flags[0] == "profile"
    np.testing.assert_array_equal(gaze.features, features_of(30))
    assert read_gaze(root, "bright", with_features=False).features is None
    assert is_gaze_sound(root, "bright")
    assert read_gaze(root).pitch[0] == np.float32(0.1)


def test_an_added_gaze_without_features_has_none(root: Path) -> None:
    add(root, width=0)
    assert read_gaze(root, "bright").features is None
    assert is_gaze_sound(root, "bright")


def test_a_plugin_file_is_found_by_its_name_and_told_by_its_hash(tmp_path: Path) -> None:
    described = "mine (file sha256:0123)"
    root = write_manifest(tmp_path, [face("a")], recipe=recipe(gaze_estimator=described, gaze_estimator_sha256="cd"))
    for name in (None, "mine", described):
        gaze = read_gaze(root, name)
        assert (gaze.estimator, gaze.weights_sha256, gaze.own) == (described, "cd", True)


def test_added_estimators_are_listed_and_half_written_files_are_not(root: Path) -> None:
    assert added_estimators(root) == []
    add(root, "bright")
    add(root, "another")
    (root / OTHER_GAZE / ".third.parquet.part").touch()
    (root / OTHER_GAZE / ".fourth.parquet").touch()
    assert added_estimators(root) == ["another", "bright"]


# --- what is refused -----------------------------------------------------------------------------------------------


def test_an_estimator_that_was_not_added_lists_those_there_are_and_how_to_add_it(root: Path) -> None:
    add(root)
    message = refusal(root, "gradient")
    assert "no gaze by 'gradient', only by annotated (its own), bright." in message
    command = f"dfad-bench prepare --only-gaze --gaze-estimator gradient --name toy --data {root.parent}"
    assert command in message


def test_a_name_that_leads_out_of_the_folder_is_no_estimator(root: Path) -> None:
    path = add(root)
    path.rename(root / "bright.parquet")
    assert "no gaze by '../bright'" in refusal(root, "../bright")


def test_the_command_survives_a_shell(tmp_path: Path) -> None:
    words = shlex.split(adding_command(tmp_path / "my data" / "toy", "gradient"))
    assert words[-4:] == ["--name", "toy", "--data", str(tmp_path / "my data")]


def test_a_folder_without_a_manifest_is_a_wrong_call(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no manifest"):
        read_gaze(tmp_path, "bright")


def test_the_gaze_of_other_faces_is_refused(root: Path) -> None:
    add(root)
    rows = toy_faces(2)
    write_manifest(root.parent, [*rows[1:], rows[0]])
    assert "names other faces than the manifest now holds. Renew it: 'dfad-bench prepare --only-gaze" in refusal(root)
    write_manifest(root.parent, [{**rows[0], "sha256": "0" * 64}, *rows[1:]])
    assert "is the gaze of other faces than the manifest now holds. Renew it" in refusal(root)
    write_manifest(root.parent, rows)
    assert is_gaze_sound(root, "bright")


@pytest.mark.parametrize("column", ["gaze_pitch", "gaze_yaw", "gaze_head_pitch", "gaze_head_yaw", "gaze_confidence"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_neither_finite_nor_empty_is_refused(root: Path, column: str, value: float) -> None:
    rows = gaze_rows(root)
    rows[3][column] = value
    add(root, rows=rows)
    assert f"{column} holds what is neither finite nor empty" in refusal(root)


def test_rows_that_are_not_the_manifests_are_refused(root: Path) -> None:
    rows = gaze_rows(root)
    add(root, rows=rows[:-1])
    assert "it has 29 rows, promised are 30" in refusal(root)
    add(root, rows=[*rows[:-1], {**rows[-1], "id": "toy/real/other"}])
    assert "names other faces" in refusal(root)


def test_the_gaze_of_another_estimator_under_the_name_is_refused(root: Path) -> None:
    add(root, "other").rename(root / OTHER_GAZE / "bright.parquet")
    assert "it holds the gaze of other" in refusal(root)


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_a_truncated_file_is_refused(root: Path, kept: float) -> None:
    path = add(root)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    assert "cannot be read as added gaze" in refusal(root)


def test_other_columns_a_foreign_footer_and_another_version_are_refused(root: Path) -> None:
    path = add(root)
    table = pq.read_table(path)
    pq.write_table(table.drop_columns("gaze_flag"), path)
    assert "its columns are others" in refusal(root)
    pq.write_table(table.set_column(1, "gaze_pitch", table["gaze_pitch"].cast(pa.float64())), path)
    assert "its columns are others" in refusal(root)
    pq.write_table(table.replace_schema_metadata(), path)
    assert "its footer is missing" in refusal(root)
    add(root, schema_version=GAZE_SCHEMA_VERSION + 1)
    assert f"schema version {GAZE_SCHEMA_VERSION + 1}, not {GAZE_SCHEMA_VERSION}" in refusal(root)


def test_features_that_do_not_fit_are_refused(root: Path) -> None:
    add(root)
    path = root / OTHER_GAZE / "bright.safetensors"
    save_file({KEY: features_of(29)}, path)
    assert "is (29, 3), expected (30, 3). Renew it" in refusal(root)
    path.write_bytes(path.read_bytes()[:-4])
    assert "cannot be read as gaze features" in refusal(root)
    path.unlink()
    assert "bright.safetensors is missing. Renew it" in refusal(root)
    assert read_gaze(root, "bright", with_features=False).features is None


def test_infinite_features_are_refused(root: Path) -> None:
    add(root)
    features = features_of(30)
    features[4, 1] = np.inf
    save_file({KEY: features}, root / OTHER_GAZE / "bright.safetensors")
    with pytest.raises(DataError, match="infinite features"):
        read_gaze(root, "bright")


# --- parts and digests ---------------------------------------------------------------------------------------------


def many(count: int, folder: str = "faces/real/00000", start: int = 0) -> list[Row]:
    return [face(f"k{at:05d}", file_name=f"{folder}/{at}.png") for at in range(start, start + count)]


def test_a_part_is_the_faces_of_one_folder_and_never_too_many(tmp_path: Path) -> None:
    rows = many(70) + many(64, "faces/real/00001", 70) + many(MOST_IN_PART + 5, "faces/real/00002", 134)
    root = write_manifest(tmp_path, rows)
    parts = list(face_parts(root))
    assert [part.table.num_rows for part in parts] == [70, 64, MOST_IN_PART, 5]
    assert list(itertools.chain(*(part.table["id"].to_pylist() for part in parts))) == [row["id"] for row in rows]
    assert len({part.digest for part in parts}) == 4


def test_parts_do_not_depend_on_how_the_file_is_cut_into_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_manifest(tmp_path, many(70) + many(64, "faces/real/00001", 70))
    expected = [part.digest for part in face_parts(root)]
    monkeypatch.setattr("dfad_bench.records.manifest._BATCH", 7)
    assert [part.digest for part in face_parts(root)] == expected
    table = pq.read_table(root / "metadata.parquet")
    pq.write_table(table, root / "metadata.parquet", row_group_size=11)
    assert [part.digest for part in face_parts(root)] == expected


def test_a_part_keeps_its_digest_when_others_come_and_go(tmp_path: Path) -> None:
    first, second = many(5), many(5, "faces/real/00001", 5)
    alone = [part.digest for part in face_parts(write_manifest(tmp_path / "a", second))]
    both = [part.digest for part in face_parts(write_manifest(tmp_path / "b", first + second))]
    assert both[1:] == alone


@pytest.mark.parametrize(
    "change",
    [
        {"sha256": "0" * 64},
        {"box": [8.0, 8.0, 56.0, 57.0]},
        {"landmarks": [1.0] * 10},
        {"crop_scale": 0.5},
        {"decode_reduction": 2},
    ],
)
def test_whatever_decides_a_gaze_changes_the_digest(tmp_path: Path, change: dict[str, Any]) -> None:
    rows = many(3)
    before = faces_digest(write_manifest(tmp_path / "a", rows))
    assert faces_digest(write_manifest(tmp_path / "b", [rows[0], rows[1] | change, rows[2]])) != before
    moved = [rows[0] | change, rows[1], rows[2]]
    assert faces_digest(write_manifest(tmp_path / "c", moved)) != faces_digest(tmp_path / "b" / "toy")


@pytest.mark.parametrize("change", [{"size": 65}, {"margin": 1.0}, {"align": True}])
def test_so_does_the_crop_recipe(tmp_path: Path, change: dict[str, Any]) -> None:
    rows = many(3)
    before = faces_digest(write_manifest(tmp_path / "a", rows))
    assert faces_digest(write_manifest(tmp_path / "b", rows, recipe=recipe(**change))) != before


def test_labels_and_the_own_gaze_do_not_change_the_digest(tmp_path: Path) -> None:
    rows = many(3)
    before = faces_digest(write_manifest(tmp_path / "a", rows))
    changed = [row | {"source_split": "val", "gaze_pitch": 0.3, "identities": []} for row in rows]
    assert faces_digest(write_manifest(tmp_path / "b", changed)) == before


def test_faces_of_a_manifest_that_lacks_a_column_are_refused(tmp_path: Path) -> None:
    root = write_manifest(tmp_path, many(3))
    table = pq.read_table(root / "metadata.parquet")
    pq.write_table(table.drop_columns("box"), root / "metadata.parquet")
    with pytest.raises(DataError, match="lacks the column box"):
        list(face_parts(root))
