"""Counts the faces that look alike by their perceptual hashes, by split and by generator, and looks at some of them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from dfad_bench.analysis.near_pairs import PAIRS, Hashes, Ints, near_pairs
from dfad_bench.config import Strict
from dfad_bench.errors import DataError
from dfad_bench.records.face_files import read_file

NEAR_BITS = 4
"""Hashes that differ in so many bits at most are near.

Measured on 323 faces: of their copies coded as JPEG of quality 30 to 90, halved, blurred or brightened all are near, of
those cropped by 1 % 90 %, by 2 % 65 %; of 438,000 pairs of different people one. A pHash has as many ones as zeros, so
distances are even.
"""
FEWEST_ONES = 8
"""A hash with fewer ones is of a face without structure (all of one colour), and says nothing."""
LOOKED_AT = 20
"""So many pairs of each kind are opened, to tell the same picture from one of similar light and pose."""
SAME_PICTURE = 0.9
"""Two crops whose grey values correlate by this much, at 64 × 64 pixels, show one picture.

Measured on the same faces, among pairs of near hashes: copies at 0.93 and more (cropped by 2 %: 99 of 100 at 0.88 and more),
strangers at 0.71 to 0.81."""

_EXAMPLES = 3
_HASH = re.compile(r"[0-9a-f]{16}")
_MIX = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio: spreads hashes (Knuth, The Art of Computer Programming 3, 6.4)."""


class NearDuplicates(Strict):
    """Near faces of two splits, or of two generators, ordered by name.

    ``pairs``: of faces that no group of shared people, videos or pixels holds both of; ``related``: pairs within such
    a group, such as an edit and its input. ``looked_at``: pairs of the former whose two crops were opened, ``same``:
    those that show one picture. ``examples``: pairs of ids, those that show one picture first.
    """

    first: str
    second: str
    pairs: int
    related: int
    looked_at: int
    same: int
    examples: list[tuple[str, str]]


class NearDuplicateAudit(Strict):
    """All near faces of a manifest. ``hashes``: different ones; ``without_structure``: faces whose hash says nothing.

    ``within``: near pairs of unrelated faces of one generator in one split, which leak nothing.
    """

    bits: int
    hashes: int
    without_structure: int
    within: int
    splits: list[NearDuplicates]
    generators: list[NearDuplicates]


# --- whose faces are these? ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Cells:
    """Faces counted by key and label: C cells ordered by both.

    label, count, start [C]: the cell's ``count`` faces are ``rows`` from ``start`` on. keys [K] ascending, those of the
    cells ``begin`` to ``end`` [K].
    """

    label: Ints
    count: Ints
    start: Ints
    rows: Ints
    keys: Ints
    begin: Ints
    end: Ints

    def faces(self, cell: int) -> Ints:
        return self.rows[self.start[cell] : self.start[cell] + self.count[cell]]


def _count_cells(key: Ints, label: Ints) -> _Cells:
    rows = np.lexsort((label, key))
    key, label = key[rows], label[rows]
    start = np.flatnonzero(np.diff(key, prepend=-1) | np.diff(label, prepend=-1))
    keys, begin = np.unique(key[start], return_index=True)
    return _Cells(
        label[start], np.diff(start, append=len(rows)), start, rows, keys, begin, np.append(begin[1:], len(start))
    )


@dataclass(frozen=True, slots=True)
class _Faces:
    """The N faces whose hash says something, ordered by id: each has a hash (one of ``hashes`` [H]), a group and a label.

    A label stands for a split and a generator. by_label: cells of hash and label; by_group: of hash × groups + group, and
    label.
    """

    table: pa.Table
    hashes: Hashes
    group: Ints
    groups: int
    labels: list[tuple[str | None, str]]
    by_label: _Cells
    by_group: _Cells

    def group_range(self, hashes: Ints) -> tuple[Ints, Ints]:
        """Return where the keys of ``by_group`` begin and end that belong to each of these hashes."""
        keys = self.by_group.keys
        return np.searchsorted(keys, hashes * self.groups), np.searchsorted(keys, (hashes + 1) * self.groups)


