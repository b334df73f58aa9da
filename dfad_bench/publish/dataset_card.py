"""The card of an exported dataset: what the faces are, from where, on what terms, and what they are not for."""

from __future__ import annotations

import importlib.resources
import re
from collections import Counter
from typing import Any

import pyarrow as pa
import yaml
from jinja2 import Environment, StrictUndefined

from dfad_bench.publish.croissant import Exported
from dfad_bench.publish.licences import REDISTRIBUTABLE
from dfad_bench.publish.tables import NONE, Table, markdown

_HUB_LICENCES = frozenset(
    name.casefold() for name in REDISTRIBUTABLE if name.startswith(("CC0", "CC-BY", "Apache", "MIT", "BSD"))
)
"""Licences that the Hub knows under these names."""
_SIZES = (("1K", 10**3), ("10K", 10**4), ("100K", 10**5), ("1M", 10**6), ("10M", 10**7))


def dataset_card(exported: Exported, faces: pa.Table) -> str:
    """Return the README.md of an export: front matter of the Hub, then what the faces are, and are not for.

    faces: the columns ``source``, ``generator``, ``family`` and ``licence`` of every row.
    """
    columns = ("source", "generator", "family", "licence")
    counted = sorted(Counter(zip(*(faces[name].to_pylist() for name in columns), strict=True)).items())
    licences = sorted(Counter(faces["licence"].to_pylist()).items())
    held = {each.path: each.faces for each in exported.files}
    splits = [
        (config, split, f"{sum(held[path] for path in of[split]):,}")
        for config, of in exported.configs.items()
        for split in of
    ]
    recipes = [(name, exported.homepages[name] or NONE, each) for name, each in exported.recipes.items()]
    made = [
        (name, page, each.face_detector, f"{each.size}", f"{each.margin:g}", each.gaze_estimator)
        for name, page, each in recipes
    ]
    tables = {
        "splits": Table("Configurations and splits", ("configuration", "split", "faces"), tuple(splits)),
        "made": Table("Sources", ("source", "from", "detector", "pixels", "margin", "gaze estimator"), tuple(made)),
        "counted": Table("Faces", (*columns, "faces"), tuple((*key, f"{count:,}") for key, count in counted)),
        "licences": Table(
            "Licences of the rows",
            ("licence", "rows", "text"),
            tuple((name or NONE, f"{count:,}", exported.licences[name] or NONE) for name, count in licences),
        ),
    }
    about = exported.publication
    template = importlib.resources.files("dfad_bench.publish").joinpath("templates", "dataset_card.md.j2")
    # Markdown, not HTML: what names hold is escaped before it is put in
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # noqa: S701
    return (
        environment.from_string(template.read_text(encoding="utf-8"))
        .render(
            front=yaml.safe_dump(_front_matter(exported), sort_keys=False, allow_unicode=True).strip(),
            name=_plain(about.name),
            faces=f"{exported.faces:,}",
            metadata_only=exported.metadata_only,
            is_split=exported.is_split,
            warnings=[_plain(warning) for warning in exported.warnings],
            where=_repository(about.url) or "path/to/this/folder",
            first_config=next(iter(exported.configs)),
            tables={name: markdown(table) for name, table in tables.items()},
            contact=_plain(about.contact) if about.contact else "open a discussion on the page of this dataset",
        )
        .strip()
        + "\n"
    )


def _front_matter(exported: Exported) -> dict[str, Any]:
    licences = {name.casefold() for name in exported.licences}
    one = licences.pop() if len(licences) == 1 and not exported.metadata_only else ""
    known = {"license": one} if one in _HUB_LICENCES else {"license": "other", "license_name": "per-row"}
    sizes = {
        most: f"n<{name}" if number == 0 else f"{_SIZES[number - 1][0]}<n<{name}"
        for number, (name, most) in enumerate(_SIZES)
    }
    size = next((name for most, name in sizes.items() if exported.faces < most), f"n>{_SIZES[-1][0]}")
    return {
        "pretty_name": exported.publication.name,
        **known,
        "task_categories": ["image-classification"],
        "tags": ["deepfake", "face-forgery", "attribution", "gaze", "croissant"],
        "size_categories": [size],
        "configs": [
            {
                "config_name": config,
                **({"default": True} if number == 0 else {}),
                "data_files": [{"split": split, "path": list(paths)} for split, paths in splits.items()],
            }
            for number, (config, splits) in enumerate(exported.configs.items())
        ],
    }


def _plain(text: str) -> str:
    """Return text in which Markdown and HTML see nothing but text."""
    return "".join(f"&#{ord(each)};" if each in "\\`*_[]<>&|~$#!" else each for each in " ".join(text.split()))


def _repository(url: str | None) -> str | None:
    """Return ``org/name`` of a dataset of the Hub."""
    found = re.fullmatch(r"https://huggingface\.co/datasets/([\w.-]+/[\w.-]+)/?", url or "")
    return found[1] if found else None
