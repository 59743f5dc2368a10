"""The audit: what cannot be read is set aside and listed, copies never straddle splits, contradictions are
named.
"""

from __future__ import annotations

import os
import pickle
import re
import shutil
import struct
import sys
import tracemalloc
import zlib
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bases import IMAGES
from regraft.data import Audited, Examples, Named, Row, Source, audit_files, make_examples
from regraft.data.audit import IN_TEST, Fact, contradicting_test
from regraft.data.lineage import assigned
from regraft.errors import DataError, SealedError, UsageError
from regraft.modalities import read_source
from regraft.modalities.image.levels import levels_in
from regraft.modalities.image.looks import SIDE, Look
from regraft.modalities.image.same import CLOSE, like_another
from regraft.tasks import task_of


def picture(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3))
    Image.fromarray(pixels.astype(np.uint8)).save(path, "PNG")
    return path


def many(root: Path, *folders: str, count: int = 12, start: int = 0) -> None:
    for number, folder in enumerate(folders):
        for k in range(start, start + count):
            picture(root / folder / f"{k}.png", 1000 * number + k)


def silent(**_: object) -> None:
    return None


def silent_log(kind: str, **_: object) -> None:
    return None


def audited(root: Path) -> tuple[Source, Audited]:
    source = read_source(root)
    return source, audit_files(source, silent)


def examples_of(root: Path, **options: object) -> tuple[Examples, Audited]:
    source, looked = audited(root)
    return make_examples(source, looked, **options), looked  # type: ignore[arg-type]


def finding(looked: Audited, kind: str) -> tuple[str, tuple[str, ...]]:
    found = [f for f in looked.findings if f.kind == kind]
    assert len(found) == 1, [f.kind for f in looked.findings]
    return found[0].message, found[0].examples


def where(examples: Examples) -> dict[str, str]:
    test = examples.unseal("a test", lambda *_, **__: None)
    parts = (examples.part("train"), examples.part("val"), test)
    return {source: part.name for part in parts for source in part.sources}


def test_bad_files_are_listed_with_their_split(tmp_path: Path) -> None:
    many(tmp_path, "train/a", "train/b", "val/a", "val/b", "test/a", "test/b")
    for place in ("train/a/bad.jpg", "test/b/bad.jpg", "test/b/worse.jpg"):
        (tmp_path / place).write_bytes(b"no picture")
    (tmp_path / "val" / "a" / "none.png").write_bytes(b"")
    examples, looked = examples_of(tmp_path)
    assert sorted((q.source, q.split) for q in looked.quarantined) == [
        ("test/b/bad.jpg", "test"),
        ("test/b/worse.jpg", "test"),
        ("train/a/bad.jpg", "train"),
        ("val/a/none.png", "val"),
    ]
    message, listed = finding(looked, "quarantined")
    assert message == "4 files could not be read and were set aside (2 test, 1 train, 1 val)"
    assert len(listed) == 4
    assert examples.counts() == {"train": 24, "val": 24, "test": 24}
    assert all("bad" not in source for source in where(examples))


def test_files_named_by_a_table_and_not_there(tmp_path: Path) -> None:
    many(tmp_path, "x", "y")
    lines = [f"{c}/{k}.png,{c},{'test' if k < 3 else ''}" for c in "xy" for k in range(14)]
    outside = picture(tmp_path.parent / f"{tmp_path.name}-outside.png", 77_777)
    lines += [f"../{outside.name},x,", f"{outside},x,", "https://example.org/a.png,y,test"]
    (tmp_path / "list.csv").write_text("path,label,split\n" + "\n".join(lines) + "\n")
    examples, looked = examples_of(tmp_path / "list.csv")
    assert [(q.source, q.split) for q in looked.quarantined] == [
        ("x/12.png", None),
        ("x/13.png", None),
        ("y/12.png", None),
        ("y/13.png", None),
        ("https://example.org/a.png", "test"),
    ]
    assert "4 not split yet, 1 test" in finding(looked, "quarantined")[0]
    assert len(finding(looked, "copies")[1]) == 2
    assert {f"../{outside.name}", str(outside)} <= set(where(examples))


