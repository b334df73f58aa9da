"""A manifest comes back as it was written, and one that breaks a promise of the format is refused by name."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfad_bench.errors import DataError, UsageError
from dfad_bench.records import manifest as manifest_module
from dfad_bench.records import row_checks
from dfad_bench.records.manifest import (
    COLUMNS,
    HEADER_FEATURES,
    METADATA,
    header_features,
    is_inside,
    open_manifest,
    read_batches,
    read_manifest,
    with_footer,
)
from dfad_bench.records.row_checks import Labels
from tests.records.builders import (
    Row,
    face,
    footer,
    manifest_in_memory,
    nullable_table,
    read_toy,
    recipe,
    toy_faces,
    write_broken_manifest,
    write_manifest,
    write_table,
)

REQUIRED = [field.name for field in COLUMNS if not field.nullable]
OPTIONAL = [field.name for field in COLUMNS if field.nullable]


def refusal(root: Path) -> str:
    """Read a manifest that must be refused; return the message, which must be one line that names the file.

    It must be refused whether it is read whole, opened, or told a few rows at a time.
    """
    messages = []
    for read in (
        read_manifest,
        lambda root: open_manifest(root, COLUMNS.names),
        lambda root: list(read_batches(root, COLUMNS.names)),
    ):
        with pytest.raises(DataError) as caught:
            read(root)
        messages.append(str(caught.value))
        assert str(root / METADATA) in messages[-1]
        assert "\n" not in messages[-1]
    if "cannot be read as Parquet" not in messages[0]:  # where each may stumble over another damage
        assert len(set(messages)) == 1
    return messages[0]


# --- round trip ----------------------------------------------------------------------------------------------------


def test_a_manifest_comes_back_as_it_was_written(tmp_path: Path) -> None:
    rows = [
        face("a", video="toy/real/clip", frame=3, landmarks=[float(n) for n in range(10)]),
        face("b", "gan_a", identities=["x", "y"], jpeg_quality=90, original_format="JPEG", gaze_pitch=None),
        face("c", "swap_a", identities=[], gaze_file_name=None, source_split=None, generator_version="2"),
    ]
    manifest = read_manifest(write_manifest(tmp_path, rows))
    assert manifest.table.to_pylist() == pa.Table.from_pylist(rows, schema=COLUMNS).to_pylist()
    assert manifest.root == tmp_path / "toy"
    assert manifest.name == "toy"


@pytest.mark.parametrize("name", ["mean", "pooled"])
def test_a_generator_called_what_scores_call_several_is_refused(tmp_path: Path, name: str) -> None:
    root = write_manifest(tmp_path, [face("0", name, family="gan", forgery_type="efs")])
    assert f"a generator is called {name}" in refusal(root)
    with pytest.raises(DataError, match="another name"):
        read_manifest(root, ("id", "generator"))


def test_an_empty_manifest_can_be_read(tmp_path: Path) -> None:
    assert read_manifest(write_manifest(tmp_path, [])).table.num_rows == 0


def test_only_the_columns_asked_for_are_read_and_checked(tmp_path: Path) -> None:
    table = nullable_table([face("a"), face("b")]).drop_columns(["licence"])
    root = write_broken_manifest(tmp_path, table)
    assert read_manifest(root, ["id", "video"]).table.column_names == ["id", "video"]


def test_the_footer_comes_back_whole(tmp_path: Path) -> None:
    root = write_manifest(
        tmp_path, [face("a")], limit=7, skipped={"no_face": 2}, recipe=recipe(source_options={"split": "c23", "n": 3})
    )
    read = read_manifest(root).footer
    assert read == footer(1, limit=7, skipped={"no_face": 2}, recipe=recipe(source_options={"split": "c23", "n": 3}))


def test_the_footer_is_json_that_any_tool_can_read(tmp_path: Path) -> None:
    root = write_manifest(tmp_path, [face("a")])
    stored = json.loads(pq.read_schema(root / METADATA).metadata[b"dfad_bench"])
    assert stored["source"] == "toy"
    assert stored["recipe"]["size"] == 64


def test_a_data_folder_named_like_a_partition_adds_no_column(tmp_path: Path) -> None:
    root = write_manifest(tmp_path / "generator=gan_a", [face("a")])
    assert read_manifest(root).table["generator"].to_pylist() == ["real"]


def test_a_sound_manifest_that_another_tool_wrote_has_the_same_schema_as_ours(tmp_path: Path) -> None:
    ours = read_manifest(write_manifest(tmp_path / "ours", [face("a")]))
    theirs = read_manifest(write_broken_manifest(tmp_path / "theirs", nullable_table([face("a")])))
    assert theirs.table.schema.equals(ours.table.schema)


# --- broken promises -----------------------------------------------------------------------------------------------


def test_a_folder_without_a_manifest_is_told_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"metadata\.parquet is missing.*dfad-bench prepare"):
        read_manifest(tmp_path / "nowhere")


@pytest.mark.parametrize("column", COLUMNS.names)
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    root = write_broken_manifest(tmp_path, nullable_table([face("a")]).drop_columns([column]))
    assert f"lacks the column {column}" in refusal(root)


@pytest.mark.parametrize("column", REQUIRED)
def test_an_empty_cell_in_a_required_column_is_refused(tmp_path: Path, column: str) -> None:
    root = write_broken_manifest(tmp_path, nullable_table([face("a"), face("b", **{column: None})]))
    assert f"column {column} has empty cells" in refusal(root)


@pytest.mark.parametrize("column", OPTIONAL)
def test_an_empty_cell_in_an_optional_column_is_fine(tmp_path: Path, column: str) -> None:
    root = write_manifest(tmp_path, [face("a"), face("b", **{column: None})])
    assert read_manifest(root).table[column].to_pylist()[1] is None


@pytest.mark.parametrize(
    ("column", "wrong"), [("id", pa.int64()), ("identities", pa.string()), ("frame", pa.string()), ("box", pa.string())]
)
def test_a_column_of_another_type_is_named_with_both_types(tmp_path: Path, column: str, wrong: pa.DataType) -> None:
    table = nullable_table([face("a")])
    index = table.column_names.index(column)
    root = write_broken_manifest(tmp_path, table.set_column(index, column, pa.array([None], wrong)))
    assert f"column {column} is {wrong}, expected {COLUMNS.field(column).type}" in refusal(root)


def test_an_id_that_occurs_twice_is_named(tmp_path: Path) -> None:
    assert "id occurs twice: toy/real/a" in refusal(write_manifest(tmp_path, [face("a"), face("b"), face("a")]))


@pytest.mark.parametrize("column", ["file_name", "gaze_file_name"])
@pytest.mark.parametrize("path", ["../secret.png", "faces/../../x.png", "/etc/passwd", "faces\\a.png", "a\0.png", ""])
def test_a_path_that_leads_out_of_the_folder_is_refused(tmp_path: Path, column: str, path: str) -> None:
    message = refusal(write_manifest(tmp_path, [face("a"), face("b", **{column: path})]))
    assert f"{column} {path!r}" in message


@settings(deadline=None)
@given(st.lists(st.sampled_from(["..", ".", "a", "b.png", "...", "a b", ""]), min_size=1, max_size=6).map("/".join))
def test_a_path_is_inside_exactly_where_the_file_system_says_so(path: str) -> None:
    # ".." is refused even where it would come back, as "a/../b" does: what is a link cannot be seen in the text
    normal = Path("/root/folder", path)
    inside = ".." not in path.split("/") and Path("/root/folder") in normal.parents
    assert is_inside(path) == inside


@pytest.mark.parametrize(("column", "value"), [("family", "ganz"), ("forgery_type", "fe")])
def test_a_label_outside_the_taxonomy_is_named_with_those_known(tmp_path: Path, column: str, value: str) -> None:
    message = refusal(write_manifest(tmp_path, [face("a", "gan_a", **{column: value})]))
    assert f"unknown {column} {value}" in message
    assert "real, " in message


@pytest.mark.parametrize("changes", [{"family": "diffusion"}, {"forgery_type": "fs"}])
def test_a_generator_labelled_twice_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    message = refusal(write_manifest(tmp_path, [face("a", "gan_a"), face("b", "gan_a", **changes)]))
    assert "generator 'gan_a' is labelled both" in message


@pytest.mark.parametrize(
    ("generator", "changes"),
    [
        ("real", {"family": "gan", "forgery_type": "efs"}),
        ("real", {"family": "gan"}),
        ("real", {"forgery_type": "fs"}),
        ("gan_a", {"family": "real", "forgery_type": "real"}),
        ("gan_a", {"family": "real"}),
        ("gan_a", {"forgery_type": "real"}),
    ],
)
def test_real_must_be_real_at_every_level(tmp_path: Path, generator: str, changes: dict[str, Any]) -> None:
    message = refusal(write_manifest(tmp_path, [face("a", generator, **changes)]))
    assert "'real' must be real at every level" in message


def test_labels_are_told_per_generator() -> None:
    labels = Labels()
    for batch in pa.Table.from_pylist(toy_faces(2), schema=COLUMNS).to_batches(4):
        labels.add(batch)
    assert labels.of_generators("here")["swap_a"] == ("gan", "fs")
    assert len(labels.of_generators("here")) == 5


def scattered(data: Path, rows: list[Row]) -> Path:
    """Write a manifest whose groups of rows have two rows each."""
    schema = with_footer(COLUMNS, footer(len(rows)))
    (data / "toy").mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), data / "toy" / METADATA, row_group_size=2)
    return data / "toy"


@pytest.mark.parametrize("batch", [1, 3, 4096])
def test_an_id_that_occurs_again_far_away_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(manifest_module, "_BATCH", batch)
    monkeypatch.setattr(manifest_module, "_STORED_BATCH", batch)
    keys = [*"abcdefgh", "b", "i", "a"]
    assert refusal(scattered(tmp_path, [face(key) for key in keys])).endswith(
        "an id occurs twice: toy/real/a, toy/real/b."
    )


def weak(texts: pa.Array) -> Any:
    """Hash everything to one of two numbers."""
    return np.asarray([len(text) % 2 for text in texts.to_pylist()], np.int64)


def test_ids_that_merely_share_a_hash_are_not_taken_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfad_bench.records.distinct.hashes", weak)
    monkeypatch.setattr("dfad_bench.records.row_checks.hashes", weak)
    root = scattered(tmp_path, [face(key) for key in "abcde"])
    assert open_manifest(root, COLUMNS.names).name == "toy"
    (tmp_path / "twice").mkdir()
    assert "twice: toy/real/c." in refusal(scattered(tmp_path / "twice", [face(key) for key in "abcdce"]))


@pytest.mark.parametrize(
    ("column", "values", "complaint"),
    [
        ("family", {1: "ganz", 4: "flux"}, "unknown family flux, ganz."),
        ("file_name", {1: "../first.png", 4: "/second.png"}, "'../first.png' leads out"),
        ("domain", {4: None}, "column domain has empty cells"),
        ("original_height", {4: 0}, "original_height must be at least 1 pixel"),
        ("gaze_yaw", {4: float("inf")}, "gaze_yaw must be a finite angle or empty"),
        ("identities", {4: ["anna", None]}, "identities holds an empty name"),
        ("source", {4: "other"}, "column source holds other names"),
        ("id", {4: "other/real/a"}, "every id must begin with 'toy' and a slash"),
    ],
)
def test_a_broken_promise_is_found_in_any_group_of_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str, values: dict[int, Any], complaint: str
) -> None:
    rows = [
        face(key, "gan_a") | ({column: values[number]} if number in values else {})
        for number, key in enumerate("abcdef")
    ]
    root = write_broken_manifest(tmp_path, nullable_table(rows))
    assert complaint in refusal(root)  # read whole, as one batch
    monkeypatch.setattr(manifest_module, "_STORED_BATCH", 2)
    with pytest.raises(DataError, match=re.escape(complaint)):
        open_manifest(root, COLUMNS.names)


def test_rows_that_are_left_on_disk_come_back_as_they_were_written(tmp_path: Path) -> None:
    root = scattered(tmp_path, toy_faces(1))
    columns = ["sha256", "id", "identities"]
    stored = pa.Table.from_batches(open_manifest(root, COLUMNS.names).batches(columns))
    assert stored.equals(read_manifest(root).table.select(columns))
    assert stored.schema == pa.schema([COLUMNS.field(name) for name in columns])


@settings(deadline=None)
@given(st.text(st.sampled_from("./\\\0ab\n"), max_size=6))
def test_no_path_that_leads_out_escapes_the_quick_look(path: str) -> None:
    assert is_inside(path) or pc.match_substring_regex(pa.array([path]), row_checks._MAYBE_OUTSIDE).to_pylist() == [
        True
    ]


@pytest.mark.parametrize("metadata", [{}, {b"dfad_bench": b"{"}, {b"dfad_bench": b"[]"}, {b"dfad_bench": b"\xff"}])
def test_a_file_without_our_footer_is_refused(tmp_path: Path, metadata: dict[bytes, bytes]) -> None:
    table = pa.Table.from_pylist([face("a")], schema=COLUMNS.with_metadata(metadata))
    write_table(tmp_path / "toy", table)
    assert "footer" in refusal(tmp_path / "toy")


def test_another_schema_version_is_told_before_anything_else(tmp_path: Path) -> None:
    stored = json.dumps({"schema_version": 3, "a key of the future": 1}).encode()
    table = pa.Table.from_pylist([face("a")], schema=COLUMNS.with_metadata({b"dfad_bench": stored}))
    write_table(tmp_path / "toy", table)
    assert "has schema version 3, this dfad-bench reads 2" in refusal(tmp_path / "toy")


def test_an_unknown_key_in_the_footer_is_named(tmp_path: Path) -> None:
    stored = footer(1).model_dump() | {"surprise": 1}
    table = pa.Table.from_pylist(
        [face("a")], schema=COLUMNS.with_metadata({b"dfad_bench": json.dumps(stored).encode()})
    )
    write_table(tmp_path / "toy", table)
    assert "surprise: Extra inputs" in refusal(tmp_path / "toy")


def test_an_empty_file_is_not_parquet(tmp_path: Path) -> None:
    (tmp_path / METADATA).touch()
    assert "cannot be read as Parquet" in refusal(tmp_path)


def test_a_manifest_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, toy_faces(1)) / METADATA
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 997), *range(len(whole) - 12, len(whole))]:
        path.write_bytes(whole[:length])
        assert "Prepare the source again" in refusal(path.parent)


def test_a_manifest_with_damaged_bytes_is_refused_or_still_reads(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, toy_faces(2)) / METADATA
    whole = path.read_bytes()
    dice = random.Random(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        start = dice.randrange(len(whole) - 4)
        damaged[start : start + 4] = dice.randbytes(4)
        path.write_bytes(damaged)
        for read in (read_manifest, lambda root: open_manifest(root, COLUMNS.names)):
            try:
                read(path.parent)
            except DataError as error:
                assert "\n" not in str(error)
                refused += 1
    assert refused > 40


# --- header features -----------------------------------------------------------------------------------------------


CODED = {"jpeg_quality": 75, "jpeg_chroma_quality": 50, "jpeg_subsampling": "4:2:0"}


def test_header_features_have_the_values_of_the_file_around_the_face() -> None:
    table = manifest_in_memory(
        [
            face("a", original_format="JPEG", original_width=1024, original_height=256, **CODED),
            face("b", original_format="PNG", original_width=64, original_height=128),
            face("c", original_format="WEBP", original_width=1, original_height=1),
            face("d", original_format="JPEG", original_width=1, original_height=1, jpeg_quality=0),
        ]
    ).table
    features = header_features(table)
    assert features.dtype == np.float32
    expected = {
        "is_jpeg": [1, 0, 0, 1],
        "is_png": [0, 1, 0, 0],
        "is_other_format": [0, 0, 1, 0],
        "log2_width": [10, 6, 0, 0],
        "log2_height": [8, 7, 0, 0],
        "log2_aspect": [2, -1, 0, 0],
        "has_jpeg_quality": [1, 0, 0, 1],
        "jpeg_quality": [0.75, 0, 0, 0],
        "jpeg_chroma_quality": [0.5, 0, 0, 0],
        "jpeg_chroma_share": [0.25, 0, 0, 0],
    }
    assert tuple(expected) == HEADER_FEATURES
    np.testing.assert_allclose(features, np.transpose(list(expected.values())), rtol=1e-6)


def test_header_features_of_no_faces_keep_their_shape() -> None:
    assert header_features(manifest_in_memory([]).table).shape == (0, len(HEADER_FEATURES))


def test_header_features_are_finite_where_no_quality_is_known(tmp_path: Path) -> None:
    write_manifest(tmp_path, toy_faces(1))
    features = header_features(read_toy(tmp_path).table)
    assert features.shape == (15, len(HEADER_FEATURES))
    assert np.isfinite(features).all()


def test_with_footer_replaces_an_earlier_footer() -> None:
    twice = with_footer(with_footer(COLUMNS, footer(1)), footer(2))
    assert json.loads(twice.metadata[b"dfad_bench"])["kept"] == 2
