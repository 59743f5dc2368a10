"""What a model has seen goes with its weights, and is known by content and by pixels."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from bases import IMAGES
from regraft.data import Examples, Part, audit_files, make_examples
from regraft.data.alike import Known, inputs_of, meet, nearly
from regraft.data.lineage import FILE, Seen, assigned, in_sample, of_run, seen_by
from regraft.errors import UsageError
from regraft.modalities import read_source

PHOTO = load_sample_images().images[0]


def silent(**_: object) -> None:
    return None


def noise(place: Path, count: int, start: int = 0, size: int = 24) -> None:
    """Pictures in the folders a and b of a place."""
    for number in range(start, start + count):
        for name in ("a", "b"):
            (place / name).mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng([number, name == "b"]).integers(
                0, 255, (size, size, 3), dtype=np.uint8
            )
            Image.fromarray(pixels).save(place / name / f"{number}.png")


def made(data: Path, run: Path) -> Examples:
    """The examples of a run in a folder."""
    source = read_source(data)
    examples = make_examples(source, audit_files(source, silent))
    run.mkdir(parents=True)
    examples.save(run / "examples.parquet")
    return examples


def inputs(data: Path) -> Part:
    source = read_source(data)
    return inputs_of(audit_files(source, silent), source)


def met(data: Path, seen: Seen) -> tuple[set[str], set[str]]:
    """The sources that were seen, and those of which it could not be said."""
    new = inputs(data)
    found = seen.meet(new, IMAGES, silent)
    names = np.array(new.sources)
    return set(names[found.rows >= 0]), set(names[found.unsure])


def test_the_same_pixels_in_other_bytes_are_known_and_other_pictures_are_not(tmp_path: Path) -> None:
    noise(tmp_path / "data", 12)
    examples = made(tmp_path / "data", tmp_path / "run")
    seen = Seen.of(examples, tmp_path / "run")
    train = examples.part("train").sources[:4]
    sealed = next(iter(sorted(examples.files().keys() - set(examples.inputs().sources))))
    for number, ending in enumerate(("bmp", "png", "webp", "tiff")):
        picture = Image.open(tmp_path / "data" / train[number])
        (tmp_path / "new" / "a").mkdir(parents=True, exist_ok=True)
        options = {"webp": {"lossless": True}, "png": {"compress_level": 0}}.get(ending, {})
        picture.save(tmp_path / "new" / "a" / f"again{number}.{ending}", **options)  # type: ignore[arg-type]
    Image.open(tmp_path / "data" / sealed).save(tmp_path / "new" / "a" / "test.bmp")
    noise(tmp_path / "new", 5, 500)
    assert met(tmp_path / "new", seen)[0] == {
        f"a/again{n}.{e}" for n, e in enumerate(("bmp", "png", "webp", "tiff"))
    }
    shutil.rmtree(tmp_path / "data")  # then nothing is left to compare pixels with, and that is said
    seen.save(tmp_path / FILE)
    assert met(tmp_path / "new", Seen.load(tmp_path / FILE)) == (
        set(),
        {f"a/again{n}.{e}" for n, e in enumerate(("bmp", "png", "webp", "tiff"))},
    )


def test_a_jpeg_is_known_again_as_the_png_of_its_pixels(tmp_path: Path) -> None:
    """A large JPEG is decoded small for the first look, a PNG whole: their hashes are near, not equal."""
    for folder, file in (("data", "photo.jpg"), ("new", "photo.png")):
        noise(tmp_path / folder, 4, start=10 * len(folder), size=16)
        (tmp_path / folder / "a" / file).parent.mkdir(exist_ok=True)
    Image.fromarray(PHOTO).save(tmp_path / "data" / "a" / "photo.jpg", quality=92)
    Image.open(tmp_path / "data" / "a" / "photo.jpg").save(tmp_path / "new" / "a" / "photo.png")
    known, new = inputs(tmp_path / "data"), inputs(tmp_path / "new")
    base = Known(known.ids, known.identities, ("train",) * len(known), known.facts, known.items)
    found = meet(new, base, IMAGES, silent)
    assert {new.sources[i]: known.sources[row] for i, row in enumerate(found.rows) if row >= 0} == {
        "a/photo.png": "a/photo.jpg"
    }


def test_near_duplicates_of_another_set_are_found(tmp_path: Path) -> None:
    photo = Image.fromarray(PHOTO)
    for folder in ("data", "new"):
        noise(tmp_path / folder, 6, start=100 * len(folder), size=64)
    photo.save(tmp_path / "data" / "a" / "photo.png")
    photo.resize((320, 214)).save(tmp_path / "new" / "a" / "smaller.jpg", quality=80)
    photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "new" / "a" / "mirrored.png")
    known, new = inputs(tmp_path / "data"), inputs(tmp_path / "new")
    base = Known(known.ids, known.identities, ("train",) * len(known), known.facts, known.items)
    which = nearly(new, base, IMAGES.likeness(known.facts), silent)
    assert set(np.array(new.sources)[which]) == {"a/smaller.jpg", "a/mirrored.png"}


def test_a_model_knows_what_all_runs_before_it_have_seen(tmp_path: Path) -> None:
    """Three generations; the model is copied away, the runs are deleted, and one of them came from its own
    later self.
    """
    seen = None
    for number in range(3):
        noise(tmp_path / f"data{number}", 8, start=100 * number)
        seen = Seen.of(
            made(tmp_path / f"data{number}", tmp_path / f"run{number}"), tmp_path / f"run{number}", seen
        )
    assert seen is not None
    assert [Path(run).name for run in seen.runs] == ["run2", "run1", "run0"]
    model = tmp_path / "copied"
    model.mkdir()
    (model / "regraft.json").write_text("{}")
    seen.save(model / FILE)
    for number in range(3):
        shutil.rmtree(tmp_path / f"run{number}")
    found = seen_by(f"path:{model}")
    assert found is not None
    for number in range(3):
        assert len(met(tmp_path / f"data{number}", found)[0]) == 16
    looped = Seen.of(Examples.load(_again(tmp_path, "data0", "run0")), tmp_path / "run0", found)
    assert looped.table.num_rows == 48
    assert looped.ancestors().runs == found.runs
    kept = assigned(model)
    assert set(kept.splits) == {"train"}  # eight of a class are too few to cut a test set
    with pytest.raises(UsageError, match=r"no examples.parquet"):
        of_run(model)


def _again(tmp_path: Path, data: str, run: str) -> Path:
    made(tmp_path / data, tmp_path / run)
    return tmp_path / run / "examples.parquet"


def test_where_nothing_is_known_that_is_said_and_nothing_is_promised(tmp_path: Path) -> None:
    assert seen_by("packaged:efficientnet_lite0") is None
    assert seen_by("auto") is None
    (tmp_path / "foreign").mkdir()
    assert seen_by(f"path:{tmp_path / 'foreign'}") is None
    (tmp_path / "foreign" / "regraft.json").write_text("{}")
    past = seen_by(f"path:{tmp_path / 'foreign'}")
    assert past is not None
    assert "what it was made with is not known" in past.unknown[0]
    assert "not known" in in_sample(
        {"seen_by_ancestors": {"train": 0, "val": 0, "runs": [], "unknown": list(past.unknown)}}
    )
    assert "3 of train and 1 of val" in in_sample(
        {"seen_by_ancestors": {"train": 3, "val": 1, "runs": ["x"], "unknown": []}}
    )
    assert (
        in_sample({"seen_by_ancestors": {"train": 0, "val": 0, "runs": [], "unknown": []}})
        == in_sample({})
        == ""
    )


def test_tables_of_an_earlier_regraft_are_refused_in_one_line(tmp_path: Path) -> None:
    """Their column was called `pixels`, and the facts of images stood among those of all modalities."""
    noise(tmp_path / "data", 12)
    examples = made(tmp_path / "data", tmp_path / "run")
    Seen.of(examples, tmp_path / "run").save(tmp_path / "run" / "model" / FILE)
    for place, read in (("examples.parquet", Examples.load), (f"model/{FILE}", Seen.load)):
        table = pq.read_table(tmp_path / "run" / place)
        names = ["pixels" if name == "identity" else name for name in table.column_names]
        older = table.rename_columns(names).replace_schema_metadata(table.schema.metadata)
        pq.write_table(older, tmp_path / "run" / place)
        with pytest.raises(UsageError, match="was written by an earlier regraft") as fault:
            read(tmp_path / "run" / place)
        assert "\n" not in str(fault.value)
    with pytest.raises(UsageError, match="earlier regraft"):
        assigned(tmp_path / "run")
    with pytest.raises(UsageError, match="earlier regraft"):
        seen_by(f"run:{tmp_path / 'run'}")
