"""Planted faults are told, each by its own finding."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import regraft
import texts
from regraft.data import audit_files, make_examples
from regraft.modalities import read_source
from regraft.modalities.text import same


def kinds(place: Path, rows: list[tuple[str, str]]) -> dict[str, str]:
    """{kind: message} of what the audit of the files finds."""
    source = read_source(texts.write_table(place / "all.csv", rows))
    audited = audit_files(source, lambda **_: None)
    make_examples(source, audited)
    return {finding.kind: finding.message for finding in audited.findings}


def test_planted_faults_are_told(tmp_path: Path) -> None:
    rows = texts.labelled(30)
    assert (
        not {"garbled texts", "markup", "other language", "cut texts", "quarantined"}
        & kinds(tmp_path / "a", rows).keys()
    )
    planted = [
        ("", "weather"),
        ("the weather in the cafÃ© was cold and it is of the", "weather"),
        ("first <br/> the snow and then the rain", "weather"),
        ("mail jane@example.org about the bus", "traffic"),
        ("pay with 4111 1111 1111 1111 for the soup", "kitchen"),
        ("der Regen und die Sonne sind nicht mit uns auf dem Weg", "weather"),
        ("!!! ???", "traffic"),
        ("the road and the bridge " * 400, "traffic"),
        ("Cafe\u0301 and  the soup", "kitchen"),
        ("CAFÉ and the soup", "kitchen"),
    ]
    told = kinds(tmp_path / "b", rows + planted)
    expected = {
        "quarantined",
        "garbled texts",
        "markup",
        "e-mail addresses",
        "card numbers",
        "texts without words",
        "long texts",
        "cut texts",
        "other language",
        "copies",
    }
    assert expected <= told.keys()
    assert "of all words" in told["cut texts"]


def test_near_duplicates_and_contradicting_labels_are_told(tmp_path: Path) -> None:
    rows = texts.labelled(30)
    common = [texts.sentence(label, seed, 30) for seed, label in enumerate(texts.SAYINGS)] * 2
    rows += [
        (f"{text} {word}", label)
        for text, label in zip(common, texts.SAYINGS, strict=False)
        for word in ("x", "y")
    ]
    rows += [
        (f"Said {n} by {form}", label)
        for n in range(9)
        for form, label in (("Me", "traffic"), ("ME", "weather"))
    ]
    audit = regraft.audit(texts.write_table(tmp_path / "all.csv", rows), features=False)
    told = {finding.kind: finding.examples for finding in audit.findings}
    assert len(told["contradicting labels"]) >= 8
    near = {name for kind, some in told.items() if kind.startswith("near-duplicates") for name in some}
    assert {f"all.csv#text:{row}" for row in range(92, 98)} <= near


def test_a_word_a_length_or_an_encoding_that_gives_the_label_away_is_told(tmp_path: Path) -> None:
    plain = [(texts.sentence("weather", seed), "a" if seed % 2 else "b") for seed in range(120)]
    assert (
        not {"words tell the label", "lengths tell the label", "files tell the label"}
        & kinds(tmp_path / "p", plain).keys()
    )
    marked = [(f"{text} ref17" if label == "a" else text, label) for text, label in plain]
    told = kinds(tmp_path / "w", marked)
    assert "ref17" in told["words tell the label"]
    foreign = [
        (f"und die {text} mit der nicht auf" if label == "a" else text, label) for text, label in plain
    ]
    assert "language" in kinds(tmp_path / "g", foreign)["files tell the label"]
    garbled = [(f"{text} cafÃ©" if label == "a" else text, label) for text, label in plain]
    assert "by garbled" in kinds(tmp_path / "s", garbled)["files tell the label"]
    longer = [(f"{text} {text} {text}" if label == "a" else text, label) for text, label in plain]
    assert "lengths tell the label" in kinds(tmp_path / "l", longer)
    for number, (text, label) in enumerate(plain):
        place = tmp_path / "f" / label / f"{number}.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(f"{text} é".encode("cp1252" if label == "a" else "utf-8"))
    source = read_source(tmp_path / "f")
    audited = audit_files(source, lambda **_: None)
    make_examples(source, audited)
    assert "files tell the label" in {finding.kind for finding in audited.findings}


def test_a_minhash_holds_the_least_of_all_pieces_by_each_draw() -> None:
    for text in ("too short", "the quick brown fox jumps over the lazy dog", "a longer one, " * 200):
        plain = same.plain(text)
        found = np.unique(same.pieces(plain))
        least = [int((found * factor + shift).min()) for factor, shift in same.DRAW.T]
        assert same.minhash(text).tolist() == [*least, len(plain)]  # type: ignore[union-attr]