def _faces(table: pa.Table) -> _Faces:
    columns = ["id", "file_name", "source_split", "generator", "identities", "video", "sha256", "perceptual_hash"]
    table = table.select(columns).sort_by("id").combine_chunks()
    group = related_groups(table)
    value = parse_hashes(table["perceptual_hash"])
    telling = np.bitwise_count(value) >= FEWEST_ONES
    table, group = table.filter(pa.array(telling)), group[telling]
    hashes, hashed = np.unique(value[telling], return_inverse=True)
    split, generator = (table[name].combine_chunks().dictionary_encode() for name in ("source_split", "generator"))
    names = split.dictionary.to_pylist()
    code = pc.fill_null(split.indices, len(names)).to_numpy(zero_copy_only=False).astype(np.int64)
    generators = generator.dictionary.to_pylist()
    label = code * len(generators) + generator.indices.to_numpy(zero_copy_only=False)
    groups = int(group.max(initial=0)) + 1
    return _Faces(
        table=table,
        hashes=hashes,
        group=group,
        groups=groups,
        labels=[(name, each) for name in [*names, None] for each in generators],
        by_label=_count_cells(hashed, label),
        by_group=_count_cells(hashed * groups + group, label),
    )


def parse_hashes(column: pa.ChunkedArray) -> Hashes:
    """Return perceptual hashes [N] as numbers; raise DataError for one that is not 16 hexadecimal digits."""
    encoded = column.combine_chunks().dictionary_encode()
    for each in encoded.dictionary.to_pylist():
        if not _HASH.fullmatch(each):
            raise DataError(f"The perceptual hash {each!r} is not 16 hexadecimal digits. Prepare the source again.")
    values = np.asarray([int(each, 16) for each in encoded.dictionary.to_pylist()], dtype=np.uint64)
    hashes: Hashes = values[encoded.indices.to_numpy(zero_copy_only=False)]
    return hashes


def related_groups(table: pa.Table) -> Ints:
    """Return for each of N faces the number of its group: faces that share a person, a video or pixels are in one.

    So are faces that are linked through others. Where such a group stands in two splits, one of its links does, which the
    check of shared identities, videos and pixel hashes tells. ``sampling.connected_groups`` is the same in ten times the
    time, with names that last.
    """
    faces, members, first = [], [], table.num_rows
    for name in ("identities", "video", "sha256"):
        column = table[name].combine_chunks()
        if pa.types.is_list(column.type):
            row, column = pc.list_parent_indices(column).to_numpy(), pc.list_flatten(column)
        else:
            row = np.arange(table.num_rows)
        encoded = column.dictionary_encode()
        held = encoded.is_valid().to_numpy(zero_copy_only=False)
        faces.append(row[held])
        members.append(first + encoded.indices.drop_null().to_numpy())
        first += len(encoded.dictionary)
    one, other = np.concatenate(faces), np.concatenate(members)
    links = coo_matrix((np.ones(len(one), np.int8), (one, other)), shape=(first, first))
    _, group = connected_components(links, directed=False)
    return np.unique(group[: table.num_rows], return_inverse=True)[1].astype(np.int64)


# --- how many pairs, of what? --------------------------------------------------------------------------------------

Labels = tuple[int, int]
Near = tuple[int, int, int, int]
"""Distance in bits and the mixed hashes, by which the nearest come first; then the two cells of ``by_label``."""


@dataclass
class _Tally:
    """Pairs of faces by pair of labels, twice each; those of two labels with the nearest few."""

    pairs: Counter[Labels] = field(default_factory=Counter)
    related: Counter[Labels] = field(default_factory=Counter)
    nearest: defaultdict[Labels, list[Near]] = field(default_factory=lambda: defaultdict(list))


def _tally(faces: _Faces, bits: int) -> _Tally:
    """Count all near pairs of faces, hash by hash: faces of one hash are counted together, however many they are."""
    tally = _Tally()
    if len(faces.hashes):
        repeated = np.flatnonzero(np.add.reduceat(faces.by_label.count, faces.by_label.begin) > 1)
        _add(tally, faces, repeated, repeated)
    for first, second in near_pairs(faces.hashes, bits):
        _add(tally, faces, np.minimum(first, second), np.maximum(first, second))
    return tally


