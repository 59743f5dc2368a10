"""A modality that src knows nothing of: its files are read, audited, split, known again and shown."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from vectors import LENGTH, Vectors, draw

from regraft import modalities
from regraft.artifacts import RunFolder, read_json, write_json
from regraft.data import Examples, Passed, audit_files, inputs, make_examples
from regraft.data.alike import inputs_of, nearly
from regraft.data.audit import find_near
from regraft.data.lineage import Seen, of_run
from regraft.errors import DataError, UsageError
from regraft.modalities import modality_of, names, of_ending, read_source, register
from regraft.report import write_gallery, write_report


@pytest.fixture(autouse=True)
def vectors(monkeypatch: pytest.MonkeyPatch) -> Vectors:
    monkeypatch.setattr(modalities, "_known", dict(modalities._known))
    made = Vectors()
    register(made)
    return made


def silent(**_: object) -> None:
    return None


def made(root: Path) -> tuple[Examples, list[str]]:
    source = read_source(root)
    audited = audit_files(source, silent)
    examples = make_examples(source, audited)
    return examples, [finding.kind for finding in audited.findings]


def test_a_registered_modality_is_found_by_name_ending_folder_and_column(tmp_path: Path) -> None:
    assert {"image", "vector"} <= set(names())
    assert of_ending(".NPY") is modality_of("vector")
    assert of_ending(".jpg") is modality_of("image")
    assert of_ending(".xyz") is None
    with pytest.raises(UsageError, match=r"these are known: image, .*vector"):
        modality_of("smell")
    root = draw(tmp_path / "data")
    (root / "low" / "notes.txt").write_text("no vector")
    source = read_source(root)
    assert source.kind is modality_of("vector")
    assert len(source.rows) == 32
    assert source.passed.in_words() == "1 no vectors (1 .txt)"
    rows = "\n".join(f"{row.source},{row.label}" for row in source.rows)
    (root / "list.csv").write_text(f"vec,label\n{rows}\n")
    assert read_source(root / "list.csv").kind is modality_of("vector")
    (root / "list.csv").write_text(f"path,label\n{rows}\n")
    assert read_source(root / "list.csv").kind is modality_of("vector")
    (tmp_path / "empty" / "a").mkdir(parents=True)
    (tmp_path / "empty" / "a" / "b.txt").write_text("x")
    passed = Passed(noun="vector")
    with pytest.raises(DataError, match="no vectors were found"):
        list(inputs([str(tmp_path / "empty")], (), modality_of("vector"), passed))


def test_its_facts_checks_and_identity_are_those_of_the_audit(tmp_path: Path) -> None:
    root = draw(tmp_path / "data")
    np.save(root / "low" / "wide.npy", np.load(root / "low" / "00.npy").astype(np.float64))  # other bytes
    np.save(root / "high" / "flat.npy", np.ones(LENGTH, np.float32))
    np.save(root / "high" / "square.npy", np.ones((2, 2)))
    examples, kinds = made(root)
    assert {"constant vectors", "quarantined"} <= set(kinds)
    assert {"copies", "copies across splits"} & set(kinds)
    assert examples.modality == "vector"
    assert examples.facts().column_names == ["length", "rounded"]
    assert set(examples.facts()["length"].to_pylist()) == {LENGTH}
    examples.save(tmp_path / "examples.parquet")
    again = Examples.load(tmp_path / "examples.parquet")
    assert again.facts().equals(examples.facts())
    assert again.fingerprint == examples.fingerprint


def test_near_duplicates_are_found_by_its_candidates_and_its_confirmation(tmp_path: Path) -> None:
    root = draw(tmp_path / "data", 6)  # so few that all are train
    near = np.load(root / "low" / "01.npy")
    np.save(root / "low" / "near.npy", near + np.float32(0.002))
    np.save(root / "low" / "far.npy", np.r_[near[:8], -near[8:]].astype(np.float32))
    examples, _ = made(root)
    known = examples.inputs()
    found = find_near(known, None, (None, None), modality_of("vector").likeness(known.facts), silent)
    assert [{known.sources[i], known.sources[j]} for i, j, _ in found.pairs] == [
        {"low/01.npy", "low/near.npy"}
    ]
    assert found.pairs[0][2] == pytest.approx(0.998, abs=1e-3)
    without = find_near(known, None, (None, None), None, silent)
    assert without.pairs == ()


def test_what_a_model_has_seen_is_known_again_in_other_bytes(tmp_path: Path) -> None:
    examples, _ = made(draw(tmp_path / "data"))
    (tmp_path / "run").mkdir()
    examples.save(tmp_path / "run" / "examples.parquet")
    seen, part = Seen.of(examples, tmp_path / "run"), examples.part("train")
    new = draw(tmp_path / "new", 3, start=90)
    np.save(new / "low" / "again.npy", np.load(str(part.items[0])).astype(np.float64))
    np.save(new / "low" / "near.npy", np.load(str(part.items[1])) + np.float32(0.001))
    source = read_source(new)
    asked = inputs_of(audit_files(source, silent), source)
    seen.save(tmp_path / "seen.parquet")
    met = Seen.load(tmp_path / "seen.parquet").meet(asked, source.kind, silent)
    assert [asked.sources[i] for i in np.flatnonzero(met.rows >= 0)] == ["low/again.npy"]
    likeness = source.kind.likeness(examples.facts())
    alike = nearly(asked, of_run(tmp_path / "run"), likeness, silent)
    assert {asked.sources[i] for i in np.flatnonzero(alike)} == {"low/again.npy", "low/near.npy"}


def test_a_report_shows_what_the_modality_shows(tmp_path: Path) -> None:
    root = draw(tmp_path / "data")
    np.save(root / "low" / "near.npy", np.load(root / "low" / "01.npy") + np.float32(0.002))
    examples, _ = made(root)
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    examples.save(folder.examples)
    pairs = [["low/01.npy", "low/near.npy", 0.998]]
    write_json(folder.audit, {"findings": [{"kind": "near-duplicates", "pairs": pairs}]})
    galleries = read_json(write_gallery(folder.path))["galleries"]
    assert [one["text"].count(".") for one in galleries[0]["items"]] == [4, 4]
    assert all(one["picture"] == "" for one in galleries[0]["items"])


def test_the_registry_loads_a_modality_only_when_it_is_asked_for() -> None:
    said = (
        "import sys, regraft.modalities; print([n for n in ('PIL', "
        "'torch', 'regraft.modalities.image') if n in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_page_shows_texts_and_sounds_too(tmp_path: Path) -> None:
    shown = [{"text": "<b>1.25</b> 0.50"}, {"sound": "data:audio/wav;base64,UklGRg=="}, {}]
    items = [{"source": f"{n}.npy", "label": "low", **one} for n, one in enumerate(shown)]
    gallery = {"name": "labels", "title": "Suspected labels", "about": "", "items": items}
    write_json(tmp_path / "gallery.json", {"galleries": [gallery]})
    about = {"kind": "single", "classes": ["high", "low"], "modality": "vector"}
    write_json(tmp_path / "run.json", {"name": "toy", "data": about})
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "&lt;b&gt;1.25&lt;/b&gt; 0.50</blockquote>" in page
    assert '<audio controls preload="none" src="data:audio/wav;base64,UklGRg=="' in page
    assert page.count("nothing to show") == 1
    assert "media-src data:" in page
    assert "Examples worth a look" in page
    assert "centre square" not in page
