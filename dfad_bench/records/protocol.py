"""A protocol says which faces train, which test and what the classes are: the contents of its YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from dfad_bench import registry
from dfad_bench.config import Strict, read_yaml, validate
from dfad_bench.errors import DataError, shorten
from dfad_bench.taxonomy import FAMILIES, FORGERY_TYPES

WHERE_COLUMNS = (
    "source",
    "generator",
    "family",
    "forgery_type",
    "generator_version",
    "domain",
    "source_split",
    "partition",
)


def _known_columns(where: dict[str, list[str]]) -> dict[str, list[str]]:
    for column in where:
        if column not in WHERE_COLUMNS:
            raise ValueError(f"no column {column!r} to select by; known: {', '.join(WHERE_COLUMNS)}")
    return where


def _as_lists(where: Any) -> Any:
    if not isinstance(where, dict):
        return where
    return {column: value if isinstance(value, list) else [value] for column, value in where.items()}


Where = Annotated[dict[str, list[str]], BeforeValidator(_as_lists), AfterValidator(_known_columns)]
"""Column → accepted values; a face must match every column. ``partition`` is the protocol's own split (see Partition)."""


class Split(Strict):
    """Faces chosen by their labels, at most ``per_generator`` of each generator by hash order.

    A face must match ``where`` and, where there is an ``any_of``, one of its alternatives: sources that publish a split
    stand beside sources that do not, or generators of one domain beside others of another.
    """

    where: Where = Field(default_factory=dict)
    any_of: list[Where] = Field(default_factory=list)
    per_generator: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _says_which(self) -> Split:
        if not {"where", "any_of"} & self.model_fields_set:
            raise ValueError("needs a 'where', an 'any_of', or both")
        return self

    @property
    def conditions(self) -> list[Where]:
        """``where`` and the alternatives."""
        return [self.where, *self.any_of]


class Subset(Split):
    """A named part of the test set, reported per value of ``report_by``."""

    report_by: Literal["generator", "family", "forgery_type"] = "generator"


class Partition(Strict):
    """A split for sources that publish none: whole groups of identities and videos fall into a part by hash."""

    by: list[Literal["identities", "video"]] = Field(min_length=1)
    fractions: dict[str, float]

    @field_validator("fractions")
    @classmethod
    def _sum_to_one(cls, fractions: dict[str, float]) -> dict[str, float]:
        if any(part <= 0 for part in fractions.values()) or abs(sum(fractions.values()) - 1) > 1e-9:
            raise ValueError(f"must be positive and sum to 1, they sum to {sum(fractions.values())}")
        return fractions


class Attribution(Strict):
    """The levels at which attribution is scored, and what counts as right for values that training never saw."""

    levels: list[Literal["forgery_type", "family", "generator"]] = Field(min_length=1)
    assume: dict[Literal["forgery_type", "family"], dict[str, str]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known_values(self) -> Attribution:
        for level, mapping in self.assume.items():
            known = FAMILIES if level == "family" else FORGERY_TYPES
            for value in (*mapping, *mapping.values()):
                if value not in known:
                    raise ValueError(f"assume: {value!r} is no {level}; known: {', '.join(known)}")
        return self


class Detection(Strict):
    """Which reals a generator is tested against, and how the frames of a video become one score.

    reals: those of the domain that a fake was made from, or all. pooling: ``mean`` of the frames, ``median``, or
    ``top<k>``, the mean of the k frames that look most fake.
    """

    reals: Literal["same_domain", "all"] = "same_domain"
    pooling: str = Field(default="mean", pattern=r"^(mean|median|top[1-9][0-9]*)$")


class Expect(Strict):
    """What the protocol's author saw; a run that sees something else is marked."""

    faces: int | None = None
    fingerprint: str | None = Field(default=None, pattern=r"^sha256:[0-9a-f]{64}$")


class Protocol(Strict):
    """The contents of ``protocols/<name>.yaml``."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    version: int = Field(ge=1)
    origin: Literal["paper", "ours"]
    reference: str
    description: str
    warning: str | None = None
    """Printed on every page that shows this protocol's numbers."""
    seed: int = 0
    sources: list[str] = Field(min_length=1)
    prepare: dict[str, str] = Field(default_factory=dict)
    """Source → the options of ``dfad-bench prepare`` for it, where its name alone would not do: how faces are cut, say."""
    partition: Partition | None = None
    train: Split
    val: Split
    test: dict[str, Subset] = Field(min_length=1)
    attribution: Attribution
    detection: Detection = Detection()
    allow_overlap: dict[Literal["identities", "video", "sha256"], str] = Field(default_factory=dict)
    expect: Expect = Expect()

    @model_validator(mode="after")
    def _consistent(self) -> Protocol:
        if {"train", "val"} & set(self.test):
            raise ValueError("test: a subset may not be called train or val")
        splits = (self.train, self.val, *self.test.values())
        uses = any("partition" in condition for split in splits for condition in split.conditions)
        if uses != (self.partition is not None):
            raise ValueError("partition: must be defined exactly when a 'where' selects by it")
        if strangers := sorted(self.prepare.keys() - set(self.sources)):
            raise ValueError(f"prepare: {shorten(strangers)} is not among the sources")
        return self


def load_protocol(name: str) -> Protocol:
    """Return the protocol of that name, or of a YAML file when ``name`` is a path.

    Raises UnknownName, or DataError naming the key that is wrong.
    """
    found = registry.get("protocols", name)
    if isinstance(found, Path):
        protocol = read_yaml(found, Protocol)
        if protocol.name != found.stem:
            raise DataError(f"{found}: the file name is the name, but it says name: {protocol.name}.")
        return protocol
    protocol = validate(found, Protocol, f"protocol {name}")
    if protocol.name != name:
        raise DataError(f"A protocol is registered as {name!r}, but it says name: {protocol.name}.")
    return protocol
