"""Runs that differ in the seed of training only, taken together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from regraft.artifacts import write_json
from regraft.errors import UsageError
from regraft.recipe import read_recipe
from regraft.run.asked import asked
from regraft.run.handle import Run

Settings = dict[str, Any]


def seeds_of(recipe: Settings, repeats: int) -> range:
    """The seeds of so many runs. Raises UsageError for fewer than two, RecipeError where one cannot be a
    seed.
    """
    if repeats < 2:
        raise UsageError(f"--repeats {repeats}: two runs at least tell a spread.")
    first = asked(recipe).run.seed
    asked(recipe, {"run": {"seed": first + repeats - 1}})
    return range(first, first + repeats)


def repeated(folder: Path, recipe: Settings, seeds: range, walk: Callable[[Path, Settings], Run]) -> Repeats:
    """Runs of several seeds below `folder`, and repeats.json beside them.

    `walk` makes a run in a folder by a recipe. The first one's backbone, input size and depth are kept for
    the others.
    """
    runs: list[Run] = []
    kept: Settings = {}
    for seed in seeds:
        settings = asked(recipe, kept, {"run": {"seed": seed}}).model_dump(exclude_unset=True)
        runs.append(walk(folder / f"seed-{seed}", settings))
        settled = read_recipe(runs[0].path / "recipe.yaml")
        kept = {
            "obtain": {"backbone": settled["obtain"]["backbone"]},
            "base": {name: settled["base"][name] for name in ("size", "depth")},
        }
    repeats = Repeats(folder, runs)
    write_json(folder / "repeats.json", repeats.to_dict())
    return repeats


class Repeats:
    """Finished runs of several seeds: the folder `path` of all, the `runs`, and `metrics` with mean, spread
    (standard deviation) and range of each metric on `split`.
    """

    def __init__(self, path: Path, runs: list[Run]) -> None:
        self.path, self.runs = path, runs
        self.split = next((s for s in ("test", "cv", "val") if all(s in run.metrics for run in runs)), "")
        rows = [run.metrics[self.split] for run in runs] if self.split else []
        values = {name: np.array([row[name].value for row in rows]) for name in (rows[0] if rows else ())}
        self.metrics = {
            name: {
                "mean": float(v.mean()),
                "spread": float(v.std(ddof=1)),
                "low": float(v.min()),
                "high": float(v.max()),
            }
            for name, v in values.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        rows = [
            {"path": str(run.path), "seed": run.state["seed"], "chosen": run.state["chosen"]}
            for run in self.runs
        ]
        return {"split": self.split, "metrics": self.metrics, "runs": rows}

    def headline(self) -> str:
        """The mean of the headline metric and how far the runs lie apart, in one line."""
        metric = self.runs[0].task.headline
        a = self.metrics[metric.name]
        return (
            f"{self.split} {metric.words} {metric.shown(a['mean'])}, spread {metric.step(a['spread'])} over "
            f"{len(self.runs)} seeds ({metric.shown(a['low'])} to {metric.shown(a['high'])})"
        )
