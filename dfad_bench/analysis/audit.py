"""Asks of a prepared manifest whether its faces can be trusted: are they there, do splits leak, do the files tell all?"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from stat import S_ISREG

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

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
from dfad_bench.errors import DataError, shorten
from dfad_bench.records.leakage import KINDS, Overlap, find_overlaps
from dfad_bench.records.manifest import SKIPPED, Manifest
from dfad_bench.types import REAL

SCHEMA_VERSION = 1
SKIPPED_SHARE = 0.1
"""A generator that lost this share of its inputs is pointed out: what is left may be the easy part."""

_EXAMPLES = 3
_BATCH = 16_384
_NO_SPLIT = "no split"


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


class GeneratorBalance(Strict):
    """How many faces a generator has, in each split of the source, and what is the matter with some.

    ``enlarged``: crop_scale > 1, so that the face's pixels are interpolated; ``skipped``: inputs without a face, by
    reason.
    """

    generator: str
    faces: int
    by_split: dict[str, int]
    enlarged: int
    without_gaze: int
    without_identity: int
    skipped: dict[str, int]


class AuditReport(Strict):
    """Everything the audit found. ``problems`` must be mended; ``warnings`` must be known to whoever reads a score."""

    schema_version: int = SCHEMA_VERSION
    source: str
    faces: int
    seed: int
    files: FileCheck
    source_splits: list[str]
    overlaps: list[Overlap]
    duplicates: list[Duplicates]
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
    balance = count_balance(table, _read_skipped(manifest))
    shortcut = find_shortcuts(table, seed)
    problems = [
        *_file_problems(manifest, files),
        *(f"Leakage: {overlap}." for overlap in overlaps),
        *(_two_labels(each) for each in duplicates if each.first != each.second),
    ]
    return AuditReport(
        source=manifest.name,
        faces=table.num_rows,
        seed=seed,
        files=files,
        source_splits=splits,
        overlaps=overlaps,
        duplicates=duplicates,
        balance=balance,
        shortcut=shortcut,
        problems=problems,
        warnings=[*_balance_warnings(balance, duplicates), *shortcut_warnings(shortcut)],
        verdict=_verdict(problems, shortcut),
    )


# --- are the files there? ------------------------------------------------------------------------------------------


def check_files(manifest: Manifest) -> FileCheck:
    """Look at every face and gaze map that the manifest names, without opening any."""
    checked, missing, empty = 0, 0, 0
    examples: list[str] = []
    for batch in manifest.table.select(["file_name", "gaze_file_name"]).to_batches(_BATCH):
        for name in (name for column in batch.columns for name in column.drop_null().to_pylist()):
            size = _size(manifest.root / name)
            checked += 1
            missing += size is None
            empty += size == 0
            if not size and len(examples) < _EXAMPLES:
                examples.append(f"{name} ({'missing' if size is None else 'empty'})")
    return FileCheck(checked=checked, missing=missing, empty=empty, examples=examples)


def _size(path: Path) -> int | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size if S_ISREG(status.st_mode) else None


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


# --- how many of what? ---------------------------------------------------------------------------------------------


def _read_skipped(manifest: Manifest) -> dict[str, Counter[str]]:
    """Return {generator: {reason: inputs}} from the table beside the manifest; nothing where there is none."""
    path = manifest.root / SKIPPED
    if not path.is_file():
        return {}
    skipped: dict[str, Counter[str]] = defaultdict(Counter)
    try:
        for row in pq.read_table(path, columns=["generator", "reason"]).to_pylist():
            skipped[row["generator"]][row["reason"]] += 1
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet ({error}). Prepare the source again.") from None
    return skipped


def count_balance(table: pa.Table, skipped: dict[str, Counter[str]]) -> list[GeneratorBalance]:
    """Count faces by generator, reals first; a generator whose every input was skipped is counted too."""
    flags = pa.table(
        {
            "generator": table["generator"],
            "split": pc.fill_null(table["source_split"], _NO_SPLIT),
            "enlarged": pc.cast(pc.greater(table["crop_scale"], 1.0), pa.int64()),
            "gaze": pc.cast(pc.or_(table["gaze_pitch"].is_null(), table["gaze_yaw"].is_null()), pa.int64()),
            "identity": pc.cast(pc.equal(pc.list_value_length(table["identities"]), 0), pa.int64()),
        }
    )
    sums = [(name, "sum") for name in ("enlarged", "gaze", "identity")]
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    splits: dict[str, dict[str, int]] = defaultdict(dict)
    for row in flags.group_by(["generator", "split"]).aggregate([([], "count_all"), *sums]).to_pylist():
        generator = row.pop("generator")
        splits[generator][row.pop("split")] = row["count_all"]
        counts[generator].update(row)
    return [
        GeneratorBalance(
            generator=name,
            faces=counts[name]["count_all"],
            by_split=dict(sorted(splits[name].items())),
            enlarged=counts[name]["enlarged_sum"],
            without_gaze=counts[name]["gaze_sum"],
            without_identity=counts[name]["identity_sum"],
            skipped=dict(sorted(skipped.get(name, {}).items())),
        )
        for name in sorted({*counts, *skipped}, key=lambda name: (name != REAL, name))
    ]


def _balance_warnings(balance: Sequence[GeneratorBalance], duplicates: Sequence[Duplicates]) -> list[str]:
    found = []
    enlarged = sum(each.enlarged for each in balance)
    if enlarged:
        share = {each.generator: each.enlarged / each.faces for each in balance if each.faces}
        least, most = min(share, key=share.__getitem__), max(share, key=share.__getitem__)
        found.append(
            f"{enlarged} of {sum(each.faces for each in balance)} faces were enlarged, so their pixels are interpolated: "
            f"from {share[least]:.0%} of {least} to {share[most]:.0%} of {most}. What differs here is a shortcut too."
        )
    few = [f"{each.generator} ({each.faces})" for each in balance if each.faces < MIN_FACES]
    if few:
        found.append(f"Fewer than {MIN_FACES} faces: {shorten(few)}. Scores on so few say little.")
    lost = {each.generator: (sum(each.skipped.values()), each.faces) for each in balance}
    lossy = [f"{name} {s} of {s + kept}" for name, (s, kept) in lost.items() if s and s >= SKIPPED_SHARE * (s + kept)]
    if lossy:
        found.append(f"Many inputs gave no face: {shorten(lossy)}. What is left may be the easy part.")
    if not any(each.generator == REAL and each.faces for each in balance):
        found.append("There are no real faces, so nothing here can be tested for detection.")
    twice = [f"{each.count} of {each.first}" for each in duplicates if each.first == each.second]
    if twice:
        found.append(f"Faces that repeat the pixels of another face of their generator: {shorten(twice)}.")
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
    return [_checks(report), _faces(report), *shortcut_tables(report.shortcut)]


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
    else:
        rows.append(("shared between splits", "the source gives no two splits", "–"))
    rows.append(("same pixels, two labels", f"{report.faces} faces", sum(each.count for each in across) or "none"))
    rows.append(("same pixels, same generator", f"{report.faces} faces", within or "none"))
    return "checks", ("check", "looked at", "found"), rows


def _faces(report: AuditReport) -> Table:
    splits = [*report.source_splits, _NO_SPLIT] if report.source_splits else []
    columns = ("generator", "faces", *splits, "enlarged", "no gaze", "no identity", "skipped")
    rows: list[tuple[object, ...]] = [
        (
            each.generator,
            each.faces,
            *(each.by_split.get(split, 0) for split in splits),
            each.enlarged,
            each.without_gaze,
            each.without_identity,
            ", ".join(f"{count} {reason}" for reason, count in each.skipped.items()) or "none",
        )
        for each in report.balance
    ]
    return "faces", columns, rows
