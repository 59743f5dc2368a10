"""What is typed on the command line, as numbers and settings."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from regraft.errors import UsageError

Settings = dict[str, dict[str, Any]]


def seconds(text: str | None) -> float | None:
    """The seconds in `10m`, `90s`, `1h30m` or a plain number; None for None. Raises UsageError."""
    if text is None:
        return None
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip())
    if not match or not any(match.groups()):
        raise UsageError(f"--budget {text!r} is no time. Write 10m, 90s or 1h30m.")
    hours, minutes, rest = (float(part or 0) for part in match.groups())
    return _finite("--budget", hours * 3600 + minutes * 60 + rest)


def parameters(text: str | None) -> int | None:
    """The count in `5M`, `400k` or a plain number; None for None. Raises UsageError."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMG]?)", text.strip())
    if not match:
        raise UsageError(f"--max-params {text!r} is no number. Write 5M or 400k.")
    return int(_finite("--max-params", float(match[1]) * 1000 ** " kMG".index(match[2] or " ")))


def in_bytes(text: str, option: str = "--limit") -> int:
    """The bytes in `500MB`, `2GB`, `1.5 GB` or a plain number, given as `option`. Raises UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]?)B?", text.strip())
    if not match:
        raise UsageError(f"{option} {text!r} is no size. Write 500MB or 2GB.")
    return int(_finite(option, float(match[1]) * 1000 ** " kMGT".index(match[2] or " ")))


def moment(text: str, option: str) -> float:
    """The seconds in `5ms`, `0.5s`, `2m` or a plain number, given as `option`. Raises UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|)", text.strip())
    if not match:
        raise UsageError(f"{option} {text!r} is no time. Write 5ms, 30s or 2m.")
    return _finite(option, float(match[1]) * {"ms": 0.001, "s": 1, "m": 60, "": 1}[match[2]])


def _finite(option: str, number: float) -> float:
    if number > sys.maxsize:
        raise UsageError(f"{option}: the number is too large.")
    return number


def place(data: Sequence[str] | None) -> str:
    """DATA as one text: several places, which a shell may have written out of a pattern, as a list in braces;
    "" where nothing was named.

    Raises UsageError for names that such a list cannot hold.
    """
    if not data:
        return ""
    if len(data) == 1:
        return data[0]
    if wrong := [name for name in data if set(name) & set("{},")]:
        raise UsageError(f"several places were named, one of them with a comma or brace: {wrong[0]}")
    return "{" + ",".join(data) + "}"


def asked_of_data(task: str | None, labels: str | None, targets: str | None) -> dict[str, Any]:
    """The settings of `data` that say what is to be told: `--task`, and the columns of `--labels` and
    `--targets`.
    """

    def columns(text: str | None) -> list[str] | None:
        return None if text is None else [name.strip() for name in text.split(",") if name.strip()]

    return {"task": task, "labels": columns(labels), "targets": columns(targets)}


def settings(config: Path | None, sets: list[str] | None, named: Settings) -> Settings:
    """The settings of a recipe.yaml, of options that have a name and of `--set`; of two values the later
    one counts.

    Options that were not given are None. Raises RecipeError that names all faults.
    """
    from regraft.recipe import parse_settings, read_recipe
    from regraft.run.asked import asked

    given = {
        section: {name: value for name, value in values.items() if value is not None}
        for section, values in named.items()
    }
    layers = [read_recipe(config) if config else {}, given, parse_settings(sets or [])]
    asked(*layers)
    merged: Settings = {}
    for layer in layers:
        for section, values in layer.items():
            if values:
                merged.setdefault(section, {}).update(values)
    return merged
