"""Choosing by hash gives the same faces whatever the order and the neighbours; a group never falls apart."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfad_bench.records import sampling
from dfad_bench.records.sampling import (
    HashSample,
    assign,
    connected_groups,
    order_key,
    order_keys,
    sample,
    unit_intervals,
)

IDS = st.lists(st.text(max_size=5), unique=True, max_size=30)
MEMBERSHIPS = st.lists(st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=3), max_size=12)


def taken(ids: list[str], seed: int, most: int) -> set[str]:
    return {ids[index] for index in sample(ids, seed, most)}


# --- sample --------------------------------------------------------------------------------------------------------


def test_the_order_key_is_pinned_for_all_time() -> None:
    # printf '0:a' | sha256sum; every published subset depends on it
    assert order_key(0, "a") == "9df3c5fab8ef8fe78a408912e52e76477b5bd838eec3cbf48191a848ec8563d3"


@settings(deadline=None)
@given(IDS, st.integers(0, 3), st.integers(0, 40))
def test_a_sample_has_exactly_as_many_as_asked_or_all_there_are(ids: list[str], seed: int, most: int) -> None:
    indices = sample(ids, seed, most)
    assert len(indices) == min(most, len(ids))
    assert indices.dtype == np.int64
    assert sorted(set(indices.tolist())) == indices.tolist()


@settings(deadline=None)
@given(IDS, st.integers(0, 3), st.integers(0, 40), st.randoms())
def test_a_sample_does_not_depend_on_the_order_of_ids(
    ids: list[str], seed: int, most: int, dice: random.Random
) -> None:
    shuffled = list(ids)
    dice.shuffle(shuffled)
    assert taken(ids, seed, most) == taken(shuffled, seed, most)


@settings(deadline=None)
@given(IDS, IDS, st.integers(0, 3), st.integers(0, 40))
def test_an_id_leaves_a_sample_only_for_a_new_one_that_hashes_before_it(
    old: list[str], new: list[str], seed: int, most: int
) -> None:
    added = [each for each in new if each not in old]
    before, after = taken(old, seed, most), taken(old + added, seed, most)
    assert after <= before | set(added)
    left, came = before - after, after - before
    assert len(left) <= len(came)
    assert all(order_key(seed, new) < order_key(seed, gone) for new in came for gone in left)


@settings(deadline=None)
@given(IDS, st.integers(0, 3), st.integers(0, 20), st.integers(0, 20))
def test_a_smaller_sample_is_part_of_a_larger_one(ids: list[str], seed: int, less: int, more: int) -> None:
    assert taken(ids, seed, min(less, more)) <= taken(ids, seed, max(less, more))


def test_another_seed_takes_other_faces() -> None:
    ids = [f"face {number}" for number in range(200)]
    assert taken(ids, 0, 20) != taken(ids, 1, 20)


def test_a_seed_and_a_name_do_not_run_into_each_other() -> None:
    assert order_key(1, "1:a") != order_key(11, ":a")
    assert order_key(1, "1") != order_key(11, "")


@settings(deadline=None)
@given(st.integers(0, 9), st.lists(st.text(), max_size=5))
def test_a_number_in_the_unit_interval_is_the_digests_first_thirteen_digits(seed: int, names: list[str]) -> None:
    numbers = unit_intervals(seed, names).tolist()
    assert numbers == [int(order_key(seed, name)[:13], 16) / 16**13 for name in names]
    assert all(0 <= number < 1 for number in numbers)


# --- a sample of rows that pass by ---------------------------------------------------------------------------------

FEW = st.integers(0, 2)
"""Words of keys so few that most of them are equal."""


@settings(deadline=None)
@given(st.lists(st.tuples(FEW, FEW, FEW, FEW), max_size=40), st.integers(0, 9), st.lists(st.integers(0, 40)), st.data())
def test_rows_in_any_number_of_parts_leave_the_smallest_keys_and_ties_are_told_by_all_of_them(
    keys: list[tuple[int, ...]], most: int, cuts: list[int], data: st.DataObject
) -> None:
    chosen = HashSample(most)
    table = np.asarray(keys, np.uint64).reshape(-1, 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "_SLACK", 0)
        for rows in np.split(np.arange(len(keys), dtype=np.int64), sorted(min(cut, len(keys)) for cut in cuts)):
            chosen.add(table[rows], rows)
    asked = data.draw(st.integers(0, most))
    # of equal keys the row that stands first
    assert chosen.first(asked).tolist() == sorted(sorted(range(len(keys)), key=lambda row: (keys[row], row))[:asked])


@settings(deadline=None)
@given(st.integers(-3, 9), st.lists(st.text(), max_size=5))
def test_keys_are_the_digest_in_four_words(seed: int, names: list[str]) -> None:
    told = ["".join(f"{word:016x}" for word in key) for key in order_keys(seed, names).tolist()]
    assert told == [order_key(seed, name) for name in names]


def test_a_sample_holds_few_more_rows_than_are_asked_for() -> None:
    chosen = HashSample(10)
    keys = np.random.default_rng(0).integers(0, 2**64, (200_000, 4), np.uint64)
    for start in range(0, len(keys), 1000):
        chosen.add(keys[start : start + 1000], np.arange(start, start + 1000, dtype=np.int64))
        assert chosen._held <= 2 * 10 + sampling._SLACK
    assert chosen.first(10).tolist() == np.sort(np.lexsort(keys.T[::-1])[:10]).tolist()


# --- groups --------------------------------------------------------------------------------------------------------


def groups_by_flooding(memberships: list[list[str]]) -> list[str]:
    """The same answer, slowly: let every row take in all it touches until nothing changes."""
    reached = [set(members) for members in memberships]
    changed = True
    while changed:
        changed = False
        for mine in reached:
            for other in reached:
                if mine & other and not other <= mine:
                    mine |= other
                    changed = True
    return [min(each) for each in reached]


@settings(deadline=None)
@given(MEMBERSHIPS)
def test_groups_are_those_found_by_flooding(memberships: list[list[str]]) -> None:
    assert connected_groups(memberships) == groups_by_flooding(memberships)


@settings(deadline=None)
@given(MEMBERSHIPS, st.randoms())
def test_a_row_keeps_its_group_whatever_the_order_of_rows_and_members(
    memberships: list[list[str]], dice: random.Random
) -> None:
    order = list(range(len(memberships)))
    dice.shuffle(order)
    groups = connected_groups(memberships)
    shuffled = connected_groups([dice.sample(memberships[row], len(memberships[row])) for row in order])
    assert shuffled == [groups[row] for row in order]


def test_an_identity_and_a_video_chain_rows_into_one_group() -> None:
    memberships = [
        ["identity x", "video 1"],
        ["identity y", "video 1"],
        ["identity y", "identity z"],
        ["video 2"],
    ]
    assert connected_groups(memberships) == ["identity x", "identity x", "identity x", "video 2"]


def test_a_long_chain_is_one_group() -> None:
    chain = [[f"{number:06}", f"{number + 1:06}"] for number in range(20_000)]
    assert set(connected_groups(reversed(chain))) == {"000000"}


def test_a_row_without_members_is_refused() -> None:
    with pytest.raises(ValueError, match="without members"):
        connected_groups([["a"], []])


# --- assign --------------------------------------------------------------------------------------------------------


def test_groups_fall_into_parts_roughly_by_their_fractions() -> None:
    fractions = {"train": 0.7, "val": 0.1, "test": 0.2}
    counted = Counter(assign((f"group {number}" for number in range(5000)), 0, fractions).tolist())
    for part, fraction in enumerate(fractions.values()):
        # four standard deviations of a binomial share
        assert abs(counted[part] / 5000 - fraction) < 4 * (fraction * (1 - fraction) / 5000) ** 0.5


@settings(deadline=None)
@given(st.lists(st.text(max_size=3), max_size=20), st.integers(0, 3))
def test_a_group_falls_into_one_part_whoever_stands_beside_it(groups: list[str], seed: int) -> None:
    fractions = {"train": 0.5, "test": 0.5}
    assert assign(groups, seed, fractions).tolist() == [assign([group], seed, fractions)[0] for group in groups]


@settings(deadline=None)
@given(MEMBERSHIPS, st.integers(0, 5))
def test_rows_that_share_a_member_never_fall_into_two_parts(memberships: list[list[str]], seed: int) -> None:
    parts = assign(connected_groups(memberships), seed, {"train": 0.4, "val": 0.3, "test": 0.3})
    for part, members in zip(parts, memberships, strict=True):
        assert all(
            part == other for other, others in zip(parts, memberships, strict=True) if set(members) & set(others)
        )


@pytest.mark.parametrize(("number", "part"), [(0.0, 0), (0.4999, 0), (0.5, 1), (1 - 2**-52, 1)])
def test_a_part_begins_where_the_one_before_it_ends(monkeypatch: pytest.MonkeyPatch, number: float, part: int) -> None:
    monkeypatch.setattr(sampling, "unit_intervals", lambda seed, names: np.asarray([number]))
    assert assign(["group"], 0, {"a": 0.5, "b": 0.5 - 1e-10}).tolist() == [part]


@settings(deadline=None)
@given(st.text())
def test_fractions_that_sum_to_one_only_nearly_still_give_every_group_a_part(group: str) -> None:
    assert assign([group], 0, {"only": 1.0 - 1e-10}).tolist() == [0]
    assert assign([group], 0, dict.fromkeys("abcdefghij", 0.1))[0] in range(10)
