"""Asks how well fakes are told from reals by a classifier that sees the file's header and never a face.

Grommelt et al., "Fake or JPEG?", 2024, arXiv:2403.17608: in GenImage the fakes differed from the reals in format, size
and JPEG quality, and removing that moved published results by more than 11 points. The image's mean colour is asked for
beside the header: it is content, though no trace of forgery either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dfad_bench.analysis.telling_apart import (
    FOLDS,
    balanced_weights,
    chance_bound,
    commonest,
    cross_validated_scores,
    effective_size,
    mean_auc,
)
from dfad_bench.config import Strict
from dfad_bench.errors import shorten
from dfad_bench.records.manifest import HEADER_FEATURES, header_features
from dfad_bench.records.sampling import connected_groups, sample
from dfad_bench.types import REAL

MIN_FACES = 20
"""Fewer faces than this on either side give no number."""
MOST_PER_SIDE = 1_000
"""More faces than this on either side are sampled by hash: chance then stays below SHORTCUT_AUC with room to spare."""
SHORTCUT_AUC = 0.6
"""An AUC from here on, if it is no chance either, is called a shortcut."""
TABLES, COLORS = "jpeg_tables", ("mean_red", "mean_green", "mean_blue")
"""What is asked beside HEADER_FEATURES: which quantisation tables, and the mean colour of the whole image in 0..1."""

Verdict = Literal["shortcut", "mean colour", "none found", "too few faces"]
"""Whether the header tells, or only the header with the mean colour does."""

Table = tuple[str, tuple[str, ...], list[tuple[object, ...]]]
"""Title, columns, rows."""


class FileProfile(Strict):
    """What the files of some faces look like: sizes in pixels, JPEG quality 1..100 (None without JPEG files)."""

    faces: int
    jpeg_share: float
    median_width: float
    median_height: float
    median_quality: float | None


class ShortcutFinding(Strict):
    """How well one generator's files are told from files of reals.

    ``auc``: by the header, ``color_auc``: by header and mean colour, both cross-validated, None with a ``reason``;
    ``bound``: what chance alone stays below; ``reals``: whether the reals share the generator's domain; ``told_by``: the
    feature that differs most, where one of them tells.
    """

    generator: str
    verdict: Verdict
    auc: float | None
    color_auc: float | None
    bound: float | None
    reason: str | None
    reals: Literal["same domain", "all"]
    told_by: str | None
    fake_files: FileProfile
    real_files: FileProfile | None


class ShortcutAudit(Strict):
    """One classifier for all generators (the AUCs are means over ``averaged`` generators), and one for each."""

    verdict: Verdict
    auc: float | None
    color_auc: float | None
    bound: float | None
    averaged: int
    reason: str | None
    features: list[str]
    most_per_side: int
    generators: list[ShortcutFinding]


@dataclass(frozen=True, slots=True)
class _Files:
    """The N files of a manifest: everything but the faces. ``group`` [N] names who must not be divided."""

    table: pa.Table
    ids: NDArray[np.object_]
    generator: NDArray[np.object_]
    domain: NDArray[np.object_]
    group: NDArray[np.object_]
    header: NDArray[np.float32]
    tables: NDArray[np.object_]
    color: NDArray[np.float32]

    def sampled(self, rows: NDArray[np.int64], seed: int, most: int) -> NDArray[np.int64]:
        return rows[sample(self.ids[rows].tolist(), seed, most)]


def find_shortcuts(table: pa.Table, seed: int) -> ShortcutAudit:
    """Measure how well header and mean colour tell fake from real, over all generators and for each.

    table: a manifest's rows, with its columns id, generator, domain, identities, video, sha256, jpeg_tables,
    original_mean_color and those that ``records.manifest.header_features`` reads. The same table and seed give the same
    numbers, in any order of rows.
    """
    table = table.sort_by("id")
    files = _Files(
        table=table,
        ids=_objects(table, "id"),
        generator=_objects(table, "generator"),
        domain=_objects(table, "domain"),
        group=np.asarray(_groups(table), dtype=object),
        header=header_features(table),
        tables=_objects(table, "jpeg_tables"),
        color=_colors(table),
    )
    names = sorted(set(files.generator) - {REAL})
    tests = 2 * (len(names) + 1)
    findings = [_judge_generator(files, name, tests, seed) for name in names]
    return _judge_all(files, findings, tests, seed)


def _colors(table: pa.Table) -> NDArray[np.float32]:
    flat = pc.list_flatten(table["original_mean_color"]).to_numpy()
    return np.asarray(flat.reshape(-1, 3) / np.float32(255), dtype=np.float32)


def _objects(table: pa.Table, column: str) -> NDArray[np.object_]:
    return np.asarray(table[column].to_pylist(), dtype=object)


def _groups(table: pa.Table) -> list[str]:
    """Return each face's group: faces of one person, one video or the very same pixels are in one.

    Of a swap only the first person counts, whose picture it is: the other one's file left no trace in this file's header.
    """
    columns = (table[name].to_pylist() for name in ("identities", "video", "sha256"))
    return connected_groups(
        [f"pixels {pixels}", *(f"identity {each}" for each in identities[:1]), *([f"video {video}"] if video else [])]
        for identities, video, pixels in zip(*columns, strict=True)
    )


def _judge_generator(files: _Files, name: str, tests: int, seed: int) -> ShortcutFinding:
    fakes = np.flatnonzero(files.generator == name)
    reals = np.flatnonzero(files.generator == REAL)
    near = reals[np.isin(files.domain[reals], sorted(set(files.domain[fakes])))]
    same_domain = len(near) >= MIN_FACES
    reals = near if same_domain else reals
    few_fakes, few_reals = (files.sampled(rows, seed, MOST_PER_SIDE) for rows in (fakes, reals))
    judged = _judge(files, few_fakes, few_reals, tests, seed)
    return ShortcutFinding(
        generator=name,
        **judged._asdict(),
        reals="same domain" if same_domain else "all",
        told_by=_most_different(files, few_fakes, few_reals, judged.verdict),
        fake_files=_profile(files.table, fakes),
        real_files=_profile(files.table, reals) if len(reals) else None,
    )


def _judge_all(files: _Files, findings: list[ShortcutFinding], tests: int, seed: int) -> ShortcutAudit:
    """Judge one classifier for all generators that have MIN_FACES faces, each having the same weight."""
    names = [each.generator for each in findings if each.fake_files.faces >= MIN_FACES]
    most = max(MIN_FACES, MOST_PER_SIDE // max(1, len(names)))
    fakes = [files.sampled(np.flatnonzero(files.generator == name), seed, most) for name in names]
    reals = files.sampled(np.flatnonzero(files.generator == REAL), seed, MOST_PER_SIDE)
    judged = _judge(files, np.concatenate([*fakes, reals[:0]]), reals, tests, seed)
    if len(reals) >= MIN_FACES and not names:
        judged = judged._replace(reason=f"no generator has {MIN_FACES} faces")
    return ShortcutAudit(
        **judged._asdict(),
        averaged=len(names) if judged.auc is not None else 0,
        features=[*HEADER_FEATURES, TABLES, *COLORS],
        most_per_side=MOST_PER_SIDE,
        generators=findings,
    )


class _Judgement(NamedTuple):
    verdict: Verdict
    auc: float | None
    color_auc: float | None
    bound: float | None
    reason: str | None


def _judge(files: _Files, fakes: NDArray[np.int64], reals: NDArray[np.int64], tests: int, seed: int) -> _Judgement:
    """Return what header and mean colour tell of these fakes (AUC: mean over their generators) and reals."""
    reason = _too_few(files, fakes, reals)
    if reason is not None:
        return _Judgement("too few faces", None, None, None, reason)
    rows = np.concatenate([fakes, reals])
    label, group, header, tables = (each[rows] for each in (files.generator, files.group, files.header, files.tables))
    colored = np.hstack([header, files.color[rows]])
    auc, color_auc = (
        mean_auc(cross_validated_scores(features, label, group, seed, tables), label) for features in (header, colored)
    )
    weight = balanced_weights(label)
    n_fake, n_real = (effective_size(weight[side], group[side]) for side in (label != REAL, label == REAL))
    bound = chance_bound(n_fake, n_real, tests)
    if auc >= SHORTCUT_AUC and auc > bound:
        return _Judgement("shortcut", auc, color_auc, bound, None)
    if color_auc >= SHORTCUT_AUC and color_auc > bound:
        return _Judgement("mean colour", auc, color_auc, bound, None)
    if auc >= SHORTCUT_AUC:
        reason = f"with so few independent files chance reaches {bound:.2f}"
        return _Judgement("too few faces", auc, color_auc, bound, reason)
    return _Judgement("none found", auc, color_auc, bound, None)


def _too_few(files: _Files, fakes: NDArray[np.int64], reals: NDArray[np.int64]) -> str | None:
    for rows, side in ((reals, "real"), (fakes, "fake")):
        groups = len(set(files.group[rows]))
        if len(rows) < MIN_FACES:
            return f"there are {len(rows) or 'no'} {side} faces, and at least {MIN_FACES} are needed"
        if groups < FOLDS:
            return f"the {side} faces form {groups} groups of shared people or videos, and at least {FOLDS} are needed"
    return None


def _most_different(files: _Files, fakes: NDArray[np.int64], reals: NDArray[np.int64], verdict: Verdict) -> str | None:
    """Return the feature whose distributions lie furthest apart, of those that tell by this verdict.

    Kolmogorov and Smirnov's distance; for the tables' names, which have no order, the total variation.
    """
    if verdict == "mean colour":
        distances = _distances(COLORS, files.color[fakes], files.color[reals])
        return max(distances, key=distances.__getitem__)
    if verdict != "shortcut":
        return None
    distances = _distances(HEADER_FEATURES, files.header[fakes], files.header[reals])
    known = commonest(files.tables[np.concatenate([fakes, reals])])
    first, second = ((files.tables[rows][:, None] == known).mean(axis=0) for rows in (fakes, reals))
    distances[TABLES] = float(np.abs(first - second).sum() + abs(first.sum() - second.sum())) / 2
    return max(distances, key=distances.__getitem__)


def _distances(names: Sequence[str], first: NDArray[np.float32], second: NDArray[np.float32]) -> dict[str, float]:
    return {name: _distance(first[:, column], second[:, column]) for column, name in enumerate(names)}


def _distance(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    values = np.unique(np.concatenate([first, second]))
    shares = [np.searchsorted(np.sort(each), values, side="right") / len(each) for each in (first, second)]
    return float(np.abs(shares[0] - shares[1]).max())


def _profile(table: pa.Table, rows: NDArray[np.int64]) -> FileProfile:
    chosen = table.select(["original_format", "original_width", "original_height", "jpeg_quality"]).take(pa.array(rows))
    formats = chosen["original_format"].to_pylist()
    qualities = chosen["jpeg_quality"].drop_null().to_numpy()
    return FileProfile(
        faces=len(rows),
        jpeg_share=formats.count("JPEG") / len(formats),
        median_width=float(np.median(chosen["original_width"].to_numpy())),
        median_height=float(np.median(chosen["original_height"].to_numpy())),
        median_quality=float(np.median(qualities)) if len(qualities) else None,
    )


# --- in words and tables -------------------------------------------------------------------------------------------


def shortcut_warnings(shortcut: ShortcutAudit) -> list[str]:
    """Return what a reader of scores must know, one sentence each."""
    found = []
    told = sorted(_affected(shortcut), key=lambda each: -(each.auc or 0))
    if told:
        named = shorten((f"{each.generator} (AUC {_number(each.auc)}, {each.told_by})" for each in told), most=8)
        found.append(f"Told from reals by the file alone: {named}.")
    colored = [each for each in shortcut.generators if each.verdict == "mean colour"]
    if colored:
        named = shorten(
            (f"{each.generator} (AUC {_number(each.color_auc)}, {each.told_by})" for each in colored), most=8
        )
        found.append(f"Told from reals by the mean colour of the image, though not by its header: {named}.")
    strangers = [each.generator for each in shortcut.generators if each.reals == "all" and each.auc is not None]
    if strangers:
        found.append(
            f"Held against all reals, as fewer than {MIN_FACES} are of the same domain: {shorten(strangers)}. "
            "Their AUC measures the difference of domains as well."
        )
    return found


def _affected(shortcut: ShortcutAudit) -> list[ShortcutFinding]:
    return [each for each in shortcut.generators if each.verdict == "shortcut"]


def shortcut_verdict(shortcut: ShortcutAudit) -> str:
    """Return the finding in plain words."""
    told = _affected(shortcut)
    judged = sum(each.verdict != "too few faces" for each in shortcut.generators)
    affected = f"{len(told)} of {judged} generators that could be judged"
    if shortcut.verdict == "shortcut":
        some = f" It does so for {affected}." if told else ""
        return (
            f"SHORTCUT: a classifier that never sees a face tells fake from real with AUC {_number(shortcut.auc)}.{some} "
            f"Scores on these files measure the files as much as the faces.{_with_color(shortcut)}"
        )
    if told:
        best = max(told, key=lambda each: each.auc or 0)
        return (
            f"SHORTCUT: a classifier that never sees a face tells {affected} from real, {best.generator} with AUC "
            f"{_number(best.auc)}. Scores on these measure the files as much as the faces."
        )
    if shortcut.verdict == "mean colour":
        return (
            f"No shortcut found in the files' headers (AUC {_number(shortcut.auc)}), but with the mean colour of the image "
            f"a classifier that never sees a face tells fake from real with AUC {_number(shortcut.color_auc)}. That is "
            "content, yet no trace of forgery: a model may learn it."
        )
    if shortcut.verdict == "none found":
        return (
            f"No shortcut found: a classifier that never sees a face tells fake from real with AUC "
            f"{_number(shortcut.auc)}, and chance stays below {_number(shortcut.bound)}."
        )
    return f"Whether there is a shortcut cannot be said: {shortcut.reason}."


def _with_color(shortcut: ShortcutAudit) -> str:
    return f" With the mean colour of the image added the AUC is {_number(shortcut.color_auc)}."


def shortcut_tables(whole: ShortcutAudit) -> list[Table]:
    """Return the numbers, and what the files look like, as tables for the console."""
    return [_finding_table(whole), _profile_table(whole)]


def _finding_table(whole: ShortcutAudit) -> Table:
    columns = ("generator", "reals", "AUC", "with colour", "chance stays below", "verdict", "told by")
    rows: list[tuple[object, ...]] = [
        (each.generator, each.reals, *_judgement(each), each.told_by or "–") for each in whole.generators
    ]
    rows.append((f"mean of {whole.averaged}", "all", *_judgement(whole), "–"))
    return (
        f"fake from real by the file alone, and with its mean colour (at most {whole.most_per_side} files a side)",
        columns,
        rows,
    )


def _profile_table(whole: ShortcutAudit) -> Table:
    columns = ("generator", "fakes", "JPEG", "size", "quality", "reals", "JPEG", "size", "quality")
    rows: list[tuple[object, ...]] = [
        (each.generator, *_cells(each.fake_files), *_cells(each.real_files)) for each in whole.generators
    ]
    return "files of each generator and of the reals it is held against (medians)", columns, rows


def _cells(profile: FileProfile | None) -> tuple[object, ...]:
    if profile is None:
        return ("–",) * 4
    size = f"{profile.median_width:g}x{profile.median_height:g}"
    quality = "–" if profile.median_quality is None else f"{profile.median_quality:g}"
    return profile.faces, f"{profile.jpeg_share:.0%}", size, quality


def _judgement(found: ShortcutFinding | ShortcutAudit) -> tuple[str, str, str, str]:
    verdict = f"{found.verdict}: {found.reason}" if found.reason else found.verdict
    return _number(found.auc), _number(found.color_auc), _number(found.bound), verdict


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
