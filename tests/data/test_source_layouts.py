"""Layouts that people have: read as meant, or refused with what was seen and the way out. No image is
opened here.
"""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bases import IMAGES
from regraft.data import Passed, inputs
from regraft.data.rows import alike, perhaps_split, split_of
from regraft.errors import DataError
from regraft.modalities import read_source


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"-")
    return root


def refused(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_source(root)
    return str(caught.value)


@pytest.mark.parametrize(
    ("names", "split"),
    [
        ("train Training TRAIN_SET training-set trainset train_images img_train trn traindata", "train"),
        ("val valid Validation dev val_set validation_images Valid-Data labels_val", "val"),
        ("test Testing test_set TestSet holdout hold-out test_images test_labels tst", "test"),
        (
            "eval tr cat contest detest setting protester latest invalid bullet_train test_tube data trains",
            None,
        ),
    ],
)
def test_the_words_that_people_use_for_splits(names: str, split: str | None) -> None:
    assert {name: split_of(name) for name in names.split()} == dict.fromkeys(names.split(), split)


def test_words_that_could_be_a_split() -> None:
    assert all(
        perhaps_split(name)
        for name in ("eval", "Evaluation", "test2", "train2017", "1_train", "trainval", "eval_1")
    )
    assert not any(perhaps_split(name) for name in ("train", "cat", "tr", "te", "2017", "", "testament"))


@pytest.mark.parametrize(
    "names", ["training_set test_set", "Training Testing", "TRAIN Val-Set holdout", "trn dev tst"]
)
def test_split_folders_by_any_of_these_words(names: str, tmp_path: Path) -> None:
    """17.R1: `training_set/` and `test_set/` were classes, and the images of `Testing/` were lost as a
    stray.
    """
    for name in names.split():
        touch(tmp_path, f"{name}/cat/1.png", f"{name}/dog/2.png")
    source = read_source(tmp_path)
    assert source.task.classes == ("cat", "dog")
    assert {row.source.split("/")[0]: row.split for row in source.rows} == {
        name: split_of(name) for name in names.split()
    }
    assert source.passed.stray == []


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            "train2017/a/1.png train2017/b/1.png val2017/a/1.png val2017/b/1.png",
            ["train2017/ could be a split", "train/, val/"],
        ),
        ("train/a/1.png train/b/1.png eval/a/1.png eval/b/1.png", ["eval/ could be a split"]),
        ("train/a/1.png train/b/1.png quiz/a/1.png quiz/b/1.png", ["quiz/ holds the same folders as train/"]),
        ("tr/a/1.png tr/b/1.png te/a/1.png te/b/1.png", ["look like splits", "holds te/, tr/"]),
        ("my-train/a/1.png my-test/a/1.png", ["look like splits"]),
        ("cat/1.png dog/1.png test/9.png", ["test/ looks like a split", "no train/"]),
        ("train/1.png test/2.png", ["no class folders", "1 image lies directly in it"]),
        ("train/1.png test/2.png train.png labels.csv", ["labels.csv, give that file"]),
        ("train/a/1.png train/b/1.png val/a/1.png dev/b/1.png", ["more than one folder for val: dev, val"]),
        (
            "north/cat/1.png north/dog/1.png east/cat/1.png east/dog/1.png",
            ["two ways", "each of east/, north/ holds cat/, dog/"],
        ),
        (
            "cat/train/1.png cat/test/1.png dog/train/1.png dog/test/1.png",
            ["can be read in two ways", "train/cat/, test/cat/"],
        ),
        ("1.jpg 2.jpg notes.txt", ["2 images lie directly in it", "a folder of their own"]),
        ("cat.001.jpg cat.002.jpg dog_1.jpg dog_2.jpg", ["begin with cat, dog", "cat/, dog/"]),
        ("1.jpg 2.jpg labels.csv", ["labels are in", "labels.csv, give that file"]),
        ("a/1.dng a/2.dng b/3.mp4", ["2 .dng, 1 .mp4"]),
    ],
)
def test_what_is_not_certain_is_refused_with_the_way_out(files: str, said: list[str], tmp_path: Path) -> None:
    """17.R1: each of these was read as something else, or refused without a way out."""
    text = refused(touch(tmp_path, *files.split()))
    for words in said:
        assert words in text


