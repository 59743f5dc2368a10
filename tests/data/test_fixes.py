"""Corrections: written, edited, read back; faults all at once; test is never touched."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regraft.data import Examples, Finding, audit_files, make_examples, read_fixes, write_fixes
from regraft.errors import DataError
from regraft.modalities import read_source

HEADER = "source,action,label,kind,reason\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for split, count in (("train", 12), ("val", 3), ("test", 4)):
        for number, label in enumerate(("cat", "dog")):
            (root / split / label).mkdir(parents=True)
            for k in range(count):
                pixels = np.random.default_rng([len(split), number, k]).integers(0, 255, (8, 8, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / label / f"{k}.png")
    return root


def fitted(root: Path, fixes: Path) -> tuple[Examples, list[Finding]]:
    source = read_source(root)
    looked = audit_files(source, lambda **_: None)
    return make_examples(source, looked, fixes=read_fixes(fixes, source)), looked.findings


def test_what_is_written_and_edited_is_done(data: Path, tmp_path: Path) -> None:
    (data / "train" / "dog" / "twin.png").write_bytes((data / "train" / "cat" / "0.png").read_bytes())
    source = read_source(data)
    looked = audit_files(source, lambda **_: None)
    make_examples(source, looked)
    named = ("train/dog/1.png", "test/dog/1.png")
    wrong = Finding("likely wrong labels", "warning", "2", named, suggested={"train/dog/1.png": "cat"})
    place = tmp_path / "fixes.csv"
    assert write_fixes(place, [*looked.findings, wrong], frozenset({"test/dog/1.png"})) == 5
    with open(place, newline="", encoding="utf-8") as handle:
        lines = list(csv.DictReader(handle))
    assert all(line["action"] == "" for line in lines)
    assert [line["label"] for line in lines if line["source"] == "train/dog/1.png"] == ["cat"]
    untouched, _ = fitted(data, place)
    assert untouched.counts() == {"train": 25, "val": 6, "test": 8}
    for line in lines:
        line["action"] = {"train/dog/twin.png": "drop", "train/dog/1.png": "Relabel"}.get(line["source"], "")
    with open(place, "w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, lines[0])
        writer.writeheader()
        writer.writerows(lines)
    examples, findings = fitted(data, place)
    labels = dict(zip(examples.table["source"].to_pylist(), examples.table["label"].to_pylist(), strict=True))
    assert "train/dog/twin.png" not in labels
    assert labels["train/dog/1.png"] == "cat"
    assert "contradicting labels" not in {finding.kind for finding in findings}
    record = read_fixes(place, source).to_dict()
    assert record["dropped"] == ["train/dog/twin.png"]
    assert record["relabelled"] == {"train/dog/1.png": "cat"}


def test_every_fault_has_its_line(data: Path, tmp_path: Path) -> None:
    place = tmp_path / "fixes.csv"
    place.write_text(
        HEADER
        + "train/cat/0.png,remove,,copies,\ntrain/cat/00.png,drop,,copies,\ntrain/cat/1.png,relabel,dgo,x,\n"
        "train/cat/2.png,drop,,x,\ntrain/cat/2.png,relabel,dog,y,\n"
    )
    with pytest.raises(DataError) as caught:
        read_fixes(place, read_source(data))
    said = str(caught.value)
    for words in (
        "line 2: action 'remove' is none of drop, relabel, keep",
        "line 3: there is no example 'train/cat/00.png'; did",
        "line 4: 'dgo' is no class; did you mean 'dog'?",
        "line 6: 'train/cat/2.png' has another action in line 5",
    ):
        assert words in said
    place.write_text("source,label\n")
    with pytest.raises(DataError, match="action"):
        read_fixes(place, read_source(data))
    with pytest.raises(DataError, match="cannot be read"):
        read_fixes(tmp_path / "none.csv", read_source(data))


@pytest.mark.parametrize("action", ["drop", "relabel"])
def test_test_examples_are_not_corrected(action: str, data: Path, tmp_path: Path) -> None:
    place = tmp_path / "fixes.csv"
    place.write_text(HEADER + f"train/cat/0.png,drop,,x,\ntest/cat/0.png,{action},dog,x,\n")
    with pytest.raises(DataError, match=r"line 3: test/cat/0\.png is in test"):
        fitted(data, place)


def test_corrections_move_nothing_between_splits(tmp_path: Path) -> None:
    """Where test is cut by regraft: what is left stays where it was, and what was cut for test is refused."""
    for label in ("cat", "dog"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for k in range(40):
            pixels = np.random.default_rng([ord(label[0]), k]).integers(0, 255, (8, 8, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "data" / label / f"{k}.png")
    place = tmp_path / "fixes.csv"
    place.write_text(HEADER)
    before, _ = fitted(tmp_path / "data", place)
    trained, tested = before.part("train").sources, before.unseal("a test", lambda *_, **__: None).sources
    place.write_text(HEADER + "".join(f"{source},drop,,x,\n" for source in trained[:10]))
    after, _ = fitted(tmp_path / "data", place)
    assert after.part("train").sources == trained[10:]
    assert after.part("val").sources == before.part("val").sources
    assert after.unseal("a test", lambda *_, **__: None).sources == tested
    place.write_text(HEADER + f"{tested[0]},drop,,x,\n")
    with pytest.raises(DataError, match="is in test"):
        fitted(tmp_path / "data", place)


def test_what_is_kept_is_not_told_again(data: Path, tmp_path: Path) -> None:
    (data / "train" / "cat" / "twin.png").write_bytes((data / "train" / "cat" / "0.png").read_bytes())
    place = tmp_path / "fixes.csv"
    place.write_text(HEADER)
    assert [f.examples for f in fitted(data, place)[1] if f.kind == "copies"] == [
        ("train/cat/0.png", "train/cat/twin.png")
    ]
    place.write_text(HEADER + "train/cat/0.png,keep,,copies,\ntrain/cat/twin.png,keep,,copies,\n")
    examples, findings = fitted(data, place)
    assert "copies" not in {finding.kind for finding in findings}
    assert examples.counts()["train"] == 25
