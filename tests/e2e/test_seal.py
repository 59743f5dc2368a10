"""17.6: before step 7 nothing that a run does or tells depends on which test example has which label."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import regraft
from regraft.console import Screen
from regraft.data.audit import IN_TEST

NAMES = ("auk", "ibis", "kea")
MEASURED = ("time", "seconds", "peak_memory_bytes", "examples_per_second", "out")


def timeless(value: Any) -> Any:
    """The same without what is measured anew in each run, and the run's own folder."""
    if isinstance(value, dict):
        return {name: timeless(inner) for name, inner in value.items() if name not in MEASURED}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


def write(place: Path, turned: bool) -> Path:
    """A table of opaque file names. Test has no kea; `turned`, each of its labels is the other one.

    Of the test pictures 00 and 01 are the same to the pixel, and 02 is the same as one of train that is
    called a kea.
    """
    rng, rows = np.random.default_rng(0), []
    place.mkdir()

    def picture(label: str, split: str, like: str = "") -> None:
        pixels = rng.integers(0, 100, (40, 40, 3))
        pixels[:, :, NAMES.index(label)] += 100
        name = f"{split}{sum(row[2] == split for row in rows):02}.png"
        image = Image.open(place / like) if like else Image.fromarray(pixels.astype(np.uint8))
        image.save(place / name)
        rows.append((name, label, split))

    for number in range(10):
        picture(NAMES[number % 2], "test", "test00.png" if number == 1 else "")
    for number in range(36):
        picture(NAMES[number % 3], ("train", "train", "val")[number // 3 % 3])
    picture("kea", "train", "test02.png")
    other = {"auk": "ibis", "ibis": "auk"}
    told = [
        (name, other[label] if turned and split == "test" else label, split) for name, label, split in rows
    ]
    (place / "table.csv").write_text("path,label,split\n" + "".join(f"{','.join(row)}\n" for row in told))
    return place / "table.csv"


class Before:
    """Hears a run until the seal is broken, and looks at its files at that moment."""

    def __init__(self, run: Path, text: Path) -> None:
        self.run, self.events, self.files, self.done = run, [], {}, False
        self.out = open(text, "w", encoding="utf-8")  # noqa: SIM115
        self.screen = Screen()
        self.screen.console = Console(file=self.out, width=200, no_color=True)

    def __call__(self, event: dict[str, Any]) -> None:
        if event["kind"] == "unseal":
            self.done = True
            self.files = {
                name: json.loads((self.run / name).read_text(encoding="utf-8"))
                for name in ("audit.json", "run.json")
            }
            self.out.close()
        if not self.done and event["kind"] != "tick":
            self.events.append(event)
            self.screen(event)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny: str) -> list[tuple[regraft.Run, Before]]:
    place, found = tmp_path_factory.mktemp("seal"), []
    recipe = {
        "obtain": {"backbone": tiny},
        "base": {"size": 32},
        "run": {"engine": "torch-float32", "threads": 1},  # by a trial on a machine that is busy
        "freeze": {"strategy": "last-1"},
        "finetune": {"epochs": 1, "folds": 0, "precision": "float32"},
    }
    for turned in (False, True):
        data = write(place / "data", turned)
        ear = Before(place / f"run{turned:d}", place / f"{turned:d}.txt")
        found.append((regraft.fit(data, ear.run, recipe=recipe, cache=None, listeners=(ear,)), ear))
        os.rename(place / "data", place / f"data{turned:d}")
    return found


def test_turning_the_labels_of_test_changes_nothing_before_step_7(
    runs: list[tuple[regraft.Run, Before]],
) -> None:
    (_, one), (_, other) = runs
    assert one.done
    assert other.done
    assert timeless(one.events) == timeless(other.events)
    assert timeless(one.files) == timeless(other.files)
    texts = [Path(ear.out.name).read_text(encoding="utf-8").splitlines() for ear in (one, other)]
    assert [line for line in texts[0] if "examples/s" not in line] == [
        line for line in texts[1] if "examples/s" not in line
    ]
    assert runs[0][0].metrics["test"] != runs[1][0].metrics["test"]


def test_nothing_told_of_a_test_example_before_step_7_names_its_label(
    runs: list[tuple[regraft.Run, Before]],
) -> None:
    for _, ear in runs:
        findings = ear.files["audit.json"]["findings"]
        kinds = [finding["kind"] for finding in findings]
        assert {"copies", "copies across splits", "class missing in test"} <= set(kinds)
        assert "contradicting labels" not in kinds
        for finding in findings:
            said = json.dumps(
                [
                    finding.get("notes", {}).get(name)
                    for name in finding["examples"]
                    if name.startswith("test")
                ]
            )
            assert not any(name in said for name in NAMES)


def test_what_is_read_of_the_labels_of_test_is_logged(runs: list[tuple[regraft.Run, Before]]) -> None:
    for run, ear in runs:
        events = [
            json.loads(line) for line in (run.path / "events.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        assert [e["classes"] for e in events if e["kind"] == "test_classes"] == [2]
        assert [e["kind"] for e in ear.events].count("test_classes") == 1


def test_step_7_tells_labels_of_test_that_identical_examples_contradict(
    runs: list[tuple[regraft.Run, Before]],
) -> None:
    for (run, _), (first, second) in zip(runs, (("auk", "ibis"), ("ibis", "auk")), strict=True):
        (found,) = [f for f in run.state["data"]["findings"] if f["kind"] == IN_TEST]
        assert found["notes"] == {
            "test00.png": f"labelled {first}; of those identical, one in test {second}",
            "test01.png": f"labelled {second}; of those identical, one in test {first}",
            "test02.png": f"labelled {first}; of those identical, one dropped from train or val kea",
        }
        assert found in json.loads((run.path / "audit.json").read_text(encoding="utf-8"))["findings"]
        assert "another label than an identical example" in (run.path / "report.html").read_text(
            encoding="utf-8"
        )
