"""Whole `regraft fit` runs on real image sets, each beside scikit-learn's logistic regression on the same
frozen features.

    python benchmarks/real_sets.py [SET ...] [--seeds 0 1 2] [--again] [--runs FOLDER] [--write FILE]

The sets are looked for in $REGRAFT_DATA. What came out for a set and seed is kept in
benchmarks/results/real_sets, with the version of the code, and not done again (the peer neither) unless
--again says so: a series can be made piece by piece. The table is of all that is kept. The peer gets what
an expert would give it: all training examples, C chosen on a stratified fifth of them, then refitted on
all. Both are scored on the same test examples; the difference is paired: by test example, the share of
seeds in which regraft is right, less whether the peer is, with a bootstrap over examples.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import yaml

from page import between_marks

RESULTS = Path(__file__).parent / "results" / "real_sets"
SETS = ("flowers5", "hymenoptera", "dtd10", "trashnet", "apple_leaf4", "sign_digits", "cifar10_small")


def peer(run: Path) -> tuple[np.ndarray, np.ndarray, float]:
    """(N,) test labels, the peer's predictions in the order of the run's test rows, and its seconds without
    extraction.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split

    import regraft
    from regraft.data import Examples
    from regraft.recipe import Recipe, read_recipe

    recipe = Recipe.build(read_recipe(run / "recipe.yaml"))
    examples = Examples.load(run / "examples.parquet")
    base = regraft.backbone(recipe.obtain.backbone, int(recipe.base.size))
    base.preprocess = regraft.load(run).backbone.preprocess
    known = [examples.part("train"), examples.part("val")]
    test = examples.unseal("benchmark: the peer's one reading", lambda *_, **__: None)
    features = regraft.extract(base, [path for part in known for path in part.items])
    labels = np.concatenate([part.labels for part in known])
    unseen = regraft.extract(base, test.items)
    began = time.perf_counter()
    x, held, y, held_y = train_test_split(features, labels, test_size=0.2, stratify=labels, random_state=0)
    scores = {}
    for c in (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0):
        scores[c] = LogisticRegression(C=c, max_iter=2000).fit(x, y).score(held, held_y)
    best = max(scores, key=lambda c: scores[c])
    predicted = LogisticRegression(C=best, max_iter=2000).fit(features, labels).predict(unseen)
    return test.labels, predicted, time.perf_counter() - began


def fitted(name: str, data: Path, run: Path, seed: int) -> dict:
    """What a fit in a process of its own comes to; its seconds are those from start to exit."""
    command = [
        sys.executable,
        "-c",
        "from regraft.cli import main; main()",
        "fit",
        str(data / name),
        "--out",
        str(run),
    ]
    began = time.perf_counter()
    subprocess.run([*command, "--overwrite", "--quiet", "--set", f"run.seed={seed}"], check=True)
    return told(run, seed, time.perf_counter() - began)


def told(run: Path, seed: int, seconds: float) -> dict:
    """What is kept of a finished run."""
    state, metrics = (
        json.loads((run / file).read_text(encoding="utf-8")) for file in ("run.json", "metrics.json")
    )
    rows = [row for row in pq.read_table(run / "predictions.parquet").to_pylist() if row["split"] == "test"]
    recipe = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
    version = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    return {
        "seed": seed,
        "version": version,
        "train": state["data"]["counts"]["train"] + state["data"]["counts"]["val"],
        "size": state["steps"]["base"]["decided"].rpartition(" ")[2],
        "chosen": state["chosen"],
        "precision": recipe["finetune"]["precision"],
        "threads": recipe["run"]["threads"],
        "seconds": round(seconds),
        "head_only": (metrics["baselines"].get("head only") or metrics["test"])["accuracy"]["value"],
        "right": "".join("01"[row["predicted"] == row["label"]] for row in rows),
    }