def _add(tally: _Tally, faces: _Faces, first: Ints, second: Ints) -> None:
    """Add the faces of pairs of hashes to the tally, every pair of faces counting twice.

    A hash is paired with itself in both orders; so is a face, which counts as related and is never shown.
    """
    cells, groups, size = faces.by_label, faces.by_group, len(faces.labels)
    for part in _portions(faces, first, second):
        one, other = first[part], second[part]
        weight = np.where(one == other, 1, 2)
        pair, a, b = _cross(cells.begin[one], cells.end[one], cells.begin[other], cells.end[other])
        ways = weight[pair] * cells.count[a] * cells.count[b]
        place = (pair * size + cells.label[a]) * size + cells.label[b]  # ascends
        both, c, d = _of_one_group(faces, one, other)
        related = np.zeros_like(ways)
        where = np.searchsorted(place, (both * size + groups.label[c]) * size + groups.label[d])
        np.add.at(related, where, weight[both] * groups.count[c] * groups.count[d])
        low, high = np.minimum(cells.label[a], cells.label[b]), np.maximum(cells.label[a], cells.label[b])
        labels, index = np.unique(low * size + high, return_inverse=True)
        for counter, amount in ((tally.pairs, ways - related), (tally.related, related)):
            sums = np.zeros(len(labels), np.int64)
            np.add.at(sums, index, amount)
            for each, total in zip(labels.tolist(), sums.tolist(), strict=True):
                counter[divmod(each, size)] += total
        shown = np.flatnonzero((ways > related) & (low != high) & ((one != other)[pair] | (a < b)))
        hashes = faces.hashes[one[pair[shown]]], faces.hashes[other[pair[shown]]]
        _keep_nearest(tally, size, (low * size + high)[shown], *hashes, a[shown], b[shown])


