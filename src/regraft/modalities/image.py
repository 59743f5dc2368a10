"""Images: reading them, and the one preprocessing that training, evaluation, prediction and export share.

`host` turns whatever was given into (size, size, 3) uint8 on the CPU; `device` (in the model's graph)
normalises.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from regraft.artifacts import fingerprint
from regraft.data.audit import ALIGNED, PLAIN, SIDE, Look
from regraft.data.known import KnownFile, NewFile
from regraft.data.levels import Deep, Kind, Levels
from regraft.errors import UsageError
from regraft.modalities.formats import PNG, is_heic, open_heic, what_it_is, without_texts

MAX_PIXELS = (
    120_000_000  # a 100-megapixel photograph passes; what is larger is taken for a decompression bomb
)
MAX_BYTES = 1 << 29
FINER = 2  # times the size at which large images are averaged that a JPEG is decoded at least: so both ways end nearly alike
BEYOND = 0.1  # of the range: what resampling may add to a float array. More is another scale
VERSION = "2"  # should the pixels ever change, this does, and old runs keep theirs

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


class UnreadableImage(ValueError):
    """This file or array is no image that can be worked with; the message says why."""


class _Quiet:
    """Keeps Pillow's warnings down while any thread decodes, and puts the filters back when the last one is
    done.

    `warnings.catch_warnings` alone, entered and left by several threads in turn, can leave the wrong filters
    behind.
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


_quiet = _Quiet()


def _open(item: Any) -> Image.Image:
    if isinstance(item, Image.Image):
        return item
    if isinstance(item, KnownFile):
        source: Any = io.BytesIO(item.read())
    elif isinstance(item, (str, os.PathLike)):
        source = _checked(Path(item))
        source = io.BytesIO(item.read()) if isinstance(item, NewFile) else source
    elif isinstance(item, (bytes, bytearray, memoryview)):
        if not len(item):
            raise UnreadableImage("empty (zero bytes)")
        source = io.BytesIO(item)
    else:
        raise UnreadableImage(f"a {type(item).__name__}; wanted a path, bytes, a PIL image or an array")
    image = _read_header(source)
    fault = ""
    if image.width * image.height > MAX_PIXELS:
        fault = f"absurdly large ({image.width}x{image.height} pixels)"
    elif image.format == "EPS":
        fault = "PostScript, a program to be run rather than an image to be read"
    if fault:
        image.close()
        raise UnreadableImage(fault)
    return image


def _read_header(source: Path | io.BytesIO) -> Image.Image:
    """The image with its pixels still undecoded. Raises UnreadableImage with what the file is instead, where
    that shows.
    """
    try:
        with _quiet():
            return Image.open(source)
    except Image.DecompressionBombError:
        raise UnreadableImage("absurdly large (a decompression bomb)") from None
    except PermissionError:
        raise UnreadableImage("cannot be opened: permission denied") from None
    except Exception as error:
        failed = error
    try:
        head = _head(source)
        if head.startswith(PNG) and isinstance(failed, ValueError):
            with _quiet():
                return Image.open(without_texts(_whole(source)))
        if is_heic(head) and (image := open_heic(source)) is not None:
            return image
        hint = what_it_is(head)
    except Exception as error:
        failed, hint = error, ""
    raise UnreadableImage(f"not an image Pillow can read ({hint or type(failed).__name__})") from None


def _head(source: Path | io.BytesIO, count: int = 600) -> bytes:
    if isinstance(source, io.BytesIO):
        return source.getvalue()[:count]
    with open(source, "rb") as file:
        return file.read(count)


def _whole(source: Path | io.BytesIO) -> bytes:
    return source.getvalue() if isinstance(source, io.BytesIO) else source.read_bytes()


def _checked(path: Path) -> Path:
    """The path of a plain file of a sensible size."""
    try:
        about = path.stat()
    except (OSError, ValueError) as error:
        raise UnreadableImage(f"cannot be opened: {getattr(error, 'strerror', None) or error}") from None
    if stat.S_ISDIR(about.st_mode):
        raise UnreadableImage("a folder, not a file")
    if not stat.S_ISREG(about.st_mode):
        raise UnreadableImage("not a plain file (a pipe, a socket or a device)")
    if about.st_size == 0:
        raise UnreadableImage("empty (zero bytes)")
    if about.st_size > MAX_BYTES:
        raise UnreadableImage(f"too large ({about.st_size >> 20} MiB, the limit is {MAX_BYTES >> 20})")
    return path


