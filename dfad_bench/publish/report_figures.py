"""The figures of a run's report, as SVG that lies in the page itself.

Every figure stands for itself at the width of a phone, has a title and a description for those who do not see it, and says
by colour nothing that markers or dashes do not say too. The same numbers give the same bytes.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from dfad_bench.analysis.gaze_samples import GazeFaces, Sides
from dfad_bench.publish.gaze_figures import densities
from dfad_bench.publish.tables import Table, level_name
from dfad_bench.records.results import POOLED, CurveRecord, ReliabilityRecord

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""The palette of Okabe and Ito (2008, Color Universal Design) without its yellow, which is lost on white."""
COLOURED = 6
"""Curves of one figure that get a colour; more could not be told apart."""
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)), (0, (8, 2)), (0, (2, 2)))
_LONGEST = 22
_SIZE = (4.4, 4.2)
_PIXELS_PER_INCH = 100
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "font.sans-serif": ["DejaVu Sans"],
    "svg.hashsalt": "dfad-bench",  # names in an SVG are random otherwise, and no two pages alike
    "svg.fonttype": "none",
    "text.parse_math": False,  # a $ in a name is a $
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure of the page: its name, unique there; SVG; a caption that says the main numbers; width in pixels, at most.

    numbers: what is drawn, as a table; None where the page shows that table anyway.
    """

    name: str
    title: str
    svg: str
    caption: str
    width: int
    numbers: Table | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """A threshold on a ROC: what it is called, the marker, and the two rates in 0..1."""

    label: str
    marker: str
    fpr: float
    tpr: float


def drawing(
    name: str,
    title: str,
    caption: str,
    paint: Callable[[Figure], None],
    *,
    size: tuple[float, float] = _SIZE,
    numbers: Table | None = None,
) -> Drawing:
    """Return what ``paint`` draws onto an empty figure of that size in inches."""
    # A glyph that the font lacks is drawn by the browser, which has others.
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure = Figure(figsize=size, layout="constrained")
        paint(figure)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = _inline(text.getvalue(), name, title, caption)
    return Drawing(name, title, svg, caption, round(size[0] * _PIXELS_PER_INCH), numbers)


_NAMED = re.compile(r'(?<=\sid=")|(?<=url\(#)|(?<=href="#)')


def _inline(svg: str, name: str, title: str, description: str) -> str:
    """Return matplotlib's SVG as an element of a page: no header, no style for all elements, names that are its own."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<style .*?</style>", "", body, flags=re.DOTALL)
    # within tags only: a text may read id="…", and stays what it is
    body = re.sub(r"<[^>]*>", lambda tag: _NAMED.sub(f"{name}-", tag[0]), body)
    view = re.search(r'viewBox="[^"]*"', body)
    assert view is not None
    root = f'<svg {view[0]} role="img" aria-labelledby="{name}-title {name}-desc" stroke-linejoin="round">'
    told = f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(description)}</desc>'
    return root + told + body[body.index(">") + 1 :]


def shortened(text: str) -> str:
    """Return a name as a figure has room for it, on one line."""
    line = " ".join(text.split())
    line = f" {line}" if line.startswith("_") else line  # matplotlib hides what begins so
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def _legend(figure: Figure, handles: Sequence[Line2D], columns: int) -> None:
    """Put the legend below the axes, where it covers nothing."""
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)


def _unit_square(axes: Axes, x: str, y: str) -> None:
    axes.set(xlabel=x, ylabel=y, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set_aspect("equal")
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)


# --- detection -----------------------------------------------------------------------------------------------------


