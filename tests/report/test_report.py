"""The page and the card: the run's own numbers, hostile names as text, nothing fetched, parts missing."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from regraft.evaluation import evaluate_single, paired_accuracy, per_class
from regraft.evaluation.metrics import confusion
from regraft.report import model_card, write_report

HOSTILE = "<script>alert(1)</script>"
STEPS = ("obtain", "base", "freeze", "head", "train", "finetune", "evaluate")


class Page(HTMLParser):
    """What the tests ask of a page: its tags, ids, links, `data` values, and text by element id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.values: list[float] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for key, value in attrs:
            if key in ("src", "href", "xlink:href", "srcset", "action", "poster", "data"):
                self.links.append(value or "")
            elif key == "id":
                self.ids.append(value or "")
            elif key == "value" and tag == "data":
                self.values.append(float(value or "nan"))

    def handle_data(self, data: str) -> None:
        self.text += data


def numbers(classes: tuple[str, ...], n: int = 250) -> tuple[dict[str, Any], dict[str, Any]]:
    """run.json and metrics.json of a finished run on n test examples."""
    rng, k = np.random.default_rng(0), len(classes)
    labels = rng.integers(0, k, n)
    logits, other = (rng.normal(size=(n, k)) + gain * np.eye(k)[labels] for gain in (3.2, 2.4))
    estimates = {name: e.to_dict() for name, e in evaluate_single(labels, logits).items()}
    head = {name: e.to_dict() for name, e in evaluate_single(labels, other).items()}
    versus = paired_accuracy(labels, logits.argmax(1), other.argmax(1), "head only").to_dict()
    metrics = {
        "val": {name: e.to_dict() for name, e in evaluate_single(labels[:90], logits[:90]).items()},
        "test": estimates,
        "baselines": {"majority class": {"accuracy": {**head["accuracy"], "value": 0.2, "low": 0.15, "high": 0.25}}},
        "versus": [versus],
        "per_class": per_class(labels, logits, classes),
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
        "schema": 1,
        "state": "finished",
        "name": "flowers",
        "data": {
            "source": "photos/flowers",
            "modality": "image",
            "classes": list(classes),
            "counts": {"train": 800, "val": 90, "test": n},
            "class_counts": {s: dict.fromkeys(classes, 10) for s in ("train", "val", "test")},
            "quarantined": [
                {"source": "rose/<img src=x onerror=alert(2)>.jpg", "split": "train", "reason": "not an image"},
                {"source": "tulip/empty.jpg", "split": "test", "reason": "empty file"},
            ],
            "findings": [{"kind": "near_duplicates", "severity": "warning", "message": "3 pairs.", "examples": ["a&b.jpg"]}],
        },
        "steps": {name: dict(step) for name in STEPS},
        "chosen": "fine-tuned",
        "chosen_why": "It was better on validation.",
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
                "val_log_loss": 0.2 + 0.8 / epoch,
                "val_accuracy": 0.95 - 0.3 / epoch,
                "images_per_second": 80.0,
            }
        )
    for weights in ("none", "balanced"):
        for power in range(-4, 3):
            loss = 0.3 + 0.02 * (power + 1) ** 2 + (weights == "balanced") * 0.03
            lines.append(
                {"time": "t", "kind": "l2", "l2": 10.0**power, "log_loss": loss, "standard_error": 0.02}
                | {"step": "train", "class_weights": weights}
            )
    return lines


def write(folder: Path, run: dict[str, Any], metrics: dict[str, Any] | None, lines: list[dict[str, Any]]) -> Path:
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


def full_run(folder: Path, classes: tuple[str, ...] = ("daisy", "rose", HOSTILE, "tulip")) -> Path:
    """A run folder with every part present."""
    run, metrics = numbers(classes)
    write(folder, run, metrics, events())
    (folder / "recipe.yaml").write_text("head:\n  kind: linear\n", encoding="utf-8")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (130, 260, 3), dtype=np.uint8)).save(folder / "first_batch.png")
    return folder


