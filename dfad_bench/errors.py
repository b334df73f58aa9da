"""What can go wrong through no bug of ours, each error being one line that says what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

OK, FAILED, USAGE, INCOMPLETE, TERMS, INTERRUPTED = 0, 1, 2, 3, 4, 130
"""Exit codes: done; an error; a wrong call; done but something is missing; terms of use not accepted; stopped by the user."""


class DfadError(Exception):
    """A user's mistake or a fault of the outside world, told in one line without a traceback."""

    exit_code = FAILED

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the message as it stands: some kinds make theirs from other arguments."""
        return _as_told, (type(self), str(self), self.__dict__)


def _as_told(kind: type[DfadError], message: str, state: dict[str, Any]) -> DfadError:
    error = kind.__new__(kind, message)
    error.__dict__.update(state)
    return error


class UsageError(DfadError):
    """The call itself is wrong: an unknown name, a bad option, a root that does not hold what was said."""

    exit_code = USAGE


class DataError(DfadError):
    """A file is missing, broken, or not what it claims to be."""


class WeightsMissing(DataError):
    """Published weights that a model starts from are not on this machine and cannot be fetched."""


class RankDied(DataError):
    """Another rank of this run is gone, so that nothing more can be done together."""


class TermsError(DfadError):
    """The terms of use of a dataset have not been accepted."""

    exit_code = TERMS


class UnknownName(UsageError):
    """A name that no registry entry carries, with the nearest one that exists."""

    def __init__(self, kind: str, name: str, known: Iterable[str], see: str) -> None:
        self.suggestion = did_you_mean(name, known)
        super().__init__(f"No {kind} is named {name!r}.{self.suggestion} {see}".rstrip())


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the nearest known name, or an empty string."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return f" Did you mean {by_lower[close[0]]!r}?" if close else ""


def shorten(names: Iterable[str], most: int = 5) -> str:
    """Join names for a message, naming ``most`` of them and counting the rest."""
    listed = list(names)
    shown = ", ".join(listed[:most])
    return shown if len(listed) <= most else f"{shown} and {len(listed) - most} more"
