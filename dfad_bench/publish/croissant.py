"""Describes an exported dataset as Croissant 1.1: files with their hashes, records with their fields, and responsible AI.

Croissant Format Specification 1.1 (MLCommons, 2026-01-29, http://mlcommons.org/croissant/1.1) and Croissant RAI 1.0
(http://mlcommons.org/croissant/RAI/1.0). Only properties that these two or schema.org define are written.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dfad_bench.records.manifest import PrepareRecipe

CROISSANT, RAI = "http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"
_PARQUET = "application/x-parquet"  # the only name for Parquet that mlcroissant 1.1 reads

CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The context that the reference implementation expects of version 1.1."""


_DOCUMENTED: Mapping[str, str] = {
    "image": "The face, an RGB image.",
    "gaze_map": "Where the eyes look, drawn: red the eyeball, green the iris; empty where no gaze was seen.",
    "id": "The face's name: source, slash, the source's own key.",
    "source": "The prepared source.",
    "generator": "What made the face; real for a face nothing was done to.",
    "family": "The generator's family.",
    "forgery_type": "efs: entire face synthesis, fs: face swap, fr: face reenactment, am: attribute manipulation.",
    "domain": "The real data that the face was made from.",
    "source_split": "The split that the source itself publishes.",
    "video": "The video that the face is a frame of.",
    "identities_count": "How many people the source names for this face.",
    "gaze_pitch": "Radians in the camera's frame; above 0 looks up.",
    "gaze_yaw": "Radians in the camera's frame; above 0 looks towards image right.",
    "gaze_flag": "Why there is no gaze.",
    "cut_off": "Share of the face's box outside the image.",
    "sharpness": "Variance of the Laplacian of the face.",
    "crop_scale": "Pixels of the face per pixel of the original; above 1 it was enlarged.",
    "crop_roll": "Radians by which the face was turned upright.",
    "sha256": "Hash of the face's pixels, by which the row can be checked.",
    "perceptual_hash": "64 bits that are alike for images that look alike.",
    "licence": "The licence of the source's image, as the source states it.",
}


@dataclass(frozen=True, slots=True)
class Publication:
    """What only the publisher knows of a dataset. ``url``, ``creators`` and ``published`` must stand in a Croissant.

    contact: where a person asks for a face to be taken down, as an address or an e-mail; without it, the dataset's page.
    """

    name: str
    version: str = "1.0.0"
    url: str | None = None
    creators: tuple[str, ...] = ()
    published: datetime.date | None = None
    contact: str | None = None

    @property
    def lacks(self) -> list[str]:
        """The properties that Croissant 1.1 requires and that are not given."""
        given = {"url": self.url, "creator": self.creators, "datePublished": self.published}
        return [name for name, value in given.items() if not value]


@dataclass(frozen=True, slots=True)
class File:
    """A file of the export: its path within the folder, faces, size in bytes, and hash."""

    path: str
    faces: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Exported:
    """What was exported.

    files: the Parquet files; configs: configuration → split → the paths of its files; schema: of every file; licences: the
    URL of each licence of a row, None where it is not known; recipes: source → how its faces were made; homepages: source →
    where it comes from; warnings: what protocols say on every page.
    """

    publication: Publication
    files: tuple[File, ...]
    configs: Mapping[str, Mapping[str, Sequence[str]]]
    schema: pa.Schema
    faces: int
    licences: Mapping[str, str | None]
    recipes: Mapping[str, PrepareRecipe]
    homepages: Mapping[str, str]
    warnings: tuple[str, ...]
    metadata_only: bool

    @property
    def is_split(self) -> bool:
        """Whether protocols split the faces."""
        return any(len(splits) > 1 for splits in self.configs.values())


