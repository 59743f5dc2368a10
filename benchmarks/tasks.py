"""Several labels and numbers beside what one would do by hand: the same frozen features, scikit-learn on them.

    python benchmarks/tasks.py DATA [--seeds 3] [--sets cells flags signs angles] [--full] [--write docs/benchmarks.md]

DATA holds bccd_counts, sign_digits and flowers5. By hand is a RidgeCV on standardised features for numbers, and
for labels one LogisticRegression each whose C is chosen by cross-validation. Both are fitted to all that is not
test. Sets: `cells`, red cells and platelets in photographs of blood; `flags`, whether there are white cells or
platelets; `signs`, whether the digit that a hand shows is odd, and whether it is 5 or more; `angles`, by how many
degrees, 0 to 90, a photograph of a flower was turned. With `--full` regraft fine-tunes as it does by default;
else it stops at the head.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import regraft
from page import between_marks
from regraft.artifacts import read_parquet
from regraft.evaluation import PairedDifference, in_words
from regraft.recipe import read_recipe
from regraft.tasks import Task, task_of

TRAIN, TEST = 500, 250  # pictures that are turned
SIDE = 160  # pixels of a turned picture


@dataclass(frozen=True)
class Set:
    """One set: its table or folder of tables, and what is asked of it."""

    place: Path
    asked: dict[str, list[str]]


def cells(data: Path, work: Path, seed: int) -> Set:
    return Set(data / "bccd_counts", {"targets": ["rbc", "platelets"]})


def flags(data: Path, work: Path, seed: int) -> Set:
    return Set(data / "bccd_counts", {"labels": ["has_wbc", "has_platelets"]})


def signs(data: Path, work: Path, seed: int) -> Set:
    rows = []
    for split in ("train", "test"):
        for file in sorted((data / "sign_digits" / split).rglob("*.*")):
            digit = int("".join(c for c in file.parent.name if c.isdigit()))
            rows.append((str(file), digit % 2, int(digit >= 5), split))
    return Set(
        _table(work / "signs.csv", ("path", "odd", "large", "split"), rows), {"labels": ["odd", "large"]}
    )


def angles(data: Path, work: Path, seed: int) -> Set:
    rng, rows = np.random.default_rng(seed), []
    for split, most in (("train", TRAIN), ("test", TEST)):
        files = sorted((data / "flowers5" / split).rglob("*.jpg"))
        for number in rng.permutation(len(files))[:most]:
            angle = float(rng.uniform(0, 90))
            place = work / f"{split}-{number}.png"
            _turned(files[number], angle).save(place)
            rows.append((str(place), f"{angle:.3f}", split))
    return Set(_table(work / "angles.csv", ("path", "target", "split"), rows), {})


def _turned(file: Path, angle: float) -> Image.Image:
    """The inner square of a picture, turned, so that no corner is empty."""
    picture = Image.open(file).convert("RGB")
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.crop((left, top, left + side, top + side)).rotate(angle, Image.Resampling.BICUBIC)
    inner = int(side / 2**0.5)
    edge = (side - inner) // 2
    return square.crop((edge, edge, edge + inner, edge + inner)).resize(
        (SIDE, SIDE), Image.Resampling.BICUBIC
    )


def _table(place: Path, header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> Path:
    with open(place, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return place


SETS: dict[str, Callable[[Path, Path, int], Set]] = {
    "cells": cells,
    "flags": flags,
    "signs": signs,
    "angles": angles,
}


def by_hand(features: np.ndarray, targets: np.ndarray, asked: np.ndarray, numbers: bool) -> np.ndarray:
    """(M, K) numbers, or log odds of labels, for the features `asked` about."""
    if numbers:
        model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 6, 25)))
        return np.asarray(model.fit(features, targets).predict(asked)).reshape(len(asked), -1)
    found = []
    for column in targets.T:
        one = LogisticRegressionCV(
            Cs=np.logspace(-5, 1, 13),
            l1_ratios=(0,),
            scoring="neg_log_loss",
            max_iter=2_000,
            use_legacy_attributes=True,
        )
        found.append(make_pipeline(StandardScaler(), one).fit(features, column).decision_function(asked))
    return np.stack(found, axis=1)


@dataclass(frozen=True)
class Result:
    """One run beside what was done by hand: the metric of each, and how much better regraft is."""

    name: str
    seed: int
    ours: float
    theirs: float
    nothing: float
    difference: PairedDifference
    coverage: tuple[float, ...]


def measured(name: str, made: Set, seed: int, full: bool, work: Path, cache: Path) -> Result:
    recipe: dict[str, Any] = {
        "data": {**made.asked, "seed": seed},
        "obtain": {"backbone": "packaged:efficientnet_lite0"},
        "run": {"seed": seed, "device": "cpu"},
    }
    if not full:
        recipe["finetune"] = {"epochs": 0}
    run = regraft.fit(made.place, work / f"{name}-{seed}", recipe=recipe, cache=cache)
    task: Task = task_of(run.state["data"]["kind"], run.state["data"]["classes"])
    rows = read_parquet(run.path / "examples.parquet").to_pylist()
    root = Path(run.state["data"]["source"])
    root = root if root.is_dir() else root.parent
    base = regraft.backbone(
        "packaged:efficientnet_lite0", size=int(read_recipe(run.path / "recipe.yaml")["base"]["size"])
    )
    values = regraft.extract(base, [str(root / row["source"]) for row in rows], cache)
    targets = task.encode([row["label"] for row in rows])
    test = np.array([row["split"] == "test" for row in rows])
    numbers = task.kind == "regression"
    theirs = by_hand(values[~test], targets[~test], values[test], numbers)
    stored = read_parquet(run.path / "predictions.parquet").to_pylist()
    place = {row["source"]: n for n, row in enumerate(row for row in stored if row["split"] == "test")}
    order = [place[row["source"]] for row, held in zip(rows, test, strict=True) if held]
    table = read_parquet(run.path / "predictions.parquet")
    ours = task.outputs_in(table.filter([row["split"] == "test" for row in stored]))[order]
    if numbers and task.outputs > 1:  # errors in the deviations of the targets, as regraft has them
        task = task.fitted(targets[~test])
        ours, theirs = (
            np.asarray((each - targets[~test].mean(0)) / targets[~test].std(0)) for each in (ours, theirs)
        )
    difference = task.versus(targets[test], ours, theirs, "by hand")
    metric = task.headline
    told = [metric.valued(task.facts(targets[test], each)) for each in (ours, theirs)]
    base_line = next(iter(run.metrics["baselines"].values()))[metric.name]["value"]
    held = [row["held"] for row in run.metrics.get("numbers") or [] if row["held"]]
    coverage = tuple(row["value"] for row in held)
    return Result(name, seed, told[0], told[1], base_line, difference, coverage)


def line(results: list[Result], unit: str) -> str:
    """A row of the table: the means over the seeds, and what each seed says."""
    first = results[0]
    mean = [np.mean([getattr(one, key) for one in results]) for key in ("ours", "theirs", "nothing")]
    scale = 100 if unit == "%" else 1
    said = "; ".join(in_words(one.difference).partition(":")[0].partition(" by hand")[0] for one in results)
    held = "; ".join(", ".join(f"{share:.0%}" for share in one.coverage) for one in results if one.coverage)
    shown = " | ".join(f"{scale * value:.3g}{' %' if unit == '%' else ''}" for value in mean)
    return f"| {first.name} | {shown} | {said} | {held or '-'} |"


def main() -> None:
    """Fit, compare, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS))
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--cache", type=Path, help="of features; else a folder that goes away")
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    lines = [
        "| set | regraft | by hand | knowing nothing | regraft is, seed by seed | 90 % intervals held |",
        "|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        for name in options.sets:
            results = []
            for seed in range(options.seeds):
                folder = work / f"{name}{seed}"
                folder.mkdir()
                made = SETS[name](options.data, folder, seed)
                results.append(
                    measured(name, made, seed, options.full, work, options.cache or work / "cache")
                )
                print(
                    json.dumps({"set": name, "seed": seed, "said": in_words(results[-1].difference)}),
                    flush=True,
                )
            lines.append(line(results, results[0].difference.unit))
            print(lines[-1], flush=True)
    print("\n".join(lines))
    if options.write:
        between_marks(options.write, "tasks", "\n".join(lines))


if __name__ == "__main__":
    main()
