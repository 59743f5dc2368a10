"""Reading images: whatever Pillow can decode becomes upright RGB, or is an Unreadable that says why."""

from __future__ import annotations

import contextlib
import io
import os
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from regraft.data.known import content
from regraft.errors import Unreadable
from regraft.modalities.image.formats import PNG, is_heic, open_heic, what_it_is, without_texts
from regraft.modalities.image.levels import Kind, Levels

# A 100-megapixel photograph passes; what is larger is taken for a decompression bomb
MAX_PIXELS = 120_000_000
MAX_BYTES = 1 << 29
HEAD = 600  # bytes by which it is told what a file is
FINER = 2  # times the size at which large images are averaged that a JPEG is decoded at least: so both ways end nearly alike
BEYOND = 0.1  # of the range: what resampling may add to a float array. More is another scale

STANDARD = Levels()

FILTERS = {
    name: Image.Resampling[name.upper()]
    for name in ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
}
Turn = Image.Transpose
UPRIGHT = {
    2: Turn.FLIP_LEFT_RIGHT,
    3: Turn.ROTATE_180,
    4: Turn.FLIP_TOP_BOTTOM,
    5: Turn.TRANSPOSE,
    6: Turn.ROTATE_270,
    7: Turn.TRANSVERSE,
    8: Turn.ROTATE_90,
}


class _Quiet:
    """Keeps Pillow's warnings down while any thread decodes, and puts the filters back when the last one is
    done.

    `warnings.catch_warnings` alone, entered and left by several threads in turn, can leave the wrong
    filters behind.
    """

    def __init__(self) -> None:
        self.lock, self.inside, self.before = threading.Lock(), 0, contextlib.ExitStack()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with self.lock:
            self.inside += 1
            if self.inside == 1:
                self.before.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
        try:
            yield
        finally:
            with self.lock:
                self.inside -= 1
                if not self.inside:
                    self.before.close()


quiet = _Quiet()


def open_image(item: Any) -> Image.Image:
    """The image of a path (or what else `regraft.data.known` opens), bytes or a PIL image, its pixels still undecoded.

    Raises Unreadable for what is none, what is absurdly large, and what is a program (PostScript).
    """
    if isinstance(item, Image.Image):
        return item
    if not isinstance(item, (str, os.PathLike, bytes, bytearray, memoryview)):
        raise Unreadable(f"a {type(item).__name__}; wanted a path, bytes, a PIL image or an array")
    source = io.BytesIO(content(item, MAX_BYTES))
    image = _read_header(source)
    fault = ""
    if image.width * image.height > MAX_PIXELS:
        fault = f"absurdly large ({image.width}x{image.height} pixels)"
    elif image.format == "EPS":
        fault = "PostScript, a program to be run rather than an image to be read"
    if fault:
        image.close()
        raise Unreadable(fault)
    return image


def pixels_of(item: Any) -> int:
    """How many pixels an image has, by its header. Raises Unreadable as `open_image` does."""
    with open_image(item) as image:
        return int(image.width * image.height)


def _read_header(source: io.BytesIO) -> Image.Image:
    """The image with its pixels still undecoded. Raises Unreadable with what the file is instead, where
    that shows.
    """
    try:
        with quiet():
            return Image.open(source)
    except Image.DecompressionBombError:
        raise Unreadable("absurdly large (a decompression bomb)") from None
    except Exception as error:
        failed = error
    try:
        head = source.getvalue()[:HEAD]
        if head.startswith(PNG) and isinstance(failed, ValueError):
            with quiet():
                return Image.open(without_texts(source.getvalue()))
        if is_heic(head) and (image := open_heic(source)) is not None:
            return image
        hint = what_it_is(head)
    except Exception as error:
        failed, hint = error, ""
    raise Unreadable(f"not an image Pillow can read ({hint or type(failed).__name__})") from None


