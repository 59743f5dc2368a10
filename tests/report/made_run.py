"""A run's folder made by hand, with every part a report can show; and the page it becomes, parsed."""

from __future__ import annotations

import json
import os
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from bases import IMAGES
from regraft.artifacts import RunFolder
from regraft.data.examples import SCHEMA, Examples, Named
from regraft.data.known import content_id
from regraft.evaluation import evaluate_single, paired_accuracy, per_class, wilson
from regraft.evaluation.metrics import confusion
from regraft.report import write_report

HOSTILE = "<script>alert(1)</script>"
STEPS = ("obtain", "base", "freeze", "head", "train", "finetune", "evaluate")


class Page(HTMLParser):
    """What the tests ask of a page: tags, ids, links, titles, `data` elements with what they show, scripts,
    and the text.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.titles: list[str] = []
        self.alternatives: list[str | None] = []
        self.numbers: list[tuple[float, str]] = []
        self.scripts: list[str] = []
        self.policy = ""
        self.text = ""
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.inside = tag
        if tag == "img":
            self.alternatives.append(dict(attrs).get("alt"))
        if dict(attrs).get("http-equiv"):
            self.policy = dict(attrs)["content"] or ""
        for key, value in attrs:
            if key in ("src", "href", "xlink:href", "srcset", "action", "poster", "data"):
                self.links.append(value or "")
            elif key == "id":
                self.ids.append(value or "")
            elif key == "title":
                self.titles.append(value or "")
            elif key == "value" and tag == "data":
                self.numbers.append((float(value or "nan"), ""))

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.scripts.append(data)
            return
        self.text += data
        if self.inside == "data":
            self.numbers[-1] = (self.numbers[-1][0], data)

    @property
    def values(self) -> list[float]:
        """The numbers of all `data` elements, in order."""
        return [value for value, _ in self.numbers]


def numbers(classes: tuple[str, ...], n: int = 250) -> tuple[dict[str, Any], dict[str, Any]]:
    """run.json and metrics.json of a finished run on n test examples."""
    rng, k = np.random.default_rng(0), len(classes)
    labels = rng.integers(0, k, n)
    logits, other = (rng.normal(size=(n, k)) + gain * np.eye(k)[labels] for gain in (3.2, 2.4))
    estimates = {name: e.to_dict() for name, e in evaluate_single(labels, logits).items()} | more_metrics(
        n, 0.01
    )
    head = {name: e.to_dict() for name, e in evaluate_single(labels, other).items()} | more_metrics(n, 0.02)
    versus = paired_accuracy(labels, logits.argmax(1), other.argmax(1), "head only").to_dict()
    metrics = {
        "val": {name: e.to_dict() for name, e in evaluate_single(labels[:90], logits[:90]).items()},
        "test": estimates,
        "baselines": {
            "majority class": {"accuracy": {**head["accuracy"], "value": 0.2, "low": 0.15, "high": 0.25}}
        },
        "versus": [versus],
        "per_class": [
            {**row, "f1_low": 0.9 * row["f1"], "f1_high": 0.5 + 0.5 * row["f1"]}
            for row in per_class(labels, logits, classes)
        ],
        "calibration": {
            "split": "test",
            "temperature": 1.27,
            "fitted_on": "out-of-fold",
            "before": bins(n, 0.08),
            "after": bins(n, 0.01),
        },
        "thresholds": [
            {
                "wanted": 0.95,
                "threshold": 0.712,
                "chosen_on": "val",
                "n": 90,
                "answered": 0.911,
                "precision": 0.976,
                "bound": 0.951,
                "why": "",
                "test": {
                    "answered": {"value": 0.888, "low": 0.843, "high": 0.921, "n": n, "method": "Wilson"},
                    "precision": {
                        "value": 0.9685,
                        "low": 0.9359,
                        "high": 0.9847,
                        "n": 222,
                        "method": "Wilson",
                    },
                },
            },
            {
                "wanted": 0.99,
                "threshold": None,
                "chosen_on": "val",
                "n": 90,
                "answered": None,
                "precision": None,
                "bound": None,
                "why": "too few examples to promise this: 299 without a mistake are the least",
                "test": None,
            },
        ],
        "groups": 14,
        "test_without_near_duplicates": {
            "left_out": 7,
            "metrics": {
                "accuracy": {"value": 0.8971, "low": 0.8531, "high": 0.9291, "n": n - 7, "method": "Wilson"}
            },
        },
        "confusion": confusion(labels, logits.argmax(1), k).tolist(),
        "steps": {name: {"seconds": 1.5} for name in STEPS},
    }
    metrics["baselines"]["head only"] = head
    step = {
        "state": "done",
        "seconds": 12.3,
        "decided": "Linear head.",
        "why": "Few examples.",
        "details": {"l2": 0.01},
    }
    run = {
        "schema": RunFolder.SCHEMA,
        "state": "finished",
        "name": "flowers",
        "data": {
            "source": "photos/flowers",
            "modality": "image",
            "classes": list(classes),
            "counts": {"train": 800, "val": 90, "test": n},
            "class_counts": {s: dict.fromkeys(classes, 10) for s in ("train", "val", "test")},
            "quarantined": [
                {
                    "source": "rose/<img src=x onerror=alert(2)>.jpg",
                    "split": "train",
                    "reason": "not an image",
                },
                {"source": "tulip/empty.jpg", "split": "test", "reason": "empty file"},
            ],
            "findings": [
                {
                    "kind": "near-duplicates across splits",
                    "severity": "warning",
                    "message": "3 pairs.",
                    "examples": ["a&b.jpg"],
                },
                {
                    "kind": "copies",
                    "severity": "info",
                    "message": "2 twins.",
                    "examples": ["c.jpg"],
                    "notes": {"c.jpg": "as d.jpg"},
                },
            ],
        },
        "steps": {name: dict(step) for name in STEPS},
        "chosen": "fine-tuned",
        "chosen_why": "It was better on validation.",
        "library": "timm",
        "provenance": {
            "id": "packaged:efficientnet_lite0",
            "source": "PyPI",
            "sha256": "ab" * 32,
            "licence": "Apache-2.0",
            "parameters": 3_400_000,
            "input_size": [224, 224],
        },
        "seconds": 95.2,
        "peak_memory_bytes": 1_800_000_000,
        "device": "cpu",
        "seed": 0,
        "versions": {"torch": "2.13.0"},
    }
    return run, metrics


def more_metrics(n: int, shift: float) -> dict[str, Any]:
    """The metrics beyond accuracy, the F1s and log loss; the calibration error carries no interval."""
    found = {
        "weighted_f1": 0.871,
        "brier": 0.183,
        "roc_auc": 0.962,
        "average_precision": 0.914,
        "kappa": 0.842,
        "mcc": 0.843,
    }
    rows = {
        name: {
            "value": value - shift,
            "low": value - shift - 0.031,
            "high": value - shift + 0.029,
            "n": n,
            "method": "bootstrap",
        }
        for name, value in found.items()
    }
    return rows | {
        "ece": {
            "value": 0.024 + shift,
            "low": None,
            "high": None,
            "n": n,
            "method": "15 bins of equal counts",
        }
    }


def bins(n: int, gap: float) -> dict[str, Any]:
    """A reliability diagram of five bins whose answers are right `gap` less often than they are sure."""
    rows = []
    for number, sure in enumerate((0.41, 0.58, 0.77, 0.91, 0.985)):
        count = n // 10 + number * n // 20
        low, high = wilson((sure - gap) * count, count)
        rows.append({"confidence": sure, "accuracy": sure - gap, "low": low, "high": high, "n": count})
    return {"ece": gap + 0.0013, "bins": rows}


def events() -> list[dict[str, Any]]:
    """A finished run's events, with kinds the report does not know."""
    lines: list[dict[str, Any]] = [{"time": "t", "kind": "step", "step": "obtain"}]
    for epoch in range(1, 9):
        lines.append(
            {
                "time": "t",
                "kind": "epoch",
                "step": "finetune",
                "epoch": epoch,
                "train_loss": 1 / epoch,
                "val_loss": 0.2 + 0.8 / epoch,
                "val_accuracy": 0.95 - 0.3 / epoch,
                "examples_per_second": 80.0,
            }
        )
    for weights in ("none", "balanced"):
        for power in range(-4, 3):
            loss = 0.3 + 0.02 * (power + 1) ** 2 + (weights == "balanced") * 0.03
            lines.append(
                {"time": "t", "kind": "l2", "l2": 10.0**power, "loss": loss, "standard_error": 0.02}
                | {"step": "train", "class_weights": weights}
            )
    return lines


