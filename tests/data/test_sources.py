"""Where examples come from: every layout, named or hostile. No image is opened here."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regraft.data import Source
from regraft.errors import DataError
from regraft.modalities import read_source


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"-")


def table(source: Source) -> list[tuple[str, str, str | None]]:
    return sorted((row.source, row.label, row.split) for row in source.rows)


def test_class_folders_nested_in_any_spelling(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "cat/1.jpg",
        "cat/deep/er/2.JPEG",
        "a dog/3.Png",
        "ünïcödé/4.webp",
        "a dog/.no.png",
        ".git/x.png",
    )
    source = read_source(tmp_path)
    assert table(source) == [
        ("a dog/3.Png", "a dog", None),
        ("cat/1.jpg", "cat", None),
        ("cat/deep/er/2.JPEG", "cat", None),
        ("ünïcödé/4.webp", "ünïcödé", None),
    ]
    assert source.task.kind == "single"
    assert source.task.classes == ("a dog", "cat", "ünïcödé")
    assert source.name == tmp_path.name


def test_strays_and_empty_folders_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg", "cat/notes.txt", "readme.md", "loose.jpg", "dog/2.jpg", "bird/list.txt")
    (tmp_path / "fish").mkdir()
    source = read_source(tmp_path)
    assert sorted(source.passed.stray) == ["bird/list.txt", "cat/notes.txt", "loose.jpg", "readme.md"]
    assert sorted(source.empty) == ["bird", "fish"]
    assert source.task.classes == ("cat", "dog")


@pytest.mark.parametrize("names", ["train val test", "Training VALID Test", "train validation test"])
def test_split_folders(names: str, tmp_path: Path) -> None:
    train, *others = names.split()
    for name in (train, *others):
        touch(tmp_path, f"{name}/a/1.png", f"{name}/b/2.png")
    touch(tmp_path, "extra/x.png", "notes.txt", f"{train}/loose.png")
    source = read_source(tmp_path)
    assert [row.split for row in source.rows].count("train") == 2
    assert {row.split for row in source.rows} == {"train", "val", "test"}
    assert sorted(source.passed.stray) == sorted(["extra/", "notes.txt", f"{train}/loose.png"])


def test_test_folders_without_train_are_no_classes(tmp_path: Path) -> None:
    touch(tmp_path, "val/a/1.png", "test/a/1.png")
    with pytest.raises(DataError, match="no train/"):
        read_source(tmp_path)


def test_one_class_name_written_in_two_unicode_forms(tmp_path: Path) -> None:
    touch(tmp_path, "train/caf\u00e9/1.png", "train/tea/1.png", "test/cafe\u0301/1.png", "test/tea/2.png")
    source = read_source(tmp_path)
    assert source.task.classes == ("caf\u00e9", "tea")
    assert all((tmp_path / row.source).is_file() for row in source.rows)


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX links")
def test_links_are_followed_once(tmp_path: Path) -> None:
    root, other = tmp_path / "data", tmp_path / "elsewhere"
    touch(root, "cat/1.png", "dog/2.png")
    touch(other, "3.png", "4.png")
    (root / "dog" / "link.png").symlink_to(other / "3.png")
    (root / "bird").symlink_to(other)
    (root / "cat" / "up").symlink_to(root)
    (root / "cat" / "self").symlink_to(root / "cat")
    (root / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (root / "cat" / "round.png").symlink_to(root / "cat" / "round.png")
    (root / "whole").symlink_to(root)
    source = read_source(root)
    assert [row[0] for row in table(source)] == [
        "bird/3.png",
        "bird/4.png",
        "cat/1.png",
        "cat/gone.png",
        "cat/round.png",
        "dog/2.png",
        "dog/link.png",
    ]
    assert sorted(source.passed.links) == ["cat/self", "cat/up", "whole"]
    assert source.empty == []


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX links")
def test_a_ladder_of_links_is_not_climbed_by_every_path(tmp_path: Path) -> None:
    touch(tmp_path, *(f"cat/{step}/{step}.png" for step in range(30)), "dog/1.png")
    for step in range(29):
        for side in "lr":
            (tmp_path / "cat" / str(step) / side).symlink_to(tmp_path / "cat" / str(step + 1))
    assert len(read_source(tmp_path).rows) == 31


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux, where names may have any bytes")
def test_names_that_are_no_text_are_strays(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.png", "dog/2.png", "cat/two\nlines.png")
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/cat/\xff.png"))).write_bytes(b"-")
    source = read_source(tmp_path)
    assert [row[0] for row in table(source)] == ["cat/1.png", "cat/two\nlines.png", "dog/2.png"]
    assert source.passed.stray == ["cat/\\udcff.png (its name is not UTF-8)"]


def test_a_folder_named_like_an_image(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.png", "dog/a.jpg/2.png", "c.jpg/3.png")
    assert read_source(tmp_path).task.classes == ("c.jpg", "cat", "dog")


def test_what_holds_no_images_is_one_error_that_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    touch(tmp_path, "photos/readme.txt", "photos/a/x.doc")
    for name, said in (("empty", "nothing"), ("photos", "a, readme.txt"), ("photo", "Did you mean .*photos")):
        with pytest.raises(DataError, match=said):
            read_source(tmp_path / name)
    with pytest.raises(DataError, match=r"no \.csv"):
        read_source(tmp_path / "photos" / "readme.txt")


def test_a_folder_that_may_not_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "cat/1.png")

    def refuse(place: object) -> None:
        raise PermissionError(13, "Permission denied", str(place))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match="Permission denied"):
        read_source(tmp_path)


CSV = """path,label,split,group,weight
a/1.png,cat,,p1,
"a/2, and more.png",01,train,,2.5
../up.png,NA,VALID,,0
/abs/olute.png,"say ""hi"", you",test,p2,1
a/1.png,cat,,p1,
"""


def test_csv_with_every_column(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(CSV, encoding="utf-8")
    source = read_source(tmp_path / "list.csv")
    assert (source.name, source.root) == ("list", tmp_path.resolve())
    assert [(r.source, r.label, r.split, r.group, r.weight) for r in source.rows] == [
        ("a/1.png", "cat", None, "p1", None),
        ("a/2, and more.png", "01", "train", None, 2.5),
        ("../up.png", "NA", "val", None, 0.0),
        ("/abs/olute.png", 'say "hi", you', "test", "p2", 1.0),
        ("a/1.png", "cat", None, "p1", None),
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_as_spreadsheets_write_it(delimiter: str, encoding: str, end: str, tmp_path: Path) -> None:
    lines = [f'"File"{delimiter} Label ', f"ä.png{delimiter}1", f"b.png{delimiter}02"]
    (tmp_path / "list.CSV").write_bytes((end.join(lines) + end).encode(encoding))
    assert table(read_source(tmp_path / "list.CSV")) == [("b.png", "02", None), ("ä.png", "1", None)]


def test_a_table_a_split(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("file,label,split\n1.png,a,\n2.png,b,val\n")
    (tmp_path / "test.csv").write_text("file,label\n3.png,a\n")
    touch(tmp_path, "train/a/9.png")
    assert table(read_source(tmp_path)) == [
        ("1.png", "a", "train"),
        ("2.png", "b", "val"),
        ("3.png", "a", "test"),
    ]
    (tmp_path / "train.parquet").write_bytes(b"")
    with pytest.raises(DataError, match="more than one table for train"):
        read_source(tmp_path)
    (tmp_path / "train.parquet").unlink()
    (tmp_path / "train.csv").unlink()
    with pytest.raises(DataError, match="no train"):
        read_source(tmp_path)


def test_parquet(tmp_path: Path) -> None:
    labels = pa.array(["x", "y", "x"]).dictionary_encode()
    pq.write_table(pa.table({"path": ["1.png", "2.png", "3.png"], "label": labels}), tmp_path / "t.parquet")
    assert [label for _, label, _ in table(read_source(tmp_path / "t.parquet"))] == ["x", "y", "x"]
    pq.write_table(pa.table({"image": ["1.png", "2.png"], "label": [0, 1]}), tmp_path / "t.parquet")
    assert read_source(tmp_path / "t.parquet").task.classes == ("0", "1")


@pytest.mark.parametrize(
    ("labels", "are", "texts"),
    [
        ([["a", "b"], ["a"]], "names", ['["a", "b"]', '["a"]']),
        ([1.5, 2.0], "number", ["1.5", "2.0"]),
        ([1.0, 2.0], "name", ["1", "2"]),
        (["a", "b"], "name", ["a", "b"]),
    ],
)
def test_a_source_tells_what_its_labels_are(labels: list, are: str, texts: list[str], tmp_path: Path) -> None:
    pq.write_table(pa.table({"path": ["1.png", "2.png"], "label": labels}), tmp_path / "t.parquet")
    source = read_source(tmp_path / "t.parquet")
    assert source.labels == are
    assert [row.label for row in source.rows] == texts


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,rbc,wbc\n1.png,3,4\n", ["no column `label`"]),
        ("a,b\n1,2\n", ["no column `label`", "no column `path`"]),
        ("path,label,label\n1.png,a,b\n", ["2 columns `label`"]),
        ("path,label\n1.png,a,b\n", ["cannot be read as a table"]),
        ("", ["cannot be read as a table"]),
        ("path,label\n", ["no images were found"]),
        (
            "path,label,split,weight\n,a,,\n1.png,,,\n2.png, "
            ",,\n3.png,a,eval,\n4.png,a,,much\n5.png,a,,-1\n6.png,a,,nan",
            [
                "row 2: no path",
                "row 3: no label",
                "row 4: no label",
                "row 5: split 'eval'",
                "row 6: weight 'much'",
                "row 7: weight '-1'",
                "row 8: weight 'nan'",
            ],
        ),
    ],
)
def test_faults_of_a_table_come_all_at_once(text: str, said: list[str], tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        read_source(tmp_path / "t.csv")
    for words in said:
        assert words in str(caught.value)


def test_many_faults_are_counted_and_other_bytes_are_no_table(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,label\n" + ",a\n" * 50)
    with pytest.raises(DataError, match="and 30 more"):
        read_source(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_bytes("path,label\nä.png,é\n".encode("latin-1"))
    with pytest.raises(DataError, match="cannot be read as a table"):
        read_source(tmp_path / "t.csv")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 no table PAR1")
    with pytest.raises(DataError, match="cannot be read as a table"):
        read_source(tmp_path / "t.parquet")
    pq.write_table(pa.table({"image": [{"side": 3}], "label": ["a"]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="row 1: its path is no text but dict"):
        read_source(tmp_path / "t.parquet")
