"""Errors a user can meet: each says what was found, where, and what to do. `exit_code` is what the CLI
returns.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Any


class RegraftError(Exception):
    """Base of every error regraft raises on purpose. It reaches another process whole."""

    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[RegraftError], args: tuple[Any, ...], fields: dict[str, Any]) -> RegraftError:
    """An error with the same message and fields, whatever its kind asks for when it is first made."""
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(fields)
    return error


class Unreadable(ValueError):
    """An item (a file, bytes, an array) is nothing that its modality can work with; the message says why."""


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


class ChangedError(RegraftError):
    """A file is not what it was when the run first looked at it; `path` names it, `how` says what became of
    it.
    """

    def __init__(self, path: str, how: str, message: str = "") -> None:
        self.path, self.how = path, how
        super().__init__(
            message or f"{path} is not the file that was looked at before: {how}. Put it back as it was."
        )

    def __reduce__(self) -> tuple[type[ChangedError], tuple[str, str, str]]:
        return type(self), (self.path, self.how, str(self))  # it may come from a process that reads

    def of_run(self, run: str, changed: Iterable[str]) -> ChangedError:
        """This error as a run tells it: `changed` are all files that are not as they were, `run` the folder
        of the run.
        """
        others = [name for name in changed if not self.path.endswith(name)]
        some = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        text = (
            f"{self.path} is not as it was when the run began: "
            f"{self.how}{f'; so with {some}' if some else ''}. Nothing was learnt from it. "
            f"Put it back as it was, then: regraft fit --resume --out {shlex.quote(run)}"
        )
        return ChangedError(self.path, self.how, text)


class SealedError(RegraftError):
    """The test set was asked for before everything was decided."""


class BackboneError(UsageError):
    """A backbone reference cannot be obtained."""


class NotInstalledError(BackboneError):
    """What a backbone needs is not installed; the message names the extra that brings it."""


class BudgetError(RegraftError):
    """The time allowed is over before anything usable exists."""