def croissant(exported: Exported) -> dict[str, Any]:
    """Return the JSON-LD of an export. What Croissant requires and the publisher did not say (``lacks``) is left out."""
    about = exported.publication
    pixels = "without their pixels" if exported.metadata_only else "with the images inside"
    splits = ", in the splits of the protocols of dfad-bench" if exported.is_split else ""
    described: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": about.name,
        "description": (
            f"{exported.faces} faces, real and forged, {pixels}, each labelled with its generator, the generator's family "
            f"and the type of forgery{splits}."
        ),
        "conformsTo": [CROISSANT, RAI],
        "version": about.version,
        "isLiveDataset": False,
        "license": _licences(exported),
        "keywords": ["deepfake", "face forgery", "attribution", "detection", "benchmark"],
        "citeAs": _citation(about),
        "distribution": _distribution(exported),
        "recordSet": [_splits(exported), *_record_sets(exported)],
        **_responsible(exported),
    }
    if about.url is not None:
        described["url"] = about.url
    if about.creators:
        described["creator"] = [{"@type": "sc:Organization", "name": name} for name in about.creators]
    if about.published is not None:
        described["datePublished"] = about.published.isoformat()
    if pages := sorted({page for page in exported.homepages.values() if page.startswith("https://")}):
        described["isBasedOn"] = pages
    return described


def _licences(exported: Exported) -> list[Any]:
    return [url or {"@type": "sc:CreativeWork", "name": name} for name, url in sorted(exported.licences.items())]


def _citation(about: Publication) -> str:
    """Return a BibTeX entry of what is known."""

    def plain(text: str) -> str:
        return text.translate({ord(character): " " for character in "{}\\\n"})

    known = {
        "title": about.name,
        "author": " and ".join(about.creators),
        "year": str(about.published.year) if about.published else "",
        "version": about.version,
        "url": about.url or "",
    }
    return "@misc{dataset, " + ", ".join(f"{key} = {{{plain(value)}}}" for key, value in known.items() if value) + "}"


# --- files and records ---------------------------------------------------------------------------------------------


def _distribution(exported: Exported) -> list[dict[str, Any]]:
    """Return every file with its hash, and a set of files for each split: sets share files where splits share faces."""
    files = [
        {
            "@type": "cr:FileObject",
            "@id": each.path,
            "name": each.path,
            "contentUrl": each.path,
            "contentSize": f"{each.size} B",
            "encodingFormat": _PARQUET,
            "sha256": each.sha256,
        }
        for each in exported.files
    ]
    sets = [
        {
            "@type": "cr:FileSet",
            "@id": _file_set(config, split),
            "name": _file_set(config, split),
            "description": f"The files of the split {split} of {config}.",
            "encodingFormat": _PARQUET,
            "includes": list(paths),
        }
        for config, splits in exported.configs.items()
        for split, paths in splits.items()
    ]
    return [*files, *sets]


def _file_set(config: str, split: str) -> str:
    return f"files/{config}/{split}"


def _split_kind(split: str) -> str | None:
    if split.startswith("test"):
        return "cr:TestSplit"
    return {"train": "cr:TrainingSplit", "validation": "cr:ValidationSplit"}.get(split)


def _splits(exported: Exported) -> dict[str, Any]:
    """Return the record set that says what each split is for (section "Splits")."""
    rows = []
    for config, splits in exported.configs.items():
        for split in splits:
            kind = _split_kind(split)
            rows.append({"splits/name": f"{config}/{split}", "splits/url": kind or ""})
    fields: list[tuple[str, str | list[str]]] = [("name", "sc:Text"), ("url", ["sc:Text", "cr:Split"])]
    return {
        "@type": "cr:RecordSet",
        "@id": "splits",
        "name": "splits",
        "description": "Configuration and split, and what the split is for; empty where it is for anything.",
        "dataType": "cr:Split",
        "key": {"@id": "splits/name"},
        "field": [
            {"@type": "cr:Field", "@id": f"splits/{name}", "name": f"splits/{name}", "dataType": kind}
            for name, kind in fields
        ],
        "data": rows,
    }


def _record_sets(exported: Exported) -> list[dict[str, Any]]:
    return [
        {
            "@type": "cr:RecordSet",
            "@id": f"{config}/{split}",
            "name": f"{config}/{split}",
            "description": f"The faces of the split {split} of {config}, one a record.",
            "key": {"@id": f"{config}/{split}/id"},
            "field": [_field(f"{config}/{split}", _file_set(config, split), column) for column in exported.schema],
        }
        for config, splits in exported.configs.items()
        for split in splits
    ]


_LABELS = ("generator", "family", "forgery_type")


