"""What a run settled of the choices that its recipe left open, and what each step decided, with the
reasons.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from regraft.recipe import Recipe


@dataclass(frozen=True)
class Settled:
    """The value that a setting of the recipe got in this run, and why."""

    value: Any
    why: str


@dataclass
class Decisions:
    """The recipe says what was asked and never changes; here stands what was settled while the run went on.

    `settled` goes by the dotted name of a setting, `steps` by the name of a step. `earlier` is what the
    steps of a resumed run had decided before it stopped: the same decision keeps the reason it had then.
    """

    earlier: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    settled: dict[str, Settled] = field(default_factory=dict)
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)

    def settle(self, name: str, value: Any, why: str) -> None:
        """Record the value of the setting `name` ("section.name"); a later value takes the place of an
        earlier.
        """
        self.settled[name] = Settled(value, why)

    def decide(self, step: str, decided: str, why: str, details: Mapping[str, Any]) -> None:
        """Record in words what a step decided."""
        before = self.earlier.get(step, {})
        if before.get("decided") == decided:
            why = str(before.get("why", why))
        self.steps[step] = {"decided": decided, "why": why, "details": dict(details)}

    def amend(self, step: str, decided: str, why: str, details: Mapping[str, Any]) -> None:
        """Record what the step decided in place of what was recorded of it, with one more reason."""
        said = self.steps.get(step, {"why": "", "details": {}})
        reasons = "; ".join(filter(None, (said["why"], why)))
        self.decide(step, decided, reasons, {**said["details"], **details})

    def merged(self, recipe: Recipe) -> Recipe:
        """The recipe with what was settled in place of what was asked: the content of recipe.yaml."""
        layer: dict[str, Any] = {}
        for name, settled in self.settled.items():
            section, setting = name.split(".")
            layer.setdefault(section, {})[setting] = settled.value
        return Recipe.build(recipe.model_dump(), layer)

    def reasons(self) -> dict[str, str]:
        """Why each setting has the value it has, by dotted name, for run.json."""
        return {name: settled.why for name, settled in self.settled.items()}
