"""The leaderboard: results kept as files, and the tables that are made from them, byte for byte the same each time."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dfad_bench import registry
from dfad_bench.errors import DataError, UsageError
from dfad_bench.prepare.options import build_source
from dfad_bench.publish.formats import csv, latex
from dfad_bench.publish.pairs import groups_table
from dfad_bench.publish.ranking import by_faces, key_of, leaderboard_table
from dfad_bench.publish.seeds import seeds_table
from dfad_bench.publish.site import site
from dfad_bench.publish.tables import Table, markdown
from dfad_bench.records.json_files import write_text
from dfad_bench.records.pairs import read_pairs
from dfad_bench.records.results import MEAN, POOLED, Result, read_result, write_result
from dfad_bench.records.seeds import read_seeds
from dfad_bench.taxonomy import Generator, known

SCHEMA_VERSION = 2
RESULTS, SEEDS, PAIRS = "results", "seeds", "pairs"
"""Folders of a leaderboard: <protocol>/<model>.json, and per protocol what seeds and what pairs of models say."""
BEGIN, END = "<!-- leaderboard:begin -->", "<!-- leaderboard:end -->"
_FILE_NAME = re.compile(r"[a-z0-9_][a-z0-9_.-]*")
_MODEL_NAME = re.compile(rf"{_FILE_NAME.pattern}(\+[A-Za-z0-9_]+=[A-Za-z0-9._-]*)*")
"""A file name, then options that differ from the model's defaults."""
_HEAD = "# Leaderboard\n\nWritten by `dfad-bench leaderboard build` from `results/`, `pairs/` and `seeds/`; edits are lost.\n\n"


def add(result: Path, results: Path) -> Path:
    """Copy a run's result into ``results/<protocol>/<model>.json``, replacing an earlier one, and return that path.

    Raises DataError, naming the reasons, for a result that may not stand on the leaderboard.
    """
    reasons = read_result(result).ineligible
    if reasons:
        raise DataError(f"{result} may not stand on the leaderboard: {'; '.join(reasons)}. Run it again without that.")
    return place(result, results)


def place(result: Path, results: Path) -> Path:
    """Copy a result as ``add`` does, whether or not it is eligible; the tables name an ineligible one unranked."""
    read = read_result(result)
    for what, name, allowed in (
        ("protocol", read.protocol.name, _FILE_NAME),
        ("model", read.model.name, _MODEL_NAME),
    ):
        if not allowed.fullmatch(name):
            raise DataError(
                f"{result}: the {what} is named {name!r}, which is no file name. Use lower-case letters, digits, _ . and -."
            )
    target = results / read.protocol.name / f"{read.model.name}.json"
    if not target.resolve().is_relative_to(results.resolve()):
        raise DataError(f"{target} leads out of {results}. Remove the link.")
    write_result(target, read)
    return target


def collect(folder: Path) -> list[Result]:
    """Read every result below a folder, sorted by protocol, version, fingerprint and model.

    Raises UsageError where the folder is missing, DataError for a file that is no result, that is a link, or whose
    path is not ``<protocol>/<model>.json`` as its contents say.
    """
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}. 'dfad-bench leaderboard add' fills one.")
    found = []
    for path in sorted(folder.rglob("*.json")):
        if path.resolve() != folder.resolve() / path.relative_to(folder):
            raise DataError(f"{path} is reached by a link. Put the file itself there.")
        result = read_result(path)
        expected = Path(result.protocol.name, f"{result.model.name}.json")
        if path.relative_to(folder) != expected:
            raise DataError(f"{path} holds {result.model.name} on {result.protocol.name}. It must lie at {expected}.")
        found.append(result)
    return list(itertools.chain.from_iterable(by_faces(found)))


def tables(results: Sequence[Result]) -> list[Table]:
    """Return one table per protocol, version and fingerprint: numbers on different faces are not compared.

    Where one version of a protocol was run on several sets of faces, each title says which.
    """
    groups = by_faces(results)
    editions = [key_of(group[0].protocol)[:2] for group in groups]
    made = []
    for group, edition in zip(groups, editions, strict=True):
        protocol = group[0].protocol
        table = leaderboard_table(protocol, group)
        title = table.title if editions.count(edition) == 1 else f"{table.title}, faces {protocol.fingerprint}"
        made.append(Table(title, table.columns, table.rows, table.notes))
    return made


