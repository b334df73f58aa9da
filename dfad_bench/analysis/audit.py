"""Asks of a prepared manifest whether its faces can be trusted: are they there, do splits leak, do the files tell all?"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dfad_bench.analysis.balance import (
    GeneratorBalance,
    balance_columns,
    balance_rows,
    balance_warnings,
    count_balance,
    read_skipped,
)
from dfad_bench.analysis.near_duplicates import (
    FEWEST_ONES,
    NearDuplicateAudit,
    NearDuplicates,
    find_near_duplicates,
    parse_hashes,
)
from dfad_bench.analysis.shortcut import (
    MIN_FACES,
    ShortcutAudit,
    Table,
    find_shortcuts,
    shortcut_tables,
    shortcut_verdict,
    shortcut_warnings,
)
from dfad_bench.config import Strict
from dfad_bench.errors import shorten
from dfad_bench.records.face_files import file_size
from dfad_bench.records.leakage import KINDS, Overlap, find_overlaps
from dfad_bench.records.manifest import Manifest
from dfad_bench.types import REAL

SCHEMA_VERSION = 2
SAME_SHARE = 0.99
"""Two splits hold the same faces where this share of the smaller one's is in the other too."""

_EXAMPLES = 3
_BATCH = 16_384


class FileCheck(Strict):
    """The faces and gaze maps that the manifest names, and those that are not there or hold no bytes."""

    checked: int
    missing: int
    empty: int
    examples: list[str]


class Duplicates(Strict):
    """Faces of identical pixels: within one generator (``first`` is ``second``), or under two labels.

    ``count``: superfluous faces within one generator; pixel hashes that two generators share. ``example``: two ids.
    """

    first: str
    second: str
    count: int
    example: tuple[str, str]


class SameSplits(Strict):
    """Two splits that hold the same faces: ``shared`` of the ``faces`` of ``smaller`` are in ``larger``, by ``what``."""

    smaller: str
    larger: str
    what: Literal["pixels", "perceptual hash", "video"]
    shared: int
    faces: int


class AuditReport(Strict):
    """Everything the audit found. ``problems`` must be mended; ``warnings`` must be known to whoever reads a score."""

    schema_version: int = SCHEMA_VERSION
    source: str
    faces: int
    seed: int
    files: FileCheck
    source_splits: list[str]
    overlaps: list[Overlap]
    same_splits: list[SameSplits]
    duplicates: list[Duplicates]
    near_duplicates: NearDuplicateAudit
    balance: list[GeneratorBalance]
    shortcut: ShortcutAudit
    problems: list[str]
    warnings: list[str]
    verdict: str


def audit(manifest: Manifest, *, seed: int = 0) -> AuditReport:
    """Audit a manifest that was read with all its columns. The same manifest and seed give the same report.

    Raises DataError where ``skipped.parquet`` cannot be read.
    """
    table = manifest.table
    files = check_files(manifest)
    splits = sorted(pc.unique(table["source_split"].drop_null()).to_pylist())
    overlaps = find_overlaps({name: table.filter(pc.equal(table["source_split"], name)) for name in splits})
    duplicates = find_duplicates(table)
    near = find_near_duplicates(table, manifest.root)
    same = find_same_splits(table, splits)
    balance = count_balance(table, read_skipped(manifest))
    shortcut = find_shortcuts(table, seed)
    problems = [
        *_file_problems(manifest, files),
        *(f"Leakage: {overlap}." for overlap in overlaps),
        *(_same_faces(each) for each in same),
        *(_near_text(each) for each in near.splits if _shows_one_picture(each)),
        *(_two_labels(each) for each in duplicates if each.first != each.second),
    ]
    return AuditReport(
        source=manifest.name,
        faces=table.num_rows,
        seed=seed,
        files=files,
        source_splits=splits,
        overlaps=overlaps,
        same_splits=same,
        duplicates=duplicates,
        near_duplicates=near,
        balance=balance,
        shortcut=shortcut,
        problems=problems,
        warnings=[
            *balance_warnings(balance, splits),
            *_near_warnings(near),
            *_repeated(duplicates),
            *shortcut_warnings(shortcut),
        ],
        verdict=_verdict(problems, shortcut),
    )


# --- are the files there? ------------------------------------------------------------------------------------------


