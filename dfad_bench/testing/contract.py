"""What every check raises, and what checks of several kinds share."""

from __future__ import annotations


class ContractError(AssertionError):
    """A plugin does not do what its interface promises."""


def require(holds: bool, otherwise: str) -> None:
    """Raise ContractError with the reason ``otherwise`` unless a promise holds."""
    if not holds:
        raise ContractError(otherwise)
