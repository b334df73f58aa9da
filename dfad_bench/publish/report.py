"""A run as one HTML page that needs nothing else: its numbers, what lies behind them, and how to get them again."""

from __future__ import annotations

import importlib.resources
import json
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from jinja2 import Environment, StrictUndefined

from dfad_bench.analysis.gaze_samples import GazeFaces
from dfad_bench.config import file_sha256, validate
from dfad_bench.errors import DataError, UsageError
from dfad_bench.publish import report_faces as evidence
from dfad_bench.publish import report_sections as sections
from dfad_bench.publish.report_sections import Block, Code, Epoch, Facts, Figures, Gallery, Section, Shown, Text
from dfad_bench.publish.tables import NONE, Table
from dfad_bench.records.categorical import Rows
from dfad_bench.records.predictions import Predictions, read_predictions
from dfad_bench.records.results import Result, read_result
from dfad_bench.records.robustness import RobustnessRecord, read_robustness
from dfad_bench.types import REAL

OnProgress = Callable[[int, int | None], None]
PAGE = "report.html"
"""What the page is called in the folder of its run."""
_UNNAMED = ("No folder of prepared sources was named. Write the report again with --data to see them",)


# --- what is read --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """What lies in a run's folder."""

    result: Result
    predictions: Predictions
    robustness: RobustnessRecord | None
    epochs: Sequence[Epoch]
    timing: dict[str, float]


@dataclass(frozen=True, slots=True)
class _Prepared:
    """The tested faces that lie prepared, None where there are none, and what is missing."""

    faces: GazeFaces | None
    lacking: Sequence[str]


def _read(run: Path) -> Found:
    result = read_result(run / "result.json")
    predictions = read_predictions(run / "predictions.parquet").in_order()
    if file_sha256(run / "predictions.parquet") != result.predictions.sha256:
        raise DataError(
            f"{run / 'predictions.parquet'} is not what {run / 'result.json'} was computed from. "
            "Run the model again with --overwrite."
        )
    robustness = read_robustness(run / "robustness.json") if (run / "robustness.json").is_file() else None
    timing = run / "timing.json"
    epochs = _epochs(run / "training.jsonl")
    return Found(result, predictions, robustness, epochs, _seconds(timing) if timing.is_file() else {})


def _epochs(path: Path) -> list[Epoch]:
    if not path.is_file():
        return []
    return [
        validate(_parsed(line, f"{path}, line {number}"), Epoch, f"{path}, line {number}")
        for number, line in enumerate(path.read_bytes().splitlines(), start=1)
    ]


def _seconds(path: Path) -> dict[str, float]:
    stored = _parsed(path.read_bytes(), str(path))
    if not isinstance(stored, dict) or not all(isinstance(value, int | float) for value in stored.values()):
        raise DataError(f"{path} must hold names with a number each. Delete it, or run the model again.")
    return stored


