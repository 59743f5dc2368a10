"""Recipes as users hand them in: checked against what tasks and modalities declare, all faults at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from regraft.errors import UsageError
from regraft.modalities import Modality, modality_of, names
from regraft.recipe import Recipe, faults_of, faulty
from regraft.tasks import Task, chosen_by, kinds, task_of

WITHOUT_DATA: tuple[str, ...] = ()  # a task knows its metrics and weightings before it knows any class


def asked(*layers: dict[str, Any]) -> Recipe:
    """The recipe of nested settings, of which later ones win. Raises RecipeError that names all faults.

    What depends on the task is checked by the one that `data.task` names. Where it names none, and for what
    depends on the modality, only the data say which one it is (`check_against`): until then what suits none
    of them is told. Who names a strategy, or epochs, wants fine-tuning: no forecast is asked.
    """
    recipe = Recipe.build(*layers, declared=_Seams())
    if "begin" not in recipe.finetune.model_fields_set and named(recipe):
        return Recipe.build(*layers, {"finetune": {"begin": True}})
    return recipe


def named(recipe: Recipe) -> bool:
    """Whether a recipe as it was handed in names how to fine-tune: a strategy, or for how long."""
    return "strategy" in recipe.freeze.model_fields_set or recipe.finetune.epochs not in ("auto", 0)


def check_against(recipe: Recipe, task: Task, modality: Modality) -> None:
    """Raise RecipeError that names all settings which do not go with the task or the modality of the data."""
    faults = [*_of_task(recipe.run.metric, recipe.train.class_weights, task)]
    faults += _of_modality(recipe.base.size, recipe.augment, modality)
    if faults:
        raise faulty(faults)


class _Seams:
    """See `regraft.recipe.Declared`."""

    def names(self) -> list[str]:
        """The settings of augmentation of every modality."""
        return list(dict.fromkeys(f"augment.{one}" for name in names() for one in _augmentation(name)))

    def faults(self, settings: Mapping[str, Any]) -> list[str]:
        """Faults in the eyes of the task, and of the modality that they suit best."""
        section = {name: values if isinstance(values, dict) else {} for name, values in settings.items()}
        kind = section.get("data", {}).get("task", "auto")
        metric = section.get("run", {}).get("metric", "auto")
        weights = section.get("train", {}).get("class_weights", "auto")
        faults = _of_any_task(kind, metric, weights) if isinstance(kind, str) else []
        size, augment = section.get("base", {}).get("size", "auto"), section.get("augment", {})
        size = size if isinstance(size, int) and size > 0 else "auto"  # what is no size the recipe tells
        return faults + _of_any_modality(size, augment)


def _of_any_task(kind: str, metric: Any, weights: Any) -> list[str]:
    """What the task of a kind says; where only the data will say which kind it is, that which says least."""
    try:
        tasks = [task_of(name, WITHOUT_DATA) for name in (kinds() if kind == "auto" else (kind,))]
    except UsageError as error:
        return [f"data.task: {error}"]
    told = [_of_task(metric, weights, task) for task in tasks]
    fewest: list[str] = min(told, key=len)
    return fewest


def _of_any_modality(size: Any, augment: dict[str, Any]) -> list[str]:
    """What the modality says that has the least to say, of several the one that knows the most settings."""
    if size == "auto" and not augment:
        return []
    told, faults = [], []
    if isinstance(size, int) and all(size not in modality_of(name).sizes for name in names()):
        ranges = ((name, modality_of(name).sizes) for name in names())
        known = ", ".join(f"{name} {sizes[0]:,} to {sizes[-1]:,}" for name, sizes in ranges)
        faults, size = [f"base.size: {size} is no input size of any modality: {known}"], "auto"
    for name in names():
        unknown = len(augment.keys() - set(_augmentation(name)))
        told.append((_of_modality(size, augment, modality_of(name)), unknown))
    return faults + min(told, key=lambda one: (len(one[0]), one[1]))[0]


def _augmentation(name: str) -> Iterable[str]:
    return modality_of(name).augmentation.model_fields


def _of_task(metric: Any, weights: Any, task: Task) -> list[str]:
    """What the task says of a metric and a weighting; what is no text is told by the recipe itself."""
    faults = []
    try:
        if isinstance(metric, str) and metric != "auto":
            chosen_by(task, metric)
    except UsageError as error:
        faults.append(str(error))
    known = ("auto", *task.known_weightings)
    if isinstance(weights, str) and weights not in known:
        near = difflib.get_close_matches(weights, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        faults.append(f"train.class_weights: {weights!r} is none of {', '.join(known)}{hint}")
    return faults


def _of_modality(size: Any, augment: dict[str, Any], modality: Modality) -> list[str]:
    """What a modality says of an input size and of settings of augmentation."""
    faults, sizes = [], modality.sizes
    if isinstance(size, int) and size not in sizes:
        faults.append(
            f"base.size: {size} is no input size of the modality {modality.name}: {sizes[0]:,} to {sizes[-1]:,}"
        )
    return faults + faults_of(modality.augmentation, "augment", f"of the modality {modality.name}", augment)