def test_copies_are_kept_in_test_and_dropped_from_train_and_val(tmp_path: Path) -> None:
    many(tmp_path, "train/a", "train/b", "val/a", "val/b", "test/a", "test/b")
    shared = (tmp_path / "test" / "a" / "0.png").read_bytes()
    for place in ("train/a/copy.png", "val/a/copy.png", "test/a/copy.png"):
        (tmp_path / place).write_bytes(shared)
    (tmp_path / "train/b/copy.png").write_bytes((tmp_path / "val" / "b" / "0.png").read_bytes())
    examples, looked = examples_of(tmp_path)
    places = where(examples)
    assert {"test/a/0.png", "test/a/copy.png", "val/b/0.png"} <= set(places)
    assert not {"train/a/copy.png", "val/a/copy.png", "train/b/copy.png"} & set(places)
    assert sorted(finding(looked, "copies across splits")[1]) == [
        "train/a/copy.png",
        "train/b/copy.png",
        "val/a/copy.png",
    ]
    notes = next(f.notes for f in looked.findings if f.kind == "copies across splits")
    assert (notes["train/a/copy.png"], notes["val/a/copy.png"]) == ("was in train", "was in val")


def test_contradicting_labels_are_reported_and_those_of_test_once_it_is_unsealed(tmp_path: Path) -> None:
    """17.6: before that no label of test is compared with anything."""
    many(tmp_path, "train/a", "train/b", "test/a", "test/b")
    twin = (tmp_path / "train" / "a" / "0.png").read_bytes()
    (tmp_path / "train" / "b" / "twin.png").write_bytes(twin)
    (tmp_path / "train" / "b" / "other.png").write_bytes((tmp_path / "test" / "a" / "0.png").read_bytes())
    examples, looked = examples_of(tmp_path)
    assert set(finding(looked, "contradicting labels")[1]) == {"train/a/0.png", "train/b/twin.png"}
    assert "labelled" not in str([f.notes for f in looked.findings if f.kind == "copies across splits"])
    places = where(examples)
    assert places["train/a/0.png"] == places["train/b/twin.png"]
    assert "train/b/other.png" not in places
    flags = dict(zip(examples.table["source"].to_pylist(), examples.table["flags"].to_pylist(), strict=True))
    assert {source for source, flag in flags.items() if flag} == {"train/a/0.png", "train/b/twin.png"}
    examples.save(tmp_path / "t.parquet")
    again = Examples.load(tmp_path / "t.parquet")
    said = task_of("single", ("a", "b")).said
    (found,) = contradicting_test(again, again.unseal("a test", silent_log), said)
    assert found.kind == IN_TEST
    assert found.notes == {"test/a/0.png": "labelled a; of those identical, one dropped from train or val b"}
    assert again._Examples__sealed["flags"].to_pylist() == [[]] * 24  # type: ignore[attr-defined]


def test_classes_missing_in_a_split_and_groups_astride_are_named(tmp_path: Path) -> None:
    many(tmp_path, "a", "b")
    lines = [
        f"{c}/{k}.png,{c},{'test' if k < 3 and c < 'b' else ''},{c}{k // 4}" for c in "ab" for k in range(12)
    ]
    (tmp_path / "list.csv").write_text("path,label,split,group\n" + "\n".join(lines) + "\n")
    _, looked = examples_of(tmp_path / "list.csv")
    assert finding(looked, "class missing in test")[0] == "1 class has no example in test: b"
    message, listed = finding(looked, "groups across splits")
    assert message.endswith(": a0")
    assert set(listed) == {"a/0.png", "a/1.png", "a/2.png", "a/3.png"}
    assert finding(looked, "few examples")[0].startswith("2 classes have fewer than 10")


def test_all_that_makes_data_useless_comes_at_once(tmp_path: Path) -> None:
    many(tmp_path, "train/a", "test/a", "test/new")
    picture(tmp_path / "train" / "single" / "1.png", 1)
    (tmp_path / "train" / "bad").mkdir()
    (tmp_path / "train" / "bad" / "1.png").write_bytes(b"")
    (tmp_path / "train" / "empty").mkdir()
    with pytest.raises(DataError) as caught:
        examples_of(tmp_path)
    said = str(caught.value)
    for words in (
        "class 'bad' has no readable training example (of 1 named)",
        "class 'single' has a single",
        "class 'new' is only in test: there is nothing to train on",
        "folder 'train/empty' holds no images",
        "could not be read: train/bad/1.png: empty (zero bytes)",
    ):
        assert words in said


