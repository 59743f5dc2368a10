"""Trees that would break a naive program, given to the command line: a run that ends well or one clear
error.
"""

from __future__ import annotations

import json
import os
import random
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, features

from commands import call

HEAD = ["--size", "64", "--freeze", "head", "--set", "run.engine=torch-float32"]


def picture(colour: int, seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 90, (size[1], size[0], 3))
    pixels[:, :, colour] += 150
    return Image.fromarray(pixels.astype(np.uint8))


def fill(folder: Path, colour: int, count: int = 14) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        picture(colour, 100 * colour + number).save(folder / f"{number}.png")
    return folder


def bomb() -> bytes:
    """A PNG of a few kilobytes that says it has 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1_000_000))) + chunk(b"IEND", b"")
    )


def good_ones(folder: Path) -> set[str]:
    """Every kind of image that can be read, in red."""
    names = [
        "Upper.JPG",
        "with space ü 漢字.png",
        "cmyk.jpg",
        "sixteen.png",
        "palette.png",
        "clear.png",
        "la.png",
        "one.png",
        "moving.gif",
        "pages.tiff",
        "web.webp",
        "bits.bmp",
        "dot.png",
        "thread.png",
        "turned.jpg",
        "deep/er/down.png",
    ]
    (folder / "deep" / "er").mkdir(parents=True)
    frames = [picture(1, 901), picture(2, 902)]
    exif = Image.Exif()
    exif[0x0112] = 6
    one = picture(0, 800)
    grey = np.asarray(one.convert("L"))
    red = {
        "cmyk.jpg": picture(0, 801).convert("CMYK"),
        "sixteen.png": Image.fromarray(grey.astype(np.uint16) * 257),
        "palette.png": picture(0, 802).quantize(16),
        "la.png": picture(0, 803).convert("LA"),
        "one.png": picture(0, 804).convert("1"),
        "dot.png": picture(0, 805, (1, 1)),
        "thread.png": picture(0, 806, (1, 5000)),
        "clear.png": picture(0, 807).convert("RGBA"),
    }
    options: dict[str, dict] = {
        "palette.png": {"transparency": 3},
        "turned.jpg": {"exif": exif},
        "web.webp": {"lossless": True},
        "moving.gif": {"save_all": True, "append_images": frames},
        "pages.tiff": {"save_all": True, "append_images": frames},
    }
    if features.check("avif"):
        names.append("new.avif")
    for number, name in enumerate(names):
        red.get(name, picture(0, 810 + number)).save(folder / name, **options.get(name, {}))
    return set(names)


def bad_ones(folder: Path) -> set[str]:
    """Every kind of file that cannot."""
    for ending in ("jpg", "png"):
        picture(0, 700, (200, 200)).save(folder / f"whole.{ending}")
        data = (folder / f"whole.{ending}").read_bytes()
        (folder / f"whole.{ending}").unlink()
        (folder / f"short.{ending}").write_bytes(data[: len(data) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "bomb.png").write_bytes(bomb())
    (folder / "text.jpg").write_text("hello, I am no picture\n")
    (folder / "noise.png").write_bytes(random.Random(0).randbytes(5000))
    return {"short.jpg", "short.png", "empty.jpg", "bomb.png", "text.jpg", "noise.png"}


def test_a_tree_full_of_traps_is_learnt_from(tmp_path: Path) -> None:
    root = tmp_path / "my data ü"
    red = fill(root / ("red & <script>alert(1)" if os.name != "nt" else "red & alert(1)"), 0)
    fill(root / "grün [bold]", 1)
    fill(root / "blue", 2, 5)
    (root / "nothing").mkdir()
    (root / "blue" / ".hidden.png").write_bytes(b"hidden")
    (root / "blue" / "a.jpg").mkdir()
    (root / "readme.txt").write_text("stray")
    good, bad = good_ones(red), bad_ones(red)
    strays, links = {"readme.txt"}, set()
    if os.name != "nt":
        outside = fill(tmp_path / "outside", 2, 9)
        (root / "blue" / "linked").symlink_to(outside)
        picture(2, 950).save(tmp_path / "single.png")
        (root / "blue" / "link.png").symlink_to(tmp_path / "single.png")
        (root / "blue" / "dangling.png").symlink_to(tmp_path / "gone.png")
        (root / "blue" / "loop").symlink_to(root / "blue")
        links = {"blue/loop"}
        picture(2, 951).save(root / "blue" / "two\nlines.png")
    if sys.platform == "linux":
        (Path(os.fsdecode(os.fsencode(root / "blue") + b"/\xff\xfe.png"))).write_bytes(b"-")
        strays.add("blue/\\udcff\\udcfe.png (its name is not UTF-8)")
        os.mkfifo(red / "pipe.png")
        bad.add("pipe.png")
    secret = red / "secret.png"
    picture(0, 960).save(secret)
    secret.chmod(0)
    if os.access(secret, os.R_OK):
        print("this user may read everything: the file without permissions counts as readable")
        good.add("secret.png")
    else:
        bad.add("secret.png")
    run = tmp_path / "run"
    result = call("fit", root, "--out", run, *HEAD)
    assert result.returncode == 0, result.stderr
    data = json.loads((run / "run.json").read_text(encoding="utf-8"))["data"]
    kinds = {finding["kind"]: set(finding["examples"]) for finding in data["findings"]}
    wanted = {f"{red.name}/{name}" for name in bad} | ({"blue/dangling.png"} if os.name != "nt" else set())
    assert {q["source"] for q in data["quarantined"]} == wanted
    assert all(q["reason"] for q in data["quarantined"])
    assert kinds["stray"] == strays
    assert kinds["empty"] == {"nothing"}
    assert kinds.get("links", set()) == links
    assert f"{len(wanted)} files could not be read" in result.stderr
    table = pq.read_table(run / "examples.parquet").to_pydict()
    assert {f"{red.name}/{name}" for name in good} <= set(table["source"])
    sizes = dict(zip(table["source"], zip(table["width"], table["height"], strict=True), strict=True))
    assert sizes[f"{red.name}/turned.jpg"] == (30, 40)
    assert sizes[f"{red.name}/thread.png"] == (1, 5000)
    report = (run / "report.html").read_text(encoding="utf-8")
    assert "<script>alert(1)" not in report
    assert "bomb.png" in report
    answers = call("predict", run, red / "Upper.JPG", red / "bomb.png", red, "--format", "jsonl")
    assert answers.returncode == 1
    rows = [json.loads(line) for line in answers.stdout.splitlines()]
    assert rows[0]["label"] == red.name
    assert "absurdly large" in rows[1]["error"]
    assert {Path(row["source"]).name for row in rows[2:] if row["error"]} >= {
        "short.jpg",
        "empty.jpg",
        "text.jpg",
    }


def one_class(root: Path) -> str:
    fill(root / "only", 0, 3)
    return "all examples are of one class"


def nothing_readable(root: Path) -> str:
    fill(root / "a", 0, 3)
    (root / "b").mkdir()
    bad_ones(root / "b")
    return "class 'b' has no readable training example (of 6 named)"


def only_strays(root: Path) -> str:
    root.mkdir()
    (root / "a.txt").write_text("x")
    (root / "photo.jpg").mkdir()
    return "no images or texts or sounds were found"


def a_table_of_nothing(root: Path) -> str:
    root.mkdir()
    (root / "train.csv").write_text("path,label\n1.png,a\n2.png,b\n/dev/zero,a\n..,b\n")
    return "could not be read: 1.png"


def counts_without_label(root: Path) -> str:
    fill(root / "train", 0, 2)
    (root / "train.csv").write_text("file,rbc,wbc\ntrain/0.png,3,1\n")
    return "no column `label`"


def an_image(root: Path) -> str:
    picture(0, 0).save(root, "PNG")
    return "no .csv, .parquet or .tar"


@pytest.mark.parametrize(
    "make", [one_class, nothing_readable, only_strays, a_table_of_nothing, counts_without_label, an_image]
)
def test_what_cannot_be_learnt_from_is_one_clear_error(make, tmp_path: Path) -> None:
    said = make(tmp_path / "data")
    result = call("fit", tmp_path / "data", "--out", tmp_path / "run")
    assert result.returncode == 2
    assert result.stderr.startswith("regraft: ")
    assert said in result.stderr
    assert not (tmp_path / "run").exists()
