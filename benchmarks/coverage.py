"""How often the 95 % intervals hold the truth: many test sets are drawn from models whose true metrics are
known.

    python benchmarks/coverage.py [--rounds 50] [--write docs/benchmarks.md]

The grid: 100, 300 and 1,000 examples, 2 to 10 classes, equal or unequal (the largest 5 times the smallest),
models that are right in about 60 to 99 % of cases; and groups of 10 examples that err together. The truth
is the metric on 200,000 examples.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from page import between_marks
from regraft.evaluation import METRICS, evaluate_single, per_class

MANY = 200_000
SIZE = 10  # examples of a group


@dataclass(frozen=True)
class World:
    """Where test sets come from: K classes of these shares, a signal so strong, groups or not."""

    classes: int
    unequal: bool
    signal: float
    grouped: bool

    def draw(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """(n,) labels, (n, K) logits, (n,) groups or None."""
        shares = np.linspace(1, 5, self.classes) if self.unequal else np.ones(self.classes)
        labels = rng.choice(self.classes, n, p=shares / shares.sum())
        groups, hard = None, np.zeros(n)
        if self.grouped:
            groups = np.arange(n) // SIZE
            hard = rng.normal(0, 1.0, n // SIZE + 1)[groups]
        logits = rng.normal(size=(n, self.classes)) * 2
        logits[np.arange(n), labels] += 2 * self.signal + hard
        return labels, logits, groups


def covered(world: World, n: int, rounds: int, seed: int) -> dict[str, tuple[float, float]]:
    """For each metric the share of rounds whose interval holds the truth, and the interval's mean width."""
    rng = np.random.default_rng(seed)
    labels, logits, _ = world.draw(MANY, rng)
    names = tuple(f"c{k}" for k in range(world.classes))
    truth = {
        name: e.value for name, e in evaluate_single(labels, logits, resamples=2).items() if name != "ece"
    }
    rows = per_class(labels, logits, names)
    for kind in ("precision", "recall", "f1"):
        truth[f"{kind} of a class"] = rows[0][kind]
    held: dict[str, list[bool]] = {name: [] for name in truth}
    widths: dict[str, list[float]] = {name: [] for name in truth}
    for number in range(rounds):
        labels, logits, groups = world.draw(n, rng)
        estimates = evaluate_single(labels, logits, groups, seed=number, resamples=500)
        found = {name: (e.low, e.high) for name, e in estimates.items()}
        first = per_class(labels, logits, names, groups, resamples=500)[0]
        for kind in ("precision", "recall", "f1"):
            if first[kind] is not None:
                found[f"{kind} of a class"] = first[f"{kind}_low"], first[f"{kind}_high"]
        for name in truth:
            if name in found and np.isfinite(found[name][0]):
                low, high = found[name]
                held[name].append(low - 1e-9 <= truth[name] <= high + 1e-9)
                widths[name].append(high - low)
    return {name: (float(np.mean(held[name])), float(np.mean(widths[name]))) for name in truth if held[name]}


def main() -> None:
    """Simulate, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    cells: dict[bool, dict[str, list[float]]] = {False: {}, True: {}}
    for number, (k, unequal, signal, n, grouped) in enumerate(
        product((2, 5, 10), (False, True), (1.0, 2.0, 3.0), (100, 300, 1000), (False, True))
    ):
        if grouped and n < 300:
            continue  # ten groups: the report warns below twenty
        for name, (share, _) in covered(
            World(k, unequal, signal, grouped), n, options.rounds, number
        ).items():
            cells[grouped].setdefault(name, []).append(share)
    lines = [
        "| metric | coverage, mean of the grid | least | most | in groups of ten: mean | least | most |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in [m.name for m in METRICS if m.name in cells[False]] + [
        "precision of a class",
        "recall of a class",
        "f1 of a class",
    ]:
        parts = []
        for grouped in (False, True):
            shares = cells[grouped].get(name, [np.nan])
            parts.append(
                f"{100 * np.mean(shares):.1f} % | {100 * min(shares):.0f} % | {100 * max(shares):.0f} %"
            )
        lines.append(f"| {name.replace('_', ' ')} | {' | '.join(parts)} |")
    print("\n".join(lines))
    if options.write:
        between_marks(options.write, "coverage", "\n".join(lines))


if __name__ == "__main__":
    main()
