"""Head alone or fine-tuned: how often the choice is right, by regraft's rule and by the rule it had before.

    python benchmarks/choice.py [SET ...] [--seeds 0 1] [--sizes 100 200 400] [--again] [--write FILE]

The sets are looked for in $REGRAFT_DATA. Of each, a stratified subset is all that a rule sees, at inputs of
96 pixels; all other examples (1,000 at most) are the truth. Every subset is trained on as a fit does it: in
three folds, on its train part with val, and on all of it. Both rules are then asked what they would hand
over, and its log loss on the truth is compared with that of the better of head alone and fine-tuned model.
Temperatures are those of the folds, the same for both rules, so that only the choice differs. `trainings`
are passes over the subset in units of one training of the whole length on all of it.

The rule before: below 50 val examples all three folds, and the share of fine-tuned weights of the lowest
loss if its gain is above one standard error; else the higher accuracy on val, ties by log loss, of a
fine-tuned model whose epoch and share val had chosen too, and one more training on train and val.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import torch
from torch import nn

from page import between_marks
from regraft.artifacts import Events
from regraft.backbones import obtain_weights
from regraft.data import Examples, audit_files, make_examples
from regraft.data.audit import find_near
from regraft.data.part import Part
from regraft.evaluation import (
    fit_temperature,
    folds_of,
    log_losses,
    refined_log_losses,
    score,
    standard_error,
)
from regraft.inference import FeatureStore, feature_key
from regraft.modalities import modality_of, read_source
from regraft.recipe import Recipe
from regraft.steps.audit import apart
from regraft.steps.base import base
from regraft.steps.context import Context
from regraft.steps.engine import choose_engine
from regraft.steps.finetune.judge import Comparison, compare
from regraft.steps.finetune.mix import SHARES, mixtures
from regraft.steps.finetune.rules import HELD, Tuning, settled
from regraft.steps.finetune.tune import Finetuned, Tuner
from regraft.steps.freeze import freeze
from regraft.steps.head import head
from regraft.steps.train import apply_head, fit_chosen, train_head
from regraft.tasks import chosen_by, task_of

RESULTS = Path(__file__).parent / "results" / "choice"
SETS = ("flowers5", "hymenoptera", "dtd10", "trashnet", "apple_leaf4", "sign_digits", "cifar10_small")
SIZE, TRUTH, WORN = 96, 1_000, 50


def subset(root: Path, count: int, seed: int) -> tuple[list[Path], list[str], list[bool]] | None:
    """Paths, classes, and whether each is in the subset; None where the set is hardly larger."""
    paths = sorted(path for path in root.glob("*/*/*") if path.is_file() and not path.name.startswith("."))
    labels = [path.parent.name for path in paths]
    if count > 0.8 * len(paths):
        return None
    rng = np.random.default_rng([seed, count])
    order = rng.permutation(len(paths))
    place = dict.fromkeys(sorted(set(labels)), 0)
    rank = np.empty(len(paths))
    for i in order:  # any first ones hold each class by its share
        rank[i] = (place[labels[i]] + rng.uniform()) / labels.count(labels[i])
        place[labels[i]] += 1
    chosen = set(np.argsort(rank, kind="stable")[:count].tolist())
    rest = set([i for i in order.tolist() if i not in chosen][:TRUTH])
    kept = [i for i in range(len(paths)) if i in chosen or i in rest]
    return [paths[i] for i in kept], [labels[i] for i in kept], [i in chosen for i in kept]


class Subset:
    """What a rule sees of a set, prepared as a fit prepares it: parts, features, heads, settings; and the
    truth.
    """

    def __init__(
        self, name: str, found: tuple[list[Path], list[str], list[bool]], seed: int, folder: Path
    ) -> None:
        self.seed, count = seed, sum(found[2])
        examples = read(folder / f"{name}-{count}-{seed}.csv", found, seed)
        self.recipe = Recipe.build({"base": {"size": SIZE}, "run": {"seed": seed, "device": "cpu"}})
        self.context = Context(
            self.recipe, FeatureStore(folder / "cache"), torch.device("cpu"), Events(), modality_of("image")
        )
        self.backbone = base(obtain_weights("packaged:efficientnet_lite0"), examples.facts(), self.context)
        self.plan, self.task = freeze(self.backbone, self.context), task_of("single", examples.task.classes)
        self.engine = choose_engine(self.backbone, examples.part("train").items, count, self.context)
        values = self.features(examples.part("train").then(examples.part("val")))
        images = self.context.modality
        likeness = images.likeness(examples.facts())
        near = find_near(examples.inputs(), None, (values, None), likeness, lambda **_: None)
        examples = apart(examples, near, True, seed).examples
        self.fit, self.val = examples.part("train"), examples.part("val")
        self.truth, both = examples.unseal("a benchmark", lambda *_, **__: None), self.fit.then(self.val)
        self.known = replace(both, values=self.features(both))
        options = head(self.backbone.width, self.task, len(both), self.context)
        self.heads = train_head(options, self.known, len(self.fit), self.task, self.context)
        asked, size = self.recipe.finetune, self.backbone.preprocess.size
        suited = images.settings(examples.facts(), size)
        found = settled(asked, len(self.fit), suited, size)
        (mirror,) = images.probes
        mirrored = self.features(self.fit, mirror.view(self.backbone.preprocess), "mirror")
        allowed, _ = mirror.allowed(self.known.values[: len(self.fit)], mirrored)
        augment = images.augmentation(mirror=allowed, **suited.augment)
        units = "avx512_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
        found["precision"] = "bfloat16" if units else "float32"
        self.tuning = Tuning.of(asked, augment, self.heads.chosen.class_weights, **found)
        self.every = self.rows_of(both)

    def features(self, part: Part, pre: Any = None, view: str = "plain") -> np.ndarray:
        """(N, width) frozen features of a part."""
        key, pre = feature_key(self.engine, view), pre or self.backbone.preprocess
        return self.context.store.features(part.ids, part.items, key, pre, self.engine, lambda **_: None)[0]

    def rows_of(self, part: Part) -> Part:
        """What fine-tuning is given of a part."""
        weights = self.task.weighted(part.labels, part.weights, self.heads.chosen.class_weights)
        return replace(part, weights=weights)

    def trained(self, start: nn.Module, data: Part, held: Part | None = None, share: Any = 1.0) -> Finetuned:
        """The network fine-tuned from a head on `data`."""
        tuning = replace(self.tuning, interpolation=share)
        tuner = Tuner(self.backbone, self.plan, tuning, self.task, self.engine.name)
        return tuner.fit(start, data, held, self.context.trial())


def read(place: Path, found: tuple[list[Path], list[str], list[bool]], seed: int) -> Examples:
    """The examples of a subset, by a table at `place`; what is not in the subset is test."""
    splits = ["train" if own else "test" for own in found[2]]
    columns = {"path": [str(path) for path in found[0]], "label": found[1], "split": splits}
    pyarrow.csv.write_csv(pa.table(columns), place)
    source = read_source(place)
    audited = audit_files(source, lambda **_: None)
    return make_examples(source, audited, seed=seed)


def in_folds(some: Subset) -> tuple[dict[float, np.ndarray], Comparison, int]:
    """Out-of-fold logits of all examples by share; what regraft's rule makes of as many folds as it tries,
    and their number.
    """
    every, judged, tried, rows = some.every, None, 0, np.zeros(0, dtype=np.int64)
    logits = {
        share: np.zeros((len(every.labels), some.task.outputs), dtype=np.float32) for share in (0.0, *SHARES)
    }
    splits = folds_of(every.labels, 3, some.seed, every.blocks)
    held_out = np.cumsum([len(held) for _, held in splits])
    planned = int(held_out[min(np.searchsorted(held_out, HELD), len(splits) - 1)])
    for fitted, held in splits:
        start = fit_chosen(some.heads.chosen, some.known.some(fitted), some.task, some.context)
        tuned = some.trained(start, every.some(fitted))
        for share, values in mixtures(some.backbone, start, tuned, every.some(held), some.context).items():
            logits[share][held] = values
        if judged is None or not judged.settled(planned):
            tried, rows = tried + 1, np.sort(np.concatenate([rows, held]))
            seen = {share: values[rows] for share, values in logits.items()}
            metric, blocks = chosen_by(some.task, "accuracy"), every.blocks_at(rows)
            judged = compare(some.task, metric, every.labels[rows], seen, blocks, rows)
    return logits, judged, tried


def rule_before(some: Subset, logits: dict[float, np.ndarray]) -> tuple[float, float, float]:
    """The share that the rule before chose, the one it had to choose from beside the head, and trainings up
    to the choice.
    """
    labels, val = some.every.labels, some.val
    if len(val) < WORN:
        losses = {share: refined_log_losses(labels, values) for share, values in logits.items()}
        best = min(SHARES, key=lambda share: float(losses[share].mean()))
        gain = losses[0.0] - losses[best]
        return (best if gain.mean() > standard_error(gain) else 0.0), best, 2.0
    tuned = some.trained(some.heads.on_train, some.rows_of(some.fit), some.rows_of(val), "auto")
    alone = apply_head(some.heads.on_train, some.known.values[len(some.fit) :])
    ranks = [
        (score(val.labels, z, "accuracy"), -refined_log_losses(val.labels, z).mean())
        for z in (alone, tuned.logits)
    ]
    share, spent = (
        float(tuned.tuning.interpolation),
        len(some.fit) / len(labels) * tuned.trained.epochs_run / tuned.tuning.epochs,
    )
    return (share if ranks[1] > ranks[0] else 0.0), share, spent


def measured(name: str, data: Path, count: int, seed: int, folder: Path) -> dict | None:
    """What both rules choose for one subset, and the losses of what they would hand over; None where the
    set is too small.
    """
    found = subset(data / name, count, seed)
    if found is None:
        return None
    some = Subset(name, found, seed, folder)
    logits, ours, tried = in_folds(some)
    before, worn, spent = rule_before(some, logits)
    labels, truth = some.every.labels, some.truth.labels
    candidate = min(
        SHARES,
        key=lambda share: float(refined_log_losses(labels[ours.rows], logits[share][ours.rows]).mean()),
    )
    last = some.trained(some.heads.refitted, some.every)
    asked = tuple(sorted({0.0, worn, before, candidate, ours.share}))
    every = mixtures(some.backbone, some.heads.refitted, last, some.rows_of(some.truth), some.context)
    unseen = {share: every[share] for share in asked}
    heat = {share: fit_temperature(labels, values) for share, values in logits.items()}
    loss = {share: float(log_losses(truth, z / heat[share]).mean()) for share, z in unseen.items()}
    right = {share: float((z.argmax(axis=1) == truth).mean()) for share, z in unseen.items()}
    return {
        "set": name,
        "count": len(labels),
        "seed": seed,
        "val": len(some.val),
        "truth": len(truth),
        "loss": loss,
        "right": right,
        "before": {"share": before, "candidate": worn, "trainings": spent + (before > 0)},
        "now": {
            "share": ours.share,
            "candidate": candidate,
            "trainings": tried * 2 / 3 + (ours.share > 0),
            "folds": tried,
            "gain": ours.gain,
            "error": ours.error,
        },
    }


def table(results: list[dict]) -> str:
    """The markdown table of all that is kept, a row a subset, and the mean.

    The better of the two is the lower loss of the head alone and of the fine-tuned models that the rules
    had to choose from.
    """
    heads = (
        "set | examples | head alone | fine-tuned | before: "
        "chosen | regret | trainings | now: chosen | regret | trainings"
    )
    lines = [f"| {heads} |", "|---" * 10 + "|"]
    found: dict[str, list[tuple[float, float, float]]] = {"before": [], "now": []}
    for one in sorted(results, key=lambda r: (r["set"], r["count"], r["seed"])):
        loss = {float(share): value for share, value in one["loss"].items()}
        tuned = min(loss[float(one[rule]["candidate"])] for rule in found)
        cells = [one["set"], f"{one['count']}, seed {one['seed']}", f"{loss[0.0]:.3f}", f"{tuned:.3f}"]
        for rule, rows in found.items():
            share, trainings = float(one[rule]["share"]), one[rule]["trainings"]
            regret = loss[share] - min(loss[0.0], tuned)
            rows.append((regret, trainings, loss[share] - loss[0.0]))
            cells += [f"{share:g} of the way" if share else "head alone", f"{regret:.3f}", f"{trainings:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    cells = [f"mean of {len(results)}", "", "", ""]
    for rows in found.values():
        cells += ["", f"{np.mean([row[0] for row in rows]):.4f}", f"{np.mean([row[1] for row in rows]):.2f}"]
    lines += ["| " + " | ".join(cells) + " |", ""]
    worst = {rule: max(row[2] for row in rows) for rule, rows in found.items()}
    lines.append(f"Highest loss above the head alone: {worst['before']:.3f} before, {worst['now']:.3f} now.")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="*", default=list(SETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 200, 400])
    parser.add_argument("--again", action="store_true", help="measure what is kept once more")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/choice"), help="where tables and features are kept meanwhile"
    )
    parser.add_argument("--write", type=Path, help="the page whose marks 'choice' get the table")
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    data = Path(os.environ["REGRAFT_DATA"])
    for seed in asked.seeds:
        for count in asked.sizes:
            for name in asked.sets:
                place = RESULTS / f"{name}-{count}-{seed}.json"
                if asked.again or not place.is_file():
                    one = measured(name, data, count, seed, asked.work)
                    if one is not None:
                        place.write_text(json.dumps(one, indent=1) + "\n", encoding="utf-8")
                        print(json.dumps(one), flush=True)
    text = table([json.loads(place.read_text(encoding="utf-8")) for place in sorted(RESULTS.glob("*.json"))])
    print(text)
    if asked.write:
        between_marks(asked.write, "choice", text)


if __name__ == "__main__":
    main()
