"""What a report shows of the tested faces themselves: thresholds on their scores, the hardest of them, gaze, embeddings."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from dfad_bench.analysis.gaze_fid import GazeFidOptions, gaze_fid
from dfad_bench.analysis.gaze_samples import GazeFaces, Sides, read_gaze_faces
from dfad_bench.errors import DataError, UsageError
from dfad_bench.publish import report_figures as figures
from dfad_bench.publish.gaze_tables import gaze_tables
from dfad_bench.publish.report_figures import Drawing, Point
from dfad_bench.publish.tables import NONE, Notes, Table
from dfad_bench.records.categorical import Rows, concatenated
from dfad_bench.records.face_files import read_file
from dfad_bench.records.gaze_fid import GazeFidReport
from dfad_bench.records.manifest import is_inside, read_footer, read_manifest
from dfad_bench.records.predictions import Predictions
from dfad_bench.records.results import POOLED, Result
from dfad_bench.records.sampling import sample
from dfad_bench.scoring.detection import Detector
from dfad_bench.scoring.faces import frames
from dfad_bench.scoring.metrics.tpr_at_fpr_1pct import FPR, tpr_at_fpr_1pct
from dfad_bench.scoring.rollup import softmax
from dfad_bench.scoring.views import DetectionView, Undefined
from dfad_bench.types import REAL

MOST_EMBEDDED = 1500
"""Faces of a map of embeddings."""
FEWEST_EMBEDDED = 10
_PERPLEXITY = 30.0
_MOST_GAZES = 1000
"""Faces a side of a gaze-FID: with _RESAMPLES, sixty generators take seconds."""
_RESAMPLES = 199
_GAZE_PANELS = 5
_SIDE = 112
"""Pixels of a thumbnail's longer side."""


# --- thresholds ----------------------------------------------------------------------------------------------------


def operating_points(predictions: Predictions, subset: str, threshold: float | None) -> tuple[list[Point], Table]:
    """Return the thresholds 0.5, of val and of FPR 1 % on all fakes of a subset, and both rates of each group there.

    predictions: in order. threshold: that chosen on val, None where val cannot tell. A group meets the reals that its
    scores met. The points are those that can be had: none at 0.5 where fake scores are no probabilities.
    """
    faces = frames(predictions)
    detector = Detector.of(faces, predictions.context.reals == "same_domain")
    groups = faces.subsets(predictions.context.subsets)[subset]
    fakes = {name: rows for name, rows in groups.items() if name != REAL}
    notes = Notes()
    rows = []
    points: list[Point] = []
    for name, chosen in {**fakes, POOLED: concatenated(fakes.values())}.items():
        try:
            view = detector.view(chosen)
        except Undefined as undefined:
            rows.append((name, *[f"{NONE} {notes.mark(str(undefined))}"] * 3))
            continue
        found = [
            _rates(view, 0.5) if detector.is_probability else "fake scores leave 0..1, so they are no probabilities",
            "val cannot tell" if threshold is None else _rates(view, threshold),
            _at_one_percent(view),
        ]
        rows.append((name, *(_told(each, notes) for each in found)))
        points = [
            Point(label, marker, *rates)
            for label, marker, rates in zip(("at 0.5", "at val's threshold", "at FPR 1 %"), "os^", found, strict=True)
            if not isinstance(rates, str)
        ]
    columns = ("group", "at 0.5: TPR, FPR %", "at val's threshold: TPR, FPR %", "at FPR ≤ 1 %: TPR, FPR %")
    meaning = f"Face by face. TPR: fakes called fake; FPR: reals called fake. {POOLED}: all fakes of the subset."
    return points, Table("Operating points", columns, tuple(rows), (*notes.lines(), meaning))


def _rates(view: DetectionView, threshold: float) -> tuple[float, float]:
    """Return the false and the true positive rate, or NaN for that of a side without a face."""
    called = view.fake_score >= threshold
    both = [called[side].mean() if side.any() else np.nan for side in (~view.is_fake, view.is_fake)]
    return float(both[0]), float(both[1])


def _at_one_percent(view: DetectionView) -> tuple[float, float] | str:
    try:
        tpr = float(tpr_at_fpr_1pct(view))
    except Undefined as undefined:
        return str(undefined)
    curve = view.curve
    return float(curve.fpr[(curve.fpr <= FPR).sum() - 1]), tpr


def _told(found: tuple[float, float] | str, notes: Notes) -> str:
    if isinstance(found, str):
        return f"{NONE} {notes.mark(found)}"
    fpr, tpr = found
    return f"{100 * tpr:.1f}, {100 * fpr:.1f}"


# --- prepared faces ------------------------------------------------------------------------------------------------


def tested_rows(predictions: Predictions) -> Rows:
    """Return the rows of the test faces, each once; ``predictions`` must be in order."""
    return frames(predictions).tested()