def test_examples_of_weight_zero_are_not_trained_on(tmp_path: Path) -> None:
    many(tmp_path, "a", "b", count=24)
    lines = [f"{label}/{k}.png,{label},{0 if k % 2 else 1}" for label in "ab" for k in range(24)]
    (tmp_path / "list.csv").write_text("path,label,weight\n" + "\n".join(lines) + "\n")
    examples, looked = examples_of(tmp_path / "list.csv")
    assert (examples.part("train").weights > 0).all()
    assert (examples.part("val").weights == 0).any() or examples.counts()["val"] < 4
    message, sources = finding(looked, "weight 0")
    assert "of weight 0 left out of train" in message
    assert not {*sources} & {*examples.part("train").sources}
    assert sum(examples.counts().values()) + len(sources) == 48
    (tmp_path / "list.csv").write_text("path,label,weight\n" + "\n".join(lines).replace("b,1", "b,0") + "\n")
    with pytest.raises(
        DataError, match=r"class 'b' has no readable training example \(of 24 named, 24 of weight 0\)"
    ):
        examples_of(tmp_path / "list.csv")


def test_a_table_beside_one_folder_is_pointed_at(tmp_path: Path) -> None:
    many(tmp_path, "images")
    (tmp_path / "labels.csv").write_text("file,label\n")
    with pytest.raises(DataError, match=r"(?s)all examples are of one class.*labels\.csv, give that file"):
        examples_of(tmp_path)


def test_few_examples_are_all_trained_on(tmp_path: Path) -> None:
    many(tmp_path, "a", "b", count=9)
    assert examples_of(tmp_path)[0].counts() == {"train": 18, "val": 0, "test": 0}


def test_splits_of_an_earlier_run_are_kept(tmp_path: Path) -> None:
    many(tmp_path / "data", "a", "b", count=20)
    before, _ = examples_of(tmp_path / "data")
    run = tmp_path / "run"
    run.mkdir()
    before.save(run / "examples.parquet")
    many(tmp_path / "data", "a", "b", count=30, start=20)
    many(tmp_path / "data", "rare", count=2, start=900)  # a class so small that nothing would be cut for it
    kept = assigned(run)
    after, _ = examples_of(tmp_path / "data", known=dict(zip(kept.ids, kept.splits, strict=True)))
    old, new = where(before), where(after)
    assert {source: new[source] for source in old} == old
    assert {new[source] for source in new.keys() - old.keys()} == {"train", "val", "test"}
    for fault in ("nowhere", "run"):
        (run / "examples.parquet").write_bytes(b"PAR1")
        with pytest.raises(UsageError, match="--splits"):
            assigned(tmp_path / fault)


GIVEN = st.sampled_from([None, None, "train", "val", "test"])
DRAWN = st.lists(
    st.tuples(st.integers(0, 60), st.sampled_from("ab"), st.one_of(st.none(), st.integers(0, 20)), GIVEN),
    min_size=24,
    max_size=90,
)