def _from_array(array: np.ndarray, levels: Levels) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.size == 0 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise Unreadable(f"an array of shape {array.shape}; wanted (H, W), (H, W, 3) or (H, W, 4)")
    if array.dtype == np.uint16:
        array = levels.scaled(array, "whole")
    elif array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    elif np.issubdtype(array.dtype, np.floating):
        black, white = levels.real
        least, most = black - BEYOND * (white - black), white + BEYOND * (white - black)
        if not np.isfinite(array).all() or array.min() < least or array.max() > most:
            raise Unreadable(f"a float array outside {black:g} to {white:g}")
        array = levels.scaled(array, "real")
    elif array.dtype != np.uint8:
        raise Unreadable(f"an array of {array.dtype}; wanted uint8, uint16 or float")
    return Image.fromarray(np.ascontiguousarray(array))


def deep_kind(image: Image.Image) -> Kind | None:
    """What an image's values are where they have more than 8 bits and one channel."""
    return "whole" if image.mode.startswith("I") else "real" if image.mode == "F" else None


def to_rgb(image: Image.Image, levels: Levels) -> Image.Image:
    """Any mode to RGB: more than 8 bits scaled by `levels`, alpha laid on white, the first frame of
    several.
    """
    if (kind := deep_kind(image)) is not None:
        image = Image.fromarray(levels.scaled(np.asarray(image), kind))
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def load_rgb(item: Any, least: int | None = None, levels: Levels = STANDARD) -> Image.Image:
    """Read an upright RGB image; pictures with more than 8 bits are scaled by `levels`.

    With `least`, large ones come at a half, a quarter or an eighth of their size, the short side at least
    twice `least`: JPEG files are decoded so, everything else is averaged after decoding, and the two are
    within a grey level of each other. Raises Unreadable, whatever Pillow stumbled over.
    """
    if isinstance(item, np.ndarray):
        item = _from_array(item, levels)
    image = open_image(item)
    if image is item:  # the caller's, who may go on with it: decoded whole
        return _upright(image, least, levels, None)
    with image:
        return _upright(image, least, levels, None if least is None else FINER * least)


def _upright(image: Image.Image, least: int | None, levels: Levels, draft: int | None) -> Image.Image:
    """The pixels as upright RGB, made smaller as `load_rgb` says; `draft` is the `least` of decoding a
    JPEG.
    """
    with guarded():
        size = image.size
        pixels, orientation = decode(image, draft)
        factor = 1 if least is None else _factor(size, least)
        return turned(_reduced(to_rgb(pixels, levels), factor, size), orientation)


def decode(image: Image.Image, least: int | None) -> tuple[Image.Image, int]:
    """The image with its pixels, and the EXIF orientation (1 to 8) that is left to obey; with `least` a
    JPEG may be smaller.
    """
    if least is not None and image.format == "JPEG" and (factor := _factor(image.size, least)) > 1:
        image.draft("RGB", (image.width // factor, image.height // factor))
    try:
        image.load()
    except ValueError:
        if image.format != "PNG" or image.fp is None:
            raise
        image.fp.seek(0)
        image = Image.open(without_texts(image.fp.read()))
        image.load()
    orientation = 1
    with contextlib.suppress(Exception):  # a broken EXIF block does not spoil the pixels
        stated = image.getexif().get(0x0112, 1)
        orientation = stated if stated in UPRIGHT else 1
    return image, orientation


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Whatever goes wrong with the pixels is an Unreadable."""
    try:
        with quiet():
            yield
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Unreadable(f"damaged: {reason}") from None


def _factor(size: tuple[int, int], least: int) -> int:
    """1, 2, 4 or 8: by how much an image may be made smaller, its short side at least twice `least`."""
    return next((factor for factor in (8, 4, 2) if min(size) >= factor * 2 * least), 1)


def _reduced(image: Image.Image, factor: int, size: tuple[int, int]) -> Image.Image:
    """An image of once `size` at a `factor`th of it, by averaging; as it is where it was decoded so."""
    left = factor // max(1, round(size[0] / image.width))
    return image.reduce(left) if left > 1 else image


def turned(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(UPRIGHT[orientation]) if orientation != 1 else image
