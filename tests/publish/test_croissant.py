"""The Croissant of an export: files that are there, fields that are columns, and only words that the vocabularies have."""

from __future__ import annotations

import datetime
import hashlib
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from dfad_bench.publish.croissant import CROISSANT, RAI, Publication
from dfad_bench.publish.export_dataset import export_dataset
from tests.publish.test_export_dataset import a_protocol_file, a_source, rows_of

RAI_PROPERTIES = {
    *("dataCollection", "dataCollectionType", "dataCollectionMissingData", "dataCollectionRawData"),
    *("dataCollectionTimeframe", "dataImputationProtocol", "dataManipulationProtocol", "dataPreprocessingProtocol"),
    *("dataAnnotationProtocol", "dataAnnotationPlatform", "dataAnnotationAnalysis", "dataReleaseMaintenancePlan"),
    *("personalSensitiveInformation", "dataSocialImpact", "dataBiases", "dataLimitations", "dataUseCases"),
    *("annotationsPerItem", "annotatorDemographics", "machineAnnotationTools"),
}
"""The table "RAI property information" of Croissant RAI 1.0."""
DATASET_PROPERTIES = {
    *("@context", "@type", "conformsTo", "description", "license", "name", "url", "creator", "datePublished"),
    *("keywords", "version", "isLiveDataset", "citeAs", "distribution", "recordSet", "isBasedOn"),
}
"""Of Croissant 1.1 and schema.org/Dataset, those that are used here."""
ABOUT = Publication(
    "toy faces",
    url="https://huggingface.co/datasets/org/toy",
    creators=("A laboratory",),
    published=datetime.date(2026, 1, 31),
    contact="take-down@example.org",
)


@pytest.fixture(scope="module", params=["images", "metadata only"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("croissant")
    a_source(folder / "data", rows_of({"real": 16, "stylegan3": 16, "simswap": 8}))
    out = folder / "out"
    only = request.param == "metadata only"
    export_dataset(
        folder / "data", [], [a_protocol_file(folder)], out, publication=ABOUT, metadata_only=only, shard_bytes=1
    )
    return out


def described(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "croissant.json").read_text(encoding="utf-8"))
    return found


def test_what_version_1_1_requires_is_there_and_nothing_is_invented(exported: Path) -> None:
    record = described(exported)
    assert record["conformsTo"] == [CROISSANT, RAI]
    required = {"@context", "@type", "conformsTo", "description", "license", "name", "url", "creator", "datePublished"}
    assert required <= record.keys()
    rai = {key.removeprefix("rai:") for key in record if key.startswith("rai:")}
    assert rai <= RAI_PROPERTIES
    assert {"dataCollection", "dataBiases", "personalSensitiveInformation", "dataUseCases", "dataLimitations"} <= rai
    assert {key for key in record if not key.startswith("rai:")} <= DATASET_PROPERTIES
    assert "Only a toy." in record["rai:dataLimitations"]
    assert "take-down@example.org" in record["rai:dataReleaseMaintenancePlan"]
    assert record["license"] == ["https://creativecommons.org/publicdomain/zero/1.0/"]
    assert "year = {2026}" in record["citeAs"]


def test_files_are_there_with_their_hashes_and_fields_are_their_columns(exported: Path) -> None:
    record = described(exported)
    files = {each["@id"]: each for each in record["distribution"] if each["@type"] == "cr:FileObject"}
    sets = {each["@id"]: each for each in record["distribution"] if each["@type"] == "cr:FileSet"}
    assert files.keys() == {f"data/{path.name}" for path in (exported / "data").iterdir()}
    for name, each in files.items():
        assert each["sha256"] == hashlib.sha256((exported / name).read_bytes()).hexdigest()
        assert each["contentSize"] == f"{(exported / name).stat().st_size} B"
    of_splits = [each for each in record["recordSet"] if each["@id"] != "splits"]
    assert [each["@id"] for each in of_splits] == ["toy/train", "toy/validation", "toy/test_seen", "toy/test_un_seen"]
    for each in of_splits:
        columns = [field["source"]["extract"]["column"] for field in each["field"]]
        used = {field["source"]["fileSet"]["@id"] for field in each["field"]}
        assert used == {f"files/{each['@id']}"}
        for name in sets[used.pop()]["includes"]:
            assert pq.read_schema(exported / name).names == columns
    ids = [node["@id"] for node in (*record["distribution"], *record["recordSet"])]
    ids += [field["@id"] for each in record["recordSet"] for field in each["field"]]
    assert len(ids) == len(set(ids))


def test_splits_say_what_they_are_for(exported: Path) -> None:
    (splits,) = [each for each in described(exported)["recordSet"] if each["@id"] == "splits"]
    assert {row["splits/name"]: row["splits/url"] for row in splits["data"]} == {
        "toy/train": "cr:TrainingSplit",
        "toy/validation": "cr:ValidationSplit",
        "toy/test_seen": "cr:TestSplit",
        "toy/test_un_seen": "cr:TestSplit",
    }


def test_what_the_publisher_did_not_say_is_left_out_and_named(tmp_path: Path) -> None:
    about = Publication("toy")
    assert about.lacks == ["url", "creator", "datePublished"] and ABOUT.lacks == []
    a_source(tmp_path / "data", rows_of({"real": 4}))
    export_dataset(tmp_path / "data", ["toy"], [], tmp_path / "out", publication=about)
    assert not set(about.lacks) & described(tmp_path / "out").keys()


_READ = """
import itertools, json, sys
import mlcroissant

dataset = mlcroissant.Dataset(sys.argv[1])
issues = dataset.metadata.ctx.issues
found = {each.uuid: list(dataset.records(each.uuid)) for each in dataset.metadata.record_sets}
print(json.dumps({
    "version": dataset.metadata.ctx.conforms_to.to_json(),
    "errors": sorted(issues.errors),
    "warnings": sorted(issues.warnings),
    "records": {name: len(records) for name, records in found.items()},
    "id": found["toy/train"][0]["toy/train/id"].decode(),
    "image": getattr(found["toy/train"][0].get("toy/train/image"), "size", None),
    "kept": sorted(key for key in dataset.metadata.to_json() if key.startswith("rai:")),
}))
"""


def test_the_reference_implementation_finds_nothing_wrong_and_reads_every_record(exported: Path) -> None:
    if find_spec("mlcroissant") is None:
        pytest.skip("the package mlcroissant is not installed")
    # in a process of its own: its dependencies warn, and warnings are errors here
    done = subprocess.run(
        [sys.executable, "-c", _READ, str(exported / "croissant.json")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["version"] == CROISSANT
    assert found["errors"] == [] and found["warnings"] == []
    assert found["records"] == {
        "splits": 4, "toy/train": 10, "toy/validation": 10, "toy/test_seen": 10, "toy/test_un_seen": 10
    }  # fmt: skip
    assert found["id"].startswith("toy/")
    assert found["image"] == ([8, 8] if "image" in pq.read_schema(next((exported / "data").iterdir())).names else None)
    assert found["kept"] == sorted(key for key in described(exported) if key.startswith("rai:"))
