"""The command ``pack``."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfad_bench import console
from dfad_bench.commands.options import (
    DataOption,
    EngineOption,
    FormatOption,
    GpusOption,
    WorkersOption,
    data_folder,
    manifest_at,
)
from dfad_bench.console import Format
from dfad_bench.engines import EngineName, build_engine

if TYPE_CHECKING:
    from dfad_bench.prepare.pack import PackReport


def pack(
    target: Annotated[str, typer.Argument(help="A prepared source by name, or the folder of its manifest.")],
    data: DataOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", help="The folder of the packed manifest.", show_default="<data>-packed/<source> beside the data"
        ),
    ] = None,
    shard_size: Annotated[int, typer.Option("--shard-size", min=1, max=65536, help="MiB of images in a file.")] = 512,
    engine: EngineOption = EngineName.local,
    workers: WorkersOption = None,
    gpus_per_worker: GpusOption = 0.0,
    format: FormatOption = Format.human,
) -> None:
    """Put a manifest's faces into a few large Parquet files, which runs and load_dataset read as they are."""
    from dfad_bench.prepare import pack as packing
    from dfad_bench.records.manifest import read_footer

    root = manifest_at(target, data_folder(data))
    out = output or packing.packed_folder(root, read_footer(root).source)
    with console.progress(f"packing {root.name}") as bar:
        chosen = build_engine(engine, workers, gpus_per_worker)
        report = packing.pack(root, out, shard_bytes=shard_size * 2**20, engine=chosen, on_progress=bar)
    _show(report, format)
    if report.gaze_left_out:
        console.warn(
            f"The gaze by {', '.join(report.gaze_left_out)} was left out: it is damaged, or of other faces than the manifest "
            f"now holds. See 'dfad-bench check manifest {root}'."
        )


def _show(report: PackReport, format: Format) -> None:
    if format is Format.json:
        console.show_json(dataclasses.asdict(report))
        return
    row = (report.source, report.faces, report.shards, f"{report.bytes / 2**20:,.0f}", ", ".join(report.gaze) or "none")
    data = shlex.quote(str(report.root.parent))
    notes = [
        f"Packed into {report.root}; {report.resumed} of {report.shards} shards were finished before.",
        f"Use it as any manifest: dfad-bench run --data {data} …",
        f"Elsewhere: datasets.load_dataset({str(report.root)!r}), or {report.root / 'shards'} with any reader of Parquet.",
    ]
    console.show_table("packed", ("source", "faces", "shards", "MiB", "added gaze"), [row], notes)
