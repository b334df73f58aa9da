"""Clusters are drawn within their strata and alike however it is chunked, and faces are clustered by what they share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfad_bench.scoring.statistics.resampling import Resampler, find_clusters

RECORDED = [[2, 1, 0, 1, 1], [0, 1, 2, 1, 1], [1, 2, 0, 2, 0]]
STRATA = st.lists(st.integers(-1, 3), min_size=1, max_size=40).map(np.asarray)


def drawn(resampler: Resampler, cells: int = 1 << 20) -> Any:
    return np.concatenate(list(resampler.draws(cells)))


@given(STRATA, st.integers(0, 5), st.integers(1, 200))
def test_draws_do_not_depend_on_the_chunks_they_come_in(stratum: Any, seed: int, cells: int) -> None:
    resampler = Resampler(stratum, resamples=7, seed=seed)
    chunks = list(resampler.draws(cells))
    assert all(chunk.size <= cells or len(chunk) == 1 for chunk in chunks)
    assert np.array_equal(np.concatenate(chunks), drawn(resampler))


def test_more_resamples_keep_the_first_ones() -> None:
    stratum = np.arange(30) % 3
    assert np.array_equal(drawn(Resampler(stratum, resamples=20))[:5], drawn(Resampler(stratum, resamples=5)))


def test_another_seed_draws_other_clusters() -> None:
    stratum = np.zeros(30, dtype=int)
    assert not np.array_equal(drawn(Resampler(stratum, 3, seed=0)), drawn(Resampler(stratum, 3, seed=1)))
    assert not np.array_equal(*drawn(Resampler(stratum, 2, seed=0)))


@given(STRATA)
def test_every_resample_holds_as_many_clusters_of_each_stratum_as_the_data(stratum: Any) -> None:
    draws = drawn(Resampler(stratum, resamples=5))
    assert draws.dtype == np.int32
    for name in np.unique(stratum):
        assert (draws[:, stratum == name].sum(axis=1) == (stratum == name).sum()).all()


def test_a_lone_cluster_is_in_every_resample_once_and_never_deleted() -> None:
    resampler = Resampler(np.asarray([4, 7, 4, 4]), resamples=50)
    assert (drawn(resampler)[:, 1] == 1).all()
    deletions, stratum = resampler.deletions()
    assert (np.concatenate(list(deletions))[:, 1] == 1).all()
    assert stratum.tolist() == [4, 4, 4]


def test_clusters_are_drawn_equally_often_and_independently() -> None:
    draws = drawn(Resampler(np.asarray([0] * 8 + [1] * 4), resamples=20_000)).astype(float)
    # A count is binomial(n, 1/n): its mean is 1, its variance 1 - 1/n, two of a stratum have covariance -1/n.
    covariance = np.cov(draws.T)
    expected = np.zeros((12, 12))
    for start, n in ((0, 8), (8, 4)):
        expected[start : start + n, start : start + n] = np.eye(n) - 1 / n
    assert draws.mean(axis=0) == pytest.approx(np.ones(12), abs=0.03)
    assert covariance == pytest.approx(expected, abs=0.05)


def test_draws_are_the_recorded_ones() -> None:
    assert drawn(Resampler(np.asarray([0, 0, 0, 1, 1]), resamples=3)).tolist() == RECORDED


@given(STRATA, st.integers(1, 60), st.integers(1, 300))
def test_deletions_leave_every_cluster_out_once_with_its_own_stratum(stratum: Any, groups: int, cells: int) -> None:
    deletions, stratum_of_group = Resampler(stratum).deletions(groups, cells)
    kept = np.concatenate([np.empty((0, len(stratum)), dtype=np.int32), *deletions])
    assert len(kept) == len(stratum_of_group)
    sizes = {name: int((stratum == name).sum()) for name in np.unique(stratum).tolist()}
    alone = np.asarray([sizes[name] == 1 for name in stratum.tolist()])
    assert ((1 - kept).sum(axis=0) == ~alone).all()
    for row, name in zip(kept, stratum_of_group, strict=True):
        assert set(stratum[row == 0].tolist()) == {int(name)}
    for name, size in sizes.items():
        left_out = (1 - kept).sum(axis=1)[stratum_of_group == name]
        if size > 1:
            assert left_out.max() - left_out.min() <= 1
            assert min(size, 10) <= len(left_out) <= size


def test_groups_are_shared_among_strata_by_their_clusters() -> None:
    _, stratum = Resampler(np.repeat([0, 1, 2], [3000, 1000, 12])).deletions(groups=200)
    assert np.bincount(stratum).tolist() == [150, 50, 10]


def linked(identity: Any, video: Any) -> list[int]:
    """Clusters by merging until nothing changes."""
    label = list(range(len(identity)))
    changed = True
    while changed:
        changed = False
        for i in range(len(label)):
            for j in range(i):
                same = (identity[i] == identity[j] >= 0) or (video[i] == video[j] >= 0)
                if same and label[i] != label[j]:
                    label[i] = label[j] = min(label[i], label[j])
                    changed = True
    numbers: dict[int, int] = {}
    return [numbers.setdefault(each, len(numbers)) for each in label]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 6), st.integers(-1, 6)), max_size=25))
def test_faces_that_share_an_identity_or_a_video_are_one_cluster(faces: list[tuple[int, int]]) -> None:
    identity = np.asarray([face[0] for face in faces], dtype=np.int64)
    video = np.asarray([face[1] for face in faces], dtype=np.int32)
    found = find_clusters(identity, video)
    assert found.dtype == np.int32
    assert found.tolist() == linked(identity, video)


def test_a_video_of_very_many_frames_is_still_one_cluster() -> None:
    identity = np.zeros(1024, dtype=int)
    video = np.repeat([0, 1], 512)
    assert find_clusters(identity, video).max() == 0


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="2 identities for 3 videos"):
        find_clusters(np.zeros(2, dtype=int), np.zeros(3, dtype=int))