def write(
    folder: Path, run: dict[str, Any], metrics: dict[str, Any] | None, lines: list[dict[str, Any]]
) -> Path:
    """The run's files in `folder`, which is returned; the last event is torn."""
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    if metrics is not None:
        (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"kind": "epoch", "ep'
    (folder / "events.jsonl").write_text(text, encoding="utf-8")
    return folder


def rendered(folder: Path) -> tuple[str, Page]:
    """The report's text, and the page it parses to."""
    path = write_report(folder)
    assert path == folder / "report.html"
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def full_run(
    folder: Path, classes: tuple[str, ...] = ("daisy", "rose", HOSTILE, "tulip"), n: int = 250
) -> Path:
    """A run folder with every part present."""
    run, metrics = numbers(classes, n)
    run["readings"] = [
        {"time": "2026-11-25T10:00:00", "reason": "step 7 of the run", "examples": 250},
        {"time": "2026-11-26T11:30:00", "reason": "regraft evaluate", "examples": 250},
    ]
    run["steps"]["base"]["details"] = {"stages": "stem, blocks.0, blocks.1, blocks.2", "width": 1280}
    run["steps"]["freeze"]["details"] = {"trainable": 9, "released_of_each_stage": [0.0, 0.0, 0.41, 1.0]}
    write(folder, run, metrics, events())
    (folder / "recipe.yaml").write_text("base:\n  size: 224\nhead:\n  kind: linear\n", encoding="utf-8")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (130, 260, 3), dtype=np.uint8)).save(
        folder / "first_batch.png"
    )
    return folder


