"""Whose gaze is set against whose: the fakes of a generator, and as many reals of the domains they were made from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dfad_bench.errors import DataError, UsageError, shorten
from dfad_bench.records.categorical import Categorical, Rows, concatenated
from dfad_bench.records.gaze import FaceGaze, read_gaze
from dfad_bench.records.manifest import METADATA, Manifest, read_manifest
from dfad_bench.records.sampling import sample
from dfad_bench.scoring.statistics.resampling import find_clusters
from dfad_bench.taxonomy import known
from dfad_bench.types import REAL

Space = Literal["angles", "direction", "features"]
UNITS: dict[Space, str] = {"angles": "deg²", "direction": "1", "features": "1"}
"""The unit of the Fréchet distance in each space; angles are pitch and yaw in degrees, a direction is a unit vector."""
COLUMNS = (
    *("id", "source", "generator", "family", "forgery_type", "domain", "video", "frame", "identities", "file_name"),
)


@dataclass(frozen=True, slots=True)
class Measuring:
    """How gaze was measured; numbers that were measured differently are never set against each other.

    estimator and its weights' hash; the crop it looked at: how faces were found, its size in pixels, its margin, whether
    it was turned upright.
    """

    estimator: str
    estimator_sha256: str | None
    face_detector: str
    size: int
    margin: float
    align: bool

    def __str__(self) -> str:
        weights = f" ({self.estimator_sha256[:12]})" if self.estimator_sha256 else ""
        turned = ", aligned" if self.align else ""
        return (
            f"{self.estimator}{weights}, crops of {self.size} px, {self.face_detector}, margin {self.margin:g}{turned}"
        )


@dataclass(frozen=True, eq=False)
class GazeFaces:
    """N prepared faces with what is known of their gaze.

    manifest [N]: index of the manifest a face is in; measuring [N]: index into ``measurings``; angles [N, 2]: pitch and
    yaw in radians, NaN where unknown; features [N, D] or None where it was not asked for; cluster [N]: faces that share a
    person or a video; frame [N]: −1 where a face is no frame of a video.
    """

    manifests: tuple[Manifest, ...]
    measurings: tuple[Measuring, ...]
    manifest: NDArray[np.int32]
    measuring: NDArray[np.int32]
    id: NDArray[np.object_]
    file_name: NDArray[np.object_]
    generator: Categorical
    domain: Categorical
    identity: Categorical
    video: Categorical
    frame: NDArray[np.int32]
    cluster: NDArray[np.int32]
    angles: NDArray[np.float64]
    features: NDArray[np.float64] | None
    labels: dict[str, tuple[str, str]]
    """Generator → (family, forgery type)."""

    @property
    def has_gaze(self) -> NDArray[np.bool_]:
        """Whose gaze is known, [N]."""
        finite = np.isfinite(self.angles)
        if self.features is not None:
            finite = np.hstack([finite, np.isfinite(self.features)])
        return np.asarray(finite.all(axis=1))

    def values(self, space: Space, rows: Rows) -> NDArray[np.float64]:
        """Return the gaze of some faces in a space, [n, D]."""
        if space == "angles":
            return np.degrees(self.angles[rows])
        if space == "direction":
            return directions(self.angles[rows])
        assert self.features is not None
        return self.features[rows]


def directions(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return unit vectors [n, 3] (x towards image right, y up, z out of the picture) of pitch and yaw [n, 2] in radians."""
    pitch, yaw = angles[:, 0], angles[:, 1]
    return np.stack([np.cos(pitch) * np.sin(yaw), np.sin(pitch), np.cos(pitch) * np.cos(yaw)], axis=1)


# --- reading -------------------------------------------------------------------------------------------------------


