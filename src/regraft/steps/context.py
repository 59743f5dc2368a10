"""What every step may use: the recipe, the store, the device, the events, the clock, and what the examples
are.

No path and no file.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from regraft.artifacts import Events
from regraft.backbones import computes_aside
from regraft.crew import Crew
from regraft.data import Examples
from regraft.inference import FeatureStore
from regraft.modalities import Modality
from regraft.recipe import Recipe, Section
from regraft.runtime import keep_large_blocks, pick_device, pick_threads, survive_forks
from regraft.steps.decisions import Decisions
from regraft.training import Checkpoint, Ranks

BATCH, CARD_BATCH = 32, 256  # examples at once: of few, a GPU spends its time on being told what to do


class Keeper:
    """What a run keeps of its steps while they go on; this one keeps nothing, as for what is only tried."""

    def keep_examples(self, examples: Examples) -> None:
        """Keep the table as train and val are learnt from, once near-duplicates lie in one of them only."""

    def checkpoint(self, name: str) -> Checkpoint:
        """Where the training of this name is kept while it goes on."""
        return Checkpoint()

    def first_batch(self, batch: dict[str, np.ndarray]) -> None:
        """Show the first augmented batch, as the preprocessing collates it."""

    def strategies(self) -> list[dict[str, Any]]:
        """The trials of freezing strategies that an earlier, stopped attempt has made."""
        return []

    def keep_strategies(self, strategies: dict[str, Any]) -> None:
        """Keep the trials of freezing strategies, and what was chosen once that is known."""


@dataclass
class Context:
    """Shared by the steps of one run. `recipe` is what was asked; `decisions` holds what was settled."""

    recipe: Recipe
    store: FeatureStore
    device: torch.device
    events: Events
    modality: Modality
    started: float = field(default_factory=time.monotonic)
    decisions: Decisions = field(default_factory=Decisions)
    keeper: Keeper = field(default_factory=Keeper)
    share: float = 1.0  # of the budget that this walk is due: under --folds others take the rest
    ranks: Ranks = field(default_factory=Ranks)  # of the processes that train one network together

    @classmethod
    def begin(
        cls,
        recipe: Recipe,
        cache: Path | None,
        events: Events,
        modality: Modality,
        decisions: Decisions | None = None,
        crew: Crew | None = None,
        **more: Any,
    ) -> Context:
        """The context of a run or of a verb: device and threads settled, features stored in the folder
        `cache`.

        `crew` are workers that share the passes, `more` further fields. Raises UsageError for a device that is not there.
        """
        keep_large_blocks()
        survive_forks()
        asked = recipe.run
        device = pick_device(asked.device)
        threads, why = (
            pick_threads() if asked.threads == "auto" else (int(asked.threads), "the user named it")
        )
        torch.set_num_threads(threads)
        store = FeatureStore(cache, note=events.note, crew=crew)
        context = cls(recipe, store, device, events, modality, decisions=decisions or Decisions(), **more)
        context.settle("run.device", str(device), "CUDA, MPS, CPU in this order, or as asked")
        context.settle("run.feature_batch", context.feature_batch, "32, on CUDA 256, or as asked")
        context.settle("run.threads", threads, why)
        return context

    @property
    def crew(self) -> Crew | None:
        """The workers that share long work, where there are some."""
        return self.store.crew

    @property
    def feature_batch(self) -> int:
        """The examples of a batch of the frozen base."""
        asked = self.recipe.run.feature_batch
        return (CARD_BATCH if computes_aside(self.device) else BATCH) if asked == "auto" else asked

    @property
    def augmentation(self) -> Section:
        """The settings of augmentation that were asked for, as the modality declares them."""
        return self.modality.augmentation(**self.recipe.augment)

    def settle(self, name: str, value: Any, why: str) -> None:
        """Record what the recipe's setting `name` ("section.name") is in this run, and why."""
        self.decisions.settle(name, value, why)

    def decide(self, step: str, decided: str, why: str, **details: Any) -> None:
        """Record in words what a step decided, and tell it."""
        self.decisions.decide(step, decided, why, details)
        self.tell(step)

    def tell(self, step: str) -> None:
        """Tell what was decided of a step: where its parts have recorded that one after another, once, at the
        end.
        """
        said = self.decisions.steps[step]
        self.events.emit("decided", step=step, decided=said["decided"], why=said["why"])

    def trial(self, quiet: bool = True, **changes: Any) -> Context:
        """A context for something tried: decisions of its own, the same recipe, store and clock, and
        nothing is kept.

        Where it is `quiet`, only its progress is heard. `changes` take the place of fields of this context.
        """

        def pass_on(event: dict[str, Any]) -> None:
            if event["kind"] == "tick":
                for hear in self.events.listeners:
                    hear(event)

        events = Events(None, (pass_on,)) if quiet else self.events
        fresh: dict[str, Any] = {"decisions": Decisions(), "events": events, "keeper": Keeper()}
        return replace(self, **{**fresh, **changes})

    @property
    def seconds_left(self) -> float:
        """Seconds of the budget that are left; infinite without one."""
        budget = self.recipe.run.budget_seconds
        return float("inf") if budget is None else budget - (time.monotonic() - self.started)

    def out_of_time(self) -> bool:
        """True when the budget is used up but for what the last step needs, a tenth of this walk's share."""
        budget = self.recipe.run.budget_seconds
        return budget is not None and self.seconds_left < 0.1 * self.share * budget
