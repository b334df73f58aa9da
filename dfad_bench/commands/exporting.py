"""The commands ``export …``."""

from __future__ import annotations

import datetime
import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from dfad_bench import console
from dfad_bench.commands.options import DataOption, FormatOption, data_folder
from dfad_bench.console import Format

app = typer.Typer(
    no_args_is_help=True, help="Write faces and results in the formats of others, and push them to the Hub."
)


class Relationship(StrEnum):
    """Of who evaluated to who developed the model, in the words of Every Eval Ever."""

    first_party = "first_party"
    third_party = "third_party"
    collaborative = "collaborative"
    other = "other"


PushOption = Annotated[
    str | None,
    typer.Option("--push", metavar="OWNER/NAME", help="Upload it to this repository of the Hugging Face Hub."),
]
PublicOption = Annotated[bool, typer.Option("--public", help="Create the repository for everyone to see.")]
PullRequestOption = Annotated[bool, typer.Option("--create-pr", help="Propose it to a repository of anyone.")]


@app.command()
def dataset(
    out: Annotated[Path, typer.Argument(help="The folder to write; new or empty.")],
    source: Annotated[list[str], typer.Option("--source", help="A prepared source; repeat it.")],
    protocol: Annotated[
        list[str] | None, typer.Option("--protocol", help="A protocol, which becomes a config; repeat it.")
    ] = None,
    data: DataOption = None,
    metadata_only: Annotated[
        bool, typer.Option("--metadata-only", help="Leave the images out, whose licence may not allow to pass them on.")
    ] = False,
    name: Annotated[str | None, typer.Option("--name", show_default="the folder's")] = None,
    dataset_version: Annotated[str, typer.Option("--dataset-version")] = "1.0.0",
    url: Annotated[str | None, typer.Option("--url", help="Where the dataset will be found.")] = None,
    creator: Annotated[list[str] | None, typer.Option("--creator", help="Who made it; repeat it.")] = None,
    published: Annotated[
        datetime.datetime | None, typer.Option("--published", formats=["%Y-%m-%d"], help="Its date.")
    ] = None,
    contact: Annotated[
        str | None, typer.Option("--contact", help="Where whoever is shown can ask for a face to be taken down.")
    ] = None,
    push: PushOption = None,
    public: PublicOption = False,
    create_pr: PullRequestOption = False,
    format: FormatOption = Format.human,
) -> None:
    """Write prepared faces as a Hugging Face dataset: Parquet with images, a card, Croissant 1.1; a config per protocol.

    Refused where a licence does not let images be passed on, unless --metadata-only.
    """
    from dfad_bench.publish.croissant import Publication
    from dfad_bench.publish.export_dataset import export_dataset

    about = Publication(
        name=name or out.resolve().name,
        version=dataset_version,
        url=url,
        creators=tuple(creator or ()),
        published=None if published is None else published.date(),
        contact=contact,
    )
    with console.progress("exporting faces") as bar:
        written = export_dataset(
            data_folder(data),
            source,
            protocol or (),
            out,
            publication=about,
            metadata_only=metadata_only,
            on_progress=bar,
        )
    if about.lacks:
        console.note(f"Croissant 1.1 also asks for {', '.join(about.lacks)}; left out, since it was not given.")
    _finish(out, written, push, "dataset", public, create_pr, format)


@app.command()
def result(
    results: Annotated[list[Path], typer.Argument(help="The result.json of finished runs.")],
    out: Annotated[Path, typer.Option("--output", help="The folder to write to.")],
    dataset_id: Annotated[
        str, typer.Option("--dataset", metavar="OWNER/NAME", help="The benchmark's dataset on the Hub.")
    ],
    model_id: Annotated[str, typer.Option("--model-id", metavar="OWNER/NAME", help="The model's repository.")],
    organisation: Annotated[str, typer.Option("--organisation", help="Who evaluated.")] = "unknown",
    relationship: Annotated[
        Relationship, typer.Option("--relationship", help="To the model's developer.")
    ] = Relationship.other,
    source_url: Annotated[str | None, typer.Option("--source-url", help="Where the result lies.")] = None,
    push: PushOption = None,
    public: PublicOption = False,
    create_pr: PullRequestOption = False,
    format: FormatOption = Format.human,
) -> None:
    """Write results as .eval_results YAML, as a model card's model-index, and as Every Eval Ever records.

    An ineligible result is refused with its reasons.
    """
    from dfad_bench.publish.eval_records import eval_results_yaml, every_eval_ever, model_card_block
    from dfad_bench.records.json_files import write_text
    from dfad_bench.records.results import read_result

    now = datetime.datetime.now(datetime.UTC)
    written: list[Path] = []
    for path in results:
        read = read_result(path)
        name = f"{read.protocol.name}-{read.model.name}"
        record = every_eval_ever(
            read,
            model_id=model_id,
            organisation=organisation,
            retrieved=now,
            relationship=relationship.value,
            dataset_id=dataset_id,
        )
        texts = {
            out / ".eval_results" / f"{name}.yaml": eval_results_yaml(read, dataset_id, source_url=source_url),
            out / f"{name}.card.md": model_card_block(read, dataset_id, source_url=source_url),
            out / f"{name}.every_eval_ever.json": json.dumps(record, indent=1, ensure_ascii=False) + "\n",
        }
        for file, text in texts.items():
            write_text(file, text)
        written += texts
    _finish(out, written, push, "model", public, create_pr, format)


def _finish(
    folder: Path,
    written: list[Path],
    push: str | None,
    repo_type: Literal["dataset", "model"],
    public: bool,
    create_pr: bool,
    format: Format,
) -> None:
    from dfad_bench.publish.push import push_folder

    url = None
    if push is not None:
        url = push_folder(folder, push, repo_type=repo_type, private=not public, create_pr=create_pr)
    if format is Format.json:
        console.show_json({"files": [str(path) for path in written], "url": url})
        return
    for path in written:
        console.note(f"Wrote {path}.")
    if url is not None:
        console.note(f"Uploaded: {url}")
