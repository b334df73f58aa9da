"""A person, a video or the same pixels on two sides of a split is found, and what merely lacks a name is not."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfad_bench.records import leakage
from dfad_bench.records.leakage import KINDS, Overlap, find_overlaps, overlaps_between
from tests.records.builders import face, faces_table


def test_splits_that_share_nothing_have_no_overlap() -> None:
    assert find_overlaps({"train": faces_table([face("a")]), "test": faces_table([face("b")])}) == []


@pytest.mark.parametrize(
    ("column", "value", "shared"),
    [("identities", ["anna"], "anna"), ("video", "toy/real/clip", "toy/real/clip"), ("sha256", "f" * 64, "f" * 64)],
)
def test_each_column_is_looked_at(column: str, value: object, shared: str) -> None:
    splits = {name: faces_table([face(name, **{column: value}), face(f"{name} 2")]) for name in ("train", "test")}
    assert find_overlaps(splits) == [Overlap(column, "train", "test", 1, (shared,))]


@pytest.mark.parametrize(("column", "kind"), KINDS.items())
def test_an_overlap_reads_as_a_sentence(column: str, kind: str) -> None:
    assert str(Overlap(column, "train", "test", 2, ("a", "b"))) == f"2 shared by train and test by {kind}, such as a, b"


def test_two_faces_without_a_video_do_not_match() -> None:
    assert find_overlaps({"train": faces_table([face("a", video=None)]), "test": faces_table([face("b")])}) == []


def test_two_faces_without_identities_do_not_match() -> None:
    splits = {name: faces_table([face(name, identities=[])]) for name in ("train", "test")}
    assert find_overlaps(splits) == []


def test_an_identity_that_is_null_inside_its_list_does_not_match() -> None:
    splits = {name: faces_table([face(name, identities=[None])]) for name in ("train", "test")}
    assert find_overlaps(splits) == []


@pytest.mark.parametrize("both", [["anna", "berta"], ["berta", "anna"]])
def test_the_second_identity_of_a_swap_counts_like_the_first(both: list[str]) -> None:
    splits = {
        "train": faces_table([face("a", "swap_a", identities=both)]),
        "test": faces_table([face("b", identities=["anna"])]),
    }
    assert find_overlaps(splits) == [Overlap("identities", "train", "test", 1, ("anna",))]


def test_a_slice_is_judged_by_its_own_rows() -> None:
    both = faces_table([face("a", identities=["anna"]), face("b", identities=["berta"])])
    other = faces_table([face("c", identities=["anna"])])
    assert find_overlaps({"train": both.slice(1), "test": other}) == []
    assert len(find_overlaps({"train": both.slice(0, 1), "test": other})) == 1


def test_a_table_in_several_pieces_is_looked_at_whole() -> None:
    pieces = pa.concat_tables([faces_table([face("a")]), faces_table([face("b", identities=["anna"])])])
    assert len(find_overlaps({"train": pieces, "test": faces_table([face("c", identities=["anna"])])})) == 1


def test_an_empty_split_overlaps_with_nothing() -> None:
    assert find_overlaps({"train": faces_table([]), "test": faces_table([face("a")])}) == []


def test_every_pair_of_splits_is_told_apart() -> None:
    splits = {name: faces_table([face(name, identities=["anna"])]) for name in ("train", "val", "test")}
    pairs = [(overlap.first, overlap.second) for overlap in find_overlaps(splits)]
    assert pairs == [("train", "val"), ("train", "test"), ("val", "test")]


PEOPLE = st.lists(st.lists(st.sampled_from("zyxwvuts"), max_size=2), max_size=6)


@settings(deadline=None)
@given(PEOPLE, PEOPLE)
def test_the_count_is_of_distinct_values_and_the_examples_are_the_first_three_in_order(
    train: list[list[str]], test: list[list[str]]
) -> None:
    splits = {
        "train": faces_table(face(f"a{i}", identities=who) for i, who in enumerate(train)),
        "test": faces_table(face(f"b{i}", identities=who) for i, who in enumerate(test)),
    }
    shared = sorted({who for row in train for who in row} & {who for row in test for who in row})
    expected = [Overlap("identities", "train", "test", len(shared), tuple(shared[:3]))] if shared else []
    assert find_overlaps(splits) == expected


@settings(deadline=None)
@given(PEOPLE, PEOPLE, PEOPLE, st.integers(1, 3), st.integers(1, 4))
def test_values_that_merely_share_a_hash_are_told_apart(
    train: list[list[str]], val: list[list[str]], test: list[list[str]], hashes: int, most: int
) -> None:
    def few(texts: pa.Array) -> np.ndarray:
        return np.asarray([ord(text[0]) % hashes for text in texts.to_pylist()], np.int64)

    splits = {
        name: faces_table(face(f"{name}{i}", identities=who, sha256=f"{name[1]}{i}") for i, who in enumerate(rows))
        for name, rows in (("train", train), ("val", val), ("test", test))
    }
    with pytest.MonkeyPatch.context() as patch:
        honest = find_overlaps(splits)
        patch.setattr(leakage, "hashes", few)
        patch.setattr(leakage, "_MOST_RESOLVED", most)
        assert find_overlaps(splits) == honest


def test_only_columns_in_which_two_splits_have_one_hash_are_read_again() -> None:
    splits = {"train": faces_table([face("a", sha256="s")]), "test": faces_table([face("b", sha256="s")])}
    asked: list[list[str]] = []

    def read(columns: list[str]) -> list[tuple[str, pa.RecordBatch]]:
        asked.append(list(columns))
        return [(name, batch) for name, table in splits.items() for batch in table.select(columns).to_batches()]

    assert overlaps_between(["train", "test"], read, ["video", "sha256"]) == [
        Overlap("sha256", "train", "test", 1, ("s",))
    ]
    assert asked == [["video", "sha256"], ["sha256"]]
    assert overlaps_between(["train", "test"], read, []) == []
    assert len(asked) == 2, "with nothing to look at, nothing is read"
