"""What is known of an image file: its look, a digest of its pixels, and small pictures of it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from typing import Any

import numpy as np
from PIL import Image

from regraft.errors import Unreadable
from regraft.modalities.image.align import SIDE as ALIGNED
from regraft.modalities.image.levels import Deep, Levels
from regraft.modalities.image.looks import PLAIN, SIDE, Look
from regraft.modalities.image.reading import (
    STANDARD,
    decode,
    deep_kind,
    guarded,
    load_rgb,
    open_image,
    to_rgb,
    turned,
)


def inspect_image(path: str | os.PathLike[str]) -> Look:
    """Decode a file wholly and tell what the audit asks of it. Raises Unreadable."""
    with open_image(path) as image, guarded():
        (width, height), form, mode = image.size, image.format or "", _stored_mode(image)
        pixels, orientation = decode(image, SIDE)  # every byte is read, of a JPEG few pixels are made
        deep = _deep(pixels, orientation)
        upright = turned(to_rgb(pixels, STANDARD), orientation)
    if orientation >= 5:
        width, height = height, width
    small = upright.resize((SIDE, SIDE), Image.Resampling.BOX)
    return Look(width, height, form, mode, _is_plain(small) and _is_plain(upright), small.tobytes(), deep)


def _stored_mode(image: Image.Image) -> str:
    """Pillow's mode, or RGB;16 and RGBA;16 for colours with 16 bits a channel, of which Pillow keeps the
    upper 8.
    """
    with contextlib.suppress(AttributeError, IndexError, TypeError):
        args = image.tile[0][3]
        raw = args if isinstance(args, str) else args[0]
        if isinstance(raw, str) and image.mode in ("RGB", "RGBA") and ";16" in raw:
            return f"{image.mode};16"
    return str(image.mode)


def _deep(image: Image.Image, orientation: int) -> Deep | None:
    if (kind := deep_kind(image)) is None:
        return None
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    small = turned(Image.fromarray(values.astype(np.float32)), orientation).resize(
        (SIDE, SIDE), Image.Resampling.BOX
    )
    return Deep(kind, float(values.min()), float(values.max()), np.asarray(small, dtype=np.float32).tobytes())


def _is_plain(image: Image.Image) -> bool:
    return all(high - low <= PLAIN for low, high in image.getextrema())  # type: ignore[misc, union-attr]


def pixel_digest(path: str | os.PathLike[str]) -> str:
    """32 hex digits of all pixels of the upright RGB image and its size. Raises Unreadable.

    Of pictures with more than 8 bits all bits count, unless they are 8 bits spread over 16.
    """
    with open_image(path) as opened, guarded():
        image, orientation = decode(opened, None)
        values = np.asarray(image) if deep_kind(image) else np.zeros(1)
        whole = (
            Image.fromarray(np.asarray(values, dtype=np.float32))
            if (values % 257).any()
            else to_rgb(image, STANDARD)
        )
        image = turned(whole, orientation)
    return hashlib.sha256(f"{image.width}x{image.height}".encode() + image.tobytes()).hexdigest()[:32]


def small_image_or_none(path: str | os.PathLike[str], levels: Levels = STANDARD) -> np.ndarray | None:
    """The whole upright image as the audit lays it over others, its shape not kept; None where it cannot be
    read.
    """
    try:
        image = load_rgb(path, least=ALIGNED, levels=levels)
        return np.asarray(image.resize((ALIGNED, ALIGNED), Image.Resampling.BILINEAR))
    except Unreadable:
        return None


def thumbnail(item: Any, size: int = 160, quality: int = 70, levels: Levels = STANDARD) -> bytes:
    """JPEG bytes of an image's centre square, `size` pixels wide at most. Raises Unreadable."""
    image = load_rgb(item, least=size, levels=levels)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    small = min(size, side)
    shown = image.resize((small, small), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))
    buffer = io.BytesIO()
    shown.save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()
