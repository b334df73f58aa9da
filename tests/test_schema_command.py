"""``dfad-bench schema``: what is written fits the published schema, and what was changed by hand does not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from dfad_bench.analysis.gaze_fid import GazeFidOptions, gaze_fid
from dfad_bench.cli import app
from dfad_bench.errors import USAGE
from dfad_bench.records.comparison import write_comparison
from dfad_bench.records.gaze_fid import write_report
from dfad_bench.records.pairs import ComparedMean, PairedModel, PairedTest, PairsRecord, write_pairs
from dfad_bench.records.results import PerturbationRecord, PredictionsRecord, write_result
from dfad_bench.records.robustness import (
    LevelRecord,
    MeanCurve,
    RobustnessRecord,
    SeverityCurve,
    write_robustness,
)
from dfad_bench.records.schemas import RECORDS, json_schema
from dfad_bench.records.seeds import write_seeds
from dfad_bench.scoring.compare import compare
from dfad_bench.scoring.score import Options, score
from dfad_bench.scoring.seeds import over_seeds
from dfad_bench.types import REAL
from tests.analysis.gaze_builders import gaze_faces, looking, normal
from tests.conftest import WITHOUT_TORCH
from tests.records.builders import face, result, write_predictions
from tests.scoring.builders import Face, predictions

JPEG = PerturbationRecord(name="jpeg", severity=3, strength="JPEG quality 50")
FILE = PredictionsRecord(sha256="0" * 64, rows=1)


# --- a validator of the keywords that pydantic uses ----------------------------------------------------------------

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}
SAYS_NOTHING = {"title", "description", "default", "$defs", "$schema", "type"}


def faults(value: Any, schema: dict[str, Any], whole: dict[str, Any], where: str = "") -> Iterator[str]:
    """Say what is wrong with a value; a keyword that this does not know is an error of the test."""
    kind = schema.get("type")
    if kind and (not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        yield f"{where}: {value!r} is no {kind}"
        return
    for keyword, said in schema.items():
        match keyword:
            case "$ref":
                yield from faults(value, whole["$defs"][said.removeprefix("#/$defs/")], whole, where)
            case "anyOf":
                if all(any(faults(value, each, whole, where)) for each in said):
                    yield f"{where}: {value!r} is none of the alternatives"
            case "const" | "enum":
                if value not in (said if keyword == "enum" else [said]):
                    yield f"{where}: {value!r} is not {said!r}"
            case "required":
                yield from (f"{where}: {name} is missing" for name in said if name not in value)
            case "properties":
                for name in set(value) & set(said):
                    yield from faults(value[name], said[name], whole, f"{where}.{name}")
            case "additionalProperties":
                for name in set(value) - set(schema.get("properties", ())):
                    if isinstance(said, dict):
                        yield from faults(value[name], said, whole, f"{where}.{name}")
                    elif not said:
                        yield f"{where}: {name} is not known"
            case "propertyNames":
                for name in value:
                    yield from faults(name, said, whole, f"{where} {name}")
            case "items" | "prefixItems":
                kinds = said if keyword == "prefixItems" else [said] * len(value)
                for number, (each, part) in enumerate(zip(value, kinds, strict=False)):
                    yield from faults(each, part, whole, f"{where}.{number}")
            case "minItems" | "maxItems" | "minimum" | "maximum":
                size = len(value) if keyword.endswith("Items") else value
                if size < said if keyword.startswith("min") else size > said:
                    yield f"{where}: {size} where {keyword} is {said}"
            case _:
                assert keyword in SAYS_NOTHING, keyword


# --- what is written -----------------------------------------------------------------------------------------------


def some_predictions(model: str) -> Any:
    faces = [
        Face(
            generator,
            subset,
            says=REAL if number % 3 else generator,
            fake_score=number / 8,
            id=f"{subset}{generator}{number}",
        )
        for subset in ("seen", "val")
        for generator in (REAL, "ddpm", "simswap")
        for number in range(8)
    ]
    found = predictions(faces, subsets={"seen": "generator"})
    return replace(found, context=found.context.model_copy(update={"model": model}))


def a_result(path: Path) -> Any:
    report = score(some_predictions("m"), Options(resamples=50))
    write_result(path, result(scores=report.scores, details=report.details, scoring=report.scoring, perturbation=JPEG))
    return json.loads(path.read_text(encoding="utf-8"))


def a_comparison(path: Path) -> Any:
    compared = compare(some_predictions("a"), some_predictions("b"), Options(resamples=50))
    write_comparison(path, compared.record(FILE, FILE))
    return json.loads(path.read_text(encoding="utf-8"))


def a_gaze_fid(path: Path) -> Any:
    looks = [*looking(REAL, normal(40, 0)), *looking("sd15", normal(40, 1)), *looking("simswap", normal(2, 2))]
    write_report(path, gaze_fid(gaze_faces(looks), ["sd15", "simswap"], GazeFidOptions(resamples=99))[0])
    return json.loads(path.read_text(encoding="utf-8"))


def a_robustness(path: Path) -> Any:
    name = {"task": "detection", "metric": "auc", "level": "authenticity", "unit": "frame", "subset": "seen"}
    values: list[float | None] = [0.9, 0.8, None, None, 0.7, 0.6]
    curve = SeverityCurve(
        **name, group="mean", value=values, low=values, high=values, reason="…", perturbation="jpeg", undefined={2: "…"}
    )
    record = RobustnessRecord(
        seed=0,
        model="m",
        weights_sha256=None,
        protocol=result().protocol,
        clean_predictions_sha256="0" * 64,
        levels=[LevelRecord(perturbation=JPEG, folder="perturbed/jpeg-3", predictions_sha256="0" * 64)],
        curves=[curve],
        means=[MeanCurve(**name, group="mean", value=[0.5] * 6, area=0.5, over=["jpeg"])],
    )
    write_robustness(path, record)
    return json.loads(path.read_text(encoding="utf-8"))


def a_footer(path: Path) -> Any:
    write_predictions(path, {"test": ([face("1")], [0.5], None)}, perturbation=JPEG)
    return json.loads(pq.read_metadata(path).metadata[b"dfad_bench"])


def a_record_of_seeds(path: Path) -> Any:
    write_seeds(path, over_seeds([result(), result().model_copy(update={"seed": 1})]))
    return json.loads(path.read_text(encoding="utf-8"))


def a_record_of_pairs(path: Path) -> Any:
    tests = [PairedTest(a="a", b="b", difference=0.1, low=-0.1, high=0.2, p=0.3, p_adjusted=0.4)]
    where = {"task": "detection", "metric": "auc", "level": "authenticity", "subset": "unseen"}
    record = PairsRecord(
        protocol=result().protocol,
        models=[PairedModel(name=name, predictions_sha256="0" * 64) for name in ("a", "b")],
        cluster_by="auto",
        clusters=30,
        resamples=1000,
        seed=0,
        means=[ComparedMean.model_validate(where | {"tests": tests, "groups": {"a": 1, "b": 1}})],
    )
    write_pairs(path, record)
    return json.loads(path.read_text(encoding="utf-8"))


WRITTEN: dict[str, Callable[[Path], Any]] = {
    "result": a_result,
    "predictions": a_footer,
    "comparison": a_comparison,
    "robustness": a_robustness,
    "gaze-fid": a_gaze_fid,
    "seeds": a_record_of_seeds,
    "pairs": a_record_of_pairs,
}


def test_every_record_that_has_a_schema_is_written_here() -> None:
    assert set(WRITTEN) == set(RECORDS)


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_fits_the_schema_and_what_was_changed_does_not(name: str, tmp_path: Path) -> None:
    schema, stored = json_schema(name), WRITTEN[name](tmp_path / "written")
    assert list(faults(stored, schema, schema)) == []
    for changed, complaint in (
        ({**stored, "schema_version": 99}, "99 is not"),
        ({key: value for key, value in stored.items() if key != "schema_version"}, "schema_version is missing"),
        ({**stored, "more": 1}, "more is not known"),
        ({**stored, "seed": "one"}, "is no integer")
        if "seed" in stored
        else ({**stored, "protocol": 1}, "is no object"),
    ):
        assert any(complaint in fault for fault in faults(changed, schema, schema))


# --- the command ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*RECORDS, "gaze_fid"])
def test_it_prints_the_schema_and_nothing_else(name: str) -> None:
    answer = CliRunner().invoke(app, ["schema", name])
    assert answer.exit_code == 0
    assert json.loads(answer.stdout) == json_schema(name)
    assert json.loads(answer.stdout)["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_an_unknown_name_lists_those_there_are() -> None:
    answer = CliRunner().invoke(app, ["schema", "reslt"])
    assert answer.exit_code == USAGE
    assert "Did you mean 'result'? There are: result, predictions, comparison" in answer.stderr


def test_it_needs_no_torch(repository: Path) -> None:
    code = f"{WITHOUT_TORCH}\nfrom dfad_bench.cli import app\nsys.argv[1:] = ['schema', 'result']\napp()"
    answer = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["title"] == "Result"