@settings(max_examples=80, deadline=None)
@given(DRAWN)
def test_no_content_and_no_pixels_straddle_splits(
    drawn: list[tuple[int, str, int | None, str | None]],
) -> None:
    rows = [
        Row(f"{n}.png", label, None if group is None else str(group), split=split)
        for n, (_, label, group, split) in enumerate(drawn)
    ]
    look = Look(8, 8, "PNG", "RGB", False, bytes(3 * SIDE**2))
    facts = [Fact(f"{content:032x}", f"{content // 2:032x}", look, 1, 1) for content, *_ in drawn]
    source = Source("drawn", Path("/nowhere"), rows, IMAGES, Named("single", ("a", "b")))
    looked = Audited(list(rows), facts)
    try:
        examples = make_examples(source, looked)
    except DataError:
        return  # too little is left to train on: refused, not split badly
    test = examples.unseal("a test", lambda *_, **__: None)
    parts = {"train": examples.part("train"), "val": examples.part("val"), "test": test}
    homes: dict[str, set[str]] = {}
    for name, part in parts.items():
        for identity in part.ids:
            homes.setdefault(f"{int(identity, 16) // 2:x}", set()).add(name)
    assert all(len(found) == 1 for found in homes.values())
    kept = {source: name for name, part in parts.items() for source in part.sources}
    for row in rows:
        if row.split == "test":
            assert kept[row.source] == "test"
        elif row.split == "val":
            assert kept.get(row.source) in ("val", None)
    known, every, tested = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set), set[str]()
    for fact, row in zip(facts, rows, strict=True):
        every[fact.identity].add(row.label)
        if kept.get(row.source) == "test":
            tested.add(fact.identity)
        else:
            known[fact.identity].add(row.label)
    assert any(len(found) > 1 for found in known.values()) == any(
        f.kind == "contradicting labels" for f in looked.findings
    )
    assert any(len(every[pixels]) > 1 for pixels in tested) == bool(
        contradicting_test(examples, test, task_of("single", ("a", "b")).said)
    )
    turned = [
        replace(row, label={"a": "b", "b": "a"}[row.label]) if kept.get(row.source) == "test" else row
        for row in rows
    ]
    stated = {row.split for row in rows if kept.get(row.source) == "test"} == {"test"}
    if stated and len(set(test.labels.tolist())) == 2:  # which classes there are in test is known
        again = Audited(list(turned), facts)
        other = make_examples(Source("drawn", Path("/nowhere"), turned, IMAGES, source.task), again)
        assert (again.findings, other.table, other.fingerprint) == (
            looked.findings,
            examples.table,
            examples.fingerprint,
        )


def test_the_seal(tmp_path: Path) -> None:
    many(tmp_path, "train/red_a", "train/red_b", "test/red_a", "test/red_b")
    made, _ = examples_of(tmp_path)
    made.save(tmp_path / "t.parquet")
    for examples in (made, Examples.load(tmp_path / "t.parquet"), pickle.loads(pickle.dumps(made))):
        for split in ("test", "Test", "all"):
            with pytest.raises((SealedError, UsageError)):
                examples.part(split)
        assert not re.search(r"test/", repr(examples) + str(examples) + repr(examples.table.to_pydict()))
        assert "test" not in examples.class_counts()
        assert examples.facts().num_rows == 24
        log = Mock()
        part = examples.unseal("to see", log)
        log.assert_called_once_with("unseal", reason="to see", examples=24)
        assert len(part) == 24
        assert all(str(path).startswith(str(tmp_path)) for path in part.items)
        assert examples.fingerprint == made.fingerprint


def test_files_that_change_are_noticed(tmp_path: Path) -> None:
    many(tmp_path, "train/a", "train/b", "test/a", "test/b")
    examples, _ = examples_of(tmp_path)
    assert examples.changed() == []
    (tmp_path / "train/a/0.png").unlink()
    (tmp_path / "test/a/0.png").write_bytes(b"other")
    assert sorted(examples.changed()) == ["test/a/0.png", "train/a/0.png"]
    assert examples.changed(("train",)) == ["train/a/0.png"]


def test_what_was_touched_copied_or_moved_has_not_changed(tmp_path: Path) -> None:
    """Files are judged by what they hold: a copy has another time, a moved folder other paths."""
    many(tmp_path / "data", "train/a", "train/b", "test/a", "test/b")
    examples, _ = examples_of(tmp_path / "data")
    for file in (tmp_path / "data").rglob("*.png"):
        os.utime(file, (1, 1))
    assert examples.changed() == []
    shutil.move(tmp_path / "data", tmp_path / "elsewhere")
    assert len(examples.changed()) == 48
    moved = examples.moved_to(tmp_path / "elsewhere")
    assert moved.changed() == []
    assert moved.fingerprint == examples.fingerprint
    (tmp_path / "elsewhere/train/a/0.png").write_bytes(b"other")
    assert moved.changed() == ["train/a/0.png"]
    with pytest.raises(UsageError, match="does not exist"):
        examples.moved_to(tmp_path / "data")


