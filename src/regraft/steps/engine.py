"""What runs the frozen base: the engine that the recipe names, or the fastest that agrees with float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from regraft.backbones import Backbone
from regraft.errors import UsageError
from regraft.inference import Engine, makers, pick_engine, trial_key
from regraft.steps.context import Context

SAMPLE = 32  # images of the trial


def choose_engine(backbone: Backbone, items: Sequence[Any], count: int, context: Context) -> Engine:
    """The recipe's engine, or the fastest for `count` images that agrees with float32 on some of `items`."""
    run, pre, memory = context.recipe.run, backbone.preprocess, context.store.folder
    made = makers(backbone, context.device, run.feature_batch, cache=memory)
    if run.engine == "auto":
        some = items[:: max(1, len(items) // SAMPLE)][:SAMPLE]
        key = trial_key(backbone, context.device, run.feature_batch)
        name, trials = pick_engine(
            made, lambda: np.stack([pre.host(path) for path in some]), count, key, memory
        )
        run.engine = name  # type: ignore[assignment]
        for trial in trials:
            context.events.emit(
                "engine", step="features", chosen=trial.engine == run.engine, text=trial.in_words()
            )
    if run.engine not in made:
        raise UsageError(
            f"the engine {run.engine!r} does not run on {run.device}; these do: {', '.join(made)}."
        )
    try:
        return made[run.engine]()
    except ImportError:
        raise UsageError(
            f"the engine {run.engine!r} needs a library that is not installed: pip install openvino"
        ) from None