def read_gaze_faces(
    data: Path, sources: Sequence[str] | None = None, estimator: str | None = None, with_features: bool = False
) -> GazeFaces:
    """Return the faces of the prepared sources below a folder; all of those that have gaze where none is named.

    estimator: one that was added beside the manifests' own (``prepare --only-gaze``). Raises UsageError where nothing is
    prepared, a named source is not, or one has no such gaze, with the command that adds it.
    """
    names = sources or sorted(path.parent.name for path in data.glob(f"*/{METADATA}"))
    if not names:
        raise UsageError(f"{data} holds no prepared source. Run 'dfad-bench prepare --source …' first.")
    manifests, gazes = [], []
    lacking: list[str] = []
    for name in names:
        manifest = read_manifest(data / name, COLUMNS)
        try:
            gaze = read_gaze(manifest.root, estimator, with_features=with_features)
            if with_features and gaze.features is None:
                raise DataError(f"{name}: {gaze.estimator} gives no features. Choose the space angles or direction.")
        except DataError as error:
            if sources:
                raise
            lacking.append(str(error))
            continue
        manifests.append(manifest)
        gazes.append(gaze)
    if not manifests:
        raise UsageError(f"No prepared source of {data} has such gaze. {lacking[0]}")
    return _joined(manifests, gazes, with_features)


def _joined(manifests: Sequence[Manifest], gazes: Sequence[FaceGaze], with_features: bool) -> GazeFaces:
    table = pa.concat_tables([manifest.table for manifest in manifests])
    kinds = [_measuring(manifest, gaze) for manifest, gaze in zip(manifests, gazes, strict=True)]
    measurings = tuple(dict.fromkeys(kinds))
    rows = [manifest.table.num_rows for manifest in manifests]
    identity = Categorical.of([each[0] if each else None for each in table["identities"].to_pylist()])
    video = Categorical.of(table["video"])
    features = None
    if with_features:
        widths = {gaze.features.shape[1] for gaze in gazes if gaze.features is not None}
        if len(widths) > 1:
            raise DataError(
                f"The sources' gaze features have {shorten(map(str, sorted(widths)))} numbers. Name sources."
            )
        features = np.concatenate([gaze.features for gaze in gazes if gaze.features is not None]).astype(np.float64)
    unique = table.group_by(["generator", "family", "forgery_type"]).aggregate([]).to_pylist()
    return GazeFaces(
        manifests=tuple(manifests),
        measurings=measurings,
        manifest=np.repeat(np.arange(len(rows), dtype=np.int32), rows),
        measuring=np.repeat(np.asarray([measurings.index(kind) for kind in kinds], np.int32), rows),
        id=np.asarray(table["id"].to_pylist(), dtype=object),
        file_name=np.asarray(table["file_name"].to_pylist(), dtype=object),
        generator=Categorical.of(table["generator"]),
        domain=Categorical.of(table["domain"]),
        identity=identity,
        video=video,
        frame=pc.fill_null(table["frame"], -1).to_numpy().astype(np.int32),
        cluster=find_clusters(identity.code, video.code),
        angles=np.stack(
            [np.concatenate([gaze.pitch for gaze in gazes]), np.concatenate([gaze.yaw for gaze in gazes])], axis=1
        ).astype(np.float64),
        features=features,
        labels={row["generator"]: (row["family"], row["forgery_type"]) for row in unique},
    )


def _measuring(manifest: Manifest, gaze: FaceGaze) -> Measuring:
    recipe = manifest.footer.recipe
    return Measuring(
        estimator=gaze.estimator,
        estimator_sha256=gaze.weights_sha256,
        face_detector=recipe.face_detector,
        size=recipe.size,
        margin=recipe.margin,
        align=recipe.align,
    )


def find_generators(faces: GazeFaces, names: Sequence[str]) -> list[str]:
    """Return the prepared generators of these names or aliases; all of them where none is named.

    Raises UsageError for one that has no prepared face, listing those there are.
    """
    there = sorted(set(faces.generator.values) - {REAL})
    if not names:
        return there
    found = []
    for name in names:
        entry = known().find(name)
        spelled = name if name in there or entry is None else entry.name
        if spelled not in there:
            raise UsageError(
                f"No prepared face is by {name!r}. There are: {', '.join(there) or 'none'}. "
                "Prepare a source that has it, or point --data at the folder that does."
            )
        found.append(spelled)
    return list(dict.fromkeys(found))


# --- choosing ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Sides:
    """The fakes of a generator and the reals they are set against, as many of each in every domain.

    real, fake: rows, ascending; domains that entered; without_gaze: how many fakes and reals of these domains were left out
    because their gaze is unknown.
    """

    measuring: Measuring
    real: Rows
    fake: Rows
    domains: tuple[str, ...]
    fakes_without_gaze: int
    reals_without_gaze: int


