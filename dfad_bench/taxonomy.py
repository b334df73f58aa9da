"""The field's known generators: what each is called, which family it belongs to and what it does to a face."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from dfad_bench.errors import UsageError, did_you_mean

FORGERY_TYPES = {
    "real": "pristine photograph",
    "efs": "entire face synthesis",
    "fs": "face swap",
    "fr": "face reenactment",
    "am": "attribute manipulation (DF40 calls it FE)",
}
FAMILIES = {
    "real": "no generator",
    "gan": "generative adversarial network",
    "diffusion": "denoising diffusion or score-based model",
    "flow": "normalizing flow, flow matching or rectified flow",
    "autoregressive": "token-by-token model",
    "autoencoder": "(variational) autoencoder without an adversary as its main mechanism",
    "graphics": "classical graphics: warping, blending, 3-D rendering",
    "undisclosed": "commercial service whose mechanism is not published",
}

DATASETS = {
    "celebdf": ("Celeb-DF", "Celeb-DF v1", "Celeb-DF v2", "CDF", "CDF v1", "CDF v2"),
    "deepfakebench": ("DeepfakeBench",),
    "deepfakeface": ("DeepFakeFace", "DFF"),
    "df40": ("DF40",),
    "ffpp": (
        *("FaceForensics++", "FaceForensics++ c23", "FaceForensics++ c40", "FF++", "FF++ c23", "FF++ c40"),
        *("DeepFakeDetection", "DFD"),
    ),
    "genface": ("GenFace",),
    "sfhq_t2i": ("SFHQ-T2I",),
}
"""What sources are called elsewhere, as in what a model says it was trained on."""
_MADE_FROM = {"deepfakebench": {"ffpp", "celebdf"}, "df40": {"ffpp", "celebdf"}}
"""Sources that hold others' faces: DF40's swaps and reenactments are of FaceForensics++ and Celeb-DF, its reals are theirs."""


@dataclass(frozen=True, slots=True)
class Generator:
    """One generator. ``name`` is its canonical name; ``aliases`` are other spellings found in datasets."""

    name: str
    title: str
    family: str
    forgery_type: str
    year: int
    reference: str
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.family not in FAMILIES or self.forgery_type not in FORGERY_TYPES:
            raise ValueError(
                f"generator {self.name!r}: unknown family or forgery type {self.family!r}, {self.forgery_type!r}"
            )


def normalise(name: str) -> str:
    """Reduce a spelling to ASCII letters and digits, so that ``SD 1.5``, ``sd-1.5`` and ``SD1.5`` meet.

    Accents go and Greek letters are spelled out: ``PixArt-Σ`` is ``pixartsigma``, not ``pixart``.
    """
    spelled = "".join(_spelled_out(character) for character in unicodedata.normalize("NFKD", name.lower()))
    return re.sub(r"[^a-z0-9]+", "", spelled)


def dataset(name: str) -> str:
    """Return the name of the source that a dataset is, whatever it is called; one that is none of ours, normalised."""
    by_spelling = {normalise(each): source for source, names in DATASETS.items() for each in (source, *names)}
    return by_spelling.get(normalise(name), normalise(name))


def share_data(one: str, other: str) -> bool:
    """Return whether two datasets, by any of their names, are one, or one is made from the other, or both from a third."""
    first, second = dataset(one), dataset(other)
    return not ({first} | _MADE_FROM.get(first, set())).isdisjoint({second} | _MADE_FROM.get(second, set()))


def _spelled_out(character: str) -> str:
    name = unicodedata.name(character, "")
    return name.rsplit(" ", 1)[-1].lower() if name.startswith("GREEK SMALL LETTER") else character


class Taxonomy:
    """A set of generators, found by any of their spellings.

    Raises ValueError when two generators share a spelling: a name that means two things cannot be trusted.
    """

    def __init__(self, generators: Iterable[Generator]) -> None:
        self.generators = tuple(generators)
        self._by_spelling: dict[str, Generator] = {}
        for generator in self.generators:
            for spelling in {normalise(each) for each in (generator.name, *generator.aliases)}:
                other = self._by_spelling.setdefault(spelling, generator)
                if other is not generator:
                    raise ValueError(f"{generator.name!r} and {other.name!r} share the spelling {spelling!r}")

    def find(self, name: str) -> Generator | None:
        """Return the generator of that name or alias, or None."""
        return self._by_spelling.get(normalise(name))

    def get(self, name: str) -> Generator:
        """Return the generator of that name or alias; raise UsageError with the nearest spelling."""
        found = self.find(name)
        if found is None:
            hint = did_you_mean(name, [g.name for g in self.generators])
            raise UsageError(f"No generator is named {name!r}.{hint} See 'dfad-bench list generators'.")
        return found

    def extended(self, more: Iterable[Generator]) -> Taxonomy:
        """Return this taxonomy with a source's own generators added."""
        return Taxonomy((*self.generators, *more))

    def search(self, words: str) -> list[Generator]:
        """Return the generators that match every word: a family or forgery type exactly, anything else as part of the entry."""
        wanted = words.lower().split()
        return [g for g in self.generators if all(_matches(g, word) for word in wanted)]


def _matches(generator: Generator, word: str) -> bool:
    if word in FAMILIES or word in FORGERY_TYPES:
        return word in (generator.family, generator.forgery_type)
    parts = (generator.name, generator.title, str(generator.year), generator.reference, *generator.aliases)
    return any(normalise(word) in normalise(part) for part in parts)


@cache
def known() -> Taxonomy:
    """Return the built-in taxonomy, read from ``taxonomy.csv``."""
    text = files("dfad_bench").joinpath("taxonomy.csv").read_text(encoding="utf-8")
    return Taxonomy(
        Generator(
            name=row["name"],
            title=row["title"],
            family=row["family"],
            forgery_type=row["forgery_type"],
            year=int(row["year"]),
            reference=row["reference"],
            aliases=tuple(alias for alias in row["aliases"].split("|") if alias),
        )
        for row in csv.DictReader(text.splitlines())
    )