def _portions(faces: _Faces, first: Ints, second: Ints) -> Iterable[slice]:
    """Divide pairs of hashes into slices whose faces fit into memory."""
    cells = faces.by_label
    labels = (cells.end - cells.begin)[first] * (cells.end - cells.begin)[second]
    begin, end = faces.group_range(first)
    cost = np.cumsum(labels + end - begin)
    cuts = np.flatnonzero(np.diff(cost // (4 * PAIRS), prepend=0))
    edges = [0, *cuts.tolist(), len(first)]
    return [slice(low, high) for low, high in pairwise(edges) if low < high]


def _cross(begin: Ints, end: Ints, other_begin: Ints, other_end: Ints) -> tuple[Ints, Ints, Ints]:
    """Return for P pairs of ranges every combination of a member of each: pair, member, other member, in this order."""
    width = other_end - other_begin
    pair, member = _spread((end - begin) * width)
    return pair, begin[pair] + member // width[pair], other_begin[pair] + member % width[pair]


def _spread(counts: Ints) -> tuple[Ints, Ints]:
    """Return for counts [P] each index as often as its count says, and which of its times it is."""
    pair = np.repeat(np.arange(len(counts)), counts)
    return pair, np.arange(len(pair)) - np.repeat(np.cumsum(counts) - counts, counts)


def _of_one_group(faces: _Faces, first: Ints, second: Ints) -> tuple[Ints, Ints, Ints]:
    """Return for pairs of hashes the cells of ``by_group`` that share a group: pair, cell of first, cell of second."""
    cells = faces.by_group
    (begin, end), (other_begin, other_end) = faces.group_range(first), faces.group_range(second)
    swapped = end - begin > other_end - other_begin  # the side of fewer groups is gone through
    many = np.where(swapped, first, second)
    pair, member = _spread(np.minimum(end - begin, other_end - other_begin))
    key = np.where(swapped, other_begin, begin)[pair] + member
    wanted = many[pair] * faces.groups + cells.keys[key] % faces.groups
    found = np.minimum(np.searchsorted(cells.keys, wanted), len(cells.keys) - 1)
    hit = cells.keys[found] == wanted
    pair, key, found = pair[hit], key[hit], found[hit]
    inner, a, b = _cross(cells.begin[key], cells.end[key], cells.begin[found], cells.end[found])
    pair = pair[inner]
    return pair, np.where(swapped[pair], b, a), np.where(swapped[pair], a, b)


def _keep_nearest(tally: _Tally, size: int, labels: Ints, first: Hashes, second: Hashes, a: Ints, b: Ints) -> None:
    """Keep of each pair of labels the LOOKED_AT pairs of cells whose hashes are nearest; among equals a hash decides."""
    if not len(labels):
        return
    distance = np.bitwise_count(first ^ second).astype(np.int64)
    mixed = ((first * _MIX) ^ (second * _MIX << np.uint64(1))) * _MIX >> np.uint64(2)
    order = np.lexsort((b, a, mixed, distance, labels))
    for part in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        chosen = part[:LOOKED_AT]
        kept = tally.nearest[divmod(int(labels[chosen[0]]), size)]
        kept += zip(*(each[chosen].tolist() for each in (distance, mixed, a, b)), strict=True)
        kept[:] = sorted(kept)[:LOOKED_AT]


# --- what do they show? --------------------------------------------------------------------------------------------


def find_near_duplicates(table: pa.Table, root: Path, bits: int = NEAR_BITS) -> NearDuplicateAudit:
    """Count near faces across splits and across generators, and open a few pairs that nothing declares to be related.

    table: a manifest's rows, in any order; root: its folder. Raises DataError for a hash that is none.
    """
    faces = _faces(table)
    tally = _tally(faces, bits)

    def gather(name: Callable[[tuple[str | None, str]], str | None]) -> list[NearDuplicates]:
        found: dict[tuple[str, str], _Tally] = defaultdict(_Tally)
        for labels in tally.pairs:
            first, second = (name(faces.labels[each]) for each in labels)
            if first is None or second is None or first == second:
                continue
            each = found[min(first, second), max(first, second)]
            each.pairs[0, 0] += tally.pairs[labels]
            each.related[0, 0] += tally.related[labels]
            each.nearest[0, 0] += tally.nearest.get(labels, [])
        return [_look_at(faces, root, names, each) for names, each in sorted(found.items())]

    return NearDuplicateAudit(
        bits=bits,
        hashes=len(faces.hashes),
        without_structure=table.num_rows - faces.table.num_rows,
        within=sum(count for labels, count in tally.pairs.items() if labels[0] == labels[1]) // 2,
        splits=gather(lambda label: label[0]),
        generators=gather(lambda label: label[1]),
    )


def _look_at(faces: _Faces, root: Path, names: tuple[str, str], found: _Tally) -> NearDuplicates:
    """Open the nearest pairs of two splits, or of reals and a generator, and return what they are."""
    nearest = [_unrelated(faces, a, b) for _, _, a, b in sorted(found.nearest[0, 0])[:LOOKED_AT]]
    ids, files = faces.table["id"], faces.table["file_name"]
    alike = [same_picture(root, *(files[face].as_py() for face in pair)) for pair in nearest]
    shown = sorted(range(len(nearest)), key=lambda each: not alike[each])[:_EXAMPLES]
    return NearDuplicates(
        first=names[0],
        second=names[1],
        pairs=found.pairs[0, 0] // 2,
        related=found.related[0, 0] // 2,
        looked_at=sum(each is not None for each in alike),
        same=sum(each is True for each in alike),
        examples=[(ids[min(nearest[each])].as_py(), ids[max(nearest[each])].as_py()) for each in shown],
    )


def _unrelated(faces: _Faces, a: int, b: int) -> tuple[int, int]:
    """Return the first faces of two cells that no group holds both of; there are such."""
    one, other = faces.by_label.faces(a), faces.by_label.faces(b)
    for face in (one[0], one[np.argmax(faces.group[one] != faces.group[other[0]])]):
        strangers = other[faces.group[other] != faces.group[face]]
        if len(strangers):
            return int(face), int(strangers[0])
    raise AssertionError("a pair that was counted as unrelated is related")


def same_picture(root: Path, first: str, second: str) -> bool | None:
    """Return whether two crops show one picture, None where either cannot be read."""
    grey = [_grey(root, each) for each in (first, second)]
    if grey[0] is None or grey[1] is None:
        return None
    return float(grey[0] @ grey[1]) >= SAME_PICTURE


def _grey(root: Path, name: str) -> NDArray[np.float64] | None:
    """Return a crop's 64 × 64 grey values as a vector of mean 0 and length 1, or of zeros where all are equal."""
    try:
        stored = np.frombuffer(read_file(root, name), np.uint8)
        image = cv2.imdecode(stored, cv2.IMREAD_GRAYSCALE)
    except (OSError, cv2.error):  # a missing or broken file is told by another check
        return None
    if image is None:
        return None
    small = cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA).astype(np.float64).ravel()
    small -= small.mean()
    return small / max(float(np.linalg.norm(small)), 1e-9)