def build(folder: Path) -> list[Path]:
    """Write a leaderboard's pages from its results, pairs and seeds; the same ones give the same bytes.

    ``index.html`` sorts, filters and compares; ``leaderboard.md``, ``.csv`` and ``.tex`` hold the tables, ``leaderboard.json``
    the means and pooled scores.
    """
    found = collect(folder / RESULTS)
    pairs = [read_pairs(path) for path in sorted((folder / PAIRS).glob("*.json"))]
    seeds = [read_seeds(path) for path in sorted((folder / SEEDS).glob("*.json"))]
    further = [*map(groups_table, pairs), *map(seeds_table, seeds)]
    links = {(each.protocol.name, each.model.name): _link(each) for each in found}
    texts = {
        "index.html": site(found, seeds, pairs, links=links, taxonomy=known().extended(_declared(found))),
        "leaderboard.md": _HEAD + _page([*tables(found), *further]),
        "leaderboard.csv": csv(found),
        "leaderboard.tex": latex(found),
        "leaderboard.json": _long_form(found),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]


def _link(result: Result) -> str:
    return f"{RESULTS}/{result.protocol.name}/{result.model.name}.json"


def _declared(results: Sequence[Result]) -> list[Generator]:
    """Return the generators of the results' own sources that need no data to say which they are, such as the demo's."""
    names = {name for each in results for name in each.data} & registry.entries("sources").keys()
    sources = [build_source(name, []) for name in sorted(names)]
    return [each for source in sources if not source.needs_root for each in source.generators(None)]


def _page(found: Sequence[Table]) -> str:
    return "\n".join(markdown(table) for table in found) or "No result yet.\n"


def _long_form(results: Sequence[Result]) -> str:
    """Return as JSON every run once, and its means and pooled scores with the coordinates of the run, a line each.

    The scores of single generators stand in the results themselves: with them this file would be as large as all of those.
    """
    runs: list[dict[str, Any]] = []
    scores: list[dict[str, Any]] = []
    for each in results:
        coordinates = {
            "protocol": each.protocol.name,
            "protocol_version": each.protocol.version,
            "protocol_fingerprint": each.protocol.fingerprint,
            "model": each.model.name,
        }
        runs.append(
            coordinates
            | {
                "origin": each.origin,
                "seed": each.seed,
                "parameters": each.model.parameters,
                "inputs": each.model.inputs,
                "selected_on": each.model.selected_on,
                "trained_on": each.model.trained_on,
                "weights_sha256": each.model.weights_sha256,
                "predictions_sha256": each.predictions.sha256,
                "code": each.code.model_dump(),
                "counts": each.counts.model_dump(),
                "ineligible": each.ineligible,
            }
        )
        scores += [
            coordinates | score.model_dump(exclude_none=True) for score in each.scores if score.group in (MEAN, POOLED)
        ]

    def lines(rows: Sequence[dict[str, Any]]) -> str:
        return ",\n  ".join(json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)

    return (
        f'{{\n "schema_version": {SCHEMA_VERSION},\n "runs": [\n  {lines(runs)}\n ],\n'
        f' "scores": [\n  {lines(scores)}\n ]\n}}\n'
    )


def update_readme(readme: Path, folder: Path) -> Path:
    """Put a leaderboard's tables of results between the markers of a README, leave every other byte, return its path.

    Raises UsageError where the file is missing, DataError where the two markers do not stand there once, in order.
    """
    if not readme.is_file():
        raise UsageError(f"There is no file {readme}.")
    text = readme.read_bytes().decode("utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise DataError(f"{readme} must hold {BEGIN} and, below it, {END}, each once.")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    write_text(readme, f"{before}{BEGIN}\n\n{_page(tables(collect(folder / RESULTS)))}\n{END}{after}")
    return readme
