"""Images in a report: small JPEGs, a map laid over a picture, and a sheet of a training batch."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from regraft.errors import ChangedError, Unreadable
from regraft.modalities import Shown
from regraft.modalities.image.inspect import thumbnail
from regraft.modalities.image.levels import levels_in
from regraft.modalities.image.preprocess import ImagePreprocess

LARGE = 240  # pixels of a picture that a map is laid over
WARM = np.array([232, 89, 12])  # what a place that counts is tinted with: no grey picture has it
TINT = 0.7  # how strongly


def show(items: Sequence[Any], facts: pa.Table) -> list[Shown | None]:
    """A small picture of each item's centre square; None where it cannot be read or is another one by now."""
    levels = levels_in(facts)

    def small(item: Any) -> Shown | None:
        try:
            return Shown("picture", _uri(thumbnail(item, levels=levels)))
        except (Unreadable, ChangedError):
            return None

    with ThreadPoolExecutor() as pool:
        return list(pool.map(small, items))


def overlay(preprocess: ImagePreprocess, item: Any, heat: NDArray[np.float64]) -> tuple[str, str]:
    """What the model sees of an image, larger, and the same in grey with (G, G) heat on it: data URIs."""
    picture = replace(preprocess, size=LARGE).host(item)
    return _jpeg(picture), _jpeg(tinted(picture, heat))


def sheet(batch: dict[str, np.ndarray]) -> bytes:
    """A PNG of the first images of a batch, two rows of eight at most."""
    some = batch["pixels"][:16]
    columns = min(8, len(some))
    some = some[: len(some) // columns * columns]
    grid = np.concatenate(
        [np.concatenate(list(some[i : i + columns]), axis=1) for i in range(0, len(some), columns)]
    )
    buffer = io.BytesIO()
    Image.fromarray(grid).save(buffer, format="PNG")
    return buffer.getvalue()


def tinted(pixels: NDArray[np.uint8], heat: NDArray[np.float64]) -> NDArray[np.uint8]:
    """(S, S, 3) pixels in grey, warm where the (G, G) heat is 1 and lighter where it is 0: to be seen on
    any picture.
    """
    size = pixels.shape[0]
    smooth = Image.fromarray(heat.astype(np.float32), mode="F").resize((size, size), Image.Resampling.BICUBIC)
    share = np.clip(np.asarray(smooth), 0, 1)[..., None]
    grey = 0.75 * pixels.mean(axis=2, keepdims=True) + 0.25 * 255
    return np.asarray(np.rint(grey + TINT * share * (WARM - grey)), dtype=np.uint8)


def _uri(content: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode('ascii')}"


def _jpeg(pixels: NDArray[np.uint8], quality: int = 78) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, optimize=True)
    return _uri(buffer.getvalue())