def _parsed(text: bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{where} is not valid JSON: {error}.") from None


# --- the page ------------------------------------------------------------------------------------------------------


def report(
    run: Path,
    *,
    faces: Path | None = None,
    include_real: bool = False,
    gallery: int = 12,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> str:
    """Return a run as an HTML document that loads nothing; every name in it is escaped. The same input gives the same bytes.

    run: the folder of ``result.json`` and ``predictions.parquet``; what else a run leaves there is shown where it is.
    faces: the folder of the prepared sources, for pictures and gaze; None: neither, and the page says so. include_real:
    show the reals that look most fake too. gallery: at most so many pictures of each. seed: of what is chosen by hash.
    Raises UsageError for a missing result or folder and a gallery below 0, DataError for files that do not fit each other.
    """
    if gallery < 0:
        raise UsageError(f"A gallery of {gallery} pictures cannot be shown. Give 0 or more.")
    found = _read(run)
    result, predictions = found.result, found.predictions
    tested = evidence.tested_rows(predictions)
    ids = predictions.id.take(pa.array(tested)).to_pylist()
    prepared = _Prepared(*(evidence.prepared_faces(faces, result, ids) if faces is not None else (None, _UNNAMED)))
    parts: list[Callable[[], Section]] = [
        partial(sections.summary, result),
        partial(sections.scores, result),
        partial(sections.roc, result, predictions),
        partial(sections.confusion, result),
        partial(sections.reliability, result),
        partial(sections.open_set, result),
        partial(sections.robustness, found.robustness, result),
        partial(sections.training, found.epochs),
        partial(_gaze, predictions, tested, prepared, seed),
        partial(_embedding, predictions, tested, seed),
        partial(_hardest, predictions, tested, prepared, gallery, include_real),
        partial(sections.everything, result),
        partial(_data, result),
        partial(_environment, found),
        partial(_again, result),
        _use,
    ]
    shown = []
    for done, part in enumerate(parts):
        if on_progress is not None:
            on_progress(done, len(parts))
        shown.append(part())
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["for_page"] = _for_page
    css = environment.from_string(_template("report.css.j2")).render()
    page = environment.from_string(_template("report.html.j2"))
    return page.render(title=sections.title_of(result), about=_about(result), sections=shown, css=css).lstrip()


def _template(name: str) -> str:
    return importlib.resources.files("dfad_bench.publish").joinpath("templates", name).read_text(encoding="utf-8")


_NUMBER = re.compile(r"–.*|[-−+<\d(][-−+<>\d.,%:/°² –()\[\]]*")


def _for_page(table: Table) -> dict[str, Any]:
    """Return a table for the template, with the columns that hold numbers, which are aligned to the right."""
    columns = list(zip(*table.rows, strict=True))
    numeric = {
        place
        for place, column in enumerate(columns)
        if all(_NUMBER.fullmatch(text) for text in column) and any(text[0] != NONE for text in column)
    }
    return {"columns": table.columns, "rows": table.rows, "notes": table.notes, "numeric": numeric}


def _about(result: Result) -> str:
    counts = result.counts
    measured = "measured" if result.origin == "measured" else "reported by its authors, not measured"
    return f"Seed {result.seed}, {counts.evaluated:,} of {counts.declared:,} test faces, {measured}."


# --- faces ---------------------------------------------------------------------------------------------------------


def _missing(what: str, prepared: _Prepared) -> list[Block]:
    """Return what is not shown, or not of all faces, for lack of prepared sources."""
    told = "; ".join(prepared.lacking)
    if prepared.faces is None:
        return [Text(f"{what} needs the prepared faces. {told}", "missing")]
    return [Text(f"Not of every test face: {told}.", "missing")] if told else []


def _gaze(predictions: Predictions, tested: Rows, prepared: _Prepared, seed: int) -> Section:
    title = "Where real and fake test faces look"
    blocks = _missing("Gaze", prepared)
    if prepared.faces is not None:
        # a generator that is prepared under another name, or not at all, is among what is missing
        known = {*predictions.generator.take(tested).tolist()} & {*prepared.faces.generator.tolist()}
        drawn, tables = evidence.gaze_of_tested(prepared.faces, sorted(map(str, known - {REAL})), seed)
        told = (
            "Test faces only and few resamples: a first look, no measurement to cite. 'dfad-bench gaze-fid' measures all "
            "prepared faces."
        )
        blocks += [Text(told), *([Figures(drawn)] if drawn else [Text("No generator can be measured.", "missing")])]
        blocks += [Shown(table, folded=number > 0) for number, table in enumerate(tables)]
    return Section("gaze", title, blocks)


def _embedding(predictions: Predictions, tested: Rows, seed: int) -> Section:
    drawn = evidence.embedding_map(predictions, tested, seed)
    shown = Text(drawn, "missing") if isinstance(drawn, str) else Figures([drawn])
    return Section("embedding", "Map of embeddings", [shown])


def _hardest(predictions: Predictions, tested: Rows, prepared: _Prepared, most: int, include_real: bool) -> Section:
    blocks: list[Block] = []
    shown: list[str] = []
    for real in (False, True) if include_real else (False,):
        pictures, table = evidence.hardest(predictions, tested, prepared.faces, most, real=real)
        if pictures:
            blocks.append(Gallery(table.title, pictures))
            shown += [row[0] for row in table.rows]
        if table.rows:
            blocks.append(Shown(table, folded=bool(pictures)))
    if prepared.faces is not None and shown:
        terms = ", ".join(evidence.licences(prepared.faces, shown))
        blocks.append(Text(f"Licences of the faces shown: {terms}. Heed them before this page is passed on."))
    if not include_real:
        blocks.append(
            Text("Only fakes are shown: reals are of persons, and stand here only where --include-real asks.")
        )
    return Section("hardest", "The hardest faces", [*_missing("A gallery", prepared), *blocks])


# --- where it comes from -------------------------------------------------------------------------------------------


def _data(result: Result) -> Section:
    counts = result.counts
    skipped = ", ".join(f"{count:,} {reason}" for reason, count in sorted(counts.skipped.items()))
    facts = [
        ("protocol", f"{result.protocol.name} v{result.protocol.version}, {_origin(result)}"),
        ("faces, fingerprint", result.protocol.fingerprint),
        ("test faces declared", f"{counts.declared:,}"),
        ("evaluated", f"{counts.evaluated:,}"),
        ("skipped, by reason", skipped or "none"),
        ("predictions", f"{result.predictions.rows:,} rows with those of val, sha256:{result.predictions.sha256}"),
    ]
    names = dict.fromkeys(name for recipe in result.data.values() for name in recipe)
    rows = tuple(
        (name, *(_flat(recipe[name]) if name in recipe else NONE for recipe in result.data.values())) for name in names
    )
    recipes = [Shown(Table("How faces were cut", ("", *result.data), rows))] if rows else []
    return Section("data", "Data", [Facts(facts), *recipes])


def _origin(result: Result) -> str:
    return "as in its paper" if result.protocol.origin == "paper" else "of this benchmark"


def _flat(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={_flat(each)}" for name, each in value.items()) or NONE
    return NONE if value is None else str(value)


def _environment(found: Found) -> Section:
    model, code = found.result.model, found.result.code
    chosen = {"val": "checkpoint chosen on val", "given": "weights given", "nothing": "published weights, no training"}
    state = {True: " with changes that are not committed", False: "", None: ""}[code.dirty]
    facts = [
        ("model", f"{model.name} ({model.origin})"),
        ("reference", model.reference),
        ("licence", model.licence),
        ("parameters", f"{model.parameters:,}"),
        ("inputs", ", ".join(model.inputs) or "nothing"),
        ("weights, sha256", model.weights_sha256 or "none recorded"),
        ("backbone", model.backbone_weights or "none"),
        ("backbone trained on", ", ".join(model.trained_on) or NONE),
        ("selection", chosen[model.selected_on]),
        ("seed", str(found.result.seed)),
        ("code", f"dfad-bench {code.version}, commit {code.commit or 'unknown'}{state}"),
        *found.result.environment.items(),
    ]
    timed = [(name.replace("_", " "), f"{value:,}") for name, value in found.timing.items()]
    clock: list[Block] = [Facts(timed)] if timed else [Text("There is no timing.json beside the result.", "missing")]
    return Section("environment", "Model, code and machine", [Facts(facts), *clock])


_OPTIONS = (
    *("epochs", "batch_size", "accumulate", "learning_rate", "backbone_learning_rate", "clip_norm", "precision"),
)
"""The parts of a recipe that ``dfad-bench run`` has options for."""


_FILE = " (file sha256:"
"""What stands in the name of a plugin that is a file of the user's."""


def _again(result: Result) -> Section:
    config, model = result.config, result.model
    name = "MODEL.py" if _FILE in model.origin else model.name.partition("+")[0]
    words = ["dfad-bench", "run", "--model", name, "--protocol", result.protocol.name]
    words += ["--seed", str(result.seed)]
    for option, value in dict(config.get("options") or {}).items():
        words += ["--set", f"{option}={str(value).lower() if isinstance(value, bool) else value}"]
    if model.selected_on == "given":
        words += ["--weights", "WEIGHTS.safetensors"]
    elif (backbone := config.get("backbone_weights")) is not None:
        words += ["--backbone-weights", "BACKBONE_FILE" if str(backbone).startswith("sha256:") else str(backbone)]
    recipe = dict(config.get("recipe") or {})
    for name in _OPTIONS if model.selected_on == "val" else ():
        if recipe.get(name) is not None:
            words += [f"--{name.replace('_', '-')}", str(recipe[name])]
    if config.get("limit") is not None:
        words += ["--limit", str(config["limit"])]
    if result.perturbation is not None:
        perturbation = "PERTURBATION.py" if _FILE in result.perturbation.name else result.perturbation.name
        words += ["--perturb", f"{perturbation}:{result.perturbation.severity}"]
    scoring = result.scoring
    score = ["dfad-bench", "score", "predictions.parquet", "--resamples", str(scoring.resamples)]
    told = [
        f"The code of commit {result.code.commit or 'unknown'}; sources prepared by the recipes above: the fingerprint of "
        "the faces tells whether they are the same. In capitals: files that the configuration knows by their hash only.",
        "On one CPU the same command gives the same predictions to the byte; on a GPU, or another machine, numbers may "
        "differ in their last digits. The second command computes every number here from the stored predictions alone.",
    ]
    command = f"{shlex.join(words)}\n{shlex.join(score)}"
    rest = Shown(Table("The whole configuration", ("name", "value"), _settings(config)), folded=True)
    return Section("again", "How to get it again", [Text(told[0]), Code(command), Text(told[1]), rest])


def _settings(config: dict[str, Any], before: str = "") -> tuple[tuple[str, str], ...]:
    rows: list[tuple[str, str]] = []
    for name, value in config.items():
        nested = isinstance(value, dict) and value
        rows += _settings(value, f"{before}{name}.") if nested else [(before + name, _flat(value))]
    return tuple(rows)


def _use() -> Section:
    told = [
        "A score is no proof. None of these numbers, and no answer of the model about a single picture, is fit to be evidence "
        "in legal proceedings: they say how often a model was right on these faces, and nothing about a face elsewhere.",
        "Nothing here says anything about a person. Gaze says nothing about attention, health, emotion or intent, and nobody "
        "may be identified with this page.",
        "Faces and published weights keep their own terms; pass the page on only where these allow it.",
    ]
    return Section("use", "What this may be used for", [Text(each) for each in told])
