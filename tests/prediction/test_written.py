"""Predictions written down: every format says the same, and what a kill left is taken up without a gap."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.artifacts import read_parquet
from regraft.errors import UsageError
from regraft.prediction import Prediction
from regraft.tasks import task_of
from regraft.written import PART, Sheet, columns, remaining, sheet

CLASSES = ("a", "b, c", 'd "e"')
TASK = task_of("single", CLASSES)


def row(source: str, number: int = 0) -> Prediction:
    if number % 7 == 6:
        return Prediction(source, None, None, {}, "torn\nin two")
    shares = dict(zip(CLASSES, (0.5, 0.3, 0.2), strict=True))
    return Prediction(source, "a", 0.5, shares, None, number % 2 == 0, 99.5)


def opened(form: str, place: Path, top: int | None = None) -> Sheet:
    return sheet(form, place, io.StringIO(), TASK, top)


def sources(form: str, place: Path) -> list[str]:
    if form == "jsonl":
        return [json.loads(line)["source"] for line in place.read_text().splitlines()]
    if form == "csv":
        with open(place, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return [line["source"] for line in csv.DictReader(file)]
    return read_parquet(place)["source"].to_pylist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("top", [None, 2])
def test_a_row_says_the_same_in_every_format(form: str, top: int | None, tmp_path: Path) -> None:
    place, target = tmp_path / f"x.{form}", opened(form, tmp_path / f"x.{form}", top)
    target.add([row("one"), row("two", 6)])
    target.close()
    assert sources(form, place) == ["one", "two"]
    if form == "csv":
        with open(place, newline="") as file:
            first, second = csv.DictReader(file)
        assert list(first) == columns(TASK, top)
        assert (first["label"], first["sure"], first["unfamiliar"]) == ("a", "true", "true")
        assert (second["label"], second["unfamiliar"], second["error"]) == ("", "", "torn in two")
    if form == "parquet":
        first, second = read_parquet(place).to_pylist()
        share = first["probability_2"] if top else first["probability:b, c"]
        assert (first["sure"], share, first["familiarity"]) == (True, 0.3, 99.5)
        assert (second["probability"], second["error"]) == (None, "torn in two")
    assert [file.name for file in tmp_path.iterdir()] == [place.name]


@settings(max_examples=40, deadline=None)
@given(
    form=st.sampled_from(["csv", "jsonl"]),
    names=st.lists(st.text(st.characters(exclude_characters="\0"), min_size=1), min_size=1, max_size=9),
    share=st.floats(0, 1),
)
def test_cut_off_at_any_byte_it_is_gone_on_with_to_the_same_bytes(
    form: str, names: list[str], share: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place, names = tmp_path_factory.mktemp("cut") / "x", [name.replace("\r", "") or "-" for name in names]
    rows = [row(name, number) for number, name in enumerate(names)]
    target = opened(form, place)
    target.add(rows)
    target.close()
    whole = place.read_bytes()
    os.truncate(place, int(share * len(whole)))
    again = opened(form, place)
    left = list(remaining(names, again.written(), place))
    again.add(rows[len(names) - len(left) :])
    again.close()
    assert place.read_bytes() == whole


def test_parts_of_parquet_become_one_file_and_are_taken_up(tmp_path: Path) -> None:
    place, names = tmp_path / "x.parquet", [f"{number}.png" for number in range(2 * PART + 50)]
    killed = opened("parquet", place)
    killed.add([row(name) for name in names[: PART + 10]])  # of which ten are not in a part yet
    assert not place.exists()
    again = opened("parquet", place)
    left = list(remaining(names, again.written(), place))
    assert left == names[PART:]
    again.add([row(name) for name in left])
    again.close()
    assert sources("parquet", place) == names
    more = opened("parquet", place)
    assert list(remaining([*names, "new"], more.written(), place)) == ["new"]
    more.add([row("new")])
    more.close()
    assert sources("parquet", place) == [*names, "new"]
    assert list(tmp_path.iterdir()) == [place]


def test_what_is_no_beginning_of_the_list_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "x.jsonl"
    opened("jsonl", place).add([row("one"), row("two")])
    for names, said in (
        (["one", "three"], "line 2 is two, and the list has three"),
        (["one"], "list ends there"),
    ):
        with pytest.raises(UsageError, match=said):
            list(remaining(names, opened("jsonl", place).written(), place))
    for form, content, said in (
        ("jsonl", b"{}\n", "line 1 is no prediction"),
        ("csv", b"a,b\n1,2\n", "its columns are a, b"),
    ):
        place.write_bytes(content)
        with pytest.raises(UsageError, match=said):
            list(opened(form, place).written())
        assert place.read_bytes() == content
    with pytest.raises(UsageError, match="name a file with --out"):
        sheet("parquet", None, io.StringIO(), TASK, None)


def test_a_text_is_one_line_of_a_table_and_does_not_steer_the_terminal() -> None:
    stream = io.StringIO()
    table = sheet("table", None, stream, TASK, None)
    table.add([row("one\ntwo \x1b[31mred \udcff"), row("word " * 1_000)])
    first, second = stream.getvalue().splitlines()
    assert first.startswith("one two  [31mred \udcff  a ")
    assert len(second) < 300
    assert "…  a " in second


def test_labels_have_their_probabilities_in_a_table_and_notes_their_column(tmp_path: Path) -> None:
    task, note = task_of("multi", ("cat", "dog")), "not promised, so never said: eel"
    answers = [
        Prediction("1", "cat; dog", None, {"cat": 0.9, "dog": 0.75}, labels=("cat", "dog"), note=note),
        Prediction(
            "2", "cat; dog", None, {"cat": 0.9}, labels=("cat", "dog")
        ),  # asked for the one at the top
        Prediction("3", "", None, {"cat": 0.1, "dog": 0.2}, labels=()),
    ]
    stream = io.StringIO()
    sheet("table", None, stream, task, None).add(answers)
    first, second, third = stream.getvalue().splitlines()
    assert first.startswith("1  cat 0.900; dog 0.750")
    assert (second.split(), third.split()) == (["2", "cat;", "dog"], ["3", "none"])
    with contextlib.closing(sheet("csv", tmp_path / "x.csv", stream, task, None)) as target:
        target.add(answers)
    with open(tmp_path / "x.csv", newline="") as file:
        assert [line["note"] for line in csv.DictReader(file)] == [note, "", ""]
    assert "note" not in columns(TASK, None)
