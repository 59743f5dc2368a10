"""What every step may use: the store, the device, the events, the clock, and what the examples are. No paths, no files."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from regraft.artifacts import Events
from regraft.inference import FeatureStore
from regraft.modalities import Modality
from regraft.recipe import Recipe


@dataclass
class Context:
    """Shared by the steps of one run."""

    recipe: Recipe
    store: FeatureStore
    device: torch.device
    events: Events
    modality: Modality
    started: float = field(default_factory=time.monotonic)
    earlier: dict[str, dict[str, Any]] = field(
        default_factory=dict
    )  # what a resumed run decided before it stopped
    said: dict[str, dict[str, Any]] = field(default_factory=dict)
    share: float = 1.0  # of the budget that this walk is due: under --folds others take the rest

    def decide(self, step: str, decided: str, why: str, **details: Any) -> None:
        """Record what a step decided and why, in words. A resumed run keeps the reason it had for the same
        decision.
        """
        before = self.earlier.get(step, {})
        if before.get("decided") == decided:
            why = before.get("why", why)
        self.said[step] = {"decided": decided, "why": why, "details": details}
        self.events.emit("decided", step=step, decided=decided, why=why)

    def trial(self, quiet: bool = True) -> Context:
        """For something tried: settings of its own, the same store and clock; where `quiet`, only its
        progress is heard.
        """

        def pass_on(event: dict[str, Any]) -> None:
            if event["kind"] == "tick":
                for hear in self.events.listeners:
                    hear(event)

        events = Events(None, (pass_on,)) if quiet else self.events
        return replace(self, recipe=self.recipe.model_copy(deep=True), events=events, said={})

    @property
    def seconds_left(self) -> float:
        """Seconds of the budget that are left; infinite without one."""
        budget = self.recipe.run.budget_seconds
        return float("inf") if budget is None else budget - (time.monotonic() - self.started)

    def out_of_time(self) -> bool:
        """True when the budget is used up but for what the last step needs, a tenth of this walk's share."""
        budget = self.recipe.run.budget_seconds
        return budget is not None and self.seconds_left < 0.1 * self.share * budget
