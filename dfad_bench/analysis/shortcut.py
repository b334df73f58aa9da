"""Asks how well fakes are told from reals by a classifier that sees the file's header and never a face.

Grommelt et al., "Fake or JPEG?", 2024, arXiv:2403.17608: in GenImage the fakes differed from the reals in format, size
and JPEG quality, and removing that moved published results by more than 11 points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score

from dfad_bench.config import Strict
from dfad_bench.errors import shorten
from dfad_bench.records.manifest import HEADER_FEATURES, header_features
from dfad_bench.records.sampling import connected_groups, order_key, sample
from dfad_bench.types import REAL

MIN_FACES = 20
"""Fewer faces than this on either side give no number."""
MOST_PER_SIDE = 1_000
"""More faces than this on either side are sampled by hash: chance then stays below SHORTCUT_AUC with room to spare."""
SHORTCUT_AUC = 0.6
"""An AUC from here on, if it is no chance either, is called a shortcut."""
FOLDS = 5
CONFIDENCE = 0.95
"""With no information in any header, so many audits find no shortcut in any of their generators."""

Verdict = Literal["shortcut", "none found", "too few faces"]

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

    ``auc``: cross-validated, None with a ``reason``; ``bound``: what chance alone stays below; ``reals``: whether the
    reals share the generator's domain; ``told_by``: the header feature that differs most, where there is a shortcut.
    """

    generator: str
    verdict: Verdict
    auc: float | None
    bound: float | None
    reason: str | None
    reals: Literal["same domain", "all"]
    told_by: str | None
    fake_files: FileProfile
    real_files: FileProfile | None


class ShortcutAudit(Strict):
    """One classifier for all generators (``auc``: the mean over ``averaged`` generators), and one for each."""

    verdict: Verdict
    auc: float | None
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

    def sampled(self, rows: NDArray[np.int64], seed: int, most: int) -> NDArray[np.int64]:
        return rows[sample(self.ids[rows].tolist(), seed, most)]


def find_shortcuts(table: pa.Table, seed: int) -> ShortcutAudit:
    """Measure how well the header alone tells fake from real, over all generators and for each.

    table: a manifest's rows, with its columns id, generator, domain, identities, video, sha256 and those that
    ``records.manifest.header_features`` reads. The same table and seed give the same numbers, in any order of rows.
    """
    table = table.sort_by("id")
    files = _Files(
        table=table,
        ids=_objects(table, "id"),
        generator=_objects(table, "generator"),
        domain=_objects(table, "domain"),
        group=np.asarray(_groups(table), dtype=object),
        header=header_features(table),
    )
    names = sorted(set(files.generator) - {REAL})
    tests = len(names) + 1
    findings = [_judge_generator(files, name, tests, seed) for name in names]
    return _judge_all(files, findings, tests, seed)


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
    verdict, auc, bound, reason = _judge(files, few_fakes, few_reals, tests, seed)
    return ShortcutFinding(
        generator=name,
        verdict=verdict,
        auc=auc,
        bound=bound,
        reason=reason,
        reals="same domain" if same_domain else "all",
        told_by=_most_different(files.header[fakes], files.header[reals]) if verdict == "shortcut" else None,
        fake_files=_profile(files.table, fakes),
        real_files=_profile(files.table, reals) if len(reals) else None,
    )


