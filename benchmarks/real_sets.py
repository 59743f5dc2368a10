"""Whole `regraft fit` runs on real image sets, each beside scikit-learn's logistic regression on the same frozen features.

    python benchmarks/real_sets.py [SET ...] [--seeds 3] [--out FOLDER] [--write docs/benchmarks.md]

The sets are looked for in $REGRAFT_DATA. The peer gets what an expert would give it: all training examples, C chosen on a
stratified fifth of them, then refitted on all. Both are scored on the same test examples; the difference is paired: by test
example, the share of seeds in which regraft is right, less whether the peer is, with a bootstrap over examples.
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

from page import between_marks

SETS = ("flowers5", "hymenoptera", "dtd10", "trashnet", "apple_leaf4", "sign_digits", "cifar10_small")


def peer(run: Path) -> tuple[np.ndarray, np.ndarray, float]:
    """(N,) test labels, the peer's predictions in the order of the run's test rows, and its seconds without extraction."""
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
    features = regraft.extract(base, [path for part in known for path in part.paths])
    labels = np.concatenate([part.labels for part in known])
    unseen = regraft.extract(base, test.paths)
    began = time.perf_counter()
    x, held, y, held_y = train_test_split(features, labels, test_size=0.2, stratify=labels, random_state=0)
    scores = {}
    for c in (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0):
        scores[c] = LogisticRegression(C=c, max_iter=2000).fit(x, y).score(held, held_y)
    best = max(scores, key=lambda c: scores[c])
    predicted = LogisticRegression(C=best, max_iter=2000).fit(features, labels).predict(unseen)
    return test.labels, predicted, time.perf_counter() - began


def fitted(name: str, data: Path, run: Path, extra: list[str]) -> float:
    """The seconds of a fit in a process of its own, from start to exit."""
    began = time.perf_counter()
    command = [sys.executable, "-c", "from regraft.cli import main; main()", "fit", str(data / name), "--out", str(run)]
    subprocess.run([*command, "--overwrite", "--quiet", *extra], check=True)
    return time.perf_counter() - began


def interval(values: np.ndarray) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of (N,) values, by a bootstrap over them."""
    rng = np.random.default_rng(0)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(10_000)]
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def one(name: str, data: Path, out: Path, seeds: int, extra: list[str]) -> dict:
    """One set: a fit for each seed, then the peer, which has no luck in it."""
    right, heads, seconds, chosen = [], [], [], []
    for seed in range(seeds):
        run = out / name / f"seed-{seed}"
        seconds.append(fitted(name, data, run, ["--set", f"run.seed={seed}", *extra]))
        state = json.loads((run / "run.json").read_text(encoding="utf-8"))
        rows = [row for row in pq.read_table(run / "predictions.parquet").to_pylist() if row["split"] == "test"]
        right.append([row["predicted"] == row["label"] for row in rows])
        chosen.append(state["chosen"])
        metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
        heads.append((metrics["baselines"].get("head only") or metrics["test"])["accuracy"]["value"])
    labels, theirs, _ = peer(run)
    assert [state["data"]["classes"].index(row["label"]) for row in rows] == labels.tolist()
    ours = np.array(right, dtype=float)
    gaps = ours.mean(axis=0) - (theirs == labels)
    low, high = interval(gaps)
    return {
        "set": name, "train": state["data"]["counts"]["train"] + state["data"]["counts"]["val"], "test": len(labels),
        "size": state["steps"]["base"]["decided"].rpartition(" ")[2], "chosen": chosen,
        "accuracies": ours.mean(axis=1).tolist(), "peer": float((theirs == labels).mean()), "head_only": float(np.mean(heads)),
        "seconds": float(np.mean(seconds)), "difference": float(gaps.mean()), "low": low, "high": high,
    }  # fmt: skip


def table(rows: list[dict]) -> str:
    """The results as a Markdown table."""
    lines = [
        "| set | train | test | input | regraft: test accuracy | by seed | head only | scikit-learn | difference [95 %] "
        "| fine-tuned | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        each, tuned = ", ".join(f"{100 * a:.1f}" for a in r["accuracies"]), r["chosen"].count("fine-tuned")
        gap = f"{100 * r['difference']:+.1f} [{100 * r['low']:+.1f}, {100 * r['high']:+.1f}]"
        lines.append(
            f"| {r['set']} | {r['train']} | {r['test']} | {r['size']} | {np.mean(r['accuracies']):.1%} | {each} | "
            f"{r['head_only']:.1%} | {r['peer']:.1%} | {gap} | {tuned} of {len(r['chosen'])} | {r['seconds']:.0f} |"
        )
    mean = 100 * float(np.mean([r["difference"] for r in rows]))
    photographs = [r["difference"] for r in rows if r["set"] != "cifar10_small"]
    without = f" ({100 * np.mean(photographs):+.1f} without cifar10_small)" if 0 < len(photographs) < len(rows) else ""
    below = [r["set"] for r in rows if r["high"] < 0]
    lines += ["", f"Mean difference {mean:+.1f} points over {len(rows)} sets{without}; "
              f"sets whose interval lies wholly below zero: {', '.join(below) or 'none'}."]  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    """Run the sets named and print, and write, the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=list(SETS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--write", type=Path)
    parser.add_argument("--set", action="append", default=[], help="passed on to regraft fit")
    options = parser.parse_args()
    data = Path(os.environ.get("REGRAFT_DATA", ""))
    if not os.environ.get("REGRAFT_DATA") or not data.is_dir():
        parser.error("set REGRAFT_DATA to the folder of the real data sets")
    extra = [word for setting in options.set for word in ("--set", setting)]
    rows = []
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.sets or SETS:
        rows.append(one(name, data, options.out, options.seeds, extra))
        (options.out / "real_sets.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
        print(table(rows[-1:]).splitlines()[2], flush=True)
    print(table(rows))
    if options.write:
        between_marks(options.write, "real sets", table(rows))


if __name__ == "__main__":
    main()
