"""How often the 95 % intervals of several labels and of numbers hold the truth, and promised intervals the numbers.

    python benchmarks/coverage_tasks.py [--rounds 100] [--only map] [--write docs/benchmarks.md]

The grid: 100, 300 and 1,000 examples; 3 or 8 labels, as frequent or from 1 in 10 to 1 in 2, told well or badly;
numbers whose errors are normal, long-tailed (Student's t of 3), or larger where the number is; and groups of 10
examples that err together. The truth is the metric on 200,000 examples with labels, or the mean of ten metrics on
as many numbers: where tails are long, a single one is far off. A promised interval is made by so many held-out
examples, and held against 20,000 others, also against the third of these that are told to be largest.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from page import between_marks
from regraft.evaluation import (
    SEVERAL,
    Flagged,
    Metric,
    Told,
    conformal_width,
    conformal_widths,
    estimates,
    numbers_metrics,
)

MANY, TIMES, NEW = 200_000, 10, 20_000
SIZE = 10  # examples of a group
SIZES = (100, 300, 1_000)
NOISES = ("normal", "long-tailed", "growing")


@dataclass(frozen=True)
class Labels:
    """K labels, of shares alike or from 1 in 10 to 1 in 2, with a signal so strong."""

    count: int
    unequal: bool
    signal: float
    grouped: bool

    def draw(self, n: int, rng: np.random.Generator) -> tuple[Any, np.ndarray | None]:
        shares = np.linspace(0.1, 0.5, self.count) if self.unequal else np.full(self.count, 0.3)
        held = rng.random((n, self.count)) < shares
        groups, hard = _groups(n, self.grouped, rng)
        logits = (2 * held - 1) * (self.signal + hard[:, None]) + rng.normal(size=held.shape) * 1.5
        return Flagged(held.astype(np.float32), logits, logits > 0), groups


@dataclass(frozen=True)
class Amounts:
    """A number, of which a part is told."""

    noise: str
    signal: float
    grouped: bool

    def draw(self, n: int, rng: np.random.Generator) -> tuple[Any, np.ndarray | None]:
        told = rng.gamma(3, 1, n) * self.signal
        groups, hard = _groups(n, self.grouped, rng)
        kinds: dict[str, Callable[[], np.ndarray]] = {
            "normal": lambda: rng.normal(size=n),
            "long-tailed": lambda: rng.standard_t(3, n),
            "growing": lambda: rng.normal(size=n) * (0.3 + told / told.mean()),
        }
        truth = told + kinds[self.noise]() + 0.7 * hard
        return Told(truth[:, None], told[:, None]), groups


def _groups(n: int, grouped: bool, rng: np.random.Generator) -> tuple[np.ndarray | None, np.ndarray]:
    if not grouped:
        return None, np.zeros(n)
    groups = np.arange(n) // SIZE
    return groups, rng.normal(0, 1, n // SIZE + 1)[groups]


def covered(
    metrics: tuple[Metric, ...], world: Labels | Amounts, n: int, rounds: int, seed: int
) -> dict[str, float]:
    """For each metric the share of rounds whose interval holds the truth."""
    rng, truth = np.random.default_rng(seed), _truth(metrics, world)
    held: dict[str, list[bool]] = {name: [] for name in truth}
    for number in range(rounds):
        facts, groups = world.draw(n, rng)
        for name, e in estimates(metrics, facts, groups, seed=number, resamples=400).items():
            if name in truth and np.isfinite(e.low):
                held[name].append(e.low - 1e-9 <= truth[name] <= e.high + 1e-9)
    return {name: float(np.mean(some)) for name, some in held.items() if some}


@cache
def _truth(metrics: tuple[Metric, ...], world: Labels | Amounts) -> dict[str, float]:
    rng, once, found = np.random.default_rng(7), np.ones((1, MANY)), []
    for _ in range(TIMES if isinstance(world, Amounts) else 1):
        facts, _ = world.draw(MANY, rng)
        found.append({m.name: float(m.value(facts, once)[0]) for m in metrics if m.value is not None})
    truth = {name: float(np.mean([one[name] for one in found])) for name in found[0]}
    if "rmse" in truth:
        truth["rmse"] = float(np.sqrt(np.mean([one["rmse"] ** 2 for one in found])))
    return truth


def kept(noise: str, n: int, rounds: int, seed: int) -> tuple[float, float, float]:
    """The mean shares of new numbers in intervals that are promised to hold 90 %: of all, and of the third that is
    told to be largest in intervals as wide as they are, and in intervals that are as wide everywhere.
    """
    rng, shares = np.random.default_rng(seed), []
    world = Amounts(noise, 1.0, False)
    new, _ = world.draw(NEW, rng)
    told, errors = new.values[:, 0], new.absolute
    large = told >= np.quantile(told, 2 / 3)
    for _ in range(rounds):
        facts, _ = world.draw(n, rng)
        alike = conformal_width(facts.absolute, 0.9) or np.inf
        width, sizes = conformal_widths(facts.values[:, 0], facts.absolute, 0.9)
        inside = errors <= (width or np.inf) * (1.0 if sizes is None else sizes.at(told))
        shares.append((inside.mean(), inside[large].mean(), (errors <= alike)[large].mean()))
    whole, own, same = np.mean(shares, axis=0).tolist()
    return whole, own, same


def table(cells: dict[bool, dict[str, list[float]]]) -> list[str]:
    """A row a metric."""
    lines = [
        "| metric | coverage, mean of the grid | least | most | in groups of ten: mean | least | most |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in cells[False]:
        parts = []
        for grouped in (False, True):
            shares = cells[grouped].get(name, [np.nan])
            parts.append(
                f"{100 * np.mean(shares):.1f} % | {100 * min(shares):.0f} % | {100 * max(shares):.0f} %"
            )
        lines.append(f"| {name.replace('_', ' ')} | {' | '.join(parts)} |")
    return lines


def main() -> None:
    """Simulate, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument(
        "--only", nargs="*", default=[], help="metrics by name; else all, and promised intervals"
    )
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    if options.only and options.write:
        parser.error("--write takes all metrics")
    worlds: list[tuple[tuple[Metric, ...], Labels | Amounts]] = [
        (SEVERAL, Labels(*how)) for how in product((3, 8), (False, True), (0.7, 1.5), (False, True))
    ]
    worlds += [(numbers_metrics("")[:5], Amounts(*how)) for how in product(NOISES, (0.5, 1.5), (False, True))]
    cells: dict[bool, dict[str, list[float]]] = {False: {}, True: {}}
    for seed, ((metrics, world), n) in enumerate(product(worlds, SIZES)):
        if world.grouped and n < 300:
            continue  # ten groups: the report warns below twenty
        metrics = tuple(one for one in metrics if not options.only or one.name in options.only)
        for name, share in covered(metrics, world, n, options.rounds, seed).items():
            cells[world.grouped].setdefault(name, []).append(share)
    lines = table(cells)
    if not options.only:
        lines += [
            "",
            "| errors | held-out examples | 90 % intervals held | of the largest third | there as wide as elsewhere |",
            "|---|---|---|---|---|",
        ]
    for noise, n in product(NOISES, SIZES) if not options.only else ():
        shares = " | ".join(f"{share:.1%}" for share in kept(noise, n, 4 * options.rounds, 0))
        lines.append(f"| {noise} | {n:,} | {shares} |")
    print("\n".join(lines))
    if options.write:
        between_marks(options.write, "coverage of tasks", "\n".join(lines))


if __name__ == "__main__":
    main()