def _field(records: str, files: str, column: pa.Field) -> dict[str, Any]:
    of_list = pa.types.is_list(column.type)
    kind = _data_type(column.type.value_type if of_list else column.type)
    described: dict[str, Any] = {
        "@type": "cr:Field",
        "@id": f"{records}/{column.name}",
        "name": f"{records}/{column.name}",
        "dataType": [kind, "cr:Label"] if column.name in _LABELS else kind,
        "source": {"fileSet": {"@id": files}, "extract": {"column": column.name}},
    }
    if column.name in _DOCUMENTED:
        described["description"] = _DOCUMENTED[column.name]
    if of_list:
        described |= {"isArray": True, "arrayShape": "-1"}
    if pa.types.is_struct(column.type):  # an image, whose bytes are a field of the column
        described["source"]["transform"] = {"jsonPath": "bytes"}
    return described


def _data_type(kind: pa.DataType) -> str:
    if pa.types.is_struct(kind):
        return "sc:ImageObject"
    if pa.types.is_integer(kind):
        return "sc:Integer"
    return "sc:Float" if pa.types.is_floating(kind) else "sc:Text"


# --- responsible AI ------------------------------------------------------------------------------------------------


def _responsible(exported: Exported) -> dict[str, Any]:
    """Return the properties of Croissant RAI 1.0 that can be said of any such export."""
    detectors = sorted({f"face detector {recipe.face_detector}" for recipe in exported.recipes.values()})
    estimators = sorted({f"gaze estimator {recipe.gaze_estimator}" for recipe in exported.recipes.values()})
    about = exported.publication
    return {
        "rai:dataCollection": (
            "Nothing was collected for this dataset: faces were cut from images and videos of published datasets, "
            f"{_told_sources(exported)}, which say how they collected theirs."
        ),
        "rai:dataCollectionType": ["Secondary Data analysis"],
        "rai:dataCollectionMissingData": (
            "Images without a face that passes the thresholds below are left out. Where a gaze could not be seen, its columns "
            "are empty and gaze_flag says why. A column that a source does not know is empty."
        ),
        "rai:dataPreprocessingProtocol": [
            f"{name}: faces cut by {recipe.face_detector} to {recipe.size} px at a margin of {recipe.margin:g}, "
            f"{'turned upright' if recipe.align else 'not turned'}; at least {recipe.min_face:g} px, at most "
            f"{recipe.max_cut_off:g} of the face outside the image, sharpness at least {recipe.min_sharpness:g}."
            for name, recipe in sorted(exported.recipes.items())
        ],
        "rai:dataAnnotationProtocol": (
            "Labels are those of the sources, which know what made each image; no person labelled a face here. Boxes, "
            "landmarks and gaze are estimates of programs."
        ),
        "rai:machineAnnotationTools": [*detectors, *estimators],
        "rai:dataBiases": [
            "The reals and each generator's faces may come from different people, cameras, file formats and sizes; a model may "
            "learn those in place of the forgery ('dfad-bench audit' measures it).",
            "Nobody balanced the faces by age, sex, skin colour or pose, and these are not known.",
            "Face detectors miss faces, some groups of people more often than others; what they missed is not here.",
        ],
        "rai:dataLimitations": [
            *exported.warnings,
            "The generators are those of the sources; scores on them do not hold for others or for newer versions.",
            "A label says what the source says. A score on these faces is no proof in any legal sense.",
            "Gaze is an estimate from one image, in degrees of error that differ from face to face.",
        ],
        "rai:dataUseCases": [
            "Training, validating and testing models that tell forged faces from real ones, or which generator made a face.",
            "Not for identifying anyone, for inferring attention, health, emotion or intent from gaze, for judging a single "
            "image as evidence, or for making forgeries harder to detect.",
        ],
        "rai:dataSocialImpact": (
            "Helps to compare defences against forged faces. A detector that errs can discredit a real picture or person."
        ),
        "rai:personalSensitiveInformation": [
            "No pixels."
            if exported.metadata_only
            else "Faces. Where they are of real people they are personal data, whether or not these people agreed to it.",
            "Whom a face shows is left out, and only the number of people is kept; a source's own keys (id, video) may still "
            "tell it.",
            "Estimated gaze per face.",
        ],
        "rai:dataReleaseMaintenancePlan": (
            f"Version {about.version}; files do not change within a version. Whoever is shown may ask for a face to be "
            f"taken down: {about.contact or 'at the page of the dataset'}; the next version leaves it out."
        ),
    }


def _told_sources(exported: Exported) -> str:
    return "; ".join(f"{name} ({page})" if page else name for name, page in sorted(exported.homepages.items()))