def test_pixels_decide_what_is_a_copy_and_copies_move_together(tmp_path: Path) -> None:
    """The same picture saved anew, in another format, or with other metadata has other bytes."""
    many(tmp_path, "train/a", "train/b", "test/a", "test/b")
    shown = Image.open(tmp_path / "test" / "a" / "0.png")
    shown.save(tmp_path / "train" / "a" / "again.png", compress_level=0)
    shown.save(tmp_path / "train" / "a" / "again.bmp")
    Image.open(tmp_path / "train" / "b" / "0.png").save(tmp_path / "train" / "b" / "0.webp", lossless=True)
    turned = Image.Exif()
    turned[0x0112] = 3
    Image.open(tmp_path / "test" / "b" / "1.png").rotate(180).save(
        tmp_path / "train" / "b" / "turned.png", exif=turned
    )
    examples, looked = examples_of(tmp_path)
    assert set(finding(looked, "copies across splits")[1]) == {
        "train/a/again.png",
        "train/a/again.bmp",
        "train/b/turned.png",
    }
    assert set(finding(looked, "copies")[1]) == {"train/b/0.png", "train/b/0.webp"}
    assert not {"train/a/again.png", "train/b/turned.png"} & set(where(examples))


def test_the_same_pixels_fall_into_one_split(tmp_path: Path) -> None:
    many(tmp_path, "a", "b", count=30)
    for path in sorted(tmp_path.glob("*/*.png")):
        Image.open(path).save(path.with_suffix(".bmp"))
    examples, looked = examples_of(tmp_path)
    places = where(examples)
    assert len(places) == 120
    assert all(place == places[source.replace(".bmp", ".png")] for source, place in places.items())
    assert "copies across splits" not in {f.kind for f in looked.findings}


