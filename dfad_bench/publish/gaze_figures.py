"""Gaze-FID as pictures: where real and fake faces look, and all generators beside each other, as in the paper's figure 1."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import gaussian_kde

from dfad_bench.analysis.gaze_samples import GazeFaces, Sides
from dfad_bench.prepare.gaze_map import render_gaze_map
from dfad_bench.records.categorical import Rows
from dfad_bench.records.face_files import read_file
from dfad_bench.records.gaze_fid import DistanceRecord, GazeFidReport, GeneratorRow
from dfad_bench.records.sampling import sample

SHOWN = 6
"""Faces of each side in a figure."""
_MOST_POINTS = 2000
_GRID = 80
_MASSES = (0.9, 0.5)
"""Shares of faces within a contour."""
_MARKERS = {"gan": "o", "diffusion": "s", "flow": "^", "autoregressive": "v", "autoencoder": "D", "graphics": "P"}
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "svg.hashsalt": "dfad-bench",  # names in an SVG are random otherwise, and no two runs alike
    "svg.fonttype": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw(
    report: GazeFidReport,
    faces: GazeFaces,
    sides: Mapping[str, Sides],
    folder: Path,
    *,
    include_real: bool = False,
    on_progress: Callable[[int, int | None], None] | None = None,
) -> list[Path]:
    """Draw one figure per generator that was measured, and one of all; return the files, SVG and PNG of each.

    Grey areas and black lines, so that nothing depends on colour. Faces shown are fakes, the first by hash; with
    ``include_real`` reals too. The same report and faces give the same bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    measured = [row for row in report.generators if row.distance is not None]
    files = []
    with matplotlib.rc_context(_STYLE):
        for done, row in enumerate(measured):
            if on_progress is not None:
                on_progress(done, len(measured) + 1)
            figure = _generator_figure(report, row, faces, sides[row.generator], include_real)
            files += _save(figure, folder / row.generator)
        if measured:
            files += _save(_summary(report, measured), folder / "summary")
    return files


def _save(figure: Figure, path: Path) -> list[Path]:
    svg, png = path.with_suffix(".svg"), path.with_suffix(".png")
    figure.savefig(svg, metadata={"Date": None})
    figure.savefig(png, dpi=150, metadata={"Software": None})
    return [svg, png]


# --- one generator -------------------------------------------------------------------------------------------------


def _generator_figure(
    report: GazeFidReport, row: GeneratorRow, faces: GazeFaces, sides: Sides, include_real: bool
) -> Figure:
    assert row.distance is not None
    kinds = [("fake", sides.fake), *([("real", sides.real)] if include_real else [])]
    figure = Figure(figsize=(9, 3.4 + 0.6 * (len(kinds) - 1)), layout="constrained")
    halves: Any = figure.subfigures(1, 2, width_ratios=(1, 1.25))
    left, right = halves
    densities(left.subplots(), faces, sides)
    strips = right.subplots(2 * len(kinds) + 1, SHOWN, squeeze=False)
    for number, (name, rows) in enumerate(kinds):
        _faces(strips[2 * number : 2 * number + 2], faces, _first(faces, rows, report.seed), name)
    for axes in strips[-1]:
        axes.axis("off")
    right.text(0.02, 0.02, _told(report, row, row.distance), va="bottom", fontsize=8)
    figure.suptitle(
        f"{row.generator} ({row.forgery_type}, {row.family}) against real faces of {', '.join(row.domains)}"
    )
    return figure


def densities(axes: Axes, faces: GazeFaces, sides: Sides) -> None:
    """Draw where the real and the fake faces of a comparison look, in degrees: areas and lines that hold 50 % and 90 %."""
    real, fake = (np.degrees(faces.angles[rows])[:, ::-1] for rows in (sides.real, sides.fake))  # yaw, pitch
    both = np.concatenate([real, fake])
    low, high = np.quantile(both, 0.005, axis=0), np.quantile(both, 0.995, axis=0)
    room = np.maximum((high - low) * 0.15, 1.0)
    grid = np.meshgrid(*(np.linspace(a, b, _GRID) for a, b in zip(low - room, high + room, strict=True)))
    yaw, pitch = _some(fake).T
    axes.scatter(yaw, pitch, s=4, c="black", marker="x", linewidths=0.5, alpha=0.35)
    for points, filled in ((real, True), (fake, False)):
        density = _density(points, grid)
        if density is None:
            continue
        levels = _levels(density)
        if filled:
            axes.contourf(*grid, density, levels=[*levels, density.max()], colors=["0.85", "0.65"], zorder=0)
        else:
            axes.contour(*grid, density, levels=levels, colors="black", linestyles=["dashed", "solid"], linewidths=1.2)
    axes.axhline(0, color="0.5", linewidth=0.5)
    axes.axvline(0, color="0.5", linewidth=0.5)
    axes.set(xlabel="yaw (°), right of the picture positive", ylabel="pitch (°), up positive")
    axes.set_title("grey: real, lines: fake; 50 % and 90 % of faces", fontsize=8)
    axes.set_aspect("equal", adjustable="datalim")


