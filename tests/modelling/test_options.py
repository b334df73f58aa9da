"""What a user types after --set becomes an option of the model, or one line that says what it could have been."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest

from dfad_bench.errors import UsageError
from dfad_bench.modelling.options import configured, row_name
from dfad_bench.types import ModelSpec
from tests.modelling.builders import SHADE


def configure(
    *,
    depth: int = 2,
    dropout: float = 0.1,
    scale: float = 0,
    gaze: bool = True,
    pooling: Literal["mean", "max"] = "mean",
    prompt: str = "a face",
) -> ModelSpec:
    if depth > 9:
        raise ValueError("depth is 9\nat most")
    if prompt == "refused":
        raise UsageError("Choose another prompt.")
    return replace(TUNABLE, extra={"got": dict(locals())})


TUNABLE = replace(SHADE, configure=configure)


def got(*settings: str) -> dict[str, Any]:
    spec, options = configured("toy", TUNABLE, settings)
    defaults = {"depth": 2, "dropout": 0.1, "scale": 0, "gaze": True, "pooling": "mean", "prompt": "a face"}
    assert spec.extra["got"] == defaults | options
    return options


def test_a_text_is_read_as_what_its_default_is() -> None:
    options = got("prompt=b=c", "depth=3", "dropout=5e-1", "gaze=off", "pooling=max", "scale=0.5")
    assert options == {"depth": 3, "dropout": 0.5, "gaze": False, "pooling": "max", "prompt": "b=c", "scale": 0.5}
    assert list(options) == sorted(options)
    assert type(options["depth"]) is int and type(options["dropout"]) is float and options["gaze"] is False


@pytest.mark.parametrize("text", ["false", "off", "no", "0", "No", "FALSE"])
def test_a_switch_is_turned_off_by_any_usual_word(text: str) -> None:
    assert got(f"gaze={text}") == {"gaze": False}


@pytest.mark.parametrize("text", ["true", "on", "yes", "1"])
def test_what_is_the_default_anyway_makes_no_other_model(text: str) -> None:
    spec, options = configured("toy", TUNABLE, [f"gaze={text}", "depth=2", "dropout=0.10", "pooling=mean"])
    assert spec is TUNABLE and options == {}
    assert row_name("toy", options) == "toy"


def test_without_settings_a_model_is_what_it_is() -> None:
    assert configured("toy", TUNABLE, []) == (TUNABLE, {})
    assert configured("shade", SHADE, []) == (SHADE, {})


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            ["dept=3"],
            "--set dept=3: model toy has no option 'dept'. Did you mean 'depth'? It has: depth=2, dropout=0.1, ",
        ),
        (["x=3"], "It has: depth=2, dropout=0.1, scale=0, gaze=true, pooling=mean (mean, max), prompt=a face."),
        (["depth"], "--set depth: expected option=value."),
        (["depth=2.5"], "--set depth=2.5: depth is a whole number, such as 2."),
        (["depth="], "depth is a whole number"),
        (["dropout=much"], "dropout is a finite number, such as 0.1."),
        (["dropout=nan"], "dropout is a finite number"),
        (["dropout=inf"], "dropout is a finite number"),
        (["gaze=maybe"], "gaze is true or false, such as true."),
        (["pooling=maxx"], "pooling is one of mean, max. Did you mean 'max'?"),
        (["depth=3", "depth=4"], "--set depth=4: option 'depth' is given twice. Give it once."),
        (["depth=3", "depth=3"], "is given twice"),
        (["gaze=no", "depth=10"], "--set gaze=no --set depth=10: depth is 9 at most"),
        (["prompt=refused"], "--set prompt=refused: Choose another prompt."),
    ],
)
def test_what_does_not_fit_is_one_line_that_says_what_would(settings: list[str], told: str) -> None:
    with pytest.raises(UsageError) as caught:
        configured("toy", TUNABLE, settings)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_without_options_says_so() -> None:
    with pytest.raises(UsageError, match="--set depth=3: model shade has no options"):
        configured("shade", SHADE, ["depth=3"])


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "toy"),
        ({"rank": 8, "blend": "max"}, "toy+blend=max+rank=8"),
        ({"gaze": False}, "toy+gaze=false"),
        ({"dropout": 0.5, "rate": 1e-05}, "toy+dropout=0.5+rate=1e-05"),
        ({"rate": 1e20}, "toy+rate=1e20"),
        ({"scale": 2.0}, "toy+scale=2"),
        ({"prompt": "a face/../of {}"}, "toy+prompt=a-face-..-of---"),
        ({"tower": "ViT-B_16.pt"}, "toy+tower=ViT-B_16.pt"),
    ],
)
def test_options_are_part_of_the_rows_name_in_one_order_and_fit_for_a_file(options: dict[str, Any], name: str) -> None:
    assert row_name("toy", options) == name
