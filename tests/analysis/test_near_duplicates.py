"""Near faces: all of them are found, each pair once, whatever the hashes; and what is related is told from what is not."""

from __future__ import annotations

import time
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfad_bench.analysis import near_pairs as search
from dfad_bench.analysis.near_duplicates import (
    LOOKED_AT,
    NEAR_BITS,
    NearDuplicateAudit,
    find_near_duplicates,
    related_groups,
    same_picture,
)
from dfad_bench.analysis.near_pairs import near_pairs
from dfad_bench.errors import DataError
from dfad_bench.prepare.crop import perceptual_hash
from dfad_bench.records.sampling import connected_groups
from tests.analysis.builders import face, table_of

Row = dict[str, Any]


# --- hashes --------------------------------------------------------------------------------------------------------


def _pairs(hashes: np.ndarray, bits: int) -> Counter[tuple[int, int]]:
    found: Counter[tuple[int, int]] = Counter()
    for first, second in near_pairs(hashes, bits):
        found.update((min(pair), max(pair)) for pair in zip(first.tolist(), second.tolist(), strict=True))
    return found


def _all_pairs(hashes: np.ndarray, bits: int) -> Counter[tuple[int, int]]:
    first, second = np.triu_indices(len(hashes), 1)
    near = np.bitwise_count(hashes[first] ^ hashes[second]) <= bits
    return Counter(zip(first[near].tolist(), second[near].tolist(), strict=True))


@st.composite
def crowded_hashes(draw: st.DrawFn) -> np.ndarray:
    """Different hashes around few centres, so that many are near, and many more agree in some bands."""
    centres = draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4))
    places = st.lists(st.integers(0, 63), max_size=9)
    flips = draw(st.lists(st.tuples(st.sampled_from(centres), places), max_size=60))
    made = {*centres, *(centre ^ sum(1 << place for place in set(flipped)) for centre, flipped in flips)}
    return np.asarray(draw(st.permutations(sorted(made))), dtype=np.uint64)


@given(crowded_hashes(), st.integers(0, 8), st.sampled_from([16, 1024]))
@settings(max_examples=150, deadline=None)
def test_every_near_pair_is_found_exactly_once(hashes: np.ndarray, bits: int, largest: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "_LARGEST", largest)
        assert _pairs(hashes, bits) == _all_pairs(hashes, bits)