def test_classes_that_only_sound_like_splits_or_nest_alike_are_classes(tmp_path: Path) -> None:
    for number, files in enumerate(
        (
            "train/1.png bus/1.png plane/1.png",
            "tr/1.png de/1.png",
            "bullet train/1.png freight train/2.png",
            "a/x/1.png b/x/1.png",
            "a/x/1.png a/y/1.png b/x/1.png b/z/2.png b/w/2.png a/v/2.png",
            "a/x/1.png a/y/2.png a/3.png b/x/1.png b/y/1.png",
        )
    ):
        root = tmp_path / str(number)
        names = [name.strip() + ".png" for name in files.split(".png") if name.strip()]
        source = read_source(touch(root, *names))
        assert source.task.classes == tuple(sorted({name.split("/")[0] for name in names})), files
        assert {row.split for row in source.rows} == {None}


def test_one_folder_inside_is_entered_and_said(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "dataset/dataset/cat/1.png",
        "dataset/dataset/dog/1.png",
        "dataset/readme.txt",
        "__MACOSX/dataset/._1.png",
    )
    source = read_source(tmp_path)
    assert (source.task.classes, source.root) == (
        ("cat", "dog"),
        (tmp_path / "dataset" / "dataset").resolve(),
    )
    assert source.name == tmp_path.name
    assert any("read from dataset/dataset/" in note.message for note in source.notes)
    touch(
        tmp_path / "two",
        "train/train/cat/1.png",
        "train/train/dog/1.png",
        "test/test/cat/1.png",
        "test/test/dog/1.png",
    )
    assert {(row.label, row.split) for row in read_source(tmp_path / "two").rows} == {
        (label, split) for label in ("cat", "dog") for split in ("train", "test")
    }
    assert read_source(touch(tmp_path / "one", "cat/1.png")).task.classes == ("cat",)