def test_odd_pictures_and_unequal_classes_are_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label, count in (("a", 120), ("b", 10)):
        (tmp_path / label).mkdir()
        for k in range(count):
            pixels = rng.integers(0, 255, (60, 80, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / label / f"{k}.png")
    Image.new("RGB", (80, 60), "teal").save(tmp_path / "a" / "plain.png")
    Image.fromarray(rng.integers(0, 255, (12, 16, 3)).astype(np.uint8)).save(tmp_path / "a" / "tiny.png")
    Image.fromarray(rng.integers(0, 255, (60, 400, 3)).astype(np.uint8)).save(tmp_path / "a" / "long.png")
    Image.fromarray(rng.integers(0, 255, (60, 80)).astype(np.uint8)).save(tmp_path / "a" / "grey.png")
    _, looked = examples_of(tmp_path)
    for kind, source in (("plain", "plain"), ("tiny", "tiny"), ("grey", "grey")):
        assert finding(looked, f"{kind} pictures")[1] == (f"a/{source}.png",)
    assert finding(looked, "odd shapes")[1] == ("a/long.png",)
    assert "class 'a' has" in finding(looked, "imbalance")[0]


@pytest.mark.parametrize("leak", ["format", "size", "border", "none"])
def test_what_tells_the_label_beside_the_subject_is_named(leak: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number, label in enumerate(("a", "b")):
        (tmp_path / label).mkdir()
        for k in range(40):
            side = 40 + int(rng.integers(0, 10)) + 12 * number * (leak == "size")
            pixels = rng.integers(0, 255, (side, 50, 3)).astype(np.uint8)
            if leak == "border":
                pixels[:3], pixels[-3:], pixels[:, :4], pixels[:, -4:] = [200 * (1 - number)] * 4
            ending = "bmp" if leak == "format" and number else "png"
            Image.fromarray(pixels).save(tmp_path / label / f"{k}.{ending}")
    _, looked = examples_of(tmp_path)
    told = {f.kind: f.message for f in looked.findings if f.kind.endswith("tell the label")}
    if leak == "none":
        assert told == {}
    elif leak == "border":
        assert "border" in told["borders tell the label"]
        assert "files tell the label" not in told
    else:
        assert re.search(
            {"format": "format PNG|bytes a pixel", "size": "height|shape"}[leak], told["files tell the label"]
        )
        assert "borders tell the label" not in told


def test_the_audit_sees_test_without_labels_and_it_is_logged(tmp_path: Path) -> None:
    many(tmp_path, "train/red_a", "train/red_b", "test/red_a", "test/red_b")
    examples, _ = examples_of(tmp_path)
    log = Mock()
    inputs = examples.audit_view("to see", log)
    log.assert_called_once_with("audit_view", reason="to see", examples=24)
    assert len(inputs) == 24
    assert inputs.facts.select(["width", "height"]).to_pylist() == [{"width": 8, "height": 8}] * 24
    assert (len(inputs.labels), len(inputs.weights), inputs.groups, inputs.blocks) == (0, 0, (), None)
    known = examples.inputs()
    assert known.sources == examples.part("train").sources + examples.part("val").sources
    assert known.then(inputs).sources == known.sources + inputs.sources


@pytest.mark.data
@pytest.mark.parametrize("name", ["flowers5", "sign_digits"])
def test_no_leak_and_no_copy_is_seen_where_there_is_none(name: str, real_data: Path) -> None:
    assert [f.kind for f in examples_of(real_data / name)[1].findings] == []


def test_pictures_that_are_heic_or_elsewhere_are_told_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """17.R1: a folder of nothing but HEIC, and a table whose paths leave out the folder and the ending."""
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for name in ("cat/1.heic", "cat/2.HEIC", "dog/3.heif", "dog/4.jpg"):
        (tmp_path / "phone" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "phone" / name).write_bytes(b"\0\0\0\x1cftypheic\0\0\0\0mif1heic" + bytes(40))
    with pytest.raises(
        DataError, match=r"1\.heic: not an image Pillow can read \(HEIC: pip install 'regraft\[heic\]'"
    ):
        examples_of(tmp_path / "phone")
    picture(tmp_path / "table" / "train" / "0a1b.png", 0)
    (tmp_path / "table" / "labels.csv").write_text("path,label\n0a1b,cat\n0a1c,dog\n")
    with pytest.raises(DataError, match=r"train/0a1b\.png is there: paths in a table"):
        examples_of(tmp_path / "table" / "labels.csv")


def wide_png(values: np.ndarray) -> bytes:
    """A PNG of (H, W, 3) uint16."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = values.shape[:2]
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("top", [4095, 65535])
def test_colours_of_sixteen_bits_are_told_and_warned_of_where_they_are_dark(top: int, tmp_path: Path) -> None:
    """17.R7: Pillow keeps the upper 8 bits, so 12 bits in 16 leave 16 levels of each colour."""
    for number in range(24):
        path = tmp_path / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(wide_png(np.random.default_rng(number).integers(0, top, (8, 8, 3))))
    _, looked = examples_of(tmp_path)
    (found,) = [f for f in looked.findings if f.kind == "16-bit colours"]
    assert ("stretch them" in found.message, found.severity) == (
        (True, "warning") if top == 4095 else (False, "info")
    )


def test_the_scale_of_deep_pictures_is_that_of_train_and_val(tmp_path: Path) -> None:
    """17.R7: sealed examples have no say in it; near-copies among dark pictures are seen on one scale."""
    for split, top in (("train", 4000), ("test", 60000)):
        for number in range(12):
            path = tmp_path / split / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.random.default_rng(number).integers(0, top, (8, 8)).astype(np.uint16)).save(
                path
            )
    examples, looked = examples_of(tmp_path)
    assert levels_in(examples.facts()).whole == (0.0, 4095.0)
    examples.save(tmp_path / "examples.parquet")
    assert Examples.load(tmp_path / "examples.parquet").facts().equals(examples.facts())
    assert "from 0 to 4095 is from black to white" in finding(looked, "deep pictures")[0]


def test_looking_for_the_same_pixels_among_formats_takes_no_list_of_pairs() -> None:
    """In a uniform set nearly every picture is close to every other: the list took 4 GB at 70,000."""
    rng = np.random.default_rng(0)
    formats = np.array(["JPEG", "PNG"])[rng.integers(0, 2, 3_000)]
    uniform = rng.uniform(0, 1.5, (3_000, 6))
    tracemalloc.start()
    try:
        assert like_another(formats, uniform).all()
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 5_000_000
    few, kinds = rng.uniform(0, 9, (200, 6)), np.array(["BMP", "JPEG", "PNG"])[rng.integers(0, 3, 200)]
    close = (np.abs(few[:, None] - few).max(axis=2) <= CLOSE) & (kinds[:, None] != kinds)
    assert np.array_equal(like_another(kinds, few), close.any(axis=1))
    assert 0 < close.any(axis=1).sum() < 200
    assert like_another(np.array(["JPEG", "PNG"]), np.array([[0.0] * 6, [CLOSE] * 6])).all()
