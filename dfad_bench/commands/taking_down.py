"""The command ``take-down``."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from dfad_bench import console
from dfad_bench.commands.options import DataOption, FormatOption, data_folder
from dfad_bench.console import Format
from dfad_bench.errors import INCOMPLETE, UsageError

if TYPE_CHECKING:
    from dfad_bench.prepare.take_down import TakenDown


def take_down(
    name: Annotated[str, typer.Argument(help="A prepared source by name.")],
    ids: Annotated[list[str] | None, typer.Option("--id", help="A face, as in the column id. May be repeated.")] = None,
    identities: Annotated[
        list[str] | None, typer.Option("--identity", help="A person, as in the column identities. May be repeated.")
    ] = None,
    videos: Annotated[
        list[str] | None, typer.Option("--video", help="A clip, as in the column video. May be repeated.")
    ] = None,
    sha256: Annotated[
        list[str] | None,
        typer.Option("--sha256", help="The pixels of a crop, as in the column sha256. May be repeated."),
    ] = None,
    reason: Annotated[
        str | None, typer.Option("--reason", help="Why, in words that may be published; names nobody.")
    ] = None,
    data: DataOption = None,
    format: FormatOption = Format.human,
) -> None:
    """Take faces out of a prepared source for good, as people and rights holders ask.

    What is asked for is appended to tombstones.csv, which every later preparation heeds; with no option, the list is carried
    out as it stands. Rows, crops, gaze maps, features and added gazes go; skipped.parquet counts each face as taken_down.
    """
    from dfad_bench.prepare import take_down as stage
    from dfad_bench.prepare.options import check_source_name

    given = {"id": ids, "identity": identities, "video": videos, "sha256": sha256}
    asked = [(kind, value) for kind, values in given.items() for value in values or ()]
    if asked and reason is None:
        raise UsageError("Say why with --reason, in words that may be published; they stand in skipped.parquet.")
    if reason is not None and not asked:
        raise UsageError("--reason is of what --id, --identity, --video and --sha256 name. Give one of them.")
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    with console.progress(f"taking down from {name}"):
        done = stage.take_down(data_folder(data) / check_source_name(name), asked, today, reason or "")
    _show(done, format)
    if done.unmatched:
        raise typer.Exit(INCOMPLETE)


def _show(done: TakenDown, format: Format) -> None:
    if format is Format.json:
        console.show_json(
            {
                "root": str(done.root),
                "added": [each.model_dump() for each in done.added],
                "unmatched": [each.model_dump() for each in done.unmatched],
                "removed": list(done.removed),
            }
        )
    else:
        rows = [(identifier,) for identifier in done.removed]
        console.show_table(f"taken down from {done.root.name}", ("id",), rows, [f"{len(rows)} faces."])
    for stone in done.unmatched:
        console.warn(
            f"No face of {done.root.name} has the {stone.kind} {stone.value!r}. It stands on the list all the same."
        )
    if not done.has_manifest:
        console.warn(
            f"{done.root} holds no whole manifest. Run the same 'dfad-bench prepare' again, which heeds the list."
        )
    if done.removed:
        console.note(
            "Not reached: the source's own files, runs (their predictions hold ids), packed copies, exports, reports, and "
            "weights that were trained on them."
        )
