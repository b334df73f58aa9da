"""Which faces stand or fall together, and the drawing and leaving out of whole clusters of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Ints = NDArray[np.integer[Any]]
CELLS = 1 << 22
FEWEST_GROUPS = 10


@dataclass(frozen=True, slots=True)
class Resampler:
    """Draws C clusters again and again, stratum by stratum.

    stratum [C]: each cluster's stratum, any integers. A stratum of n clusters is drawn n times with replacement, so
    every resample holds as many clusters of each stratum as the data. A stratum of one cluster cannot vary: it is
    drawn exactly once in every resample and never deleted, and so adds nothing to a spread.

    resamples, seed: how many draws, and which. Resample r depends on nothing but the seed, r and ``stratum``.
    """

    stratum: Ints
    resamples: int = 1000
    seed: int = 0

    def draws(self, cells: int = CELLS) -> Iterator[NDArray[np.int32]]:
        """Yield how often each cluster is drawn, int32 [r, C], until the r of all chunks add up to ``resamples``.

        cells bounds a chunk's r * C, but r is at least 1. The numbers do not depend on it.
        """
        clusters = len(self.stratum)
        order = np.argsort(self.stratum, kind="stable")
        _, first, counts = np.unique(self.stratum[order], return_index=True, return_counts=True)
        start, size = np.repeat(first, counts), np.repeat(counts, counts).astype(np.uint64)
        place = np.argsort(order)
        rows = max(1, cells // max(1, clusters))
        for begin in range(0, self.resamples, rows):
            chunk = np.empty((min(rows, self.resamples - begin), clusters), dtype=np.int32)
            for row in range(len(chunk)):
                # The raw stream: NumPy promises to keep it, but may change how Generator makes integers of it. Taking
                # 32 bits times n, shifted down, favours no cluster by more than n / 2**32.
                raw = np.random.PCG64(np.random.SeedSequence((self.seed, begin + row))).random_raw(clusters)
                pick = start + ((raw >> np.uint64(32)) * size >> np.uint64(32)).astype(np.intp)
                np.take(np.bincount(pick, minlength=clusters), place, out=chunk[row], mode="clip")
            yield chunk

    def deletions(self, groups: int = 200, cells: int = CELLS) -> tuple[Iterator[NDArray[np.int32]], NDArray[np.intp]]:
        """Return the multiplicities of a delete-a-group jackknife, int32 [g, C] a chunk, and each group's stratum [J].

        In group j's row the deleted clusters have 0 and the rest 1. The clusters of a stratum are split, in a fixed
        pseudo-random order, into groups whose sizes differ by at most 1: groups * n / C of them for its n clusters,
        rounded up, but at least the smaller of n and 10 and at most n. A stratum of one cluster has no group.
        """
        clusters = len(self.stratum)
        order = np.argsort(self.stratum, kind="stable")
        names, first, counts = np.unique(self.stratum[order], return_index=True, return_counts=True)
        group = np.full(clusters, -1, dtype=np.intp)
        stratum_of_group: list[int] = []
        for name, start, size in zip(names.tolist(), first.tolist(), counts.tolist(), strict=True):
            if size == 1:
                continue
            parts = min(size, max(FEWEST_GROUPS, -(-groups * size // clusters)))
            raw = np.random.PCG64(np.random.SeedSequence((self.seed, start, size))).random_raw(size)
            shuffled = order[start : start + size][np.argsort(raw, kind="stable")]
            group[shuffled] = len(stratum_of_group) + np.arange(size) * parts // size
            stratum_of_group += [name] * parts
        return _deleted(group, len(stratum_of_group), cells), np.asarray(stratum_of_group, dtype=np.intp)


def _deleted(group: NDArray[np.intp], groups: int, cells: int) -> Iterator[NDArray[np.int32]]:
    """Yield ones [g, C] with zeros where ``group`` [C] is the row's."""
    rows = max(1, cells // max(1, len(group)))
    for begin in range(0, groups, rows):
        wanted = np.arange(begin, min(begin + rows, groups))
        yield (group[None, :] != wanted[:, None]).astype(np.int32)


def find_clusters(identity: Ints, video: Ints) -> NDArray[np.int32]:
    """Return each face's cluster [N] int32: faces that share an identity or a video, directly or by a chain of others.

    identity [N]: code of the face's first identity, -1 unknown; video [N]: code of its video, -1 none. Codes are small
    non-negative integers, each column its own. A face with neither is a cluster by itself. Clusters are numbered by
    their first face, so the numbers do not depend on the codes. Raises ValueError where the lengths differ.
    """
    if identity.shape != video.shape:
        raise ValueError(f"{len(identity)} identities for {len(video)} videos")
    faces = len(identity)
    identities, videos = int(identity.max(initial=-1)) + 1, int(video.max(initial=-1)) + 1
    has_identity, has_video = identity >= 0, video >= 0
    both = has_identity & has_video
    nodes = identities + videos
    links = coo_array((np.ones(int(both.sum())), (identity[both], identities + video[both])), shape=(nodes, nodes))
    components, component = connected_components(links, directed=False)
    label = components + np.arange(faces)
    label[has_video] = component[identities + video[has_video]]
    label[has_identity] = component[identity[has_identity]]

    # A repeated index keeps what is assigned last, here the first face.
    first = np.full(components + faces, -1, dtype=np.intp)
    first[label[::-1]] = np.arange(faces)[::-1]
    is_first = np.zeros(faces, dtype=np.bool_)
    is_first[first[first >= 0]] = True
    number = np.cumsum(is_first, dtype=np.int32) - np.int32(1)
    return np.asarray(number[first[label]], dtype=np.int32)
