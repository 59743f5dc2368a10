"""Images of every kind to the same pixels, and the preprocessing that everything shares."""

from __future__ import annotations

import io
import json
import os
import struct
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, features
from sklearn.datasets import load_sample_images

from regraft.data.known import KnownFile, content_id
from regraft.errors import ChangedError, Unreadable, UsageError
from regraft.modalities.image import (
    Augment,
    ImagePreprocess,
    inspect_image,
    load_rgb,
    pixel_digest,
    thumbnail,
)
from regraft.modalities.image.levels import Deep, Levels, levels_of

LITE0 = ImagePreprocess(224, 0.875, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
PHOTOS = load_sample_images().images  # two of 427x640
COLOURS = np.array([[[200, 30, 40], [20, 180, 60]], [[10, 20, 220], [240, 230, 20]]], np.uint8)


def size_of(path: Path) -> tuple[int, int]:
    look = inspect_image(path)
    return look.width, look.height


def quarters(size: int = 32) -> Image.Image:
    """Red, green, blue and yellow quarters: which way up it is shows."""
    return Image.fromarray(COLOURS.repeat(size // 2, 0).repeat(size // 2, 1))


def corners(image: Image.Image) -> np.ndarray:
    """(2, 2, 3) the colours at the middle of the quarters."""
    pixels = np.asarray(image).astype(int)
    height, width = pixels.shape[:2]
    return pixels[np.ix_([height // 4, 3 * height // 4], [width // 4, 3 * width // 4])]


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


FORMATS = [
    ("a.png", {}),
    ("a.JPG", {"quality": 98}),
    ("a.bmp", {}),
    ("a.gif", {}),
    ("a.tiff", {}),
    ("a.ppm", {}),
    ("a.webp", {"lossless": True}),
    ("a.tga", {}),
    ("a.jp2", {}),
    ("a.avif", {"quality": 95}),
]


@pytest.mark.parametrize("ending", ["jpg", "png", "tiff"])
def test_a_known_file_gives_the_pixels_that_its_path_gives(ending: str, tmp_path: Path) -> None:
    path = saved(Image.fromarray(PHOTOS[0]), tmp_path / f"a.{ending}")
    known = KnownFile(str(path), content_id(path.read_bytes()))
    assert (LITE0.host(known) == LITE0.host(path)).all()
    assert inspect_image(known) == inspect_image(path)
    assert pixel_digest(known) == pixel_digest(path)
    path.write_bytes(path.read_bytes() + b" ")  # it shows the same, but is another file
    with pytest.raises(ChangedError, match="its content is another one"):
        load_rgb(known)


@pytest.mark.parametrize(("name", "options"), FORMATS)
def test_formats(name: str, options: dict, tmp_path: Path) -> None:
    needs = {".webp": "webp", ".avif": "avif", ".jp2": "jpg_2000"}.get(Path(name).suffix)
    if needs and not features.check(needs):
        pytest.skip(f"this Pillow was built without {needs}: a wheel of pip has it")
    path = saved(quarters(), tmp_path / name, **options)
    assert size_of(path) == (32, 32)
    assert np.abs(corners(load_rgb(path)) - COLOURS).max() <= 8


def test_modes(tmp_path: Path) -> None:
    picture = quarters()
    grey = np.asarray(picture.convert("L"))
    grey_corners = corners(picture.convert("L").convert("RGB"))
    white_left = np.zeros((32, 32), np.uint8)
    white_left[:, :16] = 255
    clear = picture.copy()
    clear.putalpha(Image.fromarray(255 - white_left))  # the left half cannot be seen
    cases = {
        "cmyk.jpg": (picture.convert("CMYK"), None),
        "palette.png": (picture.quantize(4), COLOURS),
        "one.png": (Image.fromarray(white_left).convert("1"), [[[255] * 3, [0] * 3]] * 2),
        "sixteen.png": (Image.fromarray(grey.astype(np.uint16) * 257), grey_corners),
        "la.png": (clear.convert("LA"), None),
        "rgba.png": (clear, [[[255] * 3, COLOURS[0, 1]], [[255] * 3, COLOURS[1, 1]]]),
        "float.tiff": (Image.fromarray(grey.astype(np.float32) / 255), grey_corners),
    }
    for name, (image, wanted) in cases.items():
        path = saved(image, tmp_path / name)
        found = load_rgb(path)
        assert found.mode == "RGB", name
        assert size_of(path) == (32, 32), name
        if wanted is not None:
            assert np.abs(corners(found) - np.array(wanted)).max() <= 1, name
    assert (corners(load_rgb(tmp_path / "la.png"))[:, 0] == 255).all()
    assert np.abs(corners(load_rgb(tmp_path / "cmyk.jpg")) - COLOURS).max() <= 8


def test_a_transparent_colour_of_a_palette_is_white(tmp_path: Path) -> None:
    picture = quarters().quantize(4)
    unseen = picture.getpixel((0, 0))
    for name in ("a.png", "a.gif"):
        path = saved(picture, tmp_path / name, transparency=unseen)
        found = corners(load_rgb(path))
        assert (found[0, 0] == 255).all(), name
        assert np.abs(found[1] - COLOURS[1]).max() <= 1, name


def test_of_several_frames_the_first(tmp_path: Path) -> None:
    others = [Image.new("RGB", (32, 32), "black"), Image.new("RGB", (32, 32), "white")]
    for name in ("a.gif", "a.tiff", "a.webp", "a.png"):
        lossless = {"lossless": True} if "webp" in name else {}
        path = saved(quarters(), tmp_path / name, save_all=True, append_images=others, **lossless)
        with Image.open(path) as whole:
            assert whole.n_frames == 3, name
        assert np.abs(corners(load_rgb(path)) - COLOURS).max() <= 1, name
        assert size_of(path) == (32, 32)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tiff", "a.webp"])
@pytest.mark.parametrize("orientation", range(1, 10))
def test_exif_orientation_is_obeyed(name: str, orientation: int, tmp_path: Path) -> None:
    ways = {
        1: COLOURS,
        2: COLOURS[:, ::-1],
        3: COLOURS[::-1, ::-1],
        4: COLOURS[::-1],
        5: COLOURS.transpose(1, 0, 2),
        6: np.rot90(COLOURS, -1),
        7: COLOURS[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(COLOURS),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(quarters().resize((32, 16), 0), tmp_path / name, exif=exif, quality=98)
    turned = 5 <= orientation <= 8
    assert size_of(path) == ((16, 32) if turned else (32, 16))
    found = load_rgb(path)
    assert found.size == ((16, 32) if turned else (32, 16))
    assert np.abs(corners(found) - ways.get(orientation, COLOURS)).max() <= 12


def test_a_broken_exif_block_does_not_spoil_the_pixels(tmp_path: Path) -> None:
    path = saved(quarters(), tmp_path / "a.jpg", quality=98, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f nonsense")
    assert size_of(path) == (32, 32)
    assert np.abs(corners(load_rgb(path)) - COLOURS).max() <= 8


def bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A small PNG that says it is huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" * 1_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PHOTOS[0]).save(buffer, kind)
    return buffer.getvalue()


def test_what_is_no_image_says_why(tmp_path: Path) -> None:
    jpeg, png = encoded("JPEG"), encoded("PNG")
    gif = io.BytesIO()
    quarters().save(gif, "GIF")
    cases = {
        "short.jpg": (jpeg[: len(jpeg) // 2], "damaged"),
        "short.png": (png[: len(png) // 2], "damaged"),
        "head.png": (png[:20], "not an image|damaged"),
        "flipped.png": (png[:500] + bytes([png[500] ^ 255]) + png[501:], "damaged"),
        "short.gif": (gif.getvalue()[:-40], "damaged"),
        "empty.jpg": (b"", "empty"),
        "bomb.png": (bomb(), "absurdly large"),
        "small_bomb.png": (bomb(11_000, 11_000), "absurdly large"),
        "text.jpg": (b"this is a text, not a picture\n" * 9, "not an image"),
        "page.png": (b"<html><script>alert(1)</script></html>", "not an image"),
        "program.jpg": (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
            "PostScript",
        ),
    }
    for name, (data, why) in cases.items():
        (tmp_path / name).write_bytes(data)
        for item in (tmp_path / name, str(tmp_path / name), data):
            with pytest.raises(Unreadable, match=why):
                load_rgb(item)
        with pytest.raises(Unreadable, match=why):
            inspect_image(tmp_path / name)
        with pytest.raises(Unreadable, match=why):
            LITE0.host(data)
    (tmp_path / "folder.jpg").mkdir()
    for item, why in [
        (tmp_path / "folder.jpg", "a folder"),
        (tmp_path / "none.jpg", "No such file"),
        ("nul\0.jpg", "cannot be opened"),
        ("x" * 5000, "cannot be opened"),
        (5, "wanted a path"),
        (None, "wanted a path"),
        (np.zeros((2, 2, 2)), "shape"),
        (np.zeros((0, 4)), "shape"),
        (np.zeros((4, 4), np.int64), "int64"),
        (np.full((4, 4), 2.0), "outside 0 to 1"),
        (np.full((4, 4), np.nan), "outside 0 to 1"),
    ]:
        with pytest.raises(Unreadable, match=why):
            load_rgb(item)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(Unreadable, match="not a plain file"):
        inspect_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (2, 7)])
def test_extreme_shapes(size: tuple[int, int], tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg"):
        path = saved(Image.new("RGB", size, (90, 120, 150)), tmp_path / name)
        assert size_of(path) == size
        rng = np.random.default_rng(0)
        for found in (LITE0.host(path), *(LITE0.host(path, rng, Augment(0.3, True, 0.0)) for _ in range(20))):
            assert found.shape == (224, 224, 3)
            assert np.abs(found.astype(int) - (90, 120, 150)).max() <= 2


@pytest.mark.parametrize("photo", [0, 1])
def test_host_agrees_with_timm(photo: int) -> None:
    """The same pixels where timm's resized image has whole sides; else timm rounds, up to half a pixel."""
    from timm.data import create_transform

    theirs = create_transform(
        (3, 224, 224),
        is_training=False,
        interpolation="bicubic",
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        crop_pct=0.875,
    )

    def both(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        tensor = theirs(Image.fromarray(pixels)).numpy().transpose(1, 2, 0)
        return LITE0.host(pixels).astype(float), (tensor * 0.5 + 0.5) * 255

    for whole in (
        PHOTOS[photo][:, 100:527],
        PHOTOS[photo][:420, :630],
    ):  # short side to 256: 256x256 and 256x384
        found, wanted = both(whole)
        np.testing.assert_allclose(found, wanted, atol=1e-3)
    found, wanted = both(PHOTOS[photo])  # 256 by 383.7
    one_pixel = np.abs(wanted[:, 1:] - wanted[:, :-1]).mean()
    assert np.abs(found - wanted).mean() < 0.6 * one_pixel


def test_path_bytes_pil_and_array_give_the_same_pixels(tmp_path: Path) -> None:
    image = Image.fromarray(PHOTOS[0])
    path = saved(image, tmp_path / "a.png")
    data = path.read_bytes()
    wanted = LITE0.host(path)
    assert wanted.shape == (224, 224, 3)
    assert wanted.dtype == np.uint8
    with Image.open(path) as lazy:
        items = [str(path), data, bytearray(data), memoryview(data), image, lazy, PHOTOS[0], PHOTOS[0] / 255]
        for item in items:
            np.testing.assert_array_equal(LITE0.host(item), wanted)
        lazy.getpixel((0, 0))  # still the caller's, and open
    np.testing.assert_array_equal(LITE0.collate([wanted, wanted])["pixels"], np.stack([wanted, wanted]))


@pytest.mark.parametrize("photo", [0, 1])
def test_sixteen_bits_and_grey_arrays_agree_with_files(photo: int, tmp_path: Path) -> None:
    grey = np.asarray(Image.fromarray(PHOTOS[photo]).convert("L"))
    deep = grey.astype(np.uint16) * 256 + 128
    path = saved(Image.fromarray(deep), tmp_path / "deep.png")
    np.testing.assert_array_equal(LITE0.host(path), LITE0.host(deep))
    np.testing.assert_array_equal(LITE0.host(grey), LITE0.host(grey[:, :, None]))
    np.testing.assert_array_equal(LITE0.host(grey > 127), LITE0.host((grey > 127).astype(np.uint8) * 255))


@pytest.mark.parametrize("photo", [0, 1])
@pytest.mark.parametrize("size", [(1200, 801), (2560, 1708), (2563, 3841)])
def test_a_large_jpeg_and_its_pixels_give_nearly_the_same_input(
    photo: int, size: tuple[int, int], tmp_path: Path
) -> None:
    """17.12: a path and the same picture as pixels were up to 1.5 grey levels apart on average."""
    large = Image.fromarray(PHOTOS[photo]).resize(size, Image.Resampling.LANCZOS)
    path = saved(large, tmp_path / "a.jpg", quality=95)
    with Image.open(path) as opened:
        pixels = opened.convert("RGB")
    for pre in (ImagePreprocess(64, 0.875, "bicubic", (0.5,) * 3, (0.5,) * 3), LITE0):
        found = LITE0.host(path) if pre is LITE0 else pre.host(path)
        for item in (pixels, np.asarray(pixels)):
            gap = np.abs(found.astype(int) - pre.host(item))
            assert gap.mean() < 0.35
            assert np.quantile(gap, 0.999) <= 4
        np.testing.assert_array_equal(found, pre.host(path.read_bytes()))
        with Image.open(path) as opened:
            np.testing.assert_array_equal(pre.host(opened), pre.host(pixels))
            assert opened.size == size  # still the caller's
    assert load_rgb(path).size == size


def test_a_large_picture_of_any_other_format_and_its_pixels_give_the_same_input(tmp_path: Path) -> None:
    large = Image.fromarray(PHOTOS[1]).resize((2563, 1711), Image.Resampling.LANCZOS)
    wanted = LITE0.host(large)
    for name in ("a.png", "a.bmp", "a.tiff"):
        np.testing.assert_array_equal(LITE0.host(saved(large, tmp_path / name)), wanted)
    np.testing.assert_array_equal(LITE0.host(np.asarray(large)), wanted)
    assert load_rgb(large, least=256).size == (1282, 856)
    assert load_rgb(large, least=200).size == (641, 428)
    direct = large.crop(((2563 - 1497.125) / 2, 1711 / 16, (2563 + 1497.125) / 2, 1711 * 15 / 16)).resize(
        (224, 224), 3
    )
    assert np.abs(wanted.astype(int) - np.asarray(direct)).mean() < 2  # averaging first changes little


def test_augmentation_depends_on_the_generator_only(tmp_path: Path) -> None:
    path = saved(Image.fromarray(PHOTOS[1]), tmp_path / "a.png")
    augment = Augment(0.4, True, 0.2)

    def views(seed: int, item: object, how: Augment = augment) -> list[np.ndarray]:
        rng = np.random.default_rng(seed)
        np.random.seed(seed + 1)  # the global one must not matter
        return [LITE0.host(item, rng, how) for _ in range(4)]

    first = views(0, path)
    np.testing.assert_array_equal(first, views(0, PHOTOS[1]))
    assert not np.array_equal(first, views(1, path))
    assert not np.array_equal(first[0], first[1])
    np.testing.assert_array_equal(LITE0.host(path, None, augment), LITE0.host(path))


def test_mirror_images_only_where_allowed() -> None:
    left = np.zeros((40, 40, 3), np.uint8)
    left[:, :20] = 200
    small = ImagePreprocess(32, 1.0, "bilinear", (0.5,) * 3, (0.5,) * 3)
    rng = np.random.default_rng(0)
    for mirror in (False, True):
        seen = [small.host(left, rng, Augment(1.0, mirror, 0.0))[:, :4].mean() > 100 for _ in range(40)]
        assert all(seen) is not mirror


def test_preprocessing_survives_its_dictionary_and_other_versions_are_refused() -> None:
    values = LITE0.to_dict()
    again = ImagePreprocess.from_dict({**values, "mean": list(values["mean"])})
    assert again == LITE0
    assert again.fingerprint == LITE0.fingerprint
    changed = (
        {"size": 192},
        {"crop": 0.9},
        {"interpolation": "bilinear"},
        {"mean": (0, 0, 0)},
        {"std": (1, 1, 1)},
    )
    assert len({LITE0.fingerprint, *(ImagePreprocess(**{**values, **c}).fingerprint for c in changed)}) == 6
    with pytest.raises(UsageError, match=r"'1'.*the regraft that made it"):
        ImagePreprocess.from_dict({**values, "version": "1"})
    deep = replace(LITE0, levels=Levels((0.0, 4095.0), (-1.0, 255.0)))
    assert ImagePreprocess.from_dict(json.loads(json.dumps(deep.to_dict()))) == deep
    assert deep.fingerprint != LITE0.fingerprint


def test_decoding_in_threads_leaves_the_warnings_as_they_were(tmp_path: Path) -> None:
    path = saved(quarters(), tmp_path / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        before = list(warnings.filters)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(inspect_image, [path] * 400))
        assert warnings.filters == before


def test_a_thumbnail_is_a_small_upright_centre_square(tmp_path: Path) -> None:
    wide = Image.new("RGB", (900, 300), (255, 0, 0))
    wide.paste(quarters(300), (300, 0))
    wide.save(tmp_path / "wide.jpg", quality=95)
    with Image.open(io.BytesIO(thumbnail(tmp_path / "wide.jpg", 100))) as small:
        assert (small.format, small.size) == ("JPEG", (100, 100))
        corners = [small.getpixel(place) for place in ((20, 20), (80, 20), (20, 80), (80, 80))]
    np.testing.assert_allclose(corners, COLOURS.reshape(4, 3), atol=12)
    assert Image.open(io.BytesIO(thumbnail(quarters(32), 100))).size == (32, 32)  # nothing is enlarged
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    with pytest.raises(Unreadable):
        thumbnail(tmp_path / "broken.jpg")


def deep_files(folder: Path, top: float, kind: str) -> list[Path]:
    """Four pictures of one scene, each of another brightness, in `kind` numbers from 0 to `top`."""
    grey = np.asarray(Image.fromarray(PHOTOS[0]).convert("L").resize((64, 48))) / 255
    folder.mkdir()
    files = []
    for number, share in enumerate((0.25, 0.5, 0.75, 1.0)):
        values = grey / grey.max() * share * top
        picture = np.rint(values).astype(np.uint16) if kind == "whole" else values.astype(np.float32)
        files.append(saved(Image.fromarray(picture), folder / f"{number}.tiff"))
    return files


@pytest.mark.parametrize(
    ("top", "kind", "white"),
    [
        (4095, "whole", 4095.0),
        (65535, "whole", 65535.0),
        (200, "whole", 255.0),
        (1.0, "real", 1.0),
        (1.02, "real", 1.0),
        (255.0, "real", 255.0),
        (0.0625, "real", 0.0625),
        (4000.0, "real", 4095.0),
    ],
)
def test_one_scale_for_all_deep_pictures_of_a_set(
    top: float, kind: str, white: float, tmp_path: Path
) -> None:
    """17.R7: each was scaled by its own maximum, so a float of 1.02 turned black and 12 bits left 17 grey
    levels.
    """
    files = deep_files(tmp_path / "set", top, kind)
    looks = [inspect_image(path) for path in files]
    levels = levels_of(look.deep for look in looks if look.deep is not None)
    assert (levels.whole if kind == "whole" else levels.real) == (0.0, white)
    pre = ImagePreprocess(48, 1.0, "bilinear", (0.5,) * 3, (0.5,) * 3, levels=levels)
    inputs = [pre.host(path).astype(float) for path in files]
    means = np.array([picture.mean() for picture in inputs])
    # As bright beside each other as they were
    np.testing.assert_allclose(means / means[-1], [0.25, 0.5, 0.75, 1.0], atol=0.03)
    assert len(np.unique(inputs[-1])) > 60
    for path, wanted in zip(files, inputs, strict=True):
        with Image.open(path) as picture:
            np.testing.assert_array_equal(pre.host(picture), wanted)
            np.testing.assert_array_equal(pre.host(np.asarray(picture)), wanted)
    small = [np.frombuffer(look.levelled(levels).small, dtype=np.uint8).mean() for look in looks]
    np.testing.assert_allclose(small, means, rtol=0.1)  # the audit sees what the model sees
    assert not any(look.levelled(levels).plain for look in looks)
    assert len({pixel_digest(path) for path in files}) == 4


def test_the_levels_of_a_set() -> None:
    def whole(*tops: float, low: float = 0.0) -> Levels:
        return levels_of(Deep("whole", low, top) for top in tops)

    assert levels_of([]) == Levels() == whole(0, 65535)
    # One stray pixel in one picture darkens none of them
    assert whole(*[4000] * 200, 65535).whole == (0, 4095)
    assert whole(*[4000] * 20, 65535).whole == (0, 65535)
    assert whole(2500, low=-1024).whole == (-1024, 4095)  # such as Hounsfield units
    assert whole(2**31 - 1).whole == (0, 2**31 - 1)
    assert whole(0).whole == (0, 255)
    mixed = levels_of([Deep("whole", 0, 1000), Deep("real", -1, 0.9)])
    assert mixed == Levels((0, 1023), (-1, 1))
    values = np.array([np.nan, np.inf, -np.inf, -5, 0, 511.5, 1023, 9999])
    np.testing.assert_array_equal(mixed.scaled(values, "whole"), [0, 255, 0, 0, 0, 128, 255, 255])
    wide = ImagePreprocess(8, 1.0, "box", (0.5,) * 3, (0.5,) * 3, levels=Levels(real=(0.0, 255.0)))
    assert wide.host(np.full((8, 8), 100.0)).mean() == 100
    assert LITE0.host(np.full((8, 8), 1.02)).mean() == 255  # resampling overshoots a little
    with pytest.raises(Unreadable, match="outside 0 to 255"):
        wide.host(np.full((8, 8), 4000.0))


def test_deep_pictures_that_differ_below_eight_bits_are_no_copies(tmp_path: Path) -> None:
    one = np.arange(64, dtype=np.uint16).reshape(8, 8)
    digests = [
        pixel_digest(saved(Image.fromarray(values), tmp_path / f"{number}.png"))
        for number, values in enumerate((one, one[::-1], one * 257, (one % 255).astype(np.uint8)))
    ]
    assert len(set(digests[:3])) == 3
    assert digests[2] == digests[3]  # 8 bits spread over 16 show the same


def test_a_png_with_a_text_or_profile_above_a_megabyte_is_read(tmp_path: Path) -> None:
    """17.R10: it was refused as "ValueError". Pillow's limits stay as they are for the process."""
    before = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    told = PngImagePlugin.PngInfo()
    told.add_text("note", "x" * 3_000_000, zip=True)
    exif = Image.Exif()
    exif[0x0112] = 3
    cases = {"profile.png": {"icc_profile": b"p" * 3_000_000}, "text.png": {"pnginfo": told}}
    for name, options in cases.items():
        path = saved(quarters(), tmp_path / name, exif=exif, **options)
        for item in (path, path.read_bytes()):
            assert np.abs(corners(load_rgb(item)) - COLOURS[::-1, ::-1]).max() <= 1, name
        assert size_of(path) == (32, 32)
    plain = saved(quarters(), tmp_path / "plain.png").read_bytes()
    chunk = b"zTXt" + b"note\0\0" + zlib.compress(b"x" * 3_000_000)
    last = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    # After the pixels
    assert np.abs(corners(load_rgb(plain[:-12] + last + plain[-12:])) - COLOURS).max() <= 1
    assert before == (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
            "git-LFS pointer.*git lfs pull",
        ),
        (b"\n<!DOCTYPE html><html><title>404</title></html>", "an HTML page"),
        (b"\xef\xbb\xbf<html lang='en'>", "an HTML page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML text"),
        (b"<?xml version='1.0'?><svg width='3'></svg>", "an SVG drawing"),
        (b'{"error": "not found"}', "a JSON text"),
        (b"PK\x03\x04 rest", "a zip archive"),
        (b"%PDF-1.7 rest", "a PDF"),
        (b"\0" * 5000, "nothing but zero bytes"),
        (b"\0" * 128 + b"DICM" + b"\x02" * 50, "DICOM"),
        (b"\0\0\0\x1cftypisom\0\0\0\0isomavc1" + b"\1" * 64, "a video"),
        (b"just words, no picture", "a text"),
    ],
)
def test_what_is_no_image_says_what_it_is(data: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(data)
    for item in (tmp_path / "a.jpg", data):
        with pytest.raises(Unreadable, match=f"not an image Pillow can read.*{said}"):
            load_rgb(item)


def test_heic_by_any_name_is_read_or_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed (the extra heic)")
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = quarters().resize((64, 32), 0)
    pillow_heif.from_pillow(turned).save(buffer, quality=95, exif=exif.tobytes())
    path = tmp_path / "a.jpg"
    path.write_bytes(buffer.getvalue())
    assert size_of(path) == (32, 64)
    for item in (path, buffer.getvalue()):
        assert np.abs(corners(load_rgb(item)) - np.rot90(COLOURS, -1)).max() <= 16
    assert ".heic" not in Image.registered_extensions()  # Pillow of the host process is left as it was
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(Unreadable, match=r"HEIC: pip install 'regraft\[heic\]'"):
        load_rgb(path)


def test_avif_without_its_plugin_names_the_way_out() -> None:
    from regraft.modalities.image.formats import what_it_is

    assert "AVIF" in what_it_is(b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miaf")


def test_a_blank_batch_is_one_of_black_images_or_of_noise() -> None:
    images = [np.zeros((30, 30, 3), np.uint8)] * 2
    np.testing.assert_array_equal(
        LITE0.blank(2)["pixels"], LITE0.collate([LITE0.host(image) for image in images])["pixels"]
    )
    noise = LITE0.blank(2, np.random.default_rng(0))["pixels"]
    assert (noise.shape, noise.dtype) == ((2, LITE0.size, LITE0.size, 3), np.uint8)
    assert noise[0].std() > 60
    assert not np.array_equal(noise[0], noise[1])


def test_the_device_half_normalises_a_batch() -> None:
    import torch

    pixels = LITE0.blank(2, np.random.default_rng(0))["pixels"]
    found = LITE0.device()({"pixels": torch.from_numpy(pixels)}).numpy()
    expected = (pixels / 255 - np.array(LITE0.mean)) / np.array(LITE0.std)
    np.testing.assert_allclose(found, expected.transpose(0, 3, 1, 2), atol=1e-5)
