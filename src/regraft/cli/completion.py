"""What a shell offers behind TAB. It is asked at every press, so nothing here imports torch."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args, get_origin

PREFIXES = ("packaged:", "timm:", "transformers:", "path:", "run:")
MOST = 200  # folders that are looked into for runs


def run_names(incomplete: str) -> list[str]:
    """Runs below the folder that is being typed, below `runs/` where nothing is yet, and folders on the way."""
    typed = Path(incomplete)
    folder = typed if incomplete.endswith("/") else typed.parent
    found = _runs(folder, incomplete)
    if not incomplete or "runs/".startswith(incomplete):
        found += _runs(Path("runs"), "runs/")
    return sorted(set(found))


def _runs(folder: Path, incomplete: str) -> list[str]:
    found = []
    with contextlib.suppress(OSError):
        for number, place in enumerate(sorted(folder.iterdir())):
            if number == MOST:
                break
            if str(place).startswith(incomplete.removeprefix("./")) and place.is_dir():
                if (place / "run.json").is_file():
                    found.append(str(place))
                elif incomplete and not place.name.startswith("."):
                    found.append(f"{place}/")
    return found


def backbones(incomplete: str) -> list[str]:
    """References of the catalogue and of the runs here, else the prefixes there are."""
    listed = json.loads(files("regraft").joinpath("backbones/catalogue.json").read_text(encoding="utf-8"))
    runs = [f"run:{name}" for name in run_names(incomplete.removeprefix("run:"))]
    known = ["auto", *(item["reference"] for item in listed), *PREFIXES, *runs]
    return [name for name in dict.fromkeys(known) if name.startswith(incomplete)]


def licences(incomplete: str) -> list[str]:
    """Licences that --accept-licence takes: those that are not free for every use."""
    listed = json.loads(files("regraft").joinpath("backbones/licences.json").read_text(encoding="utf-8"))
    named = [item["name"] for item in listed["licences"] if item["commercial"] != "yes"]
    return [name for name in named if name.lower().startswith(incomplete.lower())]


def settings(incomplete: str) -> list[str]:
    """Settings of the recipe for --set, and behind `=` the values of one that takes a few only."""
    from regraft.recipe import Recipe, Section

    made = Recipe()
    sections = {
        name: type(section).model_fields
        for name in Recipe.model_fields
        if isinstance(section := getattr(made, name), Section)
    }
    name, equals, value = incomplete.partition("=")
    if not equals:
        dotted = [f"{section}.{field}=" for section, fields in sections.items() for field in fields]
        return [one for one in dotted if one.startswith(incomplete)]
    section, _, field = name.partition(".")
    if field not in sections.get(section, {}):
        return []
    if name == "data.task":
        from regraft.tasks import kinds

        values: Iterable[str] = kinds()
    else:
        values = _values(sections[section][field].annotation)
    return [f"{name}={one}" for one in values if one.startswith(value)]


def _values(annotation: Any) -> list[str]:
    """The words a type allows: those of its literals, and true and false."""
    if annotation is bool:
        return ["true", "false"]
    found: list[str] = []
    for part in get_args(annotation):
        found += (
            _values(part)
            if get_origin(part) is not None or part is bool
            else [part]
            if isinstance(part, str)
            else []
        )
    return found


def words(*known: str) -> Callable[[str], list[str]]:
    """A completion from a few fixed words."""

    def complete(incomplete: str) -> list[str]:
        return [word for word in known if word.startswith(incomplete)]

    return complete


tasks = words("auto", "single", "multi", "regression")
strategies = words("auto", "head", "last-1", "last-2", "half", "full", "norm", "bias", "lora")
heads = words("auto", "linear", "mlp")
preferences = words("accuracy", "speed")
devices = words("auto", "cpu", "cuda", "mps")
trackers = words("tensorboard", "mlflow", "wandb")
