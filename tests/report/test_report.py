"""The page and the card: the run's own numbers, hostile names as text, nothing fetched, parts missing."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from made_run import HOSTILE, STEPS, Page, events, full_run, numbers, rendered, write
from PIL import Image

from regraft.report import model_card, plots
from regraft.report.forms import loss_by_depth
from regraft.report.view import _answer
from regraft.tasks import Multi


def floats(value: Any) -> set[float]:
    """Every number anywhere in a JSON value."""
    if isinstance(value, dict):
        return set().union(*map(floats, value.values()))
    if isinstance(value, list):
        return set().union(*map(floats, value))
    return {float(value)} if isinstance(value, (int, float)) and not isinstance(value, bool) else set()


@dataclass(frozen=True)
class Whole:
    """A run's folder and its report."""

    folder: Path
    text: str
    page: Page


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A run with every part present, for tests that only read."""
    folder = full_run(tmp_path_factory.mktemp("whole"))
    return Whole(folder, *rendered(folder))


def test_every_number_is_that_of_metrics_json(whole: Whole) -> None:
    page = whole.page
    metrics = json.loads((whole.folder / "metrics.json").read_text())
    shown = set(page.values)
    for values in (
        metrics["test"],
        metrics["val"],
        *metrics["baselines"].values(),
        metrics["test_without_near_duplicates"]["metrics"],
    ):
        for estimate in values.values():
            known = {estimate[key] for key in ("value", "low", "high")}
            assert {value for value in known if value is not None and np.isfinite(value)} <= shown
    assert len(metrics["test"]) == 11
    for row in metrics["per_class"]:
        assert {value for key, value in row.items() if key not in ("class", "support")} <= shown
    calibration = metrics["calibration"]
    assert calibration["temperature"] in shown
    for state in (calibration["before"], calibration["after"]):
        assert state["ece"] in shown
        for one in state["bins"]:
            assert {one[key] for key in ("confidence", "accuracy", "low", "high")} <= shown
    first, second = metrics["thresholds"]
    assert {first[key] for key in ("wanted", "threshold", "answered", "precision", "bound")} <= shown
    assert {e[key] for e in first["test"].values() for key in ("value", "low", "high")} <= shown
    assert second["wanted"] in shown
    assert second["why"][1:] in page.text
    assert shown <= floats(metrics)
    accuracy = metrics["test"]["accuracy"]
    assert page.values[:3] == [accuracy["value"], accuracy["low"], accuracy["high"]]
    assert f"{100 * metrics['versus'][0]['difference']:+.1f} points" in page.text


def test_what_is_shown_of_a_number_is_that_number_rounded(whole: Whole) -> None:
    page = whole.page
    assert len(page.numbers) > 150
    for value, text in page.numbers:
        scale, plain = (100, text[:-1]) if text.endswith("%") else (1, text)
        digits = len(plain.partition(".")[2])
        assert abs(float(plain) - scale * value) <= 0.5 * 10.0**-digits + 1e-9, (value, text)


def test_the_confusion_matrix_is_that_of_metrics_json(tmp_path: Path) -> None:
    classes = ("daisy", "rose", HOSTILE, "tulip")
    _, page = rendered(full_run(tmp_path, classes))
    counts = json.loads((tmp_path / "metrics.json").read_text())["confusion"]
    for i, true in enumerate(classes):
        for j, said in enumerate(classes):
            what = f"{true} right: {counts[i][j]}" if i == j else f"{true} taken for {said}: {counts[i][j]}"
            assert page.titles.count(what) == 1


def test_hostile_names_stay_text(whole: Whole) -> None:
    text, page = whole.text, whole.page
    assert page.tags.count("script") == 1
    assert text.count("<script") == 1
    assert "<img src=x" not in text
    assert HOSTILE in page.text
    assert "rose/<img src=x onerror=alert(2)>.jpg" in page.text


def test_the_policy_lets_the_one_script_run_and_no_other(whole: Whole) -> None:
    page = whole.page
    (script,) = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page.policy
    assert page.policy.startswith("default-src 'none';")
    assert page.policy.count("script-src") == 1


def test_what_makes_the_answer_doubtful_stands_beside_it(whole: Whole, tmp_path: Path) -> None:
    text, page = whole.text, whole.page
    opening = page.text[: page.text.index("How good it is")]
    assert "read 2 times (2026-11-25 10:00, step 7 of the run; 2026-11-26 11:30, regraft evaluate)" in opening
    assert "from 14 groups only" in opening
    assert "7 of the test images have a near-duplicate" in opening
    assert "3 pairs." in opening  # the audit's warning of near-duplicates
    assert "2 twins." not in opening
    assert "as d.jpg" in page.text
    run = json.loads((whole.folder / "run.json").read_text())
    run["readings"], run["data"]["findings"] = run["readings"][:1], []
    metrics = json.loads((whole.folder / "metrics.json").read_text())
    del metrics["groups"], metrics["test_without_near_duplicates"]
    text, page = rendered(
        write(Path(shutil.copytree(whole.folder, tmp_path / "run")), run, metrics, events())
    )
    assert 'class="notice"' not in text


def test_a_threshold_of_zero_is_an_answer_always(tmp_path: Path) -> None:
    run, metrics = numbers(("a", "b"))
    metrics["thresholds"][0]["threshold"] = 0.0
    _, page = rendered(write(tmp_path, run, metrics, []))
    assert "It may always answer" in page.text
    assert "Answering always (for 95%)" in model_card(run, metrics)


def test_without_a_test_set_as_asked(tmp_path: Path) -> None:
    run, metrics = numbers(("a", "b"))
    run["data"]["no_test"] = True
    _, page = rendered(write(tmp_path, run, {"val": metrics["val"]}, []))
    assert "No test set was asked for" in page.text


def test_the_network_is_drawn_with_what_may_move(whole: Whole) -> None:
    page = whole.page
    assert "In colour what fine-tuning may move: of blocks.1, blocks.2. The other 2 stay frozen." in page.text
    assert "New layers (linear) lead from the 1,280 features to 4 classes." in page.text


def test_the_page_asks_for_nothing(whole: Whole) -> None:
    text, page = whole.text, whole.page
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


def test_the_seven_steps_stand_in_order(whole: Whole) -> None:
    text, page = whole.text, whole.page
    assert [name for name in page.ids if name.startswith("step-")] == [f"step-{name}" for name in STEPS]
    assert page.text.count("Linear head.") == 7
    assert "Learning curves" in page.text
    assert "L2 penalty" in page.text
    assert page.tags.count("svg") == 5
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
        common
        | {
            "layers": "linear",
            "hidden": 0,
            "dropout": 0.0,
            "parameters": 2562,
            "loss": 0.3,
            "difference": 0.0,
        }
        | {"chosen": True},
        common
        | {
            "layers": "mlp",
            "hidden": 128,
            "dropout": 0.3,
            "parameters": 164226,
            "loss": 0.31,
            "difference": 0.01,
        }
        | {"chosen": False},
    ]
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
    run["steps"]["finetune"] = {
        "state": "skipped",
        "seconds": 0.0,
        "decided": "Not done.",
        "why": "Too little data.",
    }
    run["chosen"] = "head only"
    text, page = rendered(write(tmp_path, run, metrics, [e for e in events() if e["kind"] == "l2"]))
    assert "skipped" in page.text
    assert "Too little data." in page.text
    assert text.count("<svg") == 3  # the L2 path and the two of the calibration
    run["steps"]["finetune"] |= {"seconds": 97.0, "passes": 4_024}
    _, page = rendered(write(tmp_path, run, metrics, []))
    assert "tried and left out, 1 min 37 s, 4,024 passes" in page.text


def test_the_least_a_run_can_have(tmp_path: Path) -> None:
    _, page = rendered(write(tmp_path, {"schema": 2, "state": "interrupted"}, None, []))
    assert "was interrupted" in page.text
    assert f"regraft fit --resume --out {tmp_path}" in page.text  # --resume takes no data


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
    bad = {"kind": "epoch", "epoch": 9, "train_loss": value, "val_loss": None, "val_accuracy": None}
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
    assert {"accuracy", "f1", "matthews_correlation", "brier_score"} <= set(fields["metrics"])
    assert len(fields["metrics"]) == len(set(fields["metrics"]))
    result = fields["model-index"][0]["results"][0]
    assert [m["value"] for m in result["metrics"]] == [
        estimate["value"] for estimate in metrics["test"].values()
    ]
    accuracy = metrics["test"]["accuracy"]
    low, high = f"{100 * accuracy['low']:.1f}%", f"{100 * accuracy['high']:.1f}%"
    assert result["metrics"][0]["name"] == f"Accuracy (95% interval {low} to {high}, n = 250)"
    assert "<script" not in body
    assert f"**{100 * accuracy['value']:.1f}%** (95% interval {low} to {high}, n = 250)" in body
    assert "# flowers" in body


def test_the_hub_library_reads_the_card() -> None:
    from huggingface_hub import ModelCard

    run, metrics = numbers(("daisy", "rose", "tulip"))
    card = ModelCard(model_card(run, metrics), ignore_metadata_errors=False)
    assert card.data.license == "apache-2.0"
    read = card.data.eval_results
    assert read is not None
    assert [r.metric_value for r in read] == [estimate["value"] for estimate in metrics["test"].values()]
    assert {(r.task_type, r.dataset_name, r.dataset_split) for r in read} == {
        ("image-classification", "flowers", "test")
    }


def test_the_card_says_what_the_numbers_do_not() -> None:
    run, metrics = numbers(("daisy", "rose", "tulip"))
    run["readings"] = [{}, {}]
    card = model_card(run, metrics)
    weakest = min(metrics["per_class"], key=lambda row: row["recall"])
    assert f"weakest class is {weakest['class']}: {100 * weakest['recall']:.1f}% of them are found" in card
    assert "come from 14 groups" in card
    assert "7 test examples have a near-duplicate in training; without them accuracy is 89.7%" in card
    assert "read 2 times" in card
    assert "divided by 1.270" in card
    assert "calibration error from 0.081 to 0.011" in card
    assert (
        "from 0.712 up (for 95%): 96.9% right on test (95% interval 93.6% to 98.5%, n = 222), answering 88.8%"
        in card
    )
    assert "No threshold promises 99%: too few examples to promise this" in card
    assert "near-duplicates across splits: 3 pairs." in card
    assert "Set aside as unreadable: 2." in card


def test_the_card_of_a_run_with_little() -> None:
    card = model_card({"name": "x", "provenance": {"licence": "own terms", "id": "timm:resnet18"}}, {})
    fields = yaml.safe_load(card.split("---\n", 2)[1])
    assert (fields["license"], fields["license_name"], fields["base_model"]) == (
        "other",
        "own terms",
        "timm/resnet18",
    )
    assert "metrics" not in fields
    assert fields["library_name"] == "regraft", "nothing says that another library loads it"


def test_of_several_strategies_the_curve_is_that_of_the_chosen(tmp_path: Path) -> None:
    full_run(tmp_path)
    keys = (
        "strategy",
        "epochs",
        "loss",
        "standard_error",
        "value",
        "low",
        "high",
        "trained",
        "seconds",
        "memory",
    )
    trials = [
        (name, 2, loss, 0.1, 0.9, 0.8, 0.95, 1000, 60.0, 10**9)
        for name, loss in (("full", 0.31), ("lora", 0.29))
    ]
    kept = {
        "trials": [dict(zip(keys, trial, strict=True)) for trial in trials],
        "chosen": "full",
        "advice": "full is kept",
    }
    (tmp_path / "strategies.json").write_text(json.dumps(kept))
    lines = [
        {
            "kind": "epoch",
            "strategy": name,
            "epoch": epoch,
            "epochs": 2,
            "train_loss": 1.0,
            "val_loss": loss + 0.4 / epoch,
            "val_accuracy": 0.9,
        }
        for name, loss in (("full", 0.11), ("lora", 0.09))
        for epoch in (1, 2)
    ]
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    _, page = rendered(tmp_path)
    assert "validation loss went from 0.51 to 0.31" in page.text.replace("0.510", "0.51").replace(
        "0.310", "0.31"
    )
    assert page.text.count("Full is kept") == 1
    run = json.loads((tmp_path / "run.json").read_text())
    run["steps"]["finetune"]["why"] = kept["advice"]
    (tmp_path / "run.json").write_text(json.dumps(run))
    assert rendered(tmp_path)[1].text.count("Full is kept") == 1, "said once"
    undefined = [dict(trial, value=None, low=None, high=None) for trial in kept["trials"]]  # type: ignore[arg-type]
    (tmp_path / "strategies.json").write_text(json.dumps({**kept, "trials": undefined}))
    assert "0.290 ± 0.100" in rendered(tmp_path)[1].text


@pytest.mark.parametrize(
    ("values", "seen", "said"),
    [
        ([5.0, 6.0, 7.0], 10.0, "From 5 to 7 tokens, half of them 6 at most; none has more than the 10"),
        ([3.0] * 4, 2.0, "All have 3 tokens; the network takes 2 at once."),
        (
            [1.0, 9.0, 4_000.0],
            255.0,
            "From 1 to 4,000 tokens, half of them 9 at most; 1 has more than the 255",
        ),
        ([math.nan, 0.0], 2.0, ""),
        ([], 2.0, ""),
    ],
)
def test_a_histogram_of_lengths_says_in_words_what_it_shows(
    values: list[float], seen: float, said: str
) -> None:
    plot = plots.spread("Lengths", "tokens", np.array(values), seen)
    assert (plot is not None) == bool(said)
    if plot is not None:
        assert plot.alternative.startswith(said)
        varied = min(values) < max(values)
        assert ("dashed" in plot.alternative) == (varied and min(values) <= seen <= max(values))
        assert [svg[:4] for svg in plot.svgs] == ["<svg"] * varied


def test_sizes_and_depths_that_were_compared_are_a_picture() -> None:
    def form(size: int, depth: int, loss: float, **more: Any) -> dict[str, Any]:
        row = {"kind": "form", "size": size, "depth": depth, "stages": 8, "join": "all depths", "loss": loss}
        return {**row, "difference": loss - 0.25, "difference_error": 0.01, "chosen": False, **more}

    rows = [form(224, 8, 0.25), form(224, 7, 0.2, chosen=True), form(160, 8, 0.3)]
    plot = loss_by_depth(rows)
    assert plot is not None
    assert (
        "3 forms of the network at input size 224 and 160: lowest 0.200 by 7 of 8 stages at 224"
        in plot.alternative
    )
    assert "It was taken." in plot.alternative
    assert ">160<" in plot.svgs[0]
    told = loss_by_depth([{**row, "chosen": row["depth"] == 8} for row in rows[:2]])
    assert told is not None
    assert "Taken (the large point): 8 of 8 stages at 224, 0.250." in told.alternative
    assert loss_by_depth(rows[:1]) is None


def test_where_the_headline_is_not_defined_another_metric_answers() -> None:
    nothing = {"value": None, "low": None, "high": None, "n": 3, "method": "not defined on these examples"}
    known = {"value": 2 / 3, "low": 0.2, "high": 0.9, "n": 3, "method": "Wilson"}
    answer = _answer(Multi(("cat",)), {"test": {"map": nothing, "subset_accuracy": known}}, "test", "image")
    assert answer is not None
    assert (answer["before"], answer["cell"].text) == (
        "mean average precision is not defined; all labels right:",
        "66.7%",
    )
