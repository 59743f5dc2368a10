"""What runs the frozen base: the engine that the recipe names, or the fastest that agrees with float32."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from regraft.backbones import Backbone
from regraft.data.part import Part
from regraft.errors import BudgetError, UsageError
from regraft.inference import Engine, feature_key, makers, pick_engine, trial_key
from regraft.steps.context import Context

TRIAL_ITEMS = 32  # images of the trial


@dataclass(frozen=True)
class Frozen:
    """The frozen base and the engine that runs it: features of any part, from the store if it has them."""

    backbone: Backbone
    engine: Engine
    context: Context

    def __call__(self, part: Part, view: str = "plain") -> np.ndarray:
        """(N, width) features of a part: of its examples as they are, or as one of the modality's probes
        views them, by the name of the probe's setting.

        Raises BudgetError where the passes would take longer than the budget leaves.
        """
        return self.columns(part, ("pooled",), view)[0]

    def columns(self, part: Part, columns: tuple[str, ...], view: str = "plain") -> list[np.ndarray]:
        """The same of every output of the engine, by the names under which the store keeps them."""
        context, key = self.context, feature_key(self.engine, view)
        views = {probe.setting: probe.view for probe in context.modality.probes}
        pre = self.backbone.preprocess if view == "plain" else views[view](self.backbone.preprocess)
        label = f"features of {part.name}" + ("" if view == "plain" else f" ({view})")
        began = time.monotonic()

        def tick(done: int, total: int, **fields: Any) -> None:
            context.events.tick(done=done, total=total, **fields)
            needed = (time.monotonic() - began) / done * (total - done)
            if needed > context.seconds_left and done >= 2 * self.engine.batch:
                raise BudgetError(
                    f"the {label} alone would take {needed:.0f} s more, the budget leaves "
                    f"{context.seconds_left:.0f} s. Allow more with --budget, or a smaller input with --size."
                )

        return context.store.features(part.ids, part.items, key, pre, self.engine, tick, label, columns)


def choose_engine(
    backbone: Backbone,
    items: Sequence[Any],
    count: int,
    context: Context,
    depths: tuple[int, ...] = (),
    like: str = "",
) -> Engine:
    """The recipe's engine, or the fastest for `count` images that agrees with float32 on some of `items`; without
    a trial the one of the name `like`. It gives the features at `depths` too.
    """
    run, pre, memory = context.recipe.run, backbone.preprocess, context.store.folder
    made = makers(backbone, context.device, context.feature_batch, depths, cache=memory)
    name: str = like or run.engine
    if name == "auto":
        sample = items[:: max(1, len(items) // TRIAL_ITEMS)][:TRIAL_ITEMS]
        key = trial_key(backbone, context.device, context.feature_batch)
        name, trials = pick_engine(
            made, lambda: pre.collate([pre.host(path) for path in sample]), count, key, memory
        )
        for trial in trials:
            context.events.emit("engine", step="features", chosen=trial.engine == name, text=trial.in_words())
    if name not in made:
        raise UsageError(
            f"the engine {name!r} does not run on {context.device}; these do: {', '.join(made)}."
        )
    why = (
        "the user named it"
        if name == run.engine
        else "the fastest that agrees with float32 PyTorch, by a trial"
    )
    context.settle("run.engine", name, why)
    try:
        return made[name]()
    except ImportError:
        raise UsageError(
            f"the engine {name!r} needs a library that is not installed: pip install openvino"
        ) from None
