"""Takes faces out of a prepared source, as its tombstone list asks: rows, crops, gaze maps, features and added gazes.

Needs the manifest's folder alone, not the source. What is left is, byte for byte, what a preparation under the same list
writes. A call after one that was killed goes on where that stopped.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dfad_bench.errors import DataError, DfadError, UsageError
from dfad_bench.prepare.card import with_counts
from dfad_bench.prepare.counts import count_generators, count_reasons, kept_report
from dfad_bench.prepare.ledger import TAKEN_DOWN, AtomicParquet, Ledger
from dfad_bench.prepare.sole_writer import sole_writer
from dfad_bench.records.features import keep_features
from dfad_bench.records.gaze import (
    OTHER_GAZE,
    added_estimators,
    faces_digest,
    features_name,
    gaze_path,
    read_gaze_footer,
    with_gaze_footer,
)
from dfad_bench.records.json_files import write_text
from dfad_bench.records.manifest import METADATA, REPORT, Footer, read_footer
from dfad_bench.records.tombstones import Tombstone, add_tombstones, read_tombstones


@dataclass(frozen=True, slots=True)
class TakenDown:
    """What a take-down did.

    added: lines that did not stand on the list before; unmatched: those of them that no face was hit by; removed: ids of
    the faces that went, sorted; has_manifest: whether the folder holds a manifest now.
    """

    root: Path
    added: tuple[Tombstone, ...]
    unmatched: tuple[Tombstone, ...]
    removed: tuple[str, ...]
    has_manifest: bool


def take_down(root: Path, asked: Iterable[tuple[str, str]], date: str, reason: str) -> TakenDown:
    """Add kinds and values (see ``records.tombstones``) to the list of a prepared source and carry the whole list out.

    date: of the request, ISO 8601; reason: may be published. Raises UsageError where nothing was prepared in ``root``,
    DataError for a value that no manifest of this source can hold, for a list that is not sound and for damaged files.
    """
    ledger = Ledger(root)
    if not ledger.finished():
        raise UsageError(
            f"{root} is not where its source was prepared: it has no ledger. Take the faces down there; then make copies, such "
            "as a packed one, anew."
        )
    with sole_writer(root, ledger.state / "lock"):
        added = add_tombstones(root, asked, date, reason)
        dropped = honour_tombstones(ledger)
        hit = {stone for stones in dropped.values() for stone in stones}
        return TakenDown(
            root=root,
            added=tuple(added),
            unmatched=tuple(stone for stone in added if stone not in hit),
            removed=tuple(sorted(dropped)),
            has_manifest=(root / METADATA).is_file(),
        )


def honour_tombstones(ledger: Ledger) -> dict[str, list[Tombstone]]:
    """Carry out the tombstone list of a folder that nobody else writes to; return the ids that went with their lines.

    Where the manifest on disk is not that of the parts, it goes: a preparation writes it anew.
    """
    root = ledger.root
    if not read_tombstones(root):
        return {}
    dropped = ledger.drop_rows()
    footer, added = _sound_footer(ledger), added_estimators(root)
    before = faces_digest(root) if footer is not None and added else None
    if footer is None:
        (root / METADATA).unlink(missing_ok=True)
    else:
        _renew(ledger, footer)
    ledger.drop_files()
    taken_down = pa.array(sorted(_taken_down(ledger)), pa.string())
    for estimator in added:
        _drop_added_gaze(root, estimator, taken_down, before)
    for features in (root / OTHER_GAZE).glob("*.safetensors"):
        if not features.with_suffix(".parquet").is_file():
            features.unlink()  # a killed call left them, with rows that nobody can tell apart any more
    return dropped


def _sound_footer(ledger: Ledger) -> Footer | None:
    """Return the footer of the manifest on disk, None where it is not that of the parts as they were before the list."""
    try:
        footer = read_footer(ledger.root)
    except DfadError:
        return None
    done = ledger.finished().values()
    skipped = count_reasons(done)
    is_theirs = footer.declared == sum(part.kept for part in done) + sum(skipped.values())
    others = [{reason: n for reason, n in each.items() if reason != TAKEN_DOWN} for each in (skipped, footer.skipped)]
    return footer if is_theirs and others[0] == others[1] else None


def _renew(ledger: Ledger, before: Footer) -> None:
    """Write the manifest and what tells its numbers anew, where they are not those of the parts."""
    root, done = ledger.root, ledger.finished()
    kept = sum(part.kept for part in done.values())
    footer = before.model_copy(update={"kept": kept, "skipped": count_reasons(done.values())})
    if footer == before:
        return
    card, report = root / "README.md", root / REPORT
    if card.is_file():
        write_text(card, with_counts(card.read_text(encoding="utf-8"), before, footer))
    if report.is_file():
        defects = json.loads(report.read_text(encoding="utf-8"))["defects"]
        write_text(report, kept_report(count_generators(done), defects))
    ledger.assemble(list(done), footer)


def _taken_down(ledger: Ledger) -> set[str]:
    done = ledger.finished().values()
    return {skip.id for part in done for skip in part.skips if skip.reason == TAKEN_DOWN}


def _drop_added_gaze(root: Path, estimator: str, ids: pa.Array, before: tuple[int, str] | None) -> None:
    """Take faces out of an added gaze; it is again the gaze of the manifest's faces, if it was of those ``before``."""
    path, name = gaze_path(root, estimator), features_name(estimator)
    for part in (root / OTHER_GAZE / ".parts" / estimator).glob("*.parquet"):
        if pc.any(pc.is_in(pq.read_table(part, columns=["id"])["id"], ids), min_count=0).as_py():
            part.unlink()  # what is left is estimated anew, if another part ever is
    try:
        footer, table = read_gaze_footer(root, estimator), pq.read_table(path)
    except (DataError, OSError, pa.ArrowException):
        path.unlink()  # nobody can read it, nor say whose gaze it holds
        return
    keep = pc.invert(pc.is_in(table["id"], ids))
    if pc.all(keep, min_count=0).as_py():
        return
    path.unlink()  # the table goes first, since it and the features must match
    if footer.recipe.feature_dim:
        keep_features(path.parent, keep.to_numpy(), name)
    table = table.filter(keep)
    flags = Counter(flag for flag in table["gaze_flag"].to_pylist() if flag)
    faces, digest = faces_digest(root) if before == (footer.faces, footer.faces_sha256) else (table.num_rows, "")
    renewed = footer.model_copy(
        update={
            "faces": faces,
            "faces_sha256": digest or footer.faces_sha256,
            "with_gaze": table.select(["gaze_pitch", "gaze_yaw"]).drop_null().num_rows,
            "without_gaze": dict(sorted(flags.items())),
        }
    )
    with AtomicParquet(path, with_gaze_footer(renewed)) as file:
        file.add(table)
