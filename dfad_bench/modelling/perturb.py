"""Disturbs faces before a model sees them: what a perturbation is, how one is asked for, and where its chance comes from."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from dfad_bench import registry
from dfad_bench.errors import UsageError
from dfad_bench.records.results import PerturbationRecord
from dfad_bench.types import ModelSpec

SEVERITIES = (1, 2, 3, 4, 5)

Pixels = NDArray[np.uint8]
Strength = TypeVar("Strength")


@dataclass(frozen=True, slots=True)
class Perturbation(Generic[Strength]):
    """Something that happens to pictures, in five strengths; a file of ``perturbations/`` exposes one as ``PERTURBATION``.

    apply: (face [H, W, 3] uint8 RGB, strength, random generator) → the disturbed face, of the same shape and dtype; the
    face it is given stays as it is, and what is left to chance comes from the generator alone, in one order whatever the
    strength, so that the severities of one face share their draws. severities: the strengths from mild to severe; unit:
    what a strength is; reference: where the five come from, or ``ours``.
    """

    apply: Callable[[Pixels, Strength, np.random.Generator], Pixels]
    severities: tuple[Strength, Strength, Strength, Strength, Strength]
    unit: str
    reference: str


def generator_for(name: str, face_id: str) -> np.random.Generator:
    """Return what chance is to a face under a perturbation: the same in every process, on every machine, at any severity.

    The seed is the sha256 of ``name:face_id``. NumPy keeps a seed's bits for ever, but may change between versions what
    a distribution makes of them (NEP 19).
    """
    seed = hashlib.sha256(f"{name}:{face_id}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(seed, "big")))


@dataclass(frozen=True, slots=True)
class Level:
    """A perturbation at a severity of 1..5; printed as ``name:severity``.

    target: what the registry finds it by, its name or the path of its file. A level is sent to worker processes by that
    target, so that a plugin need not be picklable.
    """

    name: str
    severity: int
    target: str

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise ValueError(f"a severity is 1..5, not {self.severity}")

    def __str__(self) -> str:
        return f"{self.name}:{self.severity}"

    @property
    def entry(self) -> registry.Entry:
        """Where the perturbation comes from."""
        return registry.find("perturbations", self.target)

    @property
    def perturbation(self) -> Perturbation[Any]:
        """The plugin, imported at first use."""
        return _load(self.target)

    @property
    def strength(self) -> Any:
        """What the plugin makes of the severity, in its ``unit``."""
        return self.perturbation.severities[self.severity - 1]

    @property
    def record(self) -> PerturbationRecord:
        """The level as results keep it: a plugin that is a local file with its hash, the strength with its unit."""
        strength = self.strength
        if is_dataclass(strength) and not isinstance(strength, type):
            strength = ", ".join(f"{each.name} {getattr(strength, each.name)}" for each in fields(strength))
        told = f"{self.perturbation.unit}: {strength}"
        return PerturbationRecord(name=self.entry.described, severity=self.severity, strength=told)

    def disturb(self, face: Pixels, face_id: str) -> Pixels:
        """Return a face [H, W, 3] uint8 RGB as it comes out; the same face (by id) always comes out the same."""
        return self.perturbation.apply(face, self.strength, generator_for(self.name, face_id))


def parse_perturbations(texts: Iterable[str]) -> list[Level]:
    """Return the levels that are asked for, each once, in the order of their first mention.

    A text is ``jpeg:3``, ``jpeg`` for its five severities, ``all`` or ``all:3`` for every registered perturbation, or
    the path of a file in place of a name. Raises UsageError for an unknown name, a severity outside 1..5, a file that
    exposes no perturbation, and two perturbations of one name.
    """
    levels: dict[Level, None] = {}
    targets: dict[str, str] = {}
    for text in texts:
        target, severities = _split(text)
        for each in registry.entries("perturbations") if target == "all" else (target,):
            entry = registry.find("perturbations", each)
            found = str(entry.path) if entry.is_local_file else entry.name
            other = targets.setdefault(entry.name, found)
            if other != found:
                raise UsageError(f"{other} and {found} are both named {entry.name!r}. Rename the file.")
            _load(found)
            levels |= dict.fromkeys(Level(entry.name, severity, found) for severity in severities)
    return list(levels)


def _split(text: str) -> tuple[str, Sequence[int]]:
    target, colon, severity = text.rpartition(":")
    if not colon or "\\" in severity or "/" in severity:  # the colon of C:\mine.py begins no severity
        return text, SEVERITIES
    if severity not in map(str, SEVERITIES):
        raise UsageError(
            f"{text!r}: a severity is a number from 1, mild, to 5, severe. Write {target}:3, or {target} for all five."
        )
    return target, (int(severity),)


@functools.cache
def _load(target: str) -> Perturbation[Any]:
    loaded = registry.get("perturbations", target)
    if not isinstance(loaded, Perturbation):
        raise UsageError(f"{target}: PERTURBATION must be a dfad_bench.modelling.perturb.Perturbation.")
    return loaded


def check_perturbable(name: str, spec: ModelSpec) -> None:
    """Raise UsageError where a model asks for no image, before any work starts."""
    if "image" not in spec.inputs:
        raise UsageError(
            f"{name} never looks at a face's pixels, so nothing can be disturbed. Run it without perturbations."
        )
