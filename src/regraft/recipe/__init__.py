"""Recipe: every choice of every step, typed, with its default and the reason for it.

One table serves the command line (`--set finetune.epochs=3`), recipe.yaml and Python. A recipe is what was
asked, and it never changes. A run decides each "auto" from the data (`steps.decisions`) and writes the
recipe with its decisions, so a finished recipe.yaml holds none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any, Protocol

import yaml
from pydantic import ValidationError, model_validator

from regraft.errors import RecipeError
from regraft.recipe.faults import faults_of, faulty, told
from regraft.recipe.sections import (
    Auto,
    BaseRecipe,
    DataRecipe,
    FinetuneRecipe,
    FreezeRecipe,
    HeadRecipe,
    ObtainRecipe,
    RunRecipe,
    Section,
    Share,
    TrainRecipe,
)

__all__ = [
    "Auto",
    "Declared",
    "FinetuneRecipe",
    "HeadRecipe",
    "Recipe",
    "Section",
    "Share",
    "faults_of",
    "faulty",
    "parse_settings",
    "read_recipe",
]


class Declared(Protocol):
    """What a recipe cannot know by itself: the settings that modalities and tasks declare."""

    def names(self) -> list[str]:
        """The dotted names of settings that modalities declare, for close matches."""

    def faults(self, settings: Mapping[str, Any]) -> list[str]:
        """What is wrong with nested settings, as they were given, in the eyes of the tasks and modalities."""


class Recipe(Section):
    """Every choice of every step.

    `augment` is how examples are varied in training. Its settings are the modality's own (see
    `regraft.modalities.Modality.augmentation`), so here they are plain values by name.
    """

    data: DataRecipe = DataRecipe()  # type: ignore[call-arg]
    obtain: ObtainRecipe = ObtainRecipe()  # type: ignore[call-arg]
    base: BaseRecipe = BaseRecipe()  # type: ignore[call-arg]
    freeze: FreezeRecipe = FreezeRecipe()  # type: ignore[call-arg]
    head: HeadRecipe = HeadRecipe()  # type: ignore[call-arg]
    train: TrainRecipe = TrainRecipe()  # type: ignore[call-arg]
    finetune: FinetuneRecipe = FinetuneRecipe()  # type: ignore[call-arg]
    augment: dict[str, Any] = {}
    run: RunRecipe = RunRecipe()  # type: ignore[call-arg]

    @model_validator(mode="after")
    def _works_together(self) -> Recipe:
        moving = (
            self.freeze.norm_statistics == "moving"
            and self.freeze.strategy != "head"
            and self.finetune.epochs != 0
        )
        if moving and self.finetune.batch_size == 1:
            raise ValueError(
                "freeze.norm_statistics moving takes statistics of batches, which one example has none of: "
                "finetune.batch_size is 2 at least"
            )
        return self

    @classmethod
    def build(cls, *layers: dict[str, Any], declared: Declared | None = None) -> Recipe:
        """Merge nested dictionaries, later ones win. Raises RecipeError that lists every fault, those in the
        eyes of `declared` among them.
        """
        merged: dict[str, Any] = {}
        for layer in layers:
            _merge(merged, layer)
        made, faults = None, declared.faults(merged) if declared else []
        try:
            made = cls.model_validate(merged)
        except ValidationError as error:
            faults = [*_faults(error, declared.names() if declared else []), *faults]
        if made is None or faults:
            raise faulty(faults)
        return made

    def open_choices(self) -> list[str]:
        """Dotted names still "auto"."""
        dump = self.model_dump()
        return [
            f"{section}.{name}"
            for section, fields in dump.items()
            for name, v in fields.items()
            if v == "auto"
        ]

    def to_yaml(self) -> str:
        """The text of recipe.yaml."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _merge(into: dict[str, Any], layer: dict[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, dict) else value


def _faults(error: ValidationError, more: list[str]) -> list[str]:
    """The faults of a whole recipe; `more` are further names that are settings."""
    sections = {name: field.annotation for name, field in Recipe.model_fields.items()}
    own = [f"{section}.{name}" for section, made in sections.items() for name in _names(made)]
    return told(error, [*own, *more, *sections])


def _names(section: Any) -> list[str]:
    return list(section.model_fields) if isinstance(section, type) and issubclass(section, Section) else []


# A ValueError is a date that is none, or a number of too many digits
_NO_YAML = (yaml.YAMLError, ValueError, RecursionError)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def read_recipe(path: Path) -> dict[str, Any]:
    """The nested settings of a recipe.yaml. Raises RecipeError for what is not one."""
    try:
        sections = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, *_NO_YAML) as error:
        raise RecipeError(f"{path} cannot be read as a recipe:", [_first_line(error)]) from None
    if sections is None:
        return {}
    if not isinstance(sections, dict):
        raise RecipeError(
            f"{path} is not a recipe:", [f"found {type(sections).__name__}, wanted sections of settings"]
        )
    return sections


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """`["finetune.epochs=3", ...]` as a nested dictionary. Raises RecipeError that lists every pair that is
    not one.
    """
    nested: dict[str, Any] = {}
    faults = []
    for pair in pairs:
        name, equals, text = pair.partition("=")
        parts = name.strip().split(".")
        if not equals or len(parts) != 2 or not all(parts):
            faults.append(f"{pair!r} is not of the form section.name=value")
            continue
        try:
            nested.setdefault(parts[0], {})[parts[1]] = yaml.safe_load(text) if text.strip() else ""
        except _NO_YAML as error:
            faults.append(
                f"{shorten(pair, 80, placeholder=' ...')!r} gives no value in YAML: {_first_line(error)}"
            )
    if faults:
        raise RecipeError("--set takes section.name=value:", faults)
    return nested