def interval(values: np.ndarray) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of (N,) values, by a bootstrap over them."""
    rng = np.random.default_rng(0)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(10_000)]
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def one(name: str, data: Path, runs: Path, seeds: list[int], again: bool) -> None:
    """One set: a fit for each seed that is wanting, and the peer, which has no luck in it."""
    place = RESULTS / f"{name}.json"
    kept = (
        json.loads(place.read_text(encoding="utf-8"))
        if place.is_file()
        else {"set": name, "peer": "", "fits": []}
    )
    for seed in seeds:
        if not again and any(fit["seed"] == seed for fit in kept["fits"]):
            continue
        run = runs / name / f"seed-{seed}"
        fit = fitted(name, data, run, seed)
        if again or not kept["peer"]:
            labels, theirs, _ = peer(run)
            kept["peer"] = "".join("01"[int(right)] for right in theirs == labels)
        kept["fits"] = sorted([*(f for f in kept["fits"] if f["seed"] != seed), fit], key=lambda f: f["seed"])
        RESULTS.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        print(f"{name}, seed {seed}: {_share(fit['right']):.1%} in {fit['seconds']} s", flush=True)


def _right(bits: str) -> np.ndarray:
    return np.array([bit == "1" for bit in bits], dtype=float)


def _share(bits: str) -> float:
    return bits.count("1") / len(bits)


def table() -> str:
    """All that is kept, as a Markdown table."""
    lines = [
        "| set | train | test | input | regraft: test accuracy | by seed | head only | "
        "scikit-learn | difference [95 %] | fine-tuned | seconds, threads, precision | version |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    gaps, below = {}, []
    for kept in (json.loads(place.read_text(encoding="utf-8")) for place in sorted(RESULTS.glob("*.json"))):
        fits, theirs = kept["fits"], _right(kept["peer"])
        each = np.array([_right(fit["right"]) for fit in fits])
        gaps[kept["set"]] = float((each.mean(axis=0) - theirs).mean())
        low, high = interval(each.mean(axis=0) - theirs)
        below += [kept["set"]] if high < 0 else []
        sizes, versions, costs = (
            ", ".join(dict.fromkeys(text))
            for text in (
                (fit["size"] for fit in fits),
                (fit["version"] for fit in fits),
                (f"{fit['seconds']} s, {fit['threads']}, {fit['precision']}" for fit in fits),
            )
        )
        tuned = sum(fit["chosen"] == "fine-tuned" for fit in fits)
        lines.append(
            f"| {kept['set']} | {fits[0]['train']} | {len(theirs)} | {sizes} | "
            f"{each.mean():.1%} | {', '.join(f'{100 * a:.1f}' for a in each.mean(axis=1))} "
            f"| {np.mean([fit['head_only'] for fit in fits]):.1%} | "
            f"{theirs.mean():.1%} | {100 * gaps[kept['set']]:+.1f} [{100 * low:+.1f}, "
            f"{100 * high:+.1f}] | {tuned} of {len(fits)} | {costs} | {versions} |"
        )
    without = [gap for name, gap in gaps.items() if name != "cifar10_small"]
    lines += [
        "",
        f"Mean difference {100 * np.mean(list(gaps.values())):+.1f} points over {len(gaps)} sets "
        f"({100 * np.mean(without):+.1f} without cifar10_small); "
        f"sets whose interval lies wholly below zero: {', '.join(below) or 'none'}.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Run what is wanting of the sets named, print and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="*", default=list(SETS))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--again", action="store_true", help="also what is kept already")
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    data = Path(os.environ.get("REGRAFT_DATA", ""))
    if options.seeds and (not os.environ.get("REGRAFT_DATA") or not data.is_dir()):
        parser.error("set REGRAFT_DATA to the folder of the real data sets")
    for seed in options.seeds:
        for name in options.sets or SETS:
            one(name, data, options.runs, [seed], options.again)
    print(table())
    if options.write:
        between_marks(options.write, "real sets", table())


if __name__ == "__main__":
    main()
