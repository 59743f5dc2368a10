"""Two pictures that show the same are told from two that only look alike."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from bases import IMAGES
from regraft.data.audit import near_duplicates
from regraft.data.part import Part
from regraft.modalities.image import small_image_or_none
from regraft.modalities.image.align import similarity


def texture(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A picture with detail of every size."""
    rng = np.random.default_rng(seed)
    layers = [
        Image.fromarray(rng.integers(0, 256, (k, k, 3), dtype=np.uint8)).resize(
            size, Image.Resampling.BICUBIC
        )
        for k in (3, 7, 15, 31)
    ]
    return Image.fromarray(
        np.mean([np.asarray(layer, dtype=float) for layer in layers], axis=0).astype(np.uint8)
    )


def recoded(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue()))


def cropped(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    w, h = image.size
    return image.crop((round(left * w), round(top * h), round((1 - right) * w), round((1 - bottom) * h)))


COPIES = {
    "re-encoded": lambda image: recoded(image, 40),
    "smaller": lambda image: image.resize((image.width * 3 // 5, image.height * 3 // 5)),
    "larger": lambda image: image.resize((image.width * 2, image.height * 2)),
    "cropped": lambda image: cropped(image, 0.05, 0.0, 0.0, 0.03),
    "cropped all round": lambda image: cropped(image, 0.03, 0.04, 0.03, 0.03),
    "mirrored": ImageOps.mirror,
    "mirrored and cropped": lambda image: cropped(ImageOps.mirror(image), 0.0, 0.05, 0.04, 0.0),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
}


def small(image: Image.Image) -> np.ndarray:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    found = small_image_or_none(buffer.getvalue())  # type: ignore[arg-type]
    assert found is not None
    return found[None]


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_is_known_again_either_way_round(kind: str) -> None:
    image = texture(1)
    one, other = small(image), small(COPIES[kind](image))
    assert similarity(one, other)[0] > 0.9
    assert similarity(other, one)[0] > 0.9


def test_other_pictures_turned_ones_and_plain_ones_are_no_copies() -> None:
    image = texture(1)
    plain = Image.new("RGB", (160, 120), "grey")
    for other in (texture(2), image.rotate(90, expand=True), cropped(image, 0.3, 0.2, 0, 0), plain):
        assert similarity(small(image), small(other))[0] == 0
    assert similarity(small(plain), small(plain))[0] == 0


def test_one_outline_with_different_contents_is_no_copy() -> None:
    """A masked background must not make two leaves one."""
    y, x = np.mgrid[:120, :160]
    inside = ((x - 80) / 60) ** 2 + ((y - 60) / 45) ** 2 < 1
    one, other = (
        Image.fromarray((np.asarray(texture(seed)) * inside[..., None]).astype(np.uint8)) for seed in (3, 4)
    )
    assert similarity(small(one), small(other))[0] == 0
    assert similarity(small(one), small(COPIES["cropped"](one)))[0] > 0.9


def test_one_pattern_in_other_colours_is_no_copy() -> None:
    board = (np.indices((64, 64)) // 8).sum(axis=0) % 2 == 0
    red, blue = (200, 30, 30), (30, 30, 200)
    one, other = (
        Image.fromarray(np.where(board[..., None], colour, 250).astype(np.uint8)) for colour in (red, blue)
    )
    assert similarity(small(one), small(other))[0] == 0
    assert similarity(small(one), small(recoded(one, 60)))[0] > 0.9


@pytest.mark.data
def test_copies_are_found_by_features_and_by_hashes(real_data: Path, tmp_path: Path) -> None:
    """60 photographs, a copy of each third one: all found, and nothing else."""
    import regraft

    paths = sorted((real_data / "hymenoptera" / "train").glob("*/*.jpg"))[:60]
    planted = {}
    for number, path in enumerate(paths[::3]):
        kind = list(COPIES)[number % len(COPIES)]
        copy = tmp_path / f"{number}.jpg"
        COPIES[kind](Image.open(path).convert("RGB")).convert("RGB").save(copy, quality=85)
        planted[3 * number] = len(paths) + number
    every = [*map(str, paths), *(str(tmp_path / f"{k}.jpg") for k in range(len(planted)))]
    looks = [IMAGES.inspect(path) for path in every]
    inputs = Part(
        name="all",
        ids=tuple(every),
        sources=tuple(every),
        items=tuple(every),
        identities=tuple(every),
        facts=IMAGES.table(looks),
    )  # type: ignore[arg-type]
    likeness = IMAGES.likeness(inputs.facts)
    features = regraft.extract(regraft.backbone("packaged:efficientnet_lite0", size=128), every)
    for values in (features, None):
        pairs, left = near_duplicates(inputs, values, likeness, lambda **_: None)
        assert {(i, j) for i, j, _ in pairs} == set(planted.items())
        assert left == 0
    one = replace(inputs, identities=("one",) * len(every))
    same = near_duplicates(one, features, likeness, lambda **_: None)
    assert same == ([], 0)  # identical ones are another finding
