"""The JSON Schemas of what is written, so that other tools can read and check it without this package."""

from __future__ import annotations

from typing import Any

from dfad_bench.config import Strict
from dfad_bench.errors import UnknownName
from dfad_bench.records import comparison, gaze_fid, pairs, predictions, results, robustness, seeds

DIALECT = "https://json-schema.org/draft/2020-12/schema"

RECORDS: dict[str, tuple[type[Strict], int]] = {
    "result": (results.Result, results.SCHEMA_VERSION),
    "predictions": (predictions.Context, predictions.SCHEMA_VERSION),
    "comparison": (comparison.Comparison, comparison.SCHEMA_VERSION),
    "robustness": (robustness.RobustnessRecord, robustness.SCHEMA_VERSION),
    "pairs": (pairs.PairsRecord, pairs.SCHEMA_VERSION),
    "seeds": (seeds.SeedsRecord, seeds.SCHEMA_VERSION),
    "gaze-fid": (gaze_fid.GazeFidReport, gaze_fid.SCHEMA_VERSION),
}
"""Name → the record and the one version of it that is read. ``predictions``: the JSON in the Parquet file's footer."""


def json_schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a record of RECORDS; raise UnknownName, with all names, for another."""
    name = name.replace("_", "-")
    if name not in RECORDS:
        raise UnknownName("schema", name, RECORDS, f"There are: {', '.join(RECORDS)}.")
    record, version = RECORDS[name]
    # As it is read, not as it is written: long lists leave out what is None.
    schema = record.model_json_schema(mode="validation")
    schema["properties"]["schema_version"] = {"const": version}
    schema["required"] = ["schema_version", *(each for each in schema["required"] if each != "schema_version")]
    return {"$schema": DIALECT, **schema}