def _from_array(array: np.ndarray, levels: Levels) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.size == 0 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise UnreadableImage(f"an array of shape {array.shape}; wanted (H, W), (H, W, 3) or (H, W, 4)")
    if array.dtype == np.uint16:
        array = levels.scaled(array, "whole")
    elif array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    elif np.issubdtype(array.dtype, np.floating):
        black, white = levels.real
        least, most = black - BEYOND * (white - black), white + BEYOND * (white - black)
        if not np.isfinite(array).all() or array.min() < least or array.max() > most:
            raise UnreadableImage(f"a float array outside {black:g} to {white:g}")
        array = levels.scaled(array, "real")
    elif array.dtype != np.uint8:
        raise UnreadableImage(f"an array of {array.dtype}; wanted uint8, uint16 or float")
    return Image.fromarray(np.ascontiguousarray(array))


def _deep_kind(image: Image.Image) -> Kind | None:
    """What an image's values are where they have more than 8 bits and one channel."""
    return "whole" if image.mode.startswith("I") else "real" if image.mode == "F" else None


def _to_rgb(image: Image.Image, levels: Levels) -> Image.Image:
    """Any mode to RGB: more than 8 bits scaled by `levels`, alpha laid on white, the first frame of several."""
    if (kind := _deep_kind(image)) is not None:
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
    within a grey level of each other. Raises UnreadableImage, whatever Pillow stumbled over.
    """
    if isinstance(item, np.ndarray):
        item = _from_array(item, levels)
    image = _open(item)
    if image is item:  # the caller's, who may go on with it: decoded whole
        return _upright(image, least, levels, None)
    with image:
        return _upright(image, least, levels, None if least is None else FINER * least)


def thumbnail(item: Any, size: int = 160, quality: int = 70, levels: Levels = STANDARD) -> bytes:
    """JPEG bytes of an image's centre square, `size` pixels wide at most. Raises UnreadableImage."""
    image = load_rgb(item, least=size, levels=levels)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    small = min(size, side)
    shown = image.resize((small, small), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))
    buffer = io.BytesIO()
    shown.save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


def inspect_image(path: str | os.PathLike[str]) -> Look:
    """Decode a file wholly and tell what the audit asks of it. Raises UnreadableImage."""
    with _open(path) as image, _guarded():
        (width, height), form, mode = image.size, image.format or "", _stored_mode(image)
        decoded, orientation = _decoded(image, SIDE)  # every byte is read, of a JPEG few pixels are made
        deep = _deep(decoded, orientation)
        upright = _turned(_to_rgb(decoded, STANDARD), orientation)
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
    if (kind := _deep_kind(image)) is None:
        return None
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    small = _turned(Image.fromarray(values.astype(np.float32)), orientation).resize(
        (SIDE, SIDE), Image.Resampling.BOX
    )
    return Deep(kind, float(values.min()), float(values.max()), np.asarray(small, dtype=np.float32).tobytes())


def _is_plain(image: Image.Image) -> bool:
    return all(high - low <= PLAIN for low, high in image.getextrema())  # type: ignore[misc, union-attr]


def pixel_digest(path: str | os.PathLike[str]) -> str:
    """32 hex digits of all pixels of the upright RGB image and its size. Raises UnreadableImage.

    Of pictures with more than 8 bits all bits count, unless they are 8 bits spread over 16.
    """
    with _open(path) as opened, _guarded():
        image, orientation = _decoded(opened, None)
        values = np.asarray(image) if _deep_kind(image) else np.zeros(1)
        whole = (
            Image.fromarray(np.asarray(values, dtype=np.float32))
            if (values % 257).any()
            else _to_rgb(image, STANDARD)
        )
        image = _turned(whole, orientation)
    return hashlib.sha256(f"{image.width}x{image.height}".encode() + image.tobytes()).hexdigest()[:32]


def small_image_or_none(path: str | os.PathLike[str], levels: Levels = STANDARD) -> np.ndarray | None:
    """The whole upright image as the audit lays it over others, its shape not kept; None where it cannot be
    read.
    """
    try:
        image = load_rgb(path, least=ALIGNED, levels=levels)
        return np.asarray(image.resize((ALIGNED, ALIGNED), Image.Resampling.BILINEAR))
    except UnreadableImage:
        return None


def _upright(image: Image.Image, least: int | None, levels: Levels, draft: int | None) -> Image.Image:
    """The pixels as upright RGB, made smaller as `load_rgb` says; `draft` is the `least` of decoding a JPEG."""
    with _guarded():
        size = image.size
        decoded, orientation = _decoded(image, draft)
        factor = 1 if least is None else _factor(size, least)
        return _turned(_reduced(_to_rgb(decoded, levels), factor, size), orientation)


