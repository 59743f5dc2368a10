"""Runs that differ in their seed, as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from regraft.run.handle import Run


class Repeats:
    """Finished runs of several seeds: `path`, `runs`, and `metrics` with mean, spread (standard deviation)
    and range.
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
        """One line: the mean and how far runs lie apart."""
        a = self.metrics["accuracy"]
        return (
            f"{self.split} accuracy {a['mean']:.1%}, spread {100 * a['spread']:.1f} points over {len(self.runs)} seeds "
            f"({a['low']:.1%} to {a['high']:.1%})"
        )
