"""The command ``gazeclip``."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dfad_bench.errors import DfadError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)


class Format(StrEnum):
    """How the explanation is printed."""

    human = "human"
    json = "json"


@app.callback()
def main() -> None:
    """GazeCLIP, re-implemented. It is trained and tested by ``dfad-bench run --model gazeclip``."""


@app.command()
def explain(
    image: Annotated[Path, typer.Argument(help="A photo with one face, or a face crop.")],
    weights: Annotated[Path, typer.Option("--weights", help="The model.safetensors of a run of gazeclip.")],
    output: Annotated[Path, typer.Option("--output", help="The figure: .png, .svg or .pdf.")] = Path("explained.png"),
    face_detector: Annotated[
        str, typer.Option("--face-detector", help="See 'dfad-bench list face-detectors'.")
    ] = "yunet",
    format: Annotated[Format, typer.Option("--format", help="human, or json on stdout.")] = Format.human,
) -> None:
    """Draw what the model makes of a face: class probabilities, where the gaze injector looks, how words are weighed."""
    from gazeclip import explain as explaining

    try:
        trained = explaining.load(weights)
        explanation = explaining.explain(trained, *explaining.find_face(image, face_detector))
        explaining.draw(explanation, output)
    except DfadError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(error.exit_code) from None
    if format is Format.json:
        print(json.dumps(explaining.described(explanation), indent=1))
    else:
        print(explaining.summary(explanation))
    typer.echo(f"Wrote {output}.", err=True)
