"""Pixels into a page: data URIs, small JPEGs, and a map laid over a picture."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from regraft.artifacts import atomic

LARGEST = 400_000  # bytes of a picture file that goes into the page as it is
WARM = np.array([232, 89, 12])  # what a place that counts is tinted with: no grey picture has it
TINT = 0.7  # how strongly


def uri(kind: str, content: bytes) -> str:
    """A file's bytes as the address of a picture."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def jpeg(pixels: NDArray[np.uint8], quality: int = 78) -> str:
    """(H, W, 3) uint8 as the address of a JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, optimize=True)
    return uri("image/jpeg", buffer.getvalue())


def picture(path: Path) -> str:
    """A picture file as the address of a picture, smaller where it is large; "" if there is none or it cannot
    be read.
    """
    try:
        with Image.open(path) as image:
            if image.format == "PNG" and path.stat().st_size <= LARGEST:
                return uri("image/png", path.read_bytes())
            small = image.convert("RGB")
        small.thumbnail((1200, 1200))
        return jpeg(np.asarray(small))
    except OSError:
        return ""


def write_batch(place: Path, images: NDArray[np.uint8]) -> Path:
    """Write the first of (B, S, S, 3) uint8 images as one PNG, two rows of eight at most."""
    some = images[:16]
    columns = min(8, len(some))
    some = some[: len(some) // columns * columns]
    grid = np.concatenate(
        [np.concatenate(list(some[i : i + columns]), axis=1) for i in range(0, len(some), columns)]
    )
    with atomic(place) as temporary:
        Image.fromarray(grid).save(temporary, format="PNG")
    return place


def tinted(pixels: NDArray[np.uint8], heat: NDArray[np.float64]) -> NDArray[np.uint8]:
    """(S, S, 3) pixels in grey, warm where the (G, G) heat is 1 and lighter where it is 0: to be seen on any
    picture.
    """
    size = pixels.shape[0]
    smooth = Image.fromarray(heat.astype(np.float32), mode="F").resize((size, size), Image.Resampling.BICUBIC)
    share = np.clip(np.asarray(smooth), 0, 1)[..., None]
    grey = 0.75 * pixels.mean(axis=2, keepdims=True) + 0.25 * 255
    return np.asarray(np.rint(grey + TINT * share * (WARM - grey)), dtype=np.uint8)
