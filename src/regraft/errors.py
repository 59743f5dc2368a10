"""Errors a user can meet: each says what was found, where, and what to do. `exit_code` is what the CLI returns."""

from __future__ import annotations

from collections.abc import Iterable


class RegraftError(Exception):
    """Base of every error regraft raises on purpose."""

    exit_code = 1


class UsageError(RegraftError):
    """The call itself cannot be obeyed (a wrong name, a folder in the way, a missing choice)."""

    exit_code = 2


class FaultsError(UsageError):
    """Several faults found at once; `faults` keeps them one by one."""

    def __init__(self, headline: str, faults: Iterable[str], advice: str = "") -> None:
        self.headline, self.faults, self.advice = headline, tuple(faults), advice
        lines = [headline, *(f"  - {fault}" for fault in self.faults)]
        if advice:
            lines.append(advice)
        super().__init__("\n".join(lines))


class DataError(FaultsError):
    """The data cannot be worked with."""


class RecipeError(FaultsError):
    """The settings are wrong; all of them are listed."""


class SealedError(RegraftError):
    """The test set was asked for before everything was decided."""


class BackboneError(UsageError):
    """A backbone reference cannot be obtained."""


class BudgetError(RegraftError):
    """The time allowed is over before anything usable exists."""