def check_files(manifest: Manifest) -> FileCheck:
    """Look at every face and gaze map that the manifest names, without opening any."""
    checked, missing, empty = 0, 0, 0
    examples: list[str] = []
    for batch in manifest.table.select(["file_name", "gaze_file_name"]).to_batches(_BATCH):
        for name in (name for column in batch.columns for name in column.drop_null().to_pylist()):
            size = file_size(manifest.root, name)
            checked += 1
            missing += size is None
            empty += size == 0
            if not size and len(examples) < _EXAMPLES:
                examples.append(f"{name} ({'missing' if size is None else 'empty'})")
    return FileCheck(checked=checked, missing=missing, empty=empty, examples=examples)


def _file_problems(manifest: Manifest, files: FileCheck) -> list[str]:
    problems = []
    if files.missing + files.empty:
        problems.append(
            f"{files.missing} of {files.checked} files are missing and {files.empty} are empty, such as "
            f"{', '.join(files.examples)}. Prepare the source again."
        )
    if manifest.footer.kept != manifest.table.num_rows:
        problems.append(
            f"The manifest has {manifest.table.num_rows} faces and its footer promises {manifest.footer.kept}. "
            "Prepare the source again."
        )
    return problems


# --- does it leak? -------------------------------------------------------------------------------------------------


def find_duplicates(table: pa.Table) -> list[Duplicates]:
    """Return the faces whose pixels occur more than once, counted by pair of generators, ordered by their names."""
    counts = table.group_by("sha256").aggregate([("id", "count")])
    repeated = counts.filter(pc.greater(counts["id_count"], 1))["sha256"]
    rows = table.select(["id", "generator", "sha256"]).filter(pc.is_in(table["sha256"], repeated.combine_chunks()))
    holders: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows.sort_by("id").to_pylist():
        holders[row["sha256"]][row["generator"]].append(row["id"])
    found: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], tuple[str, str]] = {}
    for _, ids in sorted(holders.items()):
        for name, same in ids.items():
            if len(same) > 1:
                found[name, name] += len(same) - 1
                examples.setdefault((name, name), (same[0], same[1]))
        for first, second in combinations(sorted(ids), 2):
            found[first, second] += 1
            examples.setdefault((first, second), (ids[first][0], ids[second][0]))
    return [
        Duplicates(first=first, second=second, count=count, example=examples[first, second])
        for (first, second), count in sorted(found.items())
    ]


def _two_labels(pair: Duplicates) -> str:
    kind = "a fake is a real face" if REAL in (pair.first, pair.second) else "a face carries two labels"
    return (
        f"{pair.count} faces of {pair.first} and {pair.second} have the same pixels ({kind}), such as "
        f"{' and '.join(pair.example)}."
    )


def _repeated(duplicates: Sequence[Duplicates]) -> list[str]:
    twice = [f"{each.count} of {each.first}" for each in duplicates if each.first == each.second]
    return [f"Faces that repeat the pixels of another face of their generator: {shorten(twice)}."] if twice else []


def find_same_splits(table: pa.Table, splits: Sequence[str]) -> list[SameSplits]:
    """Return the pairs of splits of which one holds the other's faces: a copy under another name, such as val = test.

    Of a pair that is the same by several criteria, the first counts: pixels, perceptual hash, video.
    """
    found = []
    columns = table.select(["source_split", *_SAME_BY])
    telling = np.bitwise_count(parse_hashes(table["perceptual_hash"])) >= FEWEST_ONES
    hashes = pc.if_else(pa.array(telling), table["perceptual_hash"], None)
    columns = columns.set_column(columns.schema.get_field_index("perceptual_hash"), "perceptual_hash", hashes)
    parts = {name: columns.filter(pc.equal(columns["source_split"], name)) for name in splits}
    for pair in combinations(splits, 2):
        smaller, larger = sorted(pair, key=lambda name: parts[name].num_rows)
        faces = parts[smaller].num_rows
        for column, what in _SAME_BY.items():
            cells = parts[smaller][column]
            shared = pc.sum(pc.is_in(cells, parts[larger][column].combine_chunks(), skip_nulls=True)).as_py() or 0
            if faces >= MIN_FACES and shared >= SAME_SHARE * faces:
                found.append(SameSplits(smaller=smaller, larger=larger, what=what, shared=shared, faces=faces))
                break
    return found


_SAME_BY: dict[str, Literal["pixels", "perceptual hash", "video"]] = {
    "sha256": "pixels",
    "perceptual_hash": "perceptual hash",
    "video": "video",
}


def _same_faces(same: SameSplits) -> str:
    return (
        f"{same.smaller} and {same.larger} hold the same faces: {same.shared} of the {same.faces} faces of {same.smaller} "
        f"are in {same.larger}, by {same.what}. Nothing chosen on one is tested on the other."
    )


