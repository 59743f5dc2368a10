"""The audit as a user meets it: the verb, what a run keeps of it, corrections that return, and --strict."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

import regraft
from commands import call
from regraft.errors import DataError

QUICK = {"base": {"size": 64}, "run": {"engine": "torch-float32"}}
RECIPE = {**QUICK, "freeze": {"strategy": "head"}}
PLANTED = {"test/red/5.png": "train/red/copy.png", "test/blue/6.png": "train/blue/copy.png"}


def texture(seed: int, colour: int) -> Image.Image:
    """A picture with detail of every size, tinted within."""
    rng = np.random.default_rng(seed)
    layers = [
        Image.fromarray(rng.integers(0, 256, (k, k, 3), dtype=np.uint8)).resize(
            (96, 96), Image.Resampling.BICUBIC
        )
        for k in (3, 7, 15, 31)
    ]
    pixels = np.mean([np.asarray(layer, dtype=float) for layer in layers], axis=0)
    pixels[20:76, 20:76, colour] += 90
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """Two classes in given splits; two training examples are a mirrored and a cropped copy of test
    examples.
    """
    root = tmp_path / "data"
    for split, (name, count) in enumerate({"train": 30, "val": 8, "test": 14}.items()):
        for colour, label in ((0, "red"), (2, "blue")):
            (root / name / label).mkdir(parents=True)
            for k in range(count):
                texture(1000 * split + 100 * colour + k, colour).save(root / name / label / f"{k}.png")
    ImageOps.mirror(Image.open(root / "test" / "red" / "5.png")).save(root / "train" / "red" / "copy.png")
    Image.open(root / "test" / "blue" / "6.png").crop((3, 2, 96, 95)).save(
        root / "train" / "blue" / "copy.png"
    )
    return root


def pairs(findings: list[dict]) -> dict[str, str]:
    found = [f for f in findings if f["kind"] == "near-duplicates across splits"]
    return {b: a for a, b, _ in found[0]["pairs"]} if found else {}


@pytest.mark.parametrize("features", ["--features", "--no-features"])
def test_the_verb_finds_what_was_planted_and_strict_exits_with_1(features: str, planted: Path) -> None:
    before = sorted(planted.rglob("*"))
    command = ["audit", planted, features, "--set", "base.size=64", "--set", "run.engine=torch-float32"]
    result = call(*command, "--json")
    assert result.returncode == 0, result.stderr
    findings = json.loads(result.stdout)["findings"]
    assert pairs(findings) == PLANTED
    assert all({"kind", "severity", "message", "examples"} <= set(finding) for finding in findings)
    result = call(*command, "--strict")
    assert result.returncode == 1
    assert "2 test examples have one in train or val" in result.stdout
    assert sorted(planted.rglob("*")) == before


def test_a_run_keeps_the_findings_and_scores_test_without_what_it_nearly_knew(
    planted: Path, tmp_path: Path
) -> None:
    run = regraft.fit(planted, tmp_path / "run", recipe=RECIPE)
    told = json.loads((run.path / "audit.json").read_text(encoding="utf-8"))["findings"]
    assert pairs(told) == PLANTED
    assert [f["kind"] for f in run.state["data"]["findings"]] == [f["kind"] for f in told]
    without = run.metrics["test_without_near_duplicates"]
    assert without["left_out"] == 2
    assert without["metrics"]["accuracy"]["n"] == run.metrics["test"]["accuracy"].n - 2
    events = [
        json.loads(line) for line in (run.path / "events.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    kinds = [event["kind"] for event in events]
    assert [e["examples"] for e in events if e["kind"] == "audit_view"] == [28]
    assert kinds.index("audit_view") < kinds.index("unseal")
    assert kinds.count("unseal") == 1
    (run.path / "report.html").unlink()  # what is left is a run that was stopped
    again = regraft.fit(out=run.path, resume=True)
    assert json.loads((run.path / "audit.json").read_text(encoding="utf-8"))["findings"] == told
    assert again.state["data"]["findings"] == run.state["data"]["findings"]


def test_corrections_come_back(planted: Path, tmp_path: Path) -> None:
    place = tmp_path / "fixes.csv"
    found = regraft.audit(planted, recipe=QUICK)
    assert found.export(place) >= 2
    with open(place, newline="", encoding="utf-8") as handle:
        lines = list(csv.DictReader(handle))
    assert set(PLANTED.values()) <= {line["source"] for line in lines}
    assert not any(line["source"].startswith("test/") for line in lines)
    for line in lines:
        line["action"] = {"train/red/copy.png": "drop", "train/blue/copy.png": "keep"}.get(line["source"], "")
    with open(place, "w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, lines[0])
        writer.writeheader()
        writer.writerows(lines)
    result = call(
        "fit",
        planted,
        "--out",
        tmp_path / "run",
        "--size",
        64,
        "--freeze",
        "head",
        "--fixes",
        place,
        "--strict",
        "-q",
        "--set",
        "run.engine=torch-float32",
    )
    assert result.returncode == 0, result.stderr
    state = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert state["data"]["fixes"]["dropped"] == ["train/red/copy.png"]
    assert ["train/blue/copy.png", "near-duplicates across splits"] in state["data"]["fixes"]["kept"]
    assert state["data"]["counts"] == {"train": 61, "val": 16, "test": 28}
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert "test_without_near_duplicates" not in metrics


def test_strict_stops_a_run_before_anything_is_trained_on_such_data(planted: Path, tmp_path: Path) -> None:
    recipe = {**RECIPE, "data": {"strict": True}}
    with pytest.raises(DataError, match=r"near-duplicates across splits: 2 pairs"):
        regraft.fit(planted, tmp_path / "run", recipe=recipe)
    assert not (tmp_path / "run" / "metrics.json").exists()
    assert json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["state"] == "failed"
    (planted / "train" / "blue" / "twin.png").write_bytes((planted / "train" / "red" / "1.png").read_bytes())
    with pytest.raises(DataError, match="contradicting labels"):
        regraft.fit(planted, tmp_path / "other", recipe=recipe)
    assert not (tmp_path / "other").exists()


def test_fixes_with_faults_and_those_of_test_are_refused(planted: Path, tmp_path: Path) -> None:
    place = tmp_path / "fixes.csv"
    place.write_text("source,action,label,kind,reason\ntest/red/1.png,relabel,blue,x,\n")
    result = call("fit", planted, "--out", tmp_path / "run", "--fixes", place)
    assert result.returncode == 2
    assert "line 2: test/red/1.png is in test" in result.stderr
    assert not (tmp_path / "run").exists()


def test_data_without_a_test_set_or_with_few_examples_are_audited(colours: Path) -> None:
    for path in colours.glob("*/*.png"):
        if int(path.stem) >= 4:
            path.unlink()
    found = regraft.audit(colours, recipe=QUICK)
    assert found.counts == {"train": 12, "val": 0, "test": 0}
    assert not any(finding.pairs for finding in found.findings)


@pytest.mark.data
def test_planted_faults_in_photographs_are_found(real_data: Path, tmp_path: Path) -> None:
    """Ants and bees: three copies across splits, five wrong labels."""
    root = tmp_path / "data"
    for split, count in (("train", 40), ("test", 10)):
        for label in ("ants", "bees"):
            (root / split / label).mkdir(parents=True)
            for path in sorted((real_data / "hymenoptera" / split / label).glob("*.jpg"))[:count]:
                (root / split / label / path.name).write_bytes(path.read_bytes())
    ants, bees = (sorted((root / "train" / label).glob("*.jpg")) for label in ("ants", "bees"))
    wrong = {f"train/bees/{path.name}" for path in ants[::10]}
    for path in ants[::10]:
        path.rename(root / "train" / "bees" / path.name)
    for number, path in enumerate(bees[1::15]):
        image = Image.open(path).convert("RGB")
        image.resize((image.width * 4 // 5, image.height * 4 // 5)).save(
            root / "test" / "bees" / f"copy{number}.jpg", quality=80
        )
    found = regraft.audit(root)
    across = next(f for f in found.findings if f.kind == "near-duplicates across splits")
    assert {name for pair in across.pairs for name in pair[:2] if "copy" in name} == {
        f"test/bees/copy{k}.jpg" for k in range(3)
    }
    assert len(across.pairs) == 3
    labels = next(f for f in found.findings if f.kind == "likely wrong labels")
    assert len(wrong & set(labels.examples)) >= 3
    assert all(labels.suggested[name] == "ants" for name in wrong & set(labels.examples))
