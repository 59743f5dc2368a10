"""Several labels and numbers beside what one would do by hand: the same frozen features, scikit-learn on them.

    python benchmarks/tasks.py DATA [--seeds 3] [--sets cells flags signs angles] [--full] [--size 96]
        [--results FOLDER] [--write docs/benchmarks.md]

DATA holds bccd_counts, sign_digits and flowers5. By hand is a RidgeCV on standardised features for numbers, and
for labels one LogisticRegression each whose C is chosen by cross-validation. Both are fitted to all that is not
test, once on the frozen features that regraft's head stands on, which may be of several depths, and once on those of
the network's last layer alone, which is what one takes without choosing. Sets: `cells`, red cells and platelets in
photographs of blood; `flags`, whether there are white cells or platelets; `signs`, whether the digit that a hand shows
is odd, and whether it is 5 or more; `angles`, by how many degrees, 0 to 90, a photograph of a flower was turned. With
`--full` regraft fine-tunes as it does by default; else it stops at the head. `--size` is the side of pictures in pixels
for all; else regraft chooses it by the data. In the folder of `--results` each seed of a set is a file, and what is
there is not measured again.

How often the intervals of numbers hold is told twice: on the test set as it is, and in the mean of DRAWS tests drawn
by lot from all examples, with a linear head each time. Only the second has new examples from where the others are from.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
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
from regraft.evaluation import PairedDifference, conformal_widths, in_words
from regraft.inference import Outcome
from regraft.recipe import read_recipe
from regraft.tasks import Task, task_of
from regraft.training import fit_linear, fit_path
from regraft.training.linear import linear_outputs

TRAIN, TEST = 500, 250  # pictures that are turned
SIDE = 160  # pixels of a turned picture
DRAWS = 20  # tests drawn by lot


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


def by_lot(features: np.ndarray, targets: np.ndarray, blocks: np.ndarray, tests: int, task: Task) -> float:
    """The share of numbers in intervals that are promised to hold 90 %, where so many `tests` are drawn by lot: a
    linear head is fitted to the rest, and its intervals are made of the rest's out-of-fold errors, as a run does.
    """
    shares = []
    for seed in range(DRAWS):
        order = np.random.default_rng(seed).permutation(len(targets))
        test, rest = order[:tests], np.sort(order[tests:])
        test = test[~np.isin(blocks[test], blocks[rest])]
        known, ones = task.fitted(targets[rest]), np.ones(len(rest))
        path = fit_path(features[rest], targets[rest], ones, known, seed=seed, blocks=blocks[rest])
        weight, bias = fit_linear(features[rest], targets[rest], ones, known, path.l2[path.chosen])
        held, new = known.answers(path.logits), known.answers(linear_outputs(features[test], weight, bias))
        for k, truth in enumerate(targets.T):
            errors = truth[rest][path.rows] - held[:, k]
            width, sizes = conformal_widths(held[:, k], errors, 0.9, blocks[rest][path.rows])
            reach = (width or np.inf) * (1.0 if sizes is None else sizes.at(new[:, k]))
            shares.append(float((np.abs(truth[test] - new[:, k]) <= reach).mean()))
    return float(np.mean(shares))


@dataclass(frozen=True)
class Result:
    """One run beside what was done by hand: what regraft handed over, the metric of each, and how much better
    regraft is.
    """

    name: str
    seed: int
    chosen: str
    ours: float
    theirs: float
    usual: float
    nothing: float
    difference: PairedDifference
    coverage: tuple[float, ...]
    drawn: float | None

    @classmethod
    def read(cls, place: Path) -> Result:
        """The result that was written there."""
        kept = json.loads(place.read_text(encoding="utf-8"))
        kept["difference"] = PairedDifference.from_dict(kept["difference"])
        return cls(**{**kept, "coverage": tuple(kept["coverage"])})


def measured(
    name: str, made: Set, seed: int, full: bool, work: Path, cache: Path, size: int | None = None
) -> Result:
    recipe: dict[str, Any] = {
        "data": {**made.asked, "seed": seed},
        "obtain": {"backbone": "packaged:efficientnet_lite0"},
        "run": {"seed": seed, "device": "cpu"},
    }
    if size:
        recipe["base"] = {"size": size}
    if not full:
        recipe["finetune"] = {"epochs": 0}
    run = regraft.fit(made.place, work / f"{name}-{seed}", recipe=recipe, cache=cache)
    task: Task = task_of(run.state["data"]["kind"], run.state["data"]["classes"])
    rows = read_parquet(run.path / "examples.parquet").to_pylist()
    root = Path(run.state["data"]["source"])
    root = root if root.is_dir() else root.parent
    items = [str(root / row["source"]) for row in rows]
    base = regraft.backbone(
        "packaged:efficientnet_lite0", size=int(read_recipe(run.path / "recipe.yaml")["base"]["size"])
    )
    last = regraft.extract(base, items, cache)
    # What the run's head stands on, of one depth or several; a fine-tuned network has none that are frozen
    values = (
        last
        if full
        else np.stack([row.features for row in run.model.rows(items) if isinstance(row, Outcome)])
    )
    targets = task.encode([row["label"] for row in rows])
    test = np.array([row["split"] == "test" for row in rows])
    numbers = task.kind == "regression"
    theirs, usual = (by_hand(each[~test], targets[~test], each[test], numbers) for each in (values, last))
    stored = read_parquet(run.path / "predictions.parquet").to_pylist()
    place = {row["source"]: n for n, row in enumerate(row for row in stored if row["split"] == "test")}
    order = [place[row["source"]] for row, held in zip(rows, test, strict=True) if held]
    table = read_parquet(run.path / "predictions.parquet")
    ours = task.outputs_in(table.filter([row["split"] == "test" for row in stored]))[order]
    if numbers and task.outputs > 1:  # errors in the deviations of the targets, as regraft has them
        task = task.fitted(targets[~test])
        mean, deviation = targets[~test].mean(0), targets[~test].std(0)
        ours, theirs, usual = (np.asarray((each - mean) / deviation) for each in (ours, theirs, usual))
    difference = task.versus(targets[test], ours, theirs, "by hand")
    metric = task.headline
    told = [metric.valued(task.facts(targets[test], each)) for each in (ours, theirs, usual)]
    base_line = next(iter(run.metrics["baselines"].values()))[metric.name]["value"]
    held = [row["held"] for row in run.metrics.get("numbers") or [] if row["held"]]
    coverage = tuple(row["value"] for row in held)
    blocks = np.array([row["block"] for row in rows])
    drawn = by_lot(values, targets, blocks, int(test.sum()), task) if numbers else None
    chosen = str(run.state["chosen"])
    return Result(name, seed, chosen, told[0], told[1], told[2], base_line, difference, coverage, drawn)


def line(results: list[Result], unit: str) -> str:
    """A row of the table: the means over the seeds, and what each seed says."""
    first = results[0]
    mean = [np.mean([getattr(one, key) for one in results]) for key in ("ours", "theirs", "usual", "nothing")]
    scale = 100 if unit == "%" else 1
    said = "; ".join(in_words(one.difference).partition(":")[0].partition(" by hand")[0] for one in results)
    chosen = "; ".join(one.chosen for one in results)
    held = "; ".join(", ".join(f"{share:.0%}" for share in one.coverage) for one in results if one.coverage)
    shown = " | ".join(f"{scale * value:.3g}{' %' if unit == '%' else ''}" for value in mean)
    lots = [one.drawn for one in results if one.drawn is not None]
    lot = f"{np.mean(lots):.1%}" if lots else "-"
    return f"| {first.name} | {chosen} | {shown} | {said} | {held or '-'} | {lot} |"


def _once(name: str, seed: int, options: argparse.Namespace, work: Path) -> Result:
    """The result of a seed of a set, measured where it is not in the folder of results."""
    kind = "full" if options.full else "head"
    place = None if options.results is None else options.results / f"{name}-{kind}-{seed}.json"
    if place is not None and place.is_file():
        return Result.read(place)
    folder = work / f"{name}{seed}"
    folder.mkdir()
    made = SETS[name](options.data, folder, seed)
    cache = options.cache or work / "cache"
    result = measured(name, made, seed, options.full, work, cache, options.size)
    if place is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(asdict(result), indent=1) + "\n", encoding="utf-8")
    return result


def main() -> None:
    """Fit, compare, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS))
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--size", type=int, help="side of pictures in pixels; else by the data")
    parser.add_argument("--cache", type=Path, help="of features; else a folder that goes away")
    parser.add_argument(
        "--results", type=Path, help="folder of results, a file a seed of a set; else none is kept"
    )
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    lines = [
        "| set | handed over | regraft | by hand, same features | by hand, last layer | knowing nothing | "
        "regraft is, seed by seed | 90 % intervals held | of tests by lot |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        for name in options.sets:
            results = []
            for seed in range(options.seeds):
                results.append(_once(name, seed, options, work))
                print(
                    json.dumps({"set": name, "seed": seed, "said": in_words(results[-1].difference)}),
                    flush=True,
                )
            lines.append(line(results, results[0].difference.unit))
            print(lines[-1], flush=True)
    print("\n".join(lines))
    if options.write:
        between_marks(options.write, "tasks full" if options.full else "tasks", "\n".join(lines))


if __name__ == "__main__":
    main()