def _shows_one_picture(near: NearDuplicates) -> bool:
    """Return whether these are more than hashes near by chance; where no crop could be read, they are taken to be."""
    return near.pairs > 0 and (near.same > 0 or near.looked_at == 0)


def _near_text(near: NearDuplicates) -> str:
    looked = (
        f"{near.same} of the {near.looked_at} nearest" if near.looked_at else "none could be opened, so perhaps they"
    )
    return (
        f"Near-duplicates: {near.pairs} pairs of faces of {near.first} and {near.second} look alike, and no shared person or "
        f"video is declared; {looked} show one picture, such as {' and '.join(near.examples[0])}."
    )


def _near_warnings(near: NearDuplicateAudit) -> list[str]:
    across = [each for each in near.generators if _shows_one_picture(each)]
    found = [_near_text(each) for each in across if REAL in (each.first, each.second)]
    others = [
        f"{each.first} and {each.second} ({each.pairs} pairs)"
        for each in across
        if REAL not in (each.first, each.second)
    ]
    if others:
        found.append(f"Near-duplicates of two generators, of no declared person or video in common: {shorten(others)}.")
    if near.without_structure:
        found.append(
            f"{near.without_structure} faces are all of one colour or nearly, so their hashes say nothing of near-duplicates."
        )
    return found


# --- what it comes to ----------------------------------------------------------------------------------------------


def _verdict(problems: Sequence[str], shortcut: ShortcutAudit) -> str:
    parts = [shortcut_verdict(shortcut)]
    if problems:
        told = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        parts.insert(0, f"BROKEN: {told} to mend before anything is measured on these faces.")
    return " ".join(parts)


# --- for the console -----------------------------------------------------------------------------------------------


def tables(report: AuditReport) -> list[Table]:
    """Return the report as tables of text and numbers, to be printed in this order."""
    return [
        _checks(report),
        (
            "faces",
            balance_columns(report.source_splits),
            balance_rows(report.balance, report.source_splits),
        ),
        *_near_table(report.near_duplicates),
        *shortcut_tables(report.shortcut),
    ]


def _checks(report: AuditReport) -> Table:
    across = [each for each in report.duplicates if each.first != each.second]
    within = sum(each.count for each in report.duplicates if each.first == each.second)
    rows: list[tuple[object, ...]] = [
        ("files", f"{report.files.checked} files", f"{report.files.missing} missing, {report.files.empty} empty")
    ]
    if len(report.source_splits) > 1:
        looked = f"splits {', '.join(report.source_splits)}"
        for column, kind in KINDS.items():
            shared = [f"{o.count} by {o.first} and {o.second}" for o in report.overlaps if o.column == column]
            rows.append((f"shared {kind}", looked, ", ".join(shared) or "none"))
        same = [f"{each.smaller} = {each.larger} by {each.what}" for each in report.same_splits]
        rows.append(("splits that are the same", looked, ", ".join(same) or "none"))
        rows.append(("near-duplicates between splits", looked, _near_counts(report.near_duplicates.splits)))
    else:
        rows.append(("shared between splits", "the source gives no two splits", "–"))
    rows.append(("same pixels, two labels", f"{report.faces} faces", sum(each.count for each in across) or "none"))
    rows.append(("same pixels, same generator", f"{report.faces} faces", within or "none"))
    return "checks", ("check", "looked at", "found"), rows


def _near_counts(near: Sequence[NearDuplicates]) -> str:
    told = [
        f"{each.pairs} of {each.first} and {each.second}{'' if _shows_one_picture(each) else ' (by chance)'}"
        for each in near
        if each.pairs
    ]
    return ", ".join(told) or "none"


def _near_table(near: NearDuplicateAudit) -> list[Table]:
    """Return the pairs of splits and of generators with near faces, most first; no table where there are none."""
    columns = ("first", "second", "unrelated pairs", "opened", "one picture", "related pairs", "examples")
    rows: list[tuple[object, ...]] = [
        (
            *(each.first, each.second, each.pairs, each.looked_at, each.same, each.related),
            "; ".join(" and ".join(pair) for pair in each.examples[:1]) or "–",
        )
        for each in [*near.splits, *sorted(near.generators, key=lambda each: (-each.same, -each.pairs, -each.related))]
    ]
    return [(f"faces whose perceptual hashes differ in at most {near.bits} of 64 bits", columns, rows)] if rows else []