@pytest.mark.parametrize("free_bits", [6, 11, 64])
def test_bands_that_very_many_hashes_share_are_split_without_loss(
    free_bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_LARGEST", 40)
    rng = np.random.default_rng(free_bits)
    drawn = rng.integers(0, 2**63, 1500).astype(np.uint64) & np.uint64((1 << free_bits) - 1)
    hashes = np.unique(drawn | np.uint64(1 << 63))
    assert _pairs(hashes, NEAR_BITS) == _all_pairs(hashes, NEAR_BITS)


def test_no_hash_and_one_hash_have_no_pair() -> None:
    assert not _pairs(np.asarray([], np.uint64), 4)
    assert not _pairs(np.asarray([7], np.uint64), 4)


def test_time_does_not_grow_with_the_square_of_the_number_of_hashes() -> None:
    """All pairs of 200,000 hashes are 2·10¹⁰; at the speed of comparing 4,000 with each other they would take a minute."""
    rng = np.random.default_rng(0)
    few, many = (np.unique(rng.integers(0, 2**64, count, dtype=np.uint64)) for count in (4_000, 200_000))
    started = time.process_time()
    _all_pairs(few, 4)
    brute = time.process_time() - started
    started = time.process_time()
    _pairs(many, 4)
    assert time.process_time() - started < brute * (200_000 / 4_000) ** 2 / 10


# --- faces ---------------------------------------------------------------------------------------------------------


def _hash(number: int, *flipped: int) -> str:
    """Return one of a few hashes that are far from each other, with some bits flipped."""
    base = np.random.default_rng(number).integers(0, 2**63)
    return f"{int(base) ^ sum(1 << place for place in set(flipped)):016x}"


def _find(rows: list[Row], root: Path = Path("nowhere")) -> NearDuplicateAudit:
    return find_near_duplicates(table_of(rows), root)


def _told(audit: NearDuplicateAudit) -> dict[tuple[str, str], tuple[int, int]]:
    return {(each.first, each.second): (each.pairs, each.related) for each in (*audit.splits, *audit.generators)}


def test_strangers_that_look_alike_in_two_splits_are_counted_with_an_example() -> None:
    rows = [
        face("real", 0, source_split="train", perceptual_hash=_hash(1)),
        face("real", 1, source_split="test", perceptual_hash=_hash(1, 3, 60)),
        face("real", 2, source_split="test", perceptual_hash=_hash(1, 3, 4, 5, 6, 60)),
    ]
    (found,) = _find(rows).splits
    assert (found.first, found.second, found.pairs, found.related) == ("test", "train", 1, 0)
    assert found.examples == [("toy/real/00000", "toy/real/00001")]


def test_an_edit_and_its_input_are_related_and_strangers_are_not() -> None:
    rows = [
        face("real", 0, identities=["anna"], perceptual_hash=_hash(1)),
        face("attgan", 0, identities=["anna"], perceptual_hash=_hash(1, 5)),
        face("attgan", 1, identities=["bo"], perceptual_hash=_hash(1, 6)),
        face("attgan", 2, identities=["bo"], video="v", perceptual_hash=_hash(2)),
        face("real", 3, video="v", perceptual_hash=_hash(2)),
    ]
    audit = _find(rows)
    assert _told(audit) == {("attgan", "real"): (1, 2)}
    assert audit.within == 1


def test_faces_linked_through_others_and_the_same_pixels_are_related() -> None:
    rows = [
        face("real", 0, identities=["anna"], perceptual_hash=_hash(1)),
        face("swap", 0, identities=["anna", "bo"], perceptual_hash=_hash(3)),
        face("ddim", 0, identities=["bo"], perceptual_hash=_hash(1)),
        face("glow", 0, sha256="same", perceptual_hash=_hash(2)),
        face("ddim", 1, sha256="same", perceptual_hash=_hash(2)),
    ]
    assert _told(_find(rows)) == {("ddim", "real"): (0, 1), ("ddim", "glow"): (0, 1)}


def test_faces_without_a_split_leak_nowhere() -> None:
    rows = [face("real", i, source_split=split, perceptual_hash=_hash(1)) for i, split in enumerate(["train", None])]
    assert _told(_find(rows)) == {}


def test_pairs_within_one_generator_and_split_are_counted_and_not_listed() -> None:
    rows = [face("real", i, source_split="train", perceptual_hash=_hash(1, i)) for i in range(5)]
    audit = _find(rows)
    assert (_told(audit), audit.within) == ({}, 10)


def test_faces_without_structure_are_counted_and_match_nothing() -> None:
    rows = [face("real", 0, perceptual_hash="0" * 16), face("ddim", 0, perceptual_hash="8000000000000000")]
    rows.append(face("ddim", 1, perceptual_hash=_hash(1)))
    audit = _find(rows)
    assert (audit.without_structure, audit.hashes, _told(audit)) == (2, 1, {})


def test_an_empty_table_and_a_broken_hash() -> None:
    audit = _find([])
    assert (audit.hashes, audit.splits, audit.generators, audit.within) == (0, [], [], 0)
    with pytest.raises(DataError, match="'xyz' is not 16 hexadecimal digits"):
        _find([face("real", 0, perceptual_hash="xyz")])


@st.composite
def crowds(draw: st.DrawFn) -> list[Row]:
    """Faces of few hashes, people, videos and labels, so that every kind of pair comes up."""
    return [
        face(
            draw(st.sampled_from(["real", "a", "b"])),
            number,
            source_split=draw(st.sampled_from(["train", "test", None])),
            identities=draw(st.lists(st.sampled_from("pqrs"), max_size=2)),
            video=draw(st.sampled_from(["v", "w", None, None])),
            sha256=draw(st.sampled_from(["x", f"{number}", f"{number}"])),
            perceptual_hash=_hash(draw(st.integers(1, 2)), *draw(st.lists(st.integers(0, 63), max_size=3))),
        )
        for number in range(draw(st.integers(0, 25)))
    ]


@given(crowds(), st.randoms())
@settings(max_examples=100, deadline=None)
def test_pairs_of_faces_are_counted_as_by_comparing_all(rows: list[Row], random: Any) -> None:
    group = connected_groups(
        [f"x{r['sha256']}", *(f"i{each}" for each in r["identities"]), *([f"v{r['video']}"] if r["video"] else [])]
        for r in rows
    )
    expected: dict[tuple[str, str], list[int]] = {}
    within = 0
    for a, b in combinations(range(len(rows)), 2):
        if (int(rows[a]["perceptual_hash"], 16) ^ int(rows[b]["perceptual_hash"], 16)).bit_count() > NEAR_BITS:
            continue
        related = group[a] == group[b]
        places = [(rows[each]["source_split"], rows[each]["generator"]) for each in (a, b)]
        within += not related and places[0] == places[1]
        for one, other in zip(*places, strict=True):
            if None not in (one, other) and one != other:
                expected.setdefault((min(one, other), max(one, other)), [0, 0])[related] += 1
    audit = _find(rows)
    assert _told(audit) == {names: tuple(counts) for names, counts in expected.items()}
    assert audit.within == within
    by_id = {row["id"]: each for row, each in zip(rows, group, strict=True)}
    for found in (*audit.splits, *audit.generators):
        assert bool(found.examples) == bool(found.pairs)
        assert all(by_id[one] != by_id[other] for one, other in found.examples)
    shuffled = random.sample(rows, len(rows))
    assert _find(shuffled) == audit


@given(crowds())
@settings(max_examples=50, deadline=None)
def test_groups_are_those_of_the_splits(rows: list[Row]) -> None:
    named = connected_groups(
        [f"x{r['sha256']}", *(f"i{each}" for each in r["identities"]), *([f"v{r['video']}"] if r["video"] else [])]
        for r in rows
    )
    numbered = related_groups(table_of(rows)).tolist()
    assert len(set(zip(named, numbered, strict=True))) == len(set(named)) == len(set(numbered))


def test_a_hash_that_very_many_faces_share_is_counted_without_comparing_them() -> None:
    count = 100_000
    rows = table_of([face("real", 0, source_split="train", perceptual_hash=_hash(1))]).take([0] * count)
    ids = [f"toy/real/{number:06}" for number in range(count)]
    split = ["test" if number % 2 else "train" for number in range(count)]
    for name, values in (
        ("id", ids),
        ("sha256", ids),
        ("identities", [[each] for each in ids]),
        ("source_split", split),
    ):
        index = rows.schema.get_field_index(name)
        rows = rows.set_column(index, rows.schema.field(index), [values])
    started = time.process_time()
    audit = find_near_duplicates(rows, Path("nowhere"))
    assert [(each.pairs, each.related) for each in audit.splits] == [((count // 2) ** 2, 0)]
    assert audit.within == 2 * (count // 2) * (count // 2 - 1) // 2
    assert time.process_time() - started < 20


# --- pictures ------------------------------------------------------------------------------------------------------


def _picture(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 255, (6, 6, 3)).astype(np.uint8)
    return cv2.resize(noise, (256, 256), interpolation=cv2.INTER_CUBIC)


def test_a_copy_in_another_split_is_seen_and_a_hash_that_is_near_by_chance_is_told_from_it(tmp_path: Path) -> None:
    picture = _picture(0)
    copy = cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR)
    files = {"a.png": picture, "b.png": copy, "c.png": _picture(1), "d.png": _picture(2)}
    for name, pixels in files.items():
        cv2.imwrite(str(tmp_path / name), pixels)
    rows = [face("real", 0, source_split="train", file_name="a.png", perceptual_hash=perceptual_hash(picture))]
    rows.append(face("real", 1, source_split="test", file_name="b.png", perceptual_hash=perceptual_hash(copy)))
    rows.append(face("ddim", 2, file_name="c.png", perceptual_hash=_hash(9)))
    rows.append(face("glow", 3, file_name="d.png", perceptual_hash=_hash(9)))
    audit = _find(rows, tmp_path)
    assert [(each.pairs, each.looked_at, each.same) for each in audit.splits] == [(1, 1, 1)]
    assert [(each.pairs, each.looked_at, each.same) for each in audit.generators] == [(1, 1, 0)]


def test_the_nearest_pairs_are_opened_and_no_more_than_promised(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "same.png"), _picture(0))
    rows = [face("real", i, file_name="same.png", perceptual_hash=_hash(1, i)) for i in range(9)]
    rows += [face("ddim", i, file_name="same.png", perceptual_hash=_hash(1, i + 20)) for i in range(9)]
    rows.append(face("ddim", 99, file_name="same.png", perceptual_hash=_hash(1, 4)))
    (found,) = _find(rows, tmp_path).generators
    assert (found.pairs, found.looked_at, found.same) == (90, LOOKED_AT, LOOKED_AT)
    assert found.examples[0] == ("toy/ddim/00099", "toy/real/00004")


def test_crops_that_cannot_be_read_are_neither_alike_nor_different(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), _picture(0))
    (tmp_path / "broken.png").write_bytes(b"x")
    (tmp_path / "empty.png").write_bytes(b"")
    outside = tmp_path.parent / "outside.png"
    cv2.imwrite(str(outside), _picture(0))
    (tmp_path / "link.png").symlink_to(outside)
    assert same_picture(tmp_path, "a.png", "a.png") is True
    for name in ("broken.png", "empty.png", "missing.png", "link.png"):
        assert same_picture(tmp_path, "a.png", name) is None


def test_recoded_and_smaller_copies_of_real_faces_are_near_and_other_people_are_not(corpus: Path) -> None:
    paths = sorted((corpus / "images/real").rglob("congress*"))[:60]
    hashes, copies = [], []
    for path in paths:
        image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        side = min(image.shape[:2])
        image = np.ascontiguousarray(image[:side, :side])
        small = cv2.resize(image, (side // 2, side // 2), interpolation=cv2.INTER_AREA)
        coded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 50])[1]
        hashes.append(int(perceptual_hash(image), 16))
        copies.append(int(perceptual_hash(cv2.imdecode(coded, cv2.IMREAD_COLOR)), 16))
    for one, copy in zip(hashes, copies, strict=True):
        assert (one ^ copy).bit_count() <= NEAR_BITS
    assert all((a ^ b).bit_count() > NEAR_BITS for a, b in combinations(hashes, 2))