def _judge_all(files: _Files, findings: list[ShortcutFinding], tests: int, seed: int) -> ShortcutAudit:
    """Judge one classifier for all generators that have MIN_FACES faces, each having the same weight."""
    names = [each.generator for each in findings if each.fake_files.faces >= MIN_FACES]
    most = max(MIN_FACES, MOST_PER_SIDE // max(1, len(names)))
    fakes = [files.sampled(np.flatnonzero(files.generator == name), seed, most) for name in names]
    reals = files.sampled(np.flatnonzero(files.generator == REAL), seed, MOST_PER_SIDE)
    verdict, auc, bound, reason = _judge(files, np.concatenate([*fakes, reals[:0]]), reals, tests, seed)
    if len(reals) >= MIN_FACES and not names:
        reason = f"no generator has {MIN_FACES} faces"
    return ShortcutAudit(
        verdict=verdict,
        auc=auc,
        bound=bound,
        averaged=len(names) if auc is not None else 0,
        reason=reason,
        features=list(HEADER_FEATURES),
        most_per_side=MOST_PER_SIDE,
        generators=findings,
    )


def _judge(
    files: _Files, fakes: NDArray[np.int64], reals: NDArray[np.int64], tests: int, seed: int
) -> tuple[Verdict, float | None, float | None, str | None]:
    """Return verdict, AUC (mean over the fakes' generators), bound, and the reason for a missing number or doubt."""
    reason = _too_few(files, fakes, reals)
    if reason is not None:
        return "too few faces", None, None, reason
    rows = np.concatenate([fakes, reals])
    label, group = files.generator[rows], files.group[rows]
    scores = cross_validated_scores(files.header[rows], label, group, seed)
    auc = mean_auc(scores, label)
    weight = _balanced_weights(label)
    n_fake, n_real = (effective_size(weight[side], group[side]) for side in (label != REAL, label == REAL))
    bound = chance_bound(n_fake, n_real, tests)
    if auc < SHORTCUT_AUC:
        return "none found", auc, bound, None
    if auc <= bound:
        return "too few faces", auc, bound, f"with so few independent files chance reaches {bound:.2f}"
    return "shortcut", auc, bound, None


def _too_few(files: _Files, fakes: NDArray[np.int64], reals: NDArray[np.int64]) -> str | None:
    for rows, side in ((reals, "real"), (fakes, "fake")):
        groups = len(set(files.group[rows]))
        if len(rows) < MIN_FACES:
            return f"there are {len(rows) or 'no'} {side} faces, and at least {MIN_FACES} are needed"
        if groups < FOLDS:
            return f"the {side} faces form {groups} groups of shared people or videos, and at least {FOLDS} are needed"
    return None


def cross_validated_scores(
    header: NDArray[np.float32], label: NDArray[np.object_], group: NDArray[np.object_], seed: int
) -> NDArray[np.float64]:
    """Return for each file the fake score of a random forest that saw no file of its group.

    header [N, F]; label [N]: ``real`` or the generator; group [N]: what must not be divided, FOLDS or more on each
    side. Scores [N] in 0..1.
    """
    folds = deal_folds(group, label != REAL, seed)
    scores = np.empty(len(label), dtype=np.float64)
    for fold in range(FOLDS):
        train, test = folds != fold, folds == fold
        # Without bootstrap and with weights balanced in each training part, a header that says nothing scores exactly
        # 0.5 in every fold; else a fold's share of fakes would leak into the pooled AUC. One job: threads add up
        # votes in the order they finish.
        forest = RandomForestClassifier(
            30, max_depth=8, min_samples_leaf=5, bootstrap=False, random_state=seed, n_jobs=1
        )
        forest.fit(header[train], label[train] != REAL, sample_weight=_balanced_weights(label[train]))
        scores[test] = forest.predict_proba(header[test])[:, 1]
    return np.round(scores, 9)  # what differs by rounding alone is a tie


def deal_folds(group: NDArray[np.object_], fake: NDArray[np.bool_], seed: int) -> NDArray[np.int64]:
    """Return for each of N faces its fold, whole groups being dealt like cards so that folds are alike.

    Groups that hold only reals come first, then mixed ones, then fakes; the larger before the smaller, then by hash.
    So reals lie in as many folds as they can, and fakes too. (scikit-learn's StratifiedGroupKFold does the same, in
    seconds where this takes milliseconds.)
    """
    names, inverse = np.unique(group.astype(str), return_inverse=True)
    size = np.bincount(inverse)
    fakes = np.bincount(inverse, weights=fake)
    kind = (fakes > 0).astype(int) + (fakes == size)
    keys = [order_key(seed, name) for name in names]
    order = sorted(range(len(names)), key=lambda each: (kind[each], -size[each], keys[each]))
    fold_of_group = np.empty(len(names), dtype=np.int64)
    fold_of_group[order] = np.arange(len(names)) % FOLDS
    return fold_of_group[inverse]


def _balanced_weights(label: NDArray[np.object_]) -> NDArray[np.float64]:
    """Return [N] weights under which reals weigh as much as all fakes, and each generator as much as another."""
    names, inverse, counts = np.unique(label.astype(str), return_inverse=True, return_counts=True)
    generators = max(1, len(names) - int(REAL in names))
    each = np.where(names == REAL, 1.0, 1.0 / generators) / counts
    return np.asarray(each[inverse] * len(label) / 2)


def mean_auc(scores: NDArray[np.float64], label: NDArray[np.object_]) -> float:
    """Return the mean over the generators in label [N] of the AUC of their scores against those of the reals."""
    real = scores[label == REAL]
    aucs = []
    for name in sorted(set(label) - {REAL}):
        fake = scores[label == name]
        truth = np.repeat([1, 0], [len(fake), len(real)])
        aucs.append(roc_auc_score(truth, np.concatenate([fake, real])))
    return float(np.mean(aucs))


def effective_size(weight: NDArray[np.float64], group: NDArray[np.object_]) -> float:
    """Return how many independent files weigh as much as these: Kish's (Σw)² / Σw² over whole groups.

    Frames of one video come out of one encoder, so that a thousand of them tell no more about headers than one.
    """
    total = np.bincount(np.unique(group.astype(str), return_inverse=True)[1], weights=weight)
    return float(total.sum() ** 2 / (total**2).sum())


def chance_bound(fakes: float, reals: float, tests: int = 1) -> float:
    """Return what a cross-validated AUC without information stays below, in ``tests`` tests together, with CONFIDENCE.

    Twice Mann and Whitney's variance (n1 + n0 + 1) / (12 n1 n0), normal approximation, Šidák's correction; at most 1.
    Twice, because each two folds meet twice: what they share by chance is learnt in one and rewarded in the other, then
    the other way round. (Simulated with this forest on noise: 1.3 to 1.4 times the standard deviation.)
    """
    sigma = np.sqrt(2 * (fakes + reals + 1) / (12 * fakes * reals))
    return float(min(1.0, 0.5 + norm.ppf(CONFIDENCE ** (1 / tests)) * sigma))


def _most_different(fakes: NDArray[np.float32], reals: NDArray[np.float32]) -> str:
    """Return the header feature whose distributions lie furthest apart (Kolmogorov and Smirnov's distance)."""
    distances = [_distance(fakes[:, column], reals[:, column]) for column in range(len(HEADER_FEATURES))]
    return HEADER_FEATURES[int(np.argmax(distances))]


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
            "Scores on these files measure the files as much as the faces."
        )
    if told:
        best = max(told, key=lambda each: each.auc or 0)
        return (
            f"SHORTCUT: a classifier that never sees a face tells {affected} from real, {best.generator} with AUC "
            f"{_number(best.auc)}. Scores on these measure the files as much as the faces."
        )
    if shortcut.verdict == "none found":
        return (
            f"No shortcut found: a classifier that never sees a face tells fake from real with AUC "
            f"{_number(shortcut.auc)}, and chance stays below {_number(shortcut.bound)}."
        )
    return f"Whether there is a shortcut cannot be said: {shortcut.reason}."


def shortcut_tables(whole: ShortcutAudit) -> list[Table]:
    """Return the numbers, and what the files look like, as tables for the console."""
    return [_finding_table(whole), _profile_table(whole)]


def _finding_table(whole: ShortcutAudit) -> Table:
    columns = ("generator", "reals", "AUC", "chance stays below", "verdict", "told by")
    rows: list[tuple[object, ...]] = [
        (each.generator, each.reals, *_judgement(each), each.told_by or "–") for each in whole.generators
    ]
    rows.append((f"mean of {whole.averaged}", "all", *_judgement(whole), "–"))
    return f"fake from real by the file alone (at most {whole.most_per_side} files a side)", columns, rows


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


def _judgement(found: ShortcutFinding | ShortcutAudit) -> tuple[str, str, str]:
    verdict = f"{found.verdict}: {found.reason}" if found.reason else found.verdict
    return _number(found.auc), _number(found.bound), verdict


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