def roc(
    name: str,
    title: str,
    caption: str,
    curves: Sequence[CurveRecord],
    points: Sequence[Point],
    aucs: Mapping[str, float],
    numbers: Table,
) -> Drawing:
    """Draw the ROC of a subset's generators and of all its fakes, thresholds being marked on the latter.

    aucs: by generator; where there are more than COLOURED, the hardest get colours and the others are grey.
    """
    single = [curve for curve in curves if curve.group != POOLED]
    ordered = sorted(single, key=lambda curve: (aucs.get(curve.group, 1.0), curve.group))
    hardest, others = ordered[:COLOURED], ordered[COLOURED:]

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        _unit_square(axes, "false positive rate", "true positive rate")
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle=":")
        handles = []
        for curve in others:
            (line,) = axes.plot(curve.x, curve.y, color="0.75", linewidth=0.7)
            line.set_label(f"{len(others)} others")
            handles = [line]
        for place, curve in enumerate(hardest):
            colour, dashes = OKABE_ITO[place], _DASHES[place]
            handles += axes.plot(
                curve.x, curve.y, color=colour, linestyle=dashes, linewidth=1.4, label=shortened(curve.group)
            )
        for curve in curves:
            if curve.group == POOLED:
                handles += axes.plot(curve.x, curve.y, color="black", linewidth=2, label="all fakes")
        for each in points:
            handles += axes.plot(
                each.fpr,
                each.tpr,
                each.marker,
                color="black",
                markerfacecolor="white",
                markersize={"o": 10, "s": 6}.get(each.marker, 7),  # two thresholds may be one point
                linestyle="none",
                label=each.label,
                clip_on=False,
                zorder=5,
            )
        _legend(figure, handles, 2)

    height = 4.2 + 0.17 * ((min(len(single), COLOURED + 1) + 1 + len(points) + 1) // 2)
    return drawing(name, title, caption, paint, size=(4.4, height), numbers=numbers)


def reliability(name: str, title: str, caption: str, record: ReliabilityRecord, numbers: Table) -> Drawing:
    """Draw a reliability diagram: what is so against what was believed, and below it how many faces were believed so."""
    bins = len(record.faces)
    centres = (np.arange(bins) + 0.5) / bins
    filled = [
        (confidence, fraction)
        for confidence, fraction in zip(record.confidence, record.fraction, strict=True)
        if confidence is not None and fraction is not None
    ]

    def paint(figure: Figure) -> None:
        drawn: Any = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
        upper, lower = drawn
        upper.plot([0, 1], [0, 1], color="0.5", linewidth=0.8, linestyle=":")
        believed, so = [x for x, _ in filled], [y for _, y in filled]
        upper.vlines(believed, np.minimum(believed, so), np.maximum(believed, so), color="0.75", linewidth=3)
        upper.plot(believed, so, "o-", color=OKABE_ITO[0], markersize=4, linewidth=1.2)
        upper.set(ylabel="fraction that is so", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        lower.bar(centres, record.faces, width=0.92 / bins, color="0.6")
        lower.set(xlabel="confidence", ylabel="faces")
        lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        for axes in (upper, lower):
            axes.grid(color="0.9", linewidth=0.6)
            axes.set_axisbelow(True)

    return drawing(name, title, caption, paint, size=(3.8, 4.2), numbers=numbers)


# --- open set, robustness, training --------------------------------------------------------------------------------


def oscr(name: str, title: str, caption: str, curves: Sequence[CurveRecord], numbers: Table) -> Drawing:
    """Draw the OSCR curve of each level."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        _unit_square(axes, "unknown faces accepted", "known faces accepted and right")
        handles: list[Line2D] = []
        for place, curve in enumerate(curves):
            handles += axes.plot(
                curve.x,
                curve.y,
                color=OKABE_ITO[place % len(OKABE_ITO)],
                linestyle=_DASHES[place % len(_DASHES)],
                linewidth=1.6,
                label=level_name(curve.level),
            )
        _legend(figure, handles, 3)

    return drawing(name, title, caption, paint, numbers=numbers)


def severities(name: str, title: str, caption: str, label: str, curves: Mapping[str, Sequence[float]]) -> Drawing:
    """Draw values in percent by severity, 0 to 5, a line per perturbation; NaN is a gap."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        handles: list[Line2D] = []
        for place, (perturbation, values) in enumerate(curves.items()):
            is_mean = perturbation == "mean"
            handles += axes.plot(
                range(len(values)),
                values,
                color="black" if is_mean else OKABE_ITO[place % 6],
                marker=None if is_mean else _MARKERS[place % len(_MARKERS)],
                linestyle="-" if is_mean else _DASHES[place // 6 % len(_DASHES)],
                linewidth=2.4 if is_mean else 1.2,
                markersize=5,
                label=shortened(perturbation),
            )
        axes.set(xlabel="severity (0: as they are)", ylabel=label)
        axes.grid(color="0.9", linewidth=0.6)
        _legend(figure, handles, 2)

    return drawing(name, title, caption, paint, size=(4.4, 3.6 + 0.17 * ((len(curves) + 1) // 2)))


def training(
    name: str, title: str, caption: str, losses: Mapping[str, Sequence[float]], best: int, numbers: Table
) -> Drawing:
    """Draw losses by epoch, counted from 1, and where the best checkpoint was."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        handles: list[Line2D] = []
        for place, (label, values) in enumerate(losses.items()):
            handles += axes.plot(
                range(1, len(values) + 1),
                values,
                color=OKABE_ITO[place],
                linestyle=_DASHES[place],
                marker=_MARKERS[place],
                markersize=3.5,
                linewidth=1.4,
                label=label,
            )
        handles.append(axes.axvline(best, color="0.4", linewidth=1, linestyle=":", label="chosen checkpoint"))
        axes.set(xlabel="epoch", ylabel="loss")
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.grid(color="0.9", linewidth=0.6)
        _legend(figure, handles, 3)

    return drawing(name, title, caption, paint, size=(4.8, 3.6), numbers=numbers)


# --- faces ----------------------------------------------------------------------------------------------------


def embedding(
    name: str,
    title: str,
    caption: str,
    place: NDArray[np.float64],
    generators: Mapping[str, NDArray[np.intp]],
    known: Sequence[str],
    numbers: Table,
) -> Drawing:
    """Draw faces at ``place`` [N, 2]: a colour and a marker per generator, hollow where training lacks it.

    generators: the rows of each. Colours and markers repeat after 63 generators.
    """
    columns = 3
    rows = -(-len(generators) // columns)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        handles: list[Line2D] = []
        for number, (generator, chosen) in enumerate(generators.items()):
            colour = OKABE_ITO[number % len(OKABE_ITO)]
            handles += axes.plot(
                *place[chosen].T,
                _MARKERS[(number + number // len(OKABE_ITO)) % len(_MARKERS)],
                linestyle="none",
                color=colour,
                markerfacecolor=colour if generator in known else "white",
                markersize=4,
                markeredgewidth=0.8,
                alpha=0.8,
                label=shortened(generator),
            )
        axes.set(xticks=[], yticks=[])
        axes.set_aspect("equal", adjustable="datalim")
        for spine in axes.spines.values():
            spine.set_visible(False)
        _legend(figure, handles, columns)

    return drawing(name, title, caption, paint, size=(6.2, 5.4 + 0.17 * rows), numbers=numbers)


def gaze(name: str, title: str, caption: str, faces: GazeFaces, sides: Sides) -> Drawing:
    """Draw the density of pitch and yaw of the two sides of a gaze-FID."""

    def paint(figure: Figure) -> None:
        densities(figure.subplots(), faces, sides)

    return drawing(name, title, caption, paint, size=(4.4, 3.8))
