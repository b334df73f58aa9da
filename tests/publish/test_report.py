"""A run's report: its numbers are those of the result, names do no harm, pictures stay within what was asked for."""

from __future__ import annotations

import base64
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dfad_bench.config import file_sha256
from dfad_bench.errors import DataError, UsageError
from dfad_bench.publish.report import report
from dfad_bench.publish.scores import report_tables
from dfad_bench.publish.tables import Table
from dfad_bench.records.manifest import with_footer
from dfad_bench.records.predictions import (
    COLUMNS,
    SCHEMA_VERSION,
    Context,
    PredictionsWriter,
    class_records,
    read_predictions,
)
from dfad_bench.records.results import PredictionsRecord, Result, write_result
from dfad_bench.records.robustness import (
    LevelRecord,
    MeanCurve,
    PerturbationRecord,
    RobustnessRecord,
    SeverityCurve,
    write_robustness,
)
from dfad_bench.types import Leaf
from tests.analysis.builders import FOOTER, face, table_of
from tests.publish.builders import a_protocol, a_result

HOSTILE = "<script>alert(1)</script>"
QUOTED = '"><img src=x onerror=alert(1)> $x^{ | _'
GENERATORS = ("real", "ddpm", "stylegan3", HOSTILE, QUOTED)


def write_run(
    folder: Path,
    generators: Sequence[str] = GENERATORS,
    *,
    each: int = 12,
    embedding: bool = True,
    logits: bool = True,
    resamples: int = 0,
    data: bool = True,
    **fields: Any,
) -> Result:
    """Write a run with so many faces of each generator, the first half seen in training, and return its result."""
    rng = np.random.default_rng(0)
    half = generators[: max(2, (len(generators) + 1) // 2)]
    leaves = [_leaf(name) for name in half]
    context = Context(
        schema_version=SCHEMA_VERSION,
        model="a_model",
        seed=0,
        protocol="demo",
        protocol_version=1,
        protocol_fingerprint="sha256:a",
        classes=class_records(leaves),
        levels=["forgery_type", "family", "generator"],
        assume={},
        reals="same_domain",
        pooling="mean",
        subsets={"seen": "generator", "unseen": "generator"},
        declared=each * len(generators),
        skipped={},
    )
    with PredictionsWriter(folder / "predictions.parquet") as writer:
        for subset, names in (("val", half), ("seen", half), ("unseen", [n for n in generators if n not in half])):
            if not names:
                continue
            rows = [_row(name, number, subset) for name in names for number in range(each)]
            fake = np.asarray([row["generator"] != "real" for row in rows])
            score = np.clip(rng.normal(0.3 + 0.4 * fake, 0.2), 0.001, 0.999)
            writer.write(
                subset,
                pa.Table.from_pylist(rows, schema=pa.schema([f for f in COLUMNS if f.name in rows[0]])),
                score,
                rng.normal(size=(len(rows), len(leaves))) if logits else None,
                rng.normal(size=(len(rows), 8)) + 3 * fake[:, None] if embedding else None,
            )
        writer.finish(context)
    predictions = read_predictions(folder / "predictions.parquet")
    result = a_result("spectral", scored=predictions, resamples=resamples, **fields)
    result = result.model_copy(
        update={
            "predictions": PredictionsRecord(sha256=file_sha256(folder / "predictions.parquet"), rows=len(predictions)),
            "data": {"toy": FOOTER.recipe.model_dump(mode="json")} if data else {},
            "config": {"recipe": {"epochs": 3, "learning_rate": 0.05}, "options": {"deep": True}, "limit": None},
        }
    )
    write_result(folder / "result.json", result)
    return result


def _leaf(name: str) -> Leaf:
    return Leaf(name, "real", "real") if name == "real" else Leaf(name, "gan", "efs")


def _row(name: str, number: int, subset: str) -> dict[str, Any]:
    leaf = _leaf(name)
    return {
        "id": f"toy/{'val' if subset == 'val' else 'test'}/{name}/{number}",
        "generator": name,
        "family": leaf.family,
        "forgery_type": leaf.forgery_type,
        "domain": "toy",
        "video": None,
        "identities": [f"{name}-{number}"],
    }


def write_faces(data: Path, generators: Sequence[str] = GENERATORS, *, each: int = 12) -> Path:
    """Write a prepared source with the test faces of ``write_run``; reals are light, fakes dark. Return its folder."""
    rng = np.random.default_rng(1)
    rows = []
    (data / "toy" / "faces").mkdir(parents=True)
    for place, name in enumerate(generators):
        for number in range(each):
            file = f"faces/{place}-{number}.png"
            shade = 250 if name == "real" else 40
            cv2.imwrite(str(data / "toy" / file), np.full((64, 64, 3), shade, np.uint8))
            pitch, yaw = rng.normal(size=2) * 0.2
            labels = _row(name, number, "seen")
            rows.append(
                face(name, number) | labels | {"file_name": file, "gaze_pitch": pitch, "gaze_yaw": yaw, "domain": "toy"}
            )
    write_manifest(data / "toy", rows)
    return data


def write_manifest(root: Path, rows: Sequence[dict[str, Any]]) -> None:
    footer = FOOTER.model_copy(update={"declared": len(rows), "kept": len(rows)})
    table = table_of(rows)
    pq.write_table(table.cast(with_footer(table.schema, footer)), root / "metadata.parquet")


def perturbed(result: Result, **changes: Any) -> RobustnessRecord:
    values = [0.9, 0.85, 0.8, 0.7, 0.6, 0.55]
    where = {
        "task": "detection",
        "metric": "auc",
        "level": "authenticity",
        "unit": "frame",
        "subset": "unseen",
        "group": "mean",
        "value": values,
        "area": 0.735,
    }
    nothing: list[float | None] = [None] * 6
    fields: dict[str, Any] = {
        "seed": 0,
        "model": "spectral",
        "weights_sha256": None,
        "protocol": a_protocol(),
        "clean_predictions_sha256": result.predictions.sha256,
        "levels": [
            LevelRecord(
                perturbation=PerturbationRecord(name="jpeg", severity=1, strength="JPEG quality 90"),
                folder="perturbed/jpeg-1",
                predictions_sha256="2" * 64,
            )
        ],
        "curves": [SeverityCurve(**where, perturbation="jpeg", low=nothing, high=nothing)],
        "means": [MeanCurve(**where, over=["jpeg"])],
    }
    return RobustnessRecord(**fields | changes)


class Page(HTMLParser):
    """Collects tags, ids, references, texts of table cells and pictures, and checks that tags are closed in order."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.rows: list[list[str]] = []
        self.images: list[dict[str, str | None]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._seen(tag, attrs)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._seen(tag, attrs)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in self.VOID:
            self._open.append(tag)

    def _seen(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id" and value is not None]
        if tag == "img":
            self.images.append(dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._open and self._open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def shades(page: str) -> list[int]:
    """Return the mean shade of every picture of a gallery."""
    found = []
    for image in Page(page).images:
        _, _, stored = (image["src"] or "").partition("base64,")
        pixels = cv2.imdecode(np.frombuffer(base64.b64decode(stored), np.uint8), cv2.IMREAD_COLOR)
        found.append(round(float(pixels.mean())))
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with all there can be, and its prepared faces in ``data`` beside it."""
    folder = tmp_path_factory.mktemp("report") / "seed-0"
    folder.mkdir()
    result = write_run(folder, resamples=50, protocol=a_protocol(warning="Only a test."), ineligible=["too few faces"])
    write_robustness(folder / "robustness.json", perturbed(result))
    epochs = [
        {"epoch": n, "train_loss": 1 / n, "val_loss": 1.1 / n, "learning_rate": 0.05, "best_epoch": n}
        for n in (1, 2, 3)
    ]
    (folder / "training.jsonl").write_text("".join(json.dumps(each) + "\n" for each in epochs), encoding="utf-8")
    (folder / "timing.json").write_text('{"train_seconds": 12.5}', encoding="utf-8")
    write_faces(folder.parent / "data")
    return folder


@pytest.fixture(scope="module")
def whole(run: Path) -> str:
    return report(run, faces=run.parent / "data")


# --- contents ------------------------------------------------------------------------------------------------------


def test_every_score_of_the_result_is_on_the_page(run: Path, whole: str) -> None:
    result = Result.model_validate_json((run / "result.json").read_text(encoding="utf-8"))
    rows = Page(whole).rows
    tables: list[Table] = report_tables("", result.scores, result.scoring)
    expected = [list(row) for table in tables for row in table.rows]
    assert len(expected) > 30
    assert [row for row in expected if row not in rows] == []


def test_headline_numbers_have_their_intervals_and_stand_below_the_warning(run: Path, whole: str) -> None:
    result = Result.model_validate_json((run / "result.json").read_text(encoding="utf-8"))
    for subset in ("seen", "unseen"):
        (auc,) = [
            each
            for each in result.scores
            if (each.metric, each.subset, each.group, each.unit) == ("auc", subset, "mean", "frame")
        ]
        assert auc.value is not None and auc.low is not None and auc.high is not None
        told = f"<dd>{100 * auc.value:.1f} [{100 * auc.low:.1f}, {100 * auc.high:.1f}]</dd>"
        assert whole.index("Warning: Only a test.") < whole.index("Not eligible") < whole.index(told)
    assert "too few faces" in whole


def test_thresholds_have_the_rates_that_the_scores_say(run: Path, whole: str) -> None:
    predictions = read_predictions(run / "predictions.parquet")
    tested = ~predictions.subset.is_("val")
    real = predictions.generator.is_("real") & tested
    fake = predictions.subset.is_("unseen")
    tpr, fpr = (100 * (predictions.fake_score[side] >= 0.5).mean() for side in (fake, real))
    (row,) = [row for row in Page(whole).rows if row[:2] == ["pooled", f"{tpr:.1f}, {fpr:.1f}"] and len(row) == 4]
    assert row[3].startswith("– (")  # 12 reals have no false positive rate of 1 %
    assert "fewer than 100 real faces" in whole


def test_confusion_counts_are_those_of_the_result(run: Path, whole: str) -> None:
    result = Result.model_validate_json((run / "result.json").read_text(encoding="utf-8"))
    rows = Page(whole).rows
    records = [each for each in result.details.confusion if each.unit == "frame"]
    assert {each.subset for each in records} == {"seen", "unseen"}
    for each in records:
        assert f"<h3>{each.subset}, {each.level.replace('_', ' ')}</h3>" in whole
        for name, counts in zip(each.rows, each.counts, strict=True):
            assert [name, *map(str, counts), str(sum(counts))] in rows


def test_every_figure_is_named_described_and_has_numbers(whole: str) -> None:
    figures = re.findall(r"<svg .*?</svg>", whole, flags=re.DOTALL)
    names = [re.search(r'aria-labelledby="([\w-]+)-title', svg) for svg in figures]
    shown = {name[1] for name in names if name is not None}
    assert shown >= {
        "roc-0",
        "roc-1",
        "reliability-0",
        "oscr",
        "robustness-0",
        "training-losses",
        "gaze-all",
        "embedding",
    }
    for svg in figures:
        title, description = (re.search(f"<{tag} id=[^>]*>([^<]+)</{tag}>", svg) for tag in ("title", "desc"))
        assert title is not None and description is not None
        assert re.search(r"\d", description[1])
        ET.fromstring(svg.replace("<svg ", '<svg xmlns:xlink="x" ', 1))  # one that is not whole raises


def test_names_within_figures_are_unique_and_refer_to_their_own(whole: str) -> None:
    page = Page(whole)
    assert len(page.ids) == len(set(page.ids))
    used = {value[1:] for name, value in page.attributes if name in ("href", "xlink:href") and value.startswith("#")}
    used |= {name for _, value in page.attributes for name in re.findall(r"url\(#([^)]*)\)", value)}
    assert len(used) > 20
    assert used <= set(page.ids)


def test_the_run_can_be_got_again(run: Path, whole: str) -> None:
    command = (
        "dfad-bench run --model spectral --protocol demo --seed 0 --set deep=true --epochs 3 --learning-rate 0.05\n"
        "dfad-bench score predictions.parquet --resamples 50"
    )
    assert command in Page(whole).text
    for told in ("sha256:a", "c" * 40, "0" * 64, "whole_image", "12.5", "3.11"):
        assert told in whole


def test_a_model_of_a_local_file_is_named_as_one(tmp_path: Path) -> None:
    result = write_run(tmp_path)
    local = result.model.model_copy(update={"origin": f"spectral (file sha256:{'5' * 64})"})
    write_result(tmp_path / "result.json", result.model_copy(update={"model": local}))
    assert "dfad-bench run --model MODEL.py --protocol demo" in report(tmp_path)


def test_the_page_says_what_it_must_not_be_used_for(whole: str) -> None:
    assert "legal proceedings" in whole
    assert "nobody may be identified" in whole


# --- what is missing -----------------------------------------------------------------------------------------------


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    write_run(tmp_path, embedding=False)
    page = report(tmp_path)
    for told in (
        "--data",
        "records no embeddings",
        "Not measured for this run",
        "no training.jsonl",
        "no timing.json",
        "Eligible for the leaderboard.",
        "No intervals were asked for.",
    ):
        assert told in page
    assert not Page(page).images


def test_a_pure_detector_has_a_report(tmp_path: Path) -> None:
    write_run(tmp_path, logits=False)
    page = report(tmp_path)
    assert "no confusion matrix: the model gives no class logits" in page
    assert "There is no OSCR curve" in page


def test_robustness_of_other_predictions_is_not_shown(tmp_path: Path) -> None:
    result = write_run(tmp_path)
    write_robustness(tmp_path / "robustness.json", perturbed(result, clean_predictions_sha256="3" * 64))
    page = report(tmp_path)
    assert "robustness.json is of other predictions" in page
    assert "JPEG" not in page and "robustness-0" not in page


def test_too_few_faces_for_gaze_are_a_reason(tmp_path: Path) -> None:
    write_run(tmp_path / "run", each=2)
    page = report(tmp_path / "run", faces=write_faces(tmp_path / "data", each=2))
    assert "No generator can be measured." in page
    assert "more faces than numbers are needed" in page


def test_predictions_of_another_result_are_refused(tmp_path: Path) -> None:
    result = write_run(tmp_path)
    write_result(
        tmp_path / "result.json",
        result.model_copy(update={"predictions": PredictionsRecord(sha256="4" * 64, rows=1)}),
    )
    with pytest.raises(DataError, match=r"not what .* was computed from"):
        report(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("training.jsonl", "{\n"),
        ("training.jsonl", '{"epoch": 1}\n'),
        ("timing.json", "[]"),
        ("timing.json", "{"),
        ("training.jsonl", "\udcff"),
        ("robustness.json", "{"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, text: str) -> None:
    write_run(tmp_path)
    (tmp_path / name).write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(DataError, match=re.escape(name)) as error:
        report(tmp_path)
    assert "\n" not in str(error.value)


def test_a_call_that_cannot_be_answered_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no result"):
        report(tmp_path)
    write_run(tmp_path)
    with pytest.raises(UsageError, match="no folder"):
        report(tmp_path, faces=tmp_path / "nowhere")
    with pytest.raises(UsageError, match="0 or more"):
        report(tmp_path, gallery=-1)


# --- pictures ------------------------------------------------------------------------------------------------------


def test_the_gallery_shows_fakes_only_unless_reals_are_asked_for(run: Path, whole: str) -> None:
    assert len(shades(whole)) == 12 and max(shades(whole)) < 100
    both = shades(report(run, faces=run.parent / "data", include_real=True, gallery=5))
    assert [shade > 200 for shade in both] == [False] * 5 + [True] * 5
    assert not Page(report(run, faces=run.parent / "data", gallery=0)).images


def test_the_gallery_begins_with_the_fake_that_looks_most_real(run: Path, whole: str) -> None:
    predictions = read_predictions(run / "predictions.parquet")
    fakes = np.flatnonzero(~predictions.generator.is_("real") & ~predictions.subset.is_("val"))
    lowest = fakes[predictions.fake_score[fakes].argmin()]
    (row, *_) = [row for row in Page(whole).rows if len(row) == 5 and row[0].startswith("toy/")]
    assert row[0] == predictions.id[lowest].as_py()
    assert row[3] == f"{predictions.fake_score[lowest]:.4g}"
    assert predictions.logits is not None
    assert row[4].startswith(predictions.classes[predictions.logits[lowest].argmax()].name)


def test_no_picture_is_taken_from_outside_its_source(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    data = write_faces(tmp_path / "data")
    secret = tmp_path / "secret.png"
    cv2.imwrite(str(secret), np.full((8, 8, 3), 150, np.uint8))
    for file in (data / "toy" / "faces").glob("[1-9]-*.png"):
        file.unlink()
        file.symlink_to(secret)
    page = report(tmp_path / "run", faces=data)
    assert shades(page) == []
    assert page.count("The file is not there, or cannot be shown.") == 12


def test_a_manifest_that_leads_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    data = write_faces(tmp_path / "data")
    table = pq.read_table(data / "toy" / "metadata.parquet").to_pylist()
    write_manifest(data / "toy", [row | {"file_name": "../../secret.png"} for row in table])
    with pytest.raises(DataError, match="leads out"):
        report(tmp_path / "run", faces=data)


def test_a_source_prepared_in_another_way_is_not_shown(tmp_path: Path) -> None:
    result = write_run(tmp_path / "run")
    data = write_faces(tmp_path / "data")
    other = result.data["toy"] | {"margin": 2.0}
    write_result(tmp_path / "run" / "result.json", result.model_copy(update={"data": {"toy": other, "../x": other}}))
    page = report(tmp_path / "run", faces=data)
    assert "toy was prepared by another recipe" in page
    assert not Page(page).images


# --- the page ------------------------------------------------------------------------------------------------------


def test_hostile_names_are_text(whole: str) -> None:
    page = Page(whole)
    assert "script" not in page.tags
    assert all((image["src"] or "").startswith("data:image/jpeg;base64,") for image in page.images)
    assert not any(name.startswith("on") for name, _ in page.attributes)
    cells = [text for row in page.rows for text in row]
    assert HOSTILE in cells and QUOTED in cells


def test_the_page_loads_nothing(whole: str) -> None:
    page = Page(whole)
    assert not {"script", "link", "iframe", "object", "embed", "video", "audio", "base", "form"} & set(page.tags)
    for name, value in page.attributes:
        if name in ("src", "href", "xlink:href"):
            assert value.startswith(("#", "data:image/jpeg;base64,"))
    style = whole[whole.index("<style>") : whole.index("</style>")]
    assert not re.search(r"url\(|@import|https?:|//", style)
    assert whole.count("<style") == 1
    assert "default-src 'none'" in whole


def test_the_same_run_gives_the_same_bytes(run: Path, whole: str) -> None:
    assert report(run, faces=run.parent / "data") == whole


def test_progress_is_told(run: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    report(run, on_progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == list(range(len(seen)))
    assert {total for _, total in seen} == {len(seen)}


@pytest.mark.slow
def test_many_generators_and_faces_stay_below_5_mb(tmp_path: Path) -> None:
    names = ["real", *(f"generator_number_{number:02}_of_a_long_name" for number in range(60))]
    write_run(tmp_path / "run", names, each=26)
    page = report(tmp_path / "run", faces=write_faces(tmp_path / "data", names, each=26), gallery=24)
    assert len(page.encode()) < 5_000_000
    embedding = page[page.index('aria-labelledby="embedding-title') :]
    embedding = embedding[: embedding.index("</svg>")]
    assert len(set(re.findall(r">(generator_number_\d\d[^<]*)</text>", embedding))) == 60
    assert "1,500 test faces, reals and those of 60 generators" in page
