"""Figures show fakes unless reals are asked for, are the same bytes each time, and do without a face that is gone."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dfad_bench.analysis.gaze_fid import GazeFidOptions, gaze_fid
from dfad_bench.analysis.gaze_samples import GazeFaces, Sides
from dfad_bench.publish import gaze_figures
from dfad_bench.publish.gaze_figures import draw
from dfad_bench.publish.gaze_tables import gaze_csv, gaze_tables
from dfad_bench.records.gaze_fid import GazeFidReport
from tests.analysis.gaze_builders import Look, gaze_faces, looking, normal

Measured = tuple[GazeFidReport, GazeFaces, dict[str, Sides]]


class Folder:
    """As much of a manifest as a figure needs."""

    def __init__(self, root: Path) -> None:
        self.root, self.name = root, "toy"


@pytest.fixture
def measured(tmp_path: Path) -> Measured:
    looks = [
        *looking("real", normal(40, 0)),
        *looking("sd15", normal(40, 1) + np.asarray([15.0, 0.0])),
        *looking("simswap", normal(40, 2)),
        Look("flux", 0.0, 0.0),
    ]
    faces = gaze_faces(looks)
    object.__setattr__(faces, "manifests", (Folder(tmp_path),))
    (tmp_path / "faces").mkdir()
    for number, look in enumerate(looks):
        shade = 250 if look.generator == "real" else 40
        cv2.imwrite(str(tmp_path / "faces" / f"{number}.png"), np.full((8, 8, 3), shade, np.uint8))
    report, sides = gaze_fid(faces, ["sd15", "simswap", "flux"], GazeFidOptions(resamples=99))
    return report, faces, sides


def shown(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the shades of the faces that are drawn."""
    shades: list[int] = []
    own = gaze_figures._picture

    def picture(root: Path, name: str) -> Any:
        face = own(root, name)
        shades.append(-1 if face is None else int(face[0, 0, 0]))
        return face

    monkeypatch.setattr(gaze_figures, "_picture", picture)
    return shades


def test_there_is_a_figure_per_measured_generator_and_one_of_all_as_svg_and_png(
    measured: Measured, tmp_path: Path
) -> None:
    files = draw(*measured, tmp_path / "figures")
    assert sorted(path.name for path in files) == [
        f"{name}.{kind}" for name in ("sd15", "simswap", "summary") for kind in ("png", "svg")
    ]
    for path in files:
        if path.suffix == ".png":
            assert cv2.imread(str(path)).shape[1] > 600
        else:
            assert path.read_text(encoding="utf-8").lstrip().startswith("<?xml")


def test_fakes_only_unless_reals_are_asked_for(
    measured: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shades = shown(monkeypatch)
    draw(*measured, tmp_path / "figures")
    assert set(shades) == {40}
    draw(*measured, tmp_path / "more", include_real=True)
    assert set(shades) == {40, 250}


def test_the_same_report_gives_the_same_bytes(measured: Measured, tmp_path: Path) -> None:
    first, second = draw(*measured, tmp_path / "1"), draw(*measured, tmp_path / "2")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_a_face_that_is_gone_leaves_a_gap(measured: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (tmp_path / "faces").iterdir():
        path.write_bytes(b"no picture")
    shades = shown(monkeypatch)
    assert draw(*measured, tmp_path / "figures")
    assert set(shades) == {-1}


def test_the_value_and_its_limits_stand_in_the_figure(measured: Measured, tmp_path: Path) -> None:
    draw(*measured, tmp_path / "figures")
    text = (tmp_path / "figures" / "sd15.svg").read_text(encoding="utf-8")
    for part in ("gaze-FID (angles)", "N = 40 each", "real against real, 95 %", "fewer than 10,000 faces"):
        assert part in text


def test_tables_and_csv_hold_every_generator_and_the_reason_where_there_is_no_value(measured: Measured) -> None:
    report = measured[0]
    table = gaze_tables(report)[0]
    assert [row[0] for row in table.rows] == ["sd15", "simswap", "flux"]
    sign = table.rows[2][2].removeprefix("– ")
    assert any(note.startswith(sign) and "more faces than numbers" in note for note in table.notes)
    assert all(len(row) == len(table.columns) for each in gaze_tables(report) for row in each.rows)
    lines = list(csv.DictReader(io.StringIO(gaze_csv(report))))
    assert [line["generator"] for line in lines] == ["sd15", "simswap", "flux"]
    assert report.generators[0].distance is not None
    assert float(lines[0]["frechet"]) == report.generators[0].distance.frechet
    assert lines[2]["frechet"] == "" and lines[2]["reason"]