def test_every_headline_number_is_that_of_metrics_json(tmp_path: Path) -> None:
    _, page = rendered(full_run(tmp_path))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    for values in (metrics["test"], metrics["val"], *metrics["baselines"].values()):
        for estimate in values.values():
            assert {v for k in ("value", "low", "high") if np.isfinite(v := estimate[k] or 0.0)} <= {*page.values, 0.0}
    accuracy = metrics["test"]["accuracy"]
    assert page.values[:3] == [accuracy["value"], accuracy["low"], accuracy["high"]]
    for row in metrics["per_class"]:
        assert {row["recall"], row["recall_low"], row["precision"], row["f1"]} <= set(page.values)
    assert f"{100 * accuracy['value']:.1f}%" in page.text
    assert "etter than head only" in page.text or "no clear difference" in page.text.lower()


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    text, page = rendered(full_run(tmp_path))
    assert "script" not in page.tags
    assert "<script" not in text
    assert "<img src=x" not in text
    assert HOSTILE in page.text
    assert "rose/<img src=x onerror=alert(2)>.jpg" in page.text


def test_the_page_asks_for_nothing(tmp_path: Path) -> None:
    text, page = rendered(full_run(tmp_path))
    assert page.links
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    assert text.count("url(") == text.count("url(#")
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert 'name="viewport"' in text
    assert "prefers-color-scheme: dark" in text
    assert len(text) < 1_000_000


def test_the_seven_steps_stand_in_order(tmp_path: Path) -> None:
    text, page = rendered(full_run(tmp_path))
    assert [name for name in page.ids if name.startswith("step-")] == [f"step-{name}" for name in STEPS]
    assert page.text.count("Linear head.") == 7
    assert "Learning curves" in page.text
    assert "L2 penalty" in page.text
    assert page.tags.count("svg") == 3
    assert "data:image/png;base64," in text
    assert "kind: linear" in page.text


def test_writing_again_gives_the_same_page(tmp_path: Path) -> None:
    first, _ = rendered(full_run(tmp_path))
    second, _ = rendered(tmp_path)
    assert first == second


def test_without_a_test_set_cross_validation_answers(tmp_path: Path) -> None:
    run, metrics = numbers(("a", "b"))
    metrics["cv"] = metrics.pop("test")
    _, page = rendered(write(tmp_path, run, metrics, []))
    assert "In cross-validation over 250 images" in page.text
    assert page.values[0] == metrics["cv"]["accuracy"]["value"]


def test_the_new_layers_that_were_compared_are_a_table(tmp_path: Path) -> None:
    run, metrics = numbers(("a", "b"))
    common = {"time": "t", "kind": "head", "step": "train", "standard_error": 0.02, "difference_error": 0.01}
    heads = [
        common | {"layers": "linear", "hidden": 0, "dropout": 0.0, "parameters": 2562, "log_loss": 0.3, "difference": 0.0}
        | {"chosen": True},
        common | {"layers": "mlp", "hidden": 128, "dropout": 0.3, "parameters": 164226, "log_loss": 0.31, "difference": 0.01}
        | {"chosen": False},
    ]  # fmt: skip
    text, page = rendered(write(tmp_path, run, metrics, heads + heads))  # a resumed run compares again
    assert "Choosing the new layers" in page.text
    assert text.count("MLP, 128 wide") == 1
    assert "+0.010 ± 0.010" in page.text
    assert "164,226" in page.text
    assert "Choosing the new layers" not in rendered(write(tmp_path, run, metrics, events()))[1].text


def test_validation_alone_is_called_indicative(tmp_path: Path) -> None:
    run, metrics = numbers(("a", "b"))
    _, page = rendered(write(tmp_path, run, {"val": metrics["val"]}, []))
    assert "indicative" in page.text
    assert page.values[0] == metrics["val"]["accuracy"]["value"]