def prepared_faces(folder: Path, result: Result, tested: Sequence[str]) -> tuple[GazeFaces | None, list[str]]:
    """Return the tested faces that lie prepared in a folder, None where there is none, and what is missing there.

    A source that was prepared in another way than the run's is left out: its pictures are not what the model saw. Raises
    UsageError where there is no such folder.
    """
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}. Point --data at the folder of the prepared sources.")
    usable, lacking = [], []
    for source, recipe in result.data.items():
        try:
            if not is_inside(source):
                raise DataError(f"The result names a source {source!r}, which leads out of the folder.")
            if read_footer(folder / source).recipe.model_dump(mode="json") == recipe:
                usable.append(source)
            else:
                lacking.append(f"{source} was prepared by another recipe than the one this run saw")
        except (UsageError, DataError):
            lacking.append(f"{source} is not prepared there, or cannot be read")
    if not usable:
        return None, lacking or ["the result names no source"]
    faces = read_gaze_faces(folder, usable)
    rows = np.flatnonzero(pc.is_in(pa.array(faces.id, pa.string()), pa.array(tested, pa.string())))
    if len(rows) < len(tested):
        lacking.append(f"{len(tested) - len(rows):,} of the {len(tested):,} test faces are not there")
    return (_only(faces, rows) if len(rows) else None), lacking


def _only(faces: GazeFaces, rows: Rows) -> GazeFaces:
    arrays = ("manifest", "measuring", "id", "file_name", "frame", "cluster", "angles")
    columns = ("generator", "domain", "identity", "video")
    return replace(
        faces,
        **{name: getattr(faces, name)[rows] for name in arrays},
        **{name: getattr(faces, name).take(rows) for name in columns},
    )


# --- the hardest ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Picture:
    """A face of the gallery; ``uri`` holds its thumbnail as JPEG, or is None where the file cannot be shown."""

    uri: str | None
    generator: str
    score: str
    taken_for: str


def hardest(
    predictions: Predictions, rows: Rows, faces: GazeFaces | None, most: int, *, real: bool
) -> tuple[list[Picture], Table]:
    """Return the fakes of the lowest fake scores among rows, or with ``real`` the reals of the highest, and their table.

    Equal scores are ordered by id. Without ``faces`` there is the table only.
    """
    is_real = predictions.generator.is_(REAL)[rows]
    rows = rows[is_real if real else ~is_real]
    sign = -1.0 if real else 1.0
    chosen = rows[np.argsort(sign * predictions.fake_score[rows], kind="stable")][:most]  # rows are in order of id
    generators, subsets = predictions.generator.take(chosen).tolist(), predictions.subset.take(chosen).tolist()
    ids = predictions.id.take(pa.array(chosen)).to_pylist()
    answers = _answers(predictions, chosen)
    scores = [f"{score:.4g}" for score in predictions.fake_score[chosen].tolist()]
    told = [
        (id_, str(subset), str(generator), score, answer)
        for id_, subset, generator, score, answer in zip(ids, subsets, generators, scores, answers, strict=True)
    ]
    title = "Reals that look most fake" if real else "Fakes that look most real"
    table = Table(title, ("face", "subset", "generator", "fake score", "taken for"), tuple(told))
    if faces is None:
        return [], table
    place = {id_: number for number, id_ in enumerate(faces.id.tolist())}
    return [
        Picture(_thumbnail(faces, place.get(id_)), generator, score, answer)
        for id_, _, generator, score, answer in told
    ], table


def _answers(predictions: Predictions, rows: Rows) -> list[str]:
    """Return the leaf class that each face is taken for, with its probability; a dash for a pure detector."""
    if predictions.logits is None:
        return [NONE] * len(rows)
    shares = softmax(predictions.logits[rows])
    best = shares.argmax(axis=1)
    return [
        f"{predictions.classes[leaf].name} ({100 * share[leaf]:.0f} %)"
        for leaf, share in zip(best.tolist(), shares, strict=True)
    ]


def _thumbnail(faces: GazeFaces, row: int | None) -> str | None:
    """Return a face as a small JPEG in a data URI; None where there is no such file below the source's folder."""
    if row is None:
        return None
    try:
        data = read_file(faces.manifests[faces.manifest[row]].root, faces.file_name[row])
    except OSError:
        return None
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if pixels is None:
        return None
    scale = _SIDE / max(pixels.shape[:2])
    size = [max(1, round(scale * length)) for length in pixels.shape[1::-1]]
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    stored = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 82])[1]
    return f"data:image/jpeg;base64,{base64.b64encode(stored.tobytes()).decode()}"


def licences(faces: GazeFaces, ids: Sequence[str]) -> list[str]:
    """Return the licences of faces, sorted."""
    found: set[str] = set()
    for manifest in faces.manifests:
        table = read_manifest(manifest.root, ("id", "licence")).table
        found |= set(table.filter(pc.is_in(table["id"], pa.array(ids, pa.string())))["licence"].to_pylist())
    return sorted(found)


# --- gaze ----------------------------------------------------------------------------------------------------------


