"""Manifest → the gaze of its faces by another estimator, beside the manifest's own (``records.gaze`` tells the format).

Works on the manifest alone: crops are read back and held against their hashes, landmarks are derived from the rows
(``crop_landmarks``). A part is the faces of one folder; it is written under a digest of what decides it, so that a part is
found again when others were added, and a run that was killed, or whose crops were repaired, makes only what is not there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dfad_bench import registry
from dfad_bench.engines.local import LocalEngine
from dfad_bench.errors import DfadError, UsageError, shorten
from dfad_bench.interfaces import Engine, GazeEstimator
from dfad_bench.prepare.gaze_parts import FEATURES_CELL, GazeMaker, MadeGaze, Setting, build_maker
from dfad_bench.prepare.ledger import AtomicParquet
from dfad_bench.prepare.plan import Progress
from dfad_bench.prepare.software import software
from dfad_bench.prepare.sole_writer import sole_writer
from dfad_bench.records.features import FeaturesWriter
from dfad_bench.records.gaze import (
    CROP_FLAGS,
    GAZE_COLUMNS,
    GAZE_SCHEMA_VERSION,
    OTHER_GAZE,
    FacePart,
    GazeFooter,
    GazeRecipe,
    face_parts,
    features_name,
    gaze_path,
    is_gaze_sound,
    joint_digest,
    own_names,
    read_gaze_footer,
    with_gaze_footer,
)
from dfad_bench.records.manifest import METADATA, Footer, read_batches, read_footer


@dataclass(frozen=True, slots=True)
class GazeCount:
    """What became of one generator's faces; without_gaze by the estimator's reason or what is wrong with the crop."""

    generator: str
    faces: int
    with_gaze: int
    without_gaze: dict[str, int]


@dataclass(frozen=True, slots=True)
class GazeReport:
    """The outcome of adding a gaze."""

    path: Path
    """The table of the gaze: the manifest's own where ``estimator`` made it."""
    estimator: str
    generators: tuple[GazeCount, ...]
    unseen: int
    """Faces whose crop is missing or is not what the manifest says."""
    examples: tuple[str, ...]
    """What is wrong with the first few of them."""
    already: bool
    """Whether it was all there before, and nothing was written."""
    parts: int
    resumed: int
    """Parts that an earlier run had finished."""
    seconds: dict[str, float]
    """What each stage took in this run, all workers together."""


