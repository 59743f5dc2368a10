"""Features outside any run: of items that the user names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from regraft.backbones import Backbone, computes_aside
from regraft.crew import Crew
from regraft.data.known import known_file
from regraft.errors import UsageError
from regraft.inference.engines import feature_key
from regraft.inference.store import FeatureStore
from regraft.inference.trial import makers, pick_engine, trial_key
from regraft.runtime import keep_large_blocks, pick_device

BATCH, CARD_BATCH = 32, 256
TRIAL_ITEMS = 32  # items of the engines' trial


def features_alone(
    base: Backbone,
    items: Sequence[Any],
    cache: Path | None,
    device: str,
    engine: str,
    depths: tuple[int, ...] = (),
    crew: Crew | None = None,
) -> list[np.ndarray]:
    """The pooled (N, width) float32 features of items, then for each of `depths` the pooled (N, channels)
    output of so many first stages; all from one pass.

    With a `cache`, whose items are paths, each is computed once; a `crew` shares them. Raises UsageError for a depth there is not
    and an engine that does not run on the device.
    """
    keep_large_blocks()
    items, on = list(items), pick_device(device)
    if wrong := [depth for depth in depths if not 0 < depth < len(base.stages)]:
        raise UsageError(
            f"depths are 1 to {len(base.stages) - 1}, one less than there are stages; found {wrong}."
        )
    batch = CARD_BATCH if computes_aside(on) else BATCH
    made = makers(base, on, batch, depths, cache=cache)
    if engine == "auto":
        some = items[:: max(1, len(items) // TRIAL_ITEMS)][:TRIAL_ITEMS]
        key = trial_key(base, on, batch, depths)
        engine, _ = pick_engine(
            made,
            lambda: base.preprocess.collate([base.preprocess.host(item) for item in some]),
            len(items),
            key,
            cache,
        )
    if engine not in made:
        raise UsageError(f"the engine {engine!r} does not run on {on}; these do: {', '.join(made)}.")
    if cache is None:
        ids = [f"{number:032x}" for number in range(len(items))]
    else:
        items = [known_file(os.fspath(item)) for item in items]
        ids = [item.id for item in items]
    runs, columns = made[engine](), ("pooled", *(f"depth {depth}" for depth in depths))
    return FeatureStore(cache, crew=crew).features(
        ids, items, feature_key(runs), base.preprocess, runs, _unheard, columns=columns
    )


def _unheard(**_: Any) -> None:
    """Progress that nobody asked for."""