def gaze_of_tested(faces: GazeFaces, generators: Sequence[str], seed: int) -> tuple[list[Drawing], list[Table]]:
    """Return where tested reals and fakes look, and the gaze-FID of each generator, from few resamples.

    Densities of all together and of the generators that are farthest; none where no generator can be measured, for which
    the table then gives the reason.
    """
    options = GazeFidOptions(most=_MOST_GAZES, resamples=_RESAMPLES, seed=seed)
    report, sides = gaze_fid(faces, generators, options)
    measured = [row for row in report.generators if row.distance is not None]
    measured.sort(key=lambda row: (-(row.distance.corrected if row.distance else 0.0), row.generator))
    drawn = []
    if len(measured) > 1:
        together, count = _together([sides[row.generator] for row in measured])
        drawn.append(
            figures.gaze(
                "gaze-all",
                "Gaze of real and fake test faces",
                f"{len(together.fake):,} fakes of {count} generators and the {len(together.real):,} reals they are set "
                "against.",
                faces,
                together,
            )
        )
    for number, row in enumerate(measured[:_GAZE_PANELS]):
        assert row.distance is not None
        drawn.append(
            figures.gaze(
                f"gaze-{number}",
                f"Gaze of {row.generator}",
                f"gaze-FID {row.distance.frechet:.3g} {_unit(report)}, corrected {row.distance.corrected:.3g} "
                f"[{row.distance.low:.3g}, {row.distance.high:.3g}], p = {row.distance.p:.3f}, "
                f"{row.distance.candidate_faces:,} faces a side.",
                faces,
                sides[row.generator],
            )
        )
    return drawn, gaze_tables(report)


def _together(sides: Sequence[Sides]) -> tuple[Sides, int]:
    """Return all sides as one, of those whose gaze was measured as most were, and how many these are."""
    measuring = Counter(each.measuring for each in sides).most_common(1)[0][0]
    alike = [each for each in sides if each.measuring == measuring]
    joined = replace(
        alike[0],
        real=np.unique(concatenated(each.real for each in alike)),
        fake=np.unique(concatenated(each.fake for each in alike)),
        domains=tuple(sorted({domain for each in alike for domain in each.domains})),
    )
    return joined, len(alike)


def _unit(report: GazeFidReport) -> str:
    return report.unit if report.unit != "1" else ""


# --- embeddings ----------------------------------------------------------------------------------------------------


def embedding_map(predictions: Predictions, rows: Rows, seed: int) -> Drawing | str:
    """Return the tested faces' embeddings as a map by t-SNE (van der Maaten & Hinton 2008, JMLR 9:2579), or why not.

    At most MOST_EMBEDDED faces, chosen by hash. On one thread, from the first two principal components and a seed: the same
    embeddings give the same map.
    """
    if predictions.embedding is None:
        return "This model records no embeddings, so there is no map of them."
    rows = rows[sample(predictions.id.take(pa.array(rows)).to_pylist(), seed, MOST_EMBEDDED)]
    if len(rows) < FEWEST_EMBEDDED:
        return f"There are {len(rows)} faces, too few for a map of embeddings: it needs {FEWEST_EMBEDDED}."
    vectors = predictions.embedding[rows].astype(np.float64)
    if not np.ptp(vectors, axis=0).any():
        return "Every face has the same embedding, so there is no map of them."
    perplexity = min(_PERPLEXITY, (len(rows) - 1) / 3)
    by_generator = predictions.generator.take(rows).groups(np.arange(len(rows)), first=REAL)
    known = {leaf.name for leaf in predictions.classes}
    fakes = len(by_generator.keys() - {REAL})
    numbers = Table(
        "Faces of the map",
        ("generator", "in training", "faces"),
        tuple((name, "yes" if name in known else "no", str(len(chosen))) for name, chosen in by_generator.items()),
    )
    caption = (
        f"{len(rows):,} test faces, reals and those of {fakes} generators. t-SNE at perplexity {perplexity:.0f}, "
        f"seed {seed}. Hollow: training has no such class. Neighbours mean something; distances between groups, and their "
        "sizes, do not."
    )
    title = "Embeddings of the test faces"
    return figures.embedding(
        "embedding", title, caption, _flat(vectors, perplexity, seed), by_generator, [*known], numbers
    )


def _flat(vectors: NDArray[np.float64], perplexity: float, seed: int) -> NDArray[np.float64]:
    """Return vectors [N, D] as points [N, 2]."""
    with threadpool_limits(1):  # threads add up in any order
        fewer = min(50, *vectors.shape)
        if vectors.shape[1] > fewer:
            vectors = PCA(fewer, svd_solver="full").fit_transform(vectors)
        start = PCA(2, svd_solver="full").fit_transform(vectors) if vectors.shape[1] > 1 else np.repeat(vectors, 2, 1)
        start = 1e-4 * start / start[:, 0].std()
        placed = TSNE(2, perplexity=perplexity, init=start.astype(np.float32), random_state=seed % 2**32, n_jobs=1)
        flat: NDArray[np.float64] = placed.fit_transform(vectors.astype(np.float32)).astype(np.float64)
    return flat