def add_gaze(
    root: Path,
    estimator: str,
    *,
    engine: Engine | None = None,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> GazeReport:
    """Add an estimator's gaze to the manifest in ``root``, whose rows and crops stay as they are.

    estimator: a registered name or the path of a plugin file. Raises UsageError where there is no manifest, where the
    estimator needs the source, or where a gaze of that name was computed by another recipe and ``overwrite`` is not set;
    DataError where the manifest is damaged, the disk is full or a worker is killed. A second call then goes on.
    """
    footer = read_footer(root)
    entry = registry.find("gaze_estimators", estimator)
    _check_file_name(entry.name)
    kind = registry.get("gaze_estimators", estimator)
    built: GazeEstimator = kind()  # fetches the weights, so that workers find them
    recipe = GazeRecipe(
        estimator=entry.described,
        estimator_sha256=built.weights_sha256,
        feature_dim=built.feature_dim,
        software=software("numpy", "openvino", "scipy"),
    )
    if entry.name in own_names(footer.recipe):
        return _own(root, footer, entry.name, recipe, overwrite)
    if getattr(kind, "needs_annotations", False):
        raise UsageError(
            f"{entry.name} reads the gaze that the source gives, and --only-gaze has no source. Prepare without --only-gaze."
        )
    state = root / ".prepare"
    # A manifest without its preparation's state must not look as if it had one, or 'prepare' would take it for its own.
    lock = state / "lock" if state.is_dir() else root / OTHER_GAZE / ".lock"
    with sole_writer(root, lock):
        adding = _Adding(root, entry.name, footer, recipe)
        adding.check_recipe(overwrite)
        return adding.run(built, estimator, engine or LocalEngine(), on_progress)


def _check_file_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", name):
        raise UsageError(f"An estimator called {name!r} cannot name a file: use letters, digits, '_' and '-'.")


def _own(root: Path, footer: Footer, name: str, recipe: GazeRecipe, overwrite: bool) -> GazeReport:
    """Say that the manifest's own estimator is asked for; its gaze is in the table, which is not touched here."""
    own = footer.recipe
    if (own.gaze_estimator, own.gaze_estimator_sha256) != (recipe.estimator, recipe.estimator_sha256):
        raise UsageError(
            f"{root} was prepared with another {name} ({own.gaze_estimator}, weights {own.gaze_estimator_sha256}), and two "
            "gazes of one name would be mistaken for each other. Prepare anew with --overwrite, without --only-gaze."
        )
    if overwrite:
        raise UsageError(
            f"The gaze of {name} is part of the manifest's own table, which --only-gaze does not touch. "
            "Prepare anew with --overwrite, without --only-gaze."
        )
    return GazeReport(root / METADATA, name, _counted(root, root / METADATA), 0, (), True, 0, 0, {})


class _Adding:
    """Adds one estimator's gaze to one manifest."""

    def __init__(self, root: Path, name: str, footer: Footer, recipe: GazeRecipe) -> None:
        self._root, self._name, self._footer, self._recipe = root, name, footer, recipe
        self._path = gaze_path(root, name)
        parts = root / OTHER_GAZE / ".parts" / name
        self._setting = Setting(root, footer.recipe, parts, recipe.model_dump_json())

    def check_recipe(self, overwrite: bool) -> None:
        """Refuse a gaze of that name that was computed otherwise; with ``overwrite``, remove what there is."""
        if overwrite:
            self._path.unlink(missing_ok=True)  # the table goes first, in case we are killed
            (self._path.parent / features_name(self._name)).unlink(missing_ok=True)
            self._discard_parts(set())
            return
        earlier = self._written()
        if earlier is not None and earlier.recipe != self._recipe:
            before, now = earlier.recipe.model_dump(), self._recipe.model_dump()
            changed = [f"{key} {before[key]} → {now[key]}" for key in now if before[key] != now[key]]
            raise UsageError(
                f"{self._path} was computed by another recipe ({shorten(changed)}). Add --overwrite to compute it anew."
            )

    def run(self, built: GazeEstimator, estimator: str, engine: Engine, on_progress: Progress | None) -> GazeReport:
        """Make what is not there yet, and join it."""
        sizes = {part.digest: part.table.num_rows for part in face_parts(self._root)}
        total, digest = joint_digest((faces, name) for name, faces in sizes.items())
        if self._is_finished(total, digest):
            return self._report(len(sizes), len(sizes), {}, already=True)
        wanted = {name for name in sizes if not self._setting.is_made(name)}
        self._discard_parts(set(sizes))
        resumed, finished = len(sizes) - len(wanted), total - sum(sizes[name] for name in wanted)
        seconds: Counter[str] = Counter()
        if on_progress:
            on_progress(finished, total)
        for made in self._make(wanted, built, estimator, engine):
            seconds.update(made.seconds)
            finished += made.faces
            if on_progress:
                on_progress(finished, total)
        self._join(list(sizes), total, digest)
        return self._report(len(sizes), resumed, dict(seconds), already=False)

    def _make(self, wanted: set[str], built: GazeEstimator, estimator: str, engine: Engine) -> Iterator[MadeGaze]:
        if not wanted:
            return iter(())
        tasks = partial(_wanted_parts, self._root, frozenset(wanted))
        if engine.is_here:
            return engine.map(tasks, lambda: GazeMaker(self._setting, built))
        return engine.map(tasks, partial(build_maker, self._setting, estimator))

    def _discard_parts(self, wanted: set[str]) -> None:
        for path in self._setting.parts.glob("*"):
            if path.suffix != ".parquet" or path.stem not in wanted:
                path.unlink()

    def _written(self) -> GazeFooter | None:
        """Return the footer of the gaze on disk, or None where it is absent or unreadable."""
        try:
            return read_gaze_footer(self._root, self._name)
        except DfadError:
            return None

    def _is_finished(self, total: int, digest: str) -> bool:
        footer = self._written()
        if footer is None or (footer.faces, footer.faces_sha256) != (total, digest):
            return False
        # what read_gaze would refuse must be made anew, since it names this command
        return not set(footer.without_gaze) & set(CROP_FLAGS) and is_gaze_sound(self._root, self._name)

    def _join(self, parts: list[str], total: int, digest: str) -> None:
        """Join the parts into one table, and one file of features; the old table goes first, since they must match."""
        self._path.parent.mkdir(exist_ok=True)
        self._path.unlink(missing_ok=True)
        width, features = self._recipe.feature_dim, features_name(self._name)
        with_gaze, flags = 0, Counter[str]()
        for name in parts:
            table = pq.read_table(self._setting.path(name), columns=["gaze_pitch", "gaze_yaw", "gaze_flag"])
            with_gaze += table.drop_columns("gaze_flag").drop_null().num_rows
            flags.update(flag for flag in table["gaze_flag"].to_pylist() if flag)
        if width:
            with FeaturesWriter(self._path.parent, total, width, features) as file:
                for name in parts:
                    cells = pq.read_table(self._setting.path(name), columns=[FEATURES_CELL.name])[FEATURES_CELL.name]
                    flat = cells.combine_chunks().flatten().to_numpy()
                    file.add(flat.astype(np.float32, copy=False).reshape(len(cells), width))
        else:
            (self._path.parent / features).unlink(missing_ok=True)
        footer = GazeFooter(
            schema_version=GAZE_SCHEMA_VERSION,
            source=self._footer.source,
            recipe=self._recipe,
            faces=total,
            faces_sha256=digest,
            with_gaze=with_gaze,
            without_gaze=dict(sorted(flags.items())),
        )
        with AtomicParquet(self._path, with_gaze_footer(footer)) as joined:
            for name in parts:
                joined.add(pq.read_table(self._setting.path(name), columns=GAZE_COLUMNS.names))

    def _report(self, parts: int, resumed: int, seconds: dict[str, float], *, already: bool) -> GazeReport:
        unseen, examples = _unseen(self._path)
        counts = _counted(self._root, self._path)
        return GazeReport(self._path, self._name, counts, unseen, examples, already, parts, resumed, seconds)


def _wanted_parts(root: Path, wanted: frozenset[str]) -> Iterator[FacePart]:
    return (part for part in face_parts(root) if part.digest in wanted)


def _counted(root: Path, path: Path) -> tuple[GazeCount, ...]:
    """Count faces by generator and what became of their gaze, which ``path`` holds in the manifest's order."""
    gaze = pq.read_table(path, columns=["gaze_pitch", "gaze_yaw", "gaze_flag"])
    known = pc.and_(pc.is_valid(gaze["gaze_pitch"]), pc.is_valid(gaze["gaze_yaw"]))
    faces, with_gaze = Counter[str](), Counter[str]()
    flags: dict[str, Counter[str]] = {}
    start = 0
    for batch in read_batches(root, ("generator",)):
        part = slice(start, start := start + batch.num_rows)
        names = batch["generator"].to_pylist()
        faces.update(names)
        for name, seen, flag in zip(names, known[part].to_pylist(), gaze["gaze_flag"][part].to_pylist(), strict=True):
            with_gaze[name] += seen
            if flag:
                flags.setdefault(name, Counter())[flag] += 1
    return tuple(
        GazeCount(name, faces[name], with_gaze[name], dict(sorted(flags.get(name, {}).items())))
        for name in sorted(faces)
    )


_EXAMPLES = 5


def _unseen(path: Path) -> tuple[int, tuple[str, ...]]:
    """Return how many faces had no sound crop, and what is wrong with the first few."""
    found = pq.read_table(path, columns=["id", "gaze_flag"], filters=pc.field("gaze_flag").isin(CROP_FLAGS))
    examples = found.slice(0, _EXAMPLES).to_pylist()
    return found.num_rows, tuple(f"{each['id']}: {each['gaze_flag'].replace('_', ' ')}" for each in examples)
