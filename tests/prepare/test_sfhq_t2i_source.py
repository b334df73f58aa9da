"""SFHQ-T2I is read by its table, and every difference between table and images is named."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from dfad_bench.errors import DataError, UsageError
from dfad_bench.prepare.sources.sfhq_t2i import GENERATORS, TABLE, SfhqT2iSource
from dfad_bench.testing import check_source
from dfad_bench.types import Defect, RawImage
from tests.prepare.builders import write

MODELS = ("FLUX1_pro", "FLUX1_dev", "FLUX1_schnell", "SDXL", "DALLE3")
ROWS = [
    {
        "image_filename": f"{model}_image_{number:07d}.jpg",
        "model_used": model,
        "text_prompt": 'A "close-up", of\na face',
        "configs": "{'seed': 7}",
    }
    for model in MODELS
    for number in (1, 2)
]


def copy(root: Path, rows: Sequence[Mapping[str, str]] = ROWS, folder: str = "images", table: str = TABLE) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    with (root / table).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for row in ROWS:
        write(root / folder / row["image_filename"], b"x")
    return root


def listed(root: Path, **options: str) -> tuple[list[RawImage], dict[str, str]]:
    defects: list[Defect] = []
    images = list(SfhqT2iSource(**options).images(root, defects.append))
    assert len({d.kind for d in defects}) == len(defects), "one line per kind"
    return images, {d.kind: d.detail for d in defects}


@pytest.mark.parametrize("folder", ["images", "images/images", "."])
def test_every_layout_gives_the_five_models(tmp_path: Path, folder: str) -> None:
    images, told = listed(copy(tmp_path, folder=folder))
    assert [i.key for i in images] == [row["image_filename"] for row in ROWS]
    assert tuple(dict.fromkeys(i.generator for i in images)) == GENERATORS
    assert {i.generator: i.family for i in images} == {
        "flux1_pro": "flow",
        "flux1_dev": "flow",
        "flux1_schnell": "flow",
        "sdxl": "diffusion",
        "dalle3": "undisclosed",
    }
    assert {(i.domain, i.identities, i.forgery_type) for i in images} == {("sfhq-t2i", (), "efs")}
    assert {i.payload.read() for i in images} == {b"x"}
    assert list(told) == ["no_real"]


def test_it_keeps_the_contract_of_a_source(tmp_path: Path) -> None:
    check_source(SfhqT2iSource(), copy(tmp_path))
    assert [g.name for g in SfhqT2iSource().generators(None)] == list(GENERATORS)


def test_names_of_re_packed_copies_are_understood(tmp_path: Path) -> None:
    rows = [{"filename": row["image_filename"], "model": row["model_used"]} for row in ROWS]
    rows[0]["model"], rows[-1]["model"] = "Flux1.pro", "DALL-E 3"
    images, _ = listed(copy(tmp_path, rows, table="other.csv"), table="other.csv")
    assert (images[0].generator, images[-1].generator) == ("flux1_pro", "dalle3")


def test_every_difference_between_table_and_images_is_named(tmp_path: Path) -> None:
    sdxl, dalle = ROWS[6], ROWS[8]
    rows = [
        *ROWS[1:],
        sdxl,
        dalle | {"model_used": "SDXL"},
        sdxl | {"image_filename": "SDXL_image_0000099.jpg"},
        sdxl | {"image_filename": "../../secret.jpg"},
    ]
    images, told = listed(copy(tmp_path, rows))
    keys = [i.key for i in images]
    assert sorted(told) == [
        "contradicting_rows",
        "hostile_path",
        "image_without_row",
        "no_real",
        "repeated_row",
        "row_without_image",
    ]
    assert ROWS[0]["image_filename"] in told["image_without_row"]
    assert "SDXL_image_0000099.jpg" in told["row_without_image"]
    assert "SDXL_image_0000099.jpg" in keys, "a missing image is a row of the ledger too"
    assert sdxl["image_filename"] in told["repeated_row"]
    assert keys.count(sdxl["image_filename"]) == 1
    assert dalle["image_filename"] in told["contradicting_rows"]
    assert dalle["image_filename"] not in keys
    assert "'../../secret.jpg'" in told["hostile_path"]
    assert not any("secret" in key for key in keys)


@pytest.mark.parametrize("model", ["SD3", "FLUX.2", "stylegan3"])
def test_an_unknown_model_is_one_line_that_names_its_row(tmp_path: Path, model: str) -> None:
    with pytest.raises(UsageError, match=f"row 2: '{model}' is no model of SFHQ-T2I. Expected: flux1_pro") as caught:
        listed(copy(tmp_path, [ROWS[0], ROWS[1] | {"model_used": model}]))
    assert "\n" not in str(caught.value)


def test_a_missing_column_and_an_empty_cell_are_one_line(tmp_path: Path) -> None:
    rows = [{"image_filname": row["image_filename"], "model_used": row["model_used"]} for row in ROWS]
    with pytest.raises(UsageError, match=r"no column image_filename or .* Did you mean 'image_filname'\?"):
        listed(copy(tmp_path / "a", rows))
    with pytest.raises(UsageError, match="row 1: image_filename or model_used is empty"):
        listed(copy(tmp_path / "b", [ROWS[0] | {"model_used": ""}]))


def test_a_damaged_table_is_one_line(tmp_path: Path) -> None:
    copy(tmp_path)
    write(tmp_path / TABLE, b"image_filename,model_used\n\xff\xfe,SDXL\n")
    with pytest.raises(DataError, match="cannot be read as csv"):
        listed(tmp_path)


def test_a_wrong_root_says_how_to_get_the_data(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no table SFHQ_T2I_dataset\.csv.*kaggle"):
        listed(tmp_path)
    copy(tmp_path / "outside")
    with pytest.raises(UsageError, match="holds no table"):
        listed(tmp_path, table="../outside/SFHQ_T2I_dataset.csv")
    for path in (copy(tmp_path / "imageless") / "images").iterdir():
        path.unlink()
    with pytest.raises(UsageError, match="holds none of the 10 images"):
        listed(tmp_path / "imageless")