def _decoded(image: Image.Image, least: int | None) -> tuple[Image.Image, int]:
    """The image with its pixels, and the EXIF orientation (1 to 8) that is left to obey; with `least` a JPEG
    may be smaller.
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
def _guarded() -> Iterator[None]:
    """Whatever goes wrong with the pixels is an UnreadableImage."""
    try:
        with _quiet():
            yield
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnreadableImage(f"damaged: {reason}") from None


def _factor(size: tuple[int, int], least: int) -> int:
    """1, 2, 4 or 8: by how much an image may be made smaller, its short side at least twice `least`."""
    return next((factor for factor in (8, 4, 2) if min(size) >= factor * 2 * least), 1)


def _reduced(image: Image.Image, factor: int, size: tuple[int, int]) -> Image.Image:
    """An image of once `size` at a `factor`th of it, by averaging; as it is where it was decoded so."""
    left = factor // max(1, round(size[0] / image.width))
    return image.reduce(left) if left > 1 else image


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(UPRIGHT[orientation]) if orientation != 1 else image


@dataclass(frozen=True)
class ImagePreprocess:
    """Preprocessing that travels with the weights.

    The centre square of `crop` times the short side is resized to `size`; `mean` and `std` are in units of 0
    to 1. `levels` say which values of pictures with more than 8 bits become black and white.
    """

    size: int
    crop: float
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    levels: Levels = STANDARD
    version: str = VERSION
    modality: str = "image"

    @property
    def fingerprint(self) -> str:
        """Changes with anything that changes the pixels a model sees."""
        return fingerprint(asdict(self))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for regraft.json."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ImagePreprocess:
        """The reverse of `to_dict`. Raises UsageError for a version this regraft does not have."""
        if values.get("version") != VERSION:
            raise UsageError(
                f"this model prepares images by version {values.get('version')!r}, and this regraft has version "
                f"{VERSION!r}: load it with the regraft that made it, or fit it anew."
            )
        return cls(
            **{
                **values,
                "mean": tuple(values["mean"]),
                "std": tuple(values["std"]),
                "levels": Levels.from_dict(values["levels"]),
            }
        )

    def host(
        self, item: Any, rng: np.random.Generator | None = None, augment: Augment | None = None
    ) -> np.ndarray:
        """(size, size, 3) uint8 of a path, KnownFile, bytes, PIL image or array; augmented when `rng` and
        `augment` are given.

        A JPEG of several times the size is decoded smaller. Given as pixels, it is averaged to the same size,
        which differs by up to half a grey level on average; all else gives the same bits, however it is
        given. Raises UnreadableImage.
        """
        image = load_rgb(item, max(1, round(self.size / self.crop)), self.levels)
        width, height = image.size
        if rng is not None and augment is not None:
            return augment(image, self.size, FILTERS[self.interpolation], rng)
        side = min(width, height) * self.crop
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        return np.asarray(image.resize((self.size, self.size), FILTERS[self.interpolation], box=box))

    def collate(self, raws: Sequence[np.ndarray]) -> np.ndarray:
        """Stack host arrays into (B, size, size, 3) uint8."""
        return np.stack(raws)


@dataclass(frozen=True)
class Augment:
    """Random resized crop (Szegedy et al. 2015), mirror image, brightness and contrast; before normalising."""

    scale: float
    mirror: bool
    colour: float

    def __call__(
        self, image: Image.Image, size: int, resample: Image.Resampling, rng: np.random.Generator
    ) -> np.ndarray:
        """(size, size, 3) uint8; the draw depends on `rng` only."""
        width, height = image.size
        area = width * height * rng.uniform(self.scale, 1.0)
        ratio = float(np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3))))
        wide, high = min(width, float(np.sqrt(area * ratio))), min(height, float(np.sqrt(area / ratio)))
        left, top = rng.uniform(0, width - wide + 1e-9), rng.uniform(0, height - high + 1e-9)
        box = (left, top, min(left + wide, width), min(top + high, height))
        crop = image.resize((size, size), resample, box=box)
        if rng.random() < 0.5 and self.mirror:
            crop = ImageOps.mirror(crop)
        if self.colour:
            for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast):
                crop = enhance(crop).enhance(rng.uniform(1 - self.colour, 1 + self.colour))
        return np.asarray(crop)


class Mirrored:
    """Wraps a preprocessing so that `host` gives the mirror image: the second view of the mirror test."""

    def __init__(self, preprocess: ImagePreprocess) -> None:
        self.preprocess = preprocess

    def host(self, item: Any) -> np.ndarray:
        """(size, size, 3) uint8, left and right exchanged."""
        return np.ascontiguousarray(self.preprocess.host(item)[:, ::-1])
