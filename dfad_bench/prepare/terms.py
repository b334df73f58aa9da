"""Terms of use that come with a dataset: shown once, accepted once, asked for again when they change."""

from __future__ import annotations

import hashlib
import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfad_bench.config import home_dir
from dfad_bench.errors import DataError, TermsError
from dfad_bench.interfaces import Source
from dfad_bench.records.json_files import write_text

SUFFIX = ".terms.md"


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of a dataset: ``subject`` is what is accepted, a source's name or ``hf:org/name``."""

    subject: str
    text: str

    @property
    def sha256(self) -> str:
        """The hash of the text, so that changed terms are asked for again."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def terms_of(source: Source, name: str) -> Terms | None:
    """Return the terms in the file beside a source's module, or None where it has none.

    A source may give a property ``terms_subject`` where its terms are those of one dataset among many.
    """
    path = Path(inspect.getfile(type(source))).with_suffix(SUFFIX)
    if not path.is_file():
        return None
    return Terms(getattr(source, "terms_subject", name), path.read_text(encoding="utf-8"))


def is_accepted(terms: Terms) -> bool:
    """Return whether exactly these terms were accepted on this machine."""
    return bool(_accepted().get(terms.subject) == terms.sha256)


def accept(terms: Terms) -> None:
    """Remember that these terms were accepted, in the folder that DFAD_BENCH_HOME names."""
    path = _path()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(_accepted() | {terms.subject: terms.sha256}, indent=1, sort_keys=True) + "\n")


def refusal(terms: Terms) -> TermsError:
    """Return the error of a preparation whose terms were not accepted."""
    return TermsError(
        f"{terms.subject} comes with terms of use, shown above. If you accept them, run the command again with --accept-terms; "
        "you are asked once."
    )


def _path() -> Path:
    return home_dir() / "accepted_terms.json"


def _accepted() -> dict[str, Any]:
    path = _path()
    if not path.is_file():
        return {}
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}). Remove it and accept the terms again.") from None
    if not isinstance(stored, dict):
        raise DataError(f"{path} is damaged. Remove it and accept the terms again.")
    return stored