def test_an_interrupted_run_without_metrics(tmp_path: Path) -> None:
    run, _ = numbers(("a", "b"))
    run |= {"state": "interrupted", "chosen": None, "chosen_why": ""}
    run["steps"] = {"obtain": run["steps"]["obtain"]}
    text, page = rendered(write(tmp_path, run, None, []))
    assert "was interrupted" in page.text
    assert page.text.count("not reached") == 6
    assert "<svg" not in text
    assert "no finished model" in page.text


def test_no_fine_tuning(tmp_path: Path) -> None:
    run, metrics = numbers(("a", "b"))
    run["steps"]["finetune"] = {"state": "skipped", "seconds": 0.0, "decided": "Not done.", "why": "Too little data."}
    run["chosen"] = "head only"
    text, page = rendered(write(tmp_path, run, metrics, [e for e in events() if e["kind"] == "l2"]))
    assert "skipped" in page.text
    assert "Too little data." in page.text
    assert text.count("<svg") == 1


def test_the_least_a_run_can_have(tmp_path: Path) -> None:
    _, page = rendered(write(tmp_path, {"schema": 1, "state": "interrupted"}, None, []))
    assert "was interrupted" in page.text


def test_many_classes_stay_small(tmp_path: Path) -> None:
    classes = tuple(f"class {i}" for i in range(120))
    run, metrics = numbers(classes, n=1000)
    text, page = rendered(write(tmp_path, run, metrics, events()))
    assert "Confusion matrix of 120 classes" in text
    assert "Most often confused" in page.text
    assert len(text) < 1_000_000


def test_a_large_first_batch_is_made_smaller(tmp_path: Path) -> None:
    full_run(tmp_path)
    noise = np.random.default_rng(0).integers(0, 255, (1500, 1500, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "first_batch.png")
    text, _ = rendered(tmp_path)
    assert "data:image/jpeg;base64," in text
    assert len(text) < 1_500_000
    (tmp_path / "first_batch.png").write_bytes(b"not a picture")
    assert "first batch" not in rendered(tmp_path)[1].text.lower()


@pytest.mark.parametrize("value", [None, float("nan")])
def test_numbers_that_are_not_known(tmp_path: Path, value: float | None) -> None:
    run, metrics = numbers(("a", "b"))
    metrics["test"]["log_loss"]["value"] = None
    metrics["baselines"]["head only"]["accuracy"] |= {"low": value, "high": value}
    bad = {"kind": "epoch", "epoch": 9, "train_loss": value, "val_log_loss": None, "val_accuracy": None}
    _, page = rendered(write(tmp_path, run, metrics, [*events(), bad]))
    assert "–" in page.text


def test_the_card_carries_the_metadata_hubs_read() -> None:
    run, metrics = numbers(("daisy", HOSTILE))
    card = model_card(run, metrics)
    _, head, body = card.split("---\n", 2)
    fields = yaml.safe_load(head)
    assert fields["license"] == "apache-2.0"
    assert fields["library_name"] == "timm"
    assert fields["base_model"] == "efficientnet_lite0"
    assert fields["metrics"] == list(metrics["test"])
    result = fields["model-index"][0]["results"][0]
    assert {m["type"]: m["value"] for m in result["metrics"]} == {n: e["value"] for n, e in metrics["test"].items()}
    assert "<script" not in body
    assert f"{100 * metrics['test']['accuracy']['value']:.1f}%" in body
    assert "# flowers" in body


def test_the_card_of_a_run_with_little() -> None:
    card = model_card({"name": "x", "provenance": {"licence": "own terms", "id": "timm:resnet18"}}, {})
    fields = yaml.safe_load(card.split("---\n", 2)[1])
    assert (fields["license"], fields["license_name"], fields["base_model"]) == ("other", "own terms", "timm/resnet18")
    assert "metrics" not in fields
