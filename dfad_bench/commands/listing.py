"""The commands ``list`` and ``schema``."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from dfad_bench import console
from dfad_bench.commands.options import FormatOption
from dfad_bench.console import Format

_ONLY_IN_JSON = ("aliases", "url", "sha256", "bytes")


def list_(
    kind: Annotated[
        str,
        typer.Argument(
            help="models, protocols, sources, generators, face-detectors, gaze-estimators, perturbations, metrics or weights."
        ),
    ],
    words: Annotated[list[str] | None, typer.Argument(help="For generators: words to search for.")] = None,
    format: FormatOption = Format.human,
) -> None:
    """List what there is. Nothing that is listed gets imported, except for the weights, which stand in their plugins."""
    from dfad_bench import registry, taxonomy
    from dfad_bench.errors import UnknownName

    name = kind.replace("-", "_")
    if name == "generators":
        found = taxonomy.known().search(" ".join(words or []))
        rows = [dataclasses.asdict(generator) for generator in found]
    elif name == "weights":
        rows = _weights()
    elif name in registry.KINDS:
        rows = [{"name": entry.name, "origin": entry.origin} for entry in registry.entries(name).values()]
    else:
        raise UnknownName(
            "kind of thing to list", kind, [*registry.KINDS, "generators", "weights"], "See 'dfad-bench list --help'."
        )
    if format is Format.json:
        console.show_json(rows)
        return
    columns = [column for column in (rows[0] if rows else {"name": ""}) if column not in _ONLY_IN_JSON]
    cells = [[row[column] for column in columns] for row in rows]
    notes = [f"{row['file']}: sha256 {row['sha256']}, {row['url']}" for row in rows if row.get("url")]
    console.show_table(f"{len(rows)} {name.replace('_', ' ')}", columns, cells, notes)


def schema(
    name: Annotated[str, typer.Argument(help="result, predictions, comparison, robustness, pairs, seeds or gaze-fid.")],
) -> None:
    """Print the JSON Schema of what is written: of a predictions file, that of the JSON in its footer."""
    from dfad_bench.records.schemas import json_schema

    console.show_json(json_schema(name))


def _weights() -> list[dict[str, Any]]:
    from dfad_bench import weights

    rows: list[dict[str, Any]] = []
    for each in weights.published():
        file = each.weights
        found = None if file is None else weights.find(file)
        rows.append(
            {
                "used by": f"{each.kind} {each.plugin}",
                "file": each.problem if file is None else file.name,
                "commercial use": "–" if file is None else file.commercial_use,
                "licence": "–" if file is None else file.licence,
                "training data": "–" if file is None else file.training_data,
                "size": "–" if file is None else _size(file.bytes),
                "here": "no" if found is None else str(found.parent),
                "url": None if file is None else file.url,
                "sha256": None if file is None else file.sha256,
                "bytes": None if file is None else file.bytes,
            }
        )
    return rows


def _size(count: int | None) -> str:
    return "not published" if count is None else f"{count / 1e6:.2f} MB"