def test_test_images_without_labels_are_told(tmp_path: Path) -> None:
    touch(tmp_path / "folders", "train/a/1.png", "train/b/1.png", "test/1.png", "test/2.png")
    source = read_source(tmp_path / "folders")
    assert {row.split for row in source.rows} == {"train"}
    assert "test/ holds 2 images and no class folders" in " ".join(note.message for note in source.notes)
    tables = touch(tmp_path / "tables", "sample_submission.csv")
    (tables / "train.csv").write_text("path,label\n1.png,a\n2.png,b\n")
    for text in ("path\n3.png\n4.png\n", "path,label\n3.png,\n4.png,\n"):
        (tables / "test.csv").write_text(text)
        source = read_source(tables)
        assert len(source.rows) == 2
        said = [note.message for note in source.notes]
        assert any("test.csv" in words and "2 rows were passed over" in words for words in said)
        assert any("sample_submission.csv" in words for words in said)
    (tables / "train.csv").write_text("path\n1.png\n")
    assert "no column `label`" in refused(tables)
    (tables / "train.csv").write_text("path,label\n1.png,a\n")
    (tables / "eval.csv").write_text("path,label\n1.png,a\n")
    assert "eval.csv could be a split" in refused(tables)


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        ("file_name,class", "class"),
        ("FilePath;Category", "FilePath Category"),
        ("image|label", ""),
        ("image_path\ttarget", "image_path target"),
        ("img_path,label_name", "img_path label_name"),
    ],
)
def test_columns_by_the_names_that_people_use(header: str, taken: str, tmp_path: Path) -> None:
    mark = next(mark for mark in ";\t|," if mark in header)
    (tmp_path / "t.csv").write_text(f"{header}{mark}note\na.png{mark}x{mark}\nb.png{mark}y{mark}\n")
    source = read_source(tmp_path / "t.csv")
    assert [(row.source, row.label) for row in source.rows] == [("a.png", "x"), ("b.png", "y")]
    (note,) = source.notes
    assert all(f"`{name}` as" in note.message for name in taken.split())
    assert "did not use `note`" in note.message


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("image_id,label", "did you mean `image_id`"),
        ("path,breed", "did you mean `breed`"),
        ("path,lable", "did you mean `lable`"),
        ("path,class,category", "`class` and `category` could each be the column `label`"),
        ("file,image,label", "`file` and `image` could each be the column `path`"),
        ("a/1.png,cat", "Put a header before it"),
    ],
)
def test_columns_that_are_not_certain(header: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(header + "\n" + ",".join("abc"[: header.count(",") + 1]) + "\n")
    assert said in refused(tmp_path / "t.csv")


def test_a_column_of_splits_by_another_name_and_in_other_words(tmp_path: Path) -> None:
    """17.R1: one list of words for folders, tables and this column."""
    (tmp_path / "t.csv").write_text(
        "path,label,subset\n1.png,a,Training\n2.png,a,dev\n3.png,b,Test_Set\n4.png,b,\n"
    )
    assert [row.split for row in read_source(tmp_path / "t.csv").rows] == ["train", "val", "test", None]
    (tmp_path / "t.csv").write_text("path,label,set\n1.png,a,one\n2.png,a,train\n")
    assert [row.split for row in read_source(tmp_path / "t.csv").rows] == [None, None]


@pytest.mark.parametrize(
    "lines",
    [
        ['"path, of the file";path;label', "x;a.png;red, or so", "y;b.png;blue, or so"],
        ['path\t"label"', "a.png\tred, or so", "b.png\tblue, or so"],
        ['"path"|"label"', "a.png|red, or so", "b.png|blue, or so"],
        ["path,label", 'a.png,"red, or so"', 'b.png,"blue, or so"'],
    ],
)
def test_the_delimiter_is_that_by_which_the_columns_are_found(lines: list[str], tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    rows = read_source(tmp_path / "t.csv").rows
    assert [(row.source, row.label) for row in rows] == [("a.png", "red, or so"), ("b.png", "blue, or so")]


def test_whole_numbers_with_decimals_are_classes(tmp_path: Path) -> None:
    """17.R1: parquet labels of 0.0 and 1.0, as pandas writes where a cell is empty, were taken for
    regression.
    """
    table = {
        "path": ["1.png", "2.png", "3.png"],
        "label": [0.0, 1.0, 1.0],
        "group": [7.0, float("nan"), None],
    }
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    rows = read_source(tmp_path / "t.parquet").rows
    assert [(row.label, row.group) for row in rows] == [("0", "7"), ("1", None), ("1", None)]
    (tmp_path / "t.csv").write_text("path,label\n1.png,0.0\n2.png,1.0\n3.png,10.0\n")
    assert read_source(tmp_path / "t.csv").task.classes == ("0", "1", "10")
    (tmp_path / "t.csv").write_text("path,label\n1.png,1.0\n2.png,1.5\n3.png,1.5\n4.png,1.0\n")  # versions
    assert read_source(tmp_path / "t.csv").task.classes == ("1.0", "1.5")
    (tmp_path / "t.csv").write_text("path,label\n" + "".join(f"{n}.png,{n / 7}\n" for n in range(30)))
    assert "30 different numbers" in refused(tmp_path / "t.csv")
    assert "--task regression, or call the column `target`" in refused(tmp_path / "t.csv")
    pq.write_table(
        pa.table({"path": ["1.png", "2.png"], "label": [0.0, float("nan")]}), tmp_path / "t.parquet"
    )
    assert "row 2: no label" in refused(tmp_path / "t.parquet")


def test_class_names_that_differ_only_in_case_or_blanks_are_told(tmp_path: Path) -> None:
    assert alike(["Cat", "cat", "dog", "hot dog", "hot_dog", "cot"]) == [
        ["Cat", "cat"],
        ["hot dog", "hot_dog"],
    ]
    (tmp_path / "t.csv").write_text("path,label\n1.png,Cat\n2.png,cat\n3.png,dog\n")
    (note,) = read_source(tmp_path / "t.csv").notes
    assert (note.kind, note.severity) == ("class names alike", "warning")
    assert "'Cat' and 'cat'" in note.message
    (note,) = read_source(touch(tmp_path / "f", "tulip /1.png", "tulip/1.png")).notes
    assert "'tulip' and 'tulip '" in note.message


@pytest.mark.parametrize("mark", ["run.json", "repeats.json", "regraft.json"])
def test_what_regraft_wrote_is_never_data(mark: str, tmp_path: Path) -> None:
    """17.R2: `cd photos; regraft fit .` twice made a class `runs`."""
    touch(
        tmp_path,
        "cat/1.png",
        "dog/1.png",
        f"runs/photos/{mark}",
        "runs/photos/plot.png",
        f"cat/best/{mark}",
        "cat/best/1.png",
    )
    touch(tmp_path, f"mine/{mark}", "mine/x.png")
    source = read_source(tmp_path)
    assert [row.source for row in source.rows] == ["cat/1.png", "dog/1.png"]
    assert sorted(source.passed.own) == ["cat/best", "mine", "runs/photos"]
    assert source.empty == []
    for place in (tmp_path / "mine", tmp_path / "runs" / "photos"):
        assert "not data" in refused(place)
    assert "runs/photos" in refused(touch(tmp_path / "more", f"runs/photos/{mark}"))


def test_prediction_takes_the_files_that_training_takes(tmp_path: Path) -> None:
    """17.R3: one walker."""
    data = touch(
        tmp_path / "data",
        "cat/1.png",
        "cat/deep/2.JPG",
        "dog/3.webp",
        "cat/._1.png",
        "cat/.ipynb_checkpoints/1.png",
        "dog/x.txt",
        "__MACOSX/cat/1.png",
        "cat/@eaDir/1.png",
        "dog/Thumbs.db",
        "runs/a/run.json",
        "runs/a/plot.png",
    )
    if os.name != "nt":
        (data / "dog" / "loop").symlink_to(data)
        (data / "dog" / "linked").symlink_to(touch(tmp_path / "elsewhere", "4.png"))
    passed, source = Passed(noun="image"), read_source(data)
    found = [
        os.path.relpath(name, data).replace(os.sep, "/") for name in inputs([str(data)], (), IMAGES, passed)
    ]
    assert found == [row.source for row in source.rows]
    assert len(found) == (4 if os.name != "nt" else 3)
    said = passed.in_words()
    assert "5 hidden" in said
    assert "1 no images (1 .txt)" in said
    assert "runs/a" in said
    assert os.name == "nt" or "1 links" in said


def test_files_that_are_named_are_tried_and_nothing_at_all_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "._1.png", "x.txt", "only/x.txt", "only/.hidden.png")
    (tmp_path / "empty").mkdir()
    named = [str(tmp_path / name) for name in ("._1.png", "x.txt", "gone.png")]
    assert list(inputs([*named, str(tmp_path / "empty")], (), IMAGES, Passed())) == named
    cases = (
        ([], "no file or folder was named"),
        (["empty"], "there is nothing in it"),
        (["only", "empty"], "1 hidden, 1 no im"),
    )
    for names, said in cases:
        with pytest.raises(DataError, match=said):
            list(inputs([str(tmp_path / name) for name in names], (), IMAGES, Passed(noun="image")))


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "cat/1.png", "cat/shut/2.png", "dog/3.png")
    scandir = os.scandir

    def refuse(place: str) -> object:
        if str(place).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuse)
    assert read_source(tmp_path).passed.unreadable == ["cat/shut"]
    passed = Passed()
    assert len(list(inputs([str(tmp_path)], (), IMAGES, passed))) == 2
    assert "cannot be listed" in passed.in_words()
    with pytest.raises(DataError, match=r"cannot be listed .*shut"):
        list(inputs([str(tmp_path / "cat" / "shut")], (), IMAGES, Passed()))
