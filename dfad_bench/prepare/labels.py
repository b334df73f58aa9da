"""Brings what a dataset calls its classes to the benchmark's vocabulary."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field

from dfad_bench.errors import UsageError, did_you_mean
from dfad_bench.records.manifest import RESERVED
from dfad_bench.taxonomy import FAMILIES, FORGERY_TYPES, Taxonomy, known
from dfad_bench.types import REAL

log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Label:
    """A generator's canonical name with its coarser labels."""

    generator: str
    family: str
    forgery_type: str


@dataclass
class Labeller:
    """Labels generators by name, remembering each answer.

    What a table says about family and forgery type wins over the taxonomy, since a generator may be put to another use;
    the difference is logged once.
    """

    taxonomy: Taxonomy = field(default_factory=known)
    _answers: dict[tuple[str, str | None, str | None], Label] = field(default_factory=dict)
    _by_generator: dict[str, Label] = field(default_factory=dict)

    def label(self, name: str, family: str | None, forgery_type: str | None, where: str) -> Label:
        """Return the label of a generator; raise UsageError, beginning with ``where``.

        It refuses what is unknown, and a second label for one generator, which no manifest could be read with.
        """
        key = (name, family, forgery_type)
        if key not in self._answers:
            label = self._resolve(name, family, forgery_type, where)
            if (earlier := self._by_generator.setdefault(label.generator, label)) != label:
                raise UsageError(
                    f"{where}: {label.generator!r} is {label.family}/{label.forgery_type} here and "
                    f"{earlier.family}/{earlier.forgery_type} before. Give one of them a name of its own."
                )
            self._answers[key] = label
        return self._answers[key]

    def _resolve(self, name: str, family: str | None, forgery_type: str | None, where: str) -> Label:
        if name.lower() == REAL:
            if {family, forgery_type} - {None, REAL}:
                raise UsageError(f"{where}: a real face is labelled family {family}, forgery type {forgery_type}.")
            return Label(REAL, REAL, REAL)
        if name.lower() in RESERVED:
            raise UsageError(
                f"{where}: no generator can be called {name!r}, as scores call numbers of several generators. "
                "Give it another name."
            )
        entry = self.taxonomy.find(name)
        for value, allowed, kind in ((family, FAMILIES, "family"), (forgery_type, FORGERY_TYPES, "forgery type")):
            if value is not None and value not in allowed:
                raise UsageError(
                    f"{where}: {value!r} is no {kind}.{did_you_mean(value, allowed)} Known: {', '.join(allowed)}."
                )
            if value == REAL:
                raise UsageError(f"{where}: generator {name!r} is labelled real; only the generator 'real' is.")
        if entry is None and (family is None or forgery_type is None):
            hint = did_you_mean(name, [g.name for g in self.taxonomy.generators])
            raise UsageError(
                f"{where}: {name!r} is no known generator.{hint} Use a name of 'dfad-bench list generators', "
                "or give its family and forgery_type."
            )
        if entry is None:
            if not _NAME.fullmatch(name):
                raise UsageError(
                    f"{where}: a generator's name may hold letters, digits, '_', '.' and '-' only, not {name!r}."
                )
            assert family is not None and forgery_type is not None
            return Label(name, family, forgery_type)
        label = Label(entry.name, family or entry.family, forgery_type or entry.forgery_type)
        if (label.family, label.forgery_type) != (entry.family, entry.forgery_type):
            log.warning(
                "%s: %s is %s/%s here, %s/%s in the taxonomy; the source's label is used.",
                *(where, name, label.family, label.forgery_type, entry.family, entry.forgery_type),
            )
        return label


def check_frame(frame: float, where: str) -> int:
    """Return a frame's number; raise UsageError where it is no whole number that a manifest can hold (31 bits)."""
    if not (0 <= frame < 2**31 and frame == int(frame)):
        raise UsageError(f"{where}: frame {frame:g} is no whole number from 0 to 2147483647.")
    return int(frame)