def _some(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return at most _MOST_POINTS rows, evenly over those there are."""
    if len(points) <= _MOST_POINTS:
        return points
    return np.take(points, np.linspace(0, len(points) - 1, _MOST_POINTS).astype(int), axis=0)


def _density(points: NDArray[np.float64], grid: Sequence[NDArray[np.float64]]) -> NDArray[np.float64] | None:
    """Return the smoothed density on a grid; None where the points lie on a line, which has none."""
    points = _some(points)
    if len(points) < 4 or np.linalg.matrix_rank(points - points.mean(axis=0)) < 2:
        return None
    estimated = gaussian_kde(points.T)(np.stack([axis.ravel() for axis in grid]))
    on_grid: NDArray[np.float64] = np.reshape(estimated, grid[0].shape)
    return on_grid


def _levels(density: NDArray[np.float64]) -> list[float]:
    """Return the heights above which each share of the density lies, ascending."""
    heights = np.sort(density.ravel())[::-1]
    mass = np.cumsum(heights) / heights.sum()
    return [float(heights[np.searchsorted(mass, share)]) for share in _MASSES]


def _first(faces: GazeFaces, rows: Rows, seed: int) -> Rows:
    chosen: Rows = rows[sample(faces.id[rows].tolist(), seed, SHOWN)]
    return chosen


def _faces(strips: NDArray[Any], faces: GazeFaces, rows: Rows, name: str) -> None:
    """Draw faces in one row of axes and their gaze maps in the next."""
    for axes in strips.ravel():
        axes.axis("off")
    for column, row in enumerate(rows.tolist()):
        manifest = faces.manifests[faces.manifest[row]]
        face = _picture(manifest.root, faces.file_name[row])
        if face is not None:
            strips[0, column].imshow(face)
        pitch, yaw = faces.angles[row]
        eyeball, iris = np.moveaxis(render_gaze_map(float(pitch), float(yaw)) / 255, 2, 0)
        strips[1, column].imshow(1 - 0.2 * eyeball - 0.8 * eyeball * iris, cmap="gray", vmin=0, vmax=1)
    strips[0, 0].set_title(name, loc="left", fontsize=8)


def _picture(root: Path, name: str) -> NDArray[np.uint8] | None:
    """Return a face [H, W, 3] RGB; None where the file is gone or is no picture, which a figure can do without."""
    try:
        data = read_file(root, name)
    except OSError:
        return None
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if data else None
    return None if pixels is None else pixels.astype(np.uint8, copy=False)


def _told(report: GazeFidReport, row: GeneratorRow, found: DistanceRecord) -> str:
    unit = "" if report.unit == "1" else f" {report.unit}"
    lines = [
        f"gaze-FID ({report.space}) {found.frechet:.3g}{unit}, N = {found.candidate_faces:,} each",
        f"corrected {found.corrected:.3g} [{found.low:.3g}, {found.high:.3g}]",
        f"real against real, 95 %: {found.null_p95:.3g}; p = {found.p:.3f}",
    ]
    if row.measuring is not None:
        lines.append(f"gaze by {row.measuring.estimator}")
    lines += [f"limits: {'; '.join(found.flags)}"] if found.flags else []
    return "\n".join(lines)


# --- all generators ------------------------------------------------------------------------------------------------


def _summary(report: GazeFidReport, measured: Sequence[GeneratorRow]) -> Figure:
    """Draw every generator's corrected distance with interval and null, by forgery type and family, farthest first."""
    rows = sorted(
        measured, key=lambda row: (row.forgery_type, row.family, -(row.distance.corrected if row.distance else 0))
    )
    figure = Figure(figsize=(7.5, 1.4 + 0.3 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        found = row.distance
        assert found is not None
        # Of the null as of the distance, what a sample of this size adds is taken off.
        axes.barh(place, found.null_p95 - found.null_mean, height=0.8, color="0.88", zorder=0)
        axes.plot([found.low, found.high], [place, place], color="black", linewidth=1)
        axes.plot(
            found.corrected,
            place,
            _MARKERS.get(row.family, "*"),
            color="black",
            markerfacecolor="black" if found.p < 0.05 else "white",
            markersize=6,
        )
    axes.set_yticks(range(len(rows)), [f"{row.generator}  {row.forgery_type}/{row.family}" for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    unit = "" if report.unit == "1" else f" ({report.unit})"
    axes.set_xlabel(f"corrected gaze-FID, {report.space}{unit}")
    axes.axvline(0, color="0.5", linewidth=0.5)
    axes.set_title(
        "line: 95 % interval; filled: p < 0.05; grey: what real against real, corrected too, stays below in 95 of 100",
        fontsize=8,
    )
    shown = dict.fromkeys(row.family for row in rows)
    handles = [
        axes.plot([], [], _MARKERS.get(family, "*"), color="black", linestyle="none", label=family)[0]
        for family in shown
    ]
    axes.legend(handles=handles, fontsize=8, frameon=False, loc="best")
    return figure