def predictions(
    folder: Path, classes: tuple[str, ...], n: int = 250, pixels: int = 64, pictures: int = 40
) -> Path:
    """Photographs, examples.parquet, predictions.parquet and audit.json of the run in `folder`; the root is
    returned.

    The labels and answers are those of `numbers`. There are `pictures` different files of noise, each under
    many names.
    """
    rng, k = np.random.default_rng(0), len(classes)
    labels = rng.integers(0, k, n)
    logits = rng.normal(size=(n, k)) + 3.2 * np.eye(k)[labels]
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    root = folder.parent / f"{folder.name}-photos"
    root.mkdir()
    for number in range(pictures):
        Image.fromarray(rng.integers(0, 255, (pixels, pixels, 3), dtype=np.uint8)).save(
            root / f"{number}.png"
        )
    sources = [f"{number % k}/photo {number}.png" for number in range(n)]
    for index in range(k):
        (root / str(index)).mkdir()
    for number, source in enumerate(sources):
        os.link(root / f"{number % pictures}.png", root / source)
    known = [content_id((root / f"{number}.png").read_bytes()) for number in range(pictures)]
    blank = {
        "group": None,
        "weight": None,
        "width": pixels,
        "height": pixels,
        "bytes": 1,
        "mtime_ns": 1,
        "flags": [],
    }
    rows = [
        {
            "id": known[i % pictures],
            "source": source,
            "label": classes[labels[i]],
            "split": "test",
            "block": i,
            **blank,
        }
        for i, source in enumerate(sources)
    ]
    rows += [
        {
            "id": known[i],
            "source": f"{i}.png",
            "label": classes[i % k],
            "split": "train",
            "block": n + i,
            **blank,
        }
        for i in range(pictures)
    ]
    Examples(
        pa.Table.from_pylist(rows, schema=pa.schema([*SCHEMA, *IMAGES.facts])),
        Named("single", classes),
        root,
        "image",
    ).save(folder / "examples.parquet")
    columns: dict[str, Any] = {
        "id": [row["id"] for row in rows[:n]],
        "source": sources,
        "split": ["test"] * n,
        "label": [classes[i] for i in labels],
        "predicted": [classes[i] for i in logits.argmax(1)],
    }
    columns |= {f"probability:{name}": shares[:, i] for i, name in enumerate(classes)}
    columns |= {f"logit:{name}": logits[:, i].astype(np.float32) for i, name in enumerate(classes)}
    pq.write_table(pa.table(columns), folder / "predictions.parquet")
    findings = [
        {
            "kind": "near-duplicates across splits",
            "severity": "warning",
            "message": "2 pairs of near-duplicates across splits",
            "examples": ["0.png", sources[0]],
            "pairs": [["0.png", sources[0], 0.981], ["1.png", sources[1], 0.994]],
        },
        {
            "kind": "likely wrong labels",
            "severity": "warning",
            "message": "2 labels look wrong",
            "examples": ["2.png", "3.png"],
            "suggested": {"2.png": classes[0], "3.png": classes[1]},
        },
    ]
    (folder / "audit.json").write_text(json.dumps({"findings": findings}), encoding="utf-8")
    return root