def choose_sides(faces: GazeFaces, generator: str, *, most: int, seed: int, every_domain: bool = False) -> Sides:
    """Choose, by hash, at most ``most`` fakes of a generator and as many reals of the same domains, measured alike.

    In each domain both sides have the same number of faces, so that a difference between domains is none between real
    and fake; with ``every_domain`` the reals are of any domain instead, and both sides only equal in all. Raises DataError
    where there is no such real face, or the generator's gaze was measured in several ways.
    """
    fakes = np.flatnonzero(faces.generator.is_(generator))
    has_gaze = faces.has_gaze
    kinds = np.unique(faces.measuring[fakes[has_gaze[fakes]]])
    if not len(kinds):
        raise DataError(f"{generator}: the gaze of none of its {len(fakes)} faces is known.")
    if len(kinds) > 1:
        told = "; ".join(str(faces.measurings[kind]) for kind in kinds.tolist())
        raise DataError(f"{generator}: its gaze was measured in several ways ({told}). Name one source with --source.")
    alike = faces.measuring == kinds[0]
    fakes = fakes[alike[fakes]]
    own = {faces.domain.values[code] for code in np.unique(faces.domain.code[fakes]).tolist()}
    reals = np.flatnonzero(faces.generator.is_(REAL) & alike)
    by_domain = faces.domain.groups(reals, first=REAL)
    if not every_domain:
        by_domain = {domain: rows for domain, rows in by_domain.items() if domain in own}
    if not by_domain:
        raise DataError(
            f"{generator}: no real face of {shorten(sorted(own))} was measured alike ({faces.measurings[kinds[0]]}). "
            "Prepare the reals it was made from in the same way, or compare with every real by --reals all."
        )
    seen = concatenated(by_domain.values())
    left_out = (int((~has_gaze[fakes]).sum()), int((~has_gaze[seen]).sum()))
    pairs = _pairs(faces, fakes[has_gaze[fakes]], {d: r[has_gaze[r]] for d, r in by_domain.items()}, every_domain)
    total = sum(min(len(one), len(other)) for _, one, other in pairs)
    chosen: dict[str, tuple[Rows, Rows]] = {}
    for domain, one, other in pairs:
        both = min(len(one), len(other))
        wanted = both if total <= most else most * both // total
        if wanted:
            chosen[domain] = (_by_hash(faces, one, seed, wanted), _by_hash(faces, other, seed, wanted))
    return Sides(
        measuring=faces.measurings[int(kinds[0])],
        real=np.sort(concatenated(reals for reals, _ in chosen.values())),
        fake=np.sort(concatenated(fakes for _, fakes in chosen.values())),
        domains=tuple(sorted(chosen)) if not every_domain else tuple(sorted(by_domain)),
        fakes_without_gaze=left_out[0],
        reals_without_gaze=left_out[1],
    )


def _pairs(
    faces: GazeFaces, fakes: Rows, by_domain: dict[str, Rows], every_domain: bool
) -> list[tuple[str, Rows, Rows]]:
    if every_domain:
        return [("all", concatenated(by_domain.values()), fakes)]
    of_domain = faces.domain.groups(fakes, first=REAL)
    return [(domain, reals, of_domain.get(domain, fakes[:0])) for domain, reals in by_domain.items()]


def _by_hash(faces: GazeFaces, rows: Rows, seed: int, most: int) -> Rows:
    chosen: Rows = rows[sample(faces.id[rows].tolist(), seed, most)]
    return chosen


def real_domains(faces: GazeFaces, *, most: int, seed: int) -> Iterator[tuple[str, str, Measuring, Rows, Rows]]:
    """Yield every pair of domains whose reals were measured alike, with as many reals of each, by hash."""
    has_gaze = faces.has_gaze & faces.generator.is_(REAL)
    for kind, measuring in enumerate(faces.measurings):
        by_domain = faces.domain.groups(np.flatnonzero(has_gaze & (faces.measuring == kind)), first=REAL)
        names = sorted(by_domain)
        for position, one in enumerate(names):
            for other in names[position + 1 :]:
                both = min(most, len(by_domain[one]), len(by_domain[other]))
                first, second = (_by_hash(faces, by_domain[name], seed, both) for name in (one, other))
                yield one, other, measuring, first, second
