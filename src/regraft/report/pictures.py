"""Pictures of the report itself, be the examples what they may: PNGs of arrays, and picture files made
small.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LARGEST = 400_000  # bytes of a picture file that goes into the page as it is


def uri(kind: str, content: bytes) -> str:
    """A file's bytes as the address of a picture."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def png(pixels: NDArray[np.uint8], side: int) -> str:
    """(H, W, 4) uint8 as the address of a PNG, each pixel a plain square, `side` pixels wide and high."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST).save(buffer, "PNG", optimize=True)
    return uri("image/png", buffer.getvalue())


def picture(path: Path) -> str:
    """A picture file as the address of a picture, smaller where it is large; "" if there is none or it
    cannot be read.
    """
    try:
        with Image.open(path) as image:
            if image.format == "PNG" and path.stat().st_size <= LARGEST:
                return uri("image/png", path.read_bytes())
            small = image.convert("RGB")
        small.thumbnail((1200, 1200))
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=78, optimize=True)
        return uri("image/jpeg", buffer.getvalue())
    except OSError:
        return ""
