"""Images: reading them, and the one preprocessing that training, evaluation, prediction and export share.

`host` turns whatever was given into (size, size, 3) uint8 on the CPU; `device` (in the model's graph) normalises.
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
from regraft.data.audit import ALIGNED, SIDE, Look
from regraft.data.known import KnownFile, NewFile
from regraft.errors import UsageError

MAX_PIXELS = 120_000_000  # a 100-megapixel photograph passes; what is larger is taken for a decompression bomb
MAX_BYTES = 1 << 29
PLAIN = 4  # grey levels between the darkest and the brightest pixel of a picture that shows nothing
VERSION = "1"  # should the pixels ever change, this does, and old runs keep theirs

FILTERS = {
    name: Image.Resampling[name.upper()] for name in ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
}
Turn = Image.Transpose
UPRIGHT = {2: Turn.FLIP_LEFT_RIGHT, 3: Turn.ROTATE_180, 4: Turn.FLIP_TOP_BOTTOM, 5: Turn.TRANSPOSE,
           6: Turn.ROTATE_270, 7: Turn.TRANSVERSE, 8: Turn.ROTATE_90}  # fmt: skip


class UnreadableImage(ValueError):
    """This file or array is no image that can be worked with; the message says why."""


class _Quiet:
    """Keeps Pillow's warnings down while any thread decodes, and puts the filters back when the last one is done.

    `warnings.catch_warnings` alone, entered and left by several threads in turn, can leave the wrong filters behind.
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
    if isinstance(item, np.ndarray):
        return _from_array(item)
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
    try:
        with _quiet():
            image: Image.Image = Image.open(source)
    except Image.DecompressionBombError:
        raise UnreadableImage("absurdly large (a decompression bomb)") from None
    except PermissionError:
        raise UnreadableImage("cannot be opened: permission denied") from None
    except Exception as error:
        raise UnreadableImage(f"not an image Pillow can read ({type(error).__name__})") from None
    fault = ""
    if image.width * image.height > MAX_PIXELS:
        fault = f"absurdly large ({image.width}x{image.height} pixels)"
    elif image.format == "EPS":
        fault = "PostScript, a program to be run rather than an image to be read"
    if fault:
        image.close()
        raise UnreadableImage(fault)
    return image


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


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.size == 0 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise UnreadableImage(f"an array of shape {array.shape}; wanted (H, W), (H, W, 3) or (H, W, 4)")
    if array.dtype == np.uint16:
        array = np.rint(array / 257).astype(np.uint8)
    elif array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    elif np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise UnreadableImage("a float array outside 0 to 1")
        array = np.rint(array * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise UnreadableImage(f"an array of {array.dtype}; wanted uint8, uint16 or float in 0 to 1")
    return Image.fromarray(np.ascontiguousarray(array))


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB: 16 bit scaled by 257, alpha laid on white, the first frame of several."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.nan_to_num(np.asarray(image, dtype=np.float64))
        top, scale = float(values.max(initial=0.0)), 1.0
        if image.mode.startswith("I;16") or top > 255:
            scale = 1 / 257
        elif image.mode == "F" and top <= 1:
            scale = 255.0
        image = Image.fromarray(np.clip(np.rint(values * scale), 0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def load_rgb(item: Any, least: int | None = None) -> Image.Image:
    """Read an upright RGB image. With `least`, JPEGs may be decoded smaller, the short side at least twice `least`.

    Raises UnreadableImage, whatever Pillow stumbled over.
    """
    image = _open(item)
    if image is item:
        return _upright(image, None)[0]
    with image:
        return _upright(image, least)[0]


def thumbnail(item: Any, size: int = 160, quality: int = 70) -> bytes:
    """JPEG bytes of an image's centre square, `size` pixels wide at most. Raises UnreadableImage."""
    image = load_rgb(item, least=size)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    small = min(size, side)
    shown = image.resize((small, small), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))
    buffer = io.BytesIO()
    shown.save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


def inspect_image(path: str | os.PathLike[str]) -> Look:
    """Decode a file wholly and tell what the audit asks of it. Raises UnreadableImage."""
    with _open(path) as image:
        (width, height), form, mode = image.size, image.format or "", image.mode
        upright, orientation = _upright(image, SIDE)  # every byte is read, few pixels are made
    if orientation >= 5:
        width, height = height, width
    small = upright.resize((SIDE, SIDE), Image.Resampling.BOX)
    return Look(width, height, form, mode, _is_plain(small) and _is_plain(upright), small.tobytes())


def _is_plain(image: Image.Image) -> bool:
    return all(high - low <= PLAIN for low, high in image.getextrema())  # type: ignore[misc, union-attr]


def pixel_digest(path: str | os.PathLike[str]) -> str:
    """32 hex digits of all pixels of the upright RGB image and its size. Raises UnreadableImage."""
    image = load_rgb(path)
    return hashlib.sha256(f"{image.width}x{image.height}".encode() + image.tobytes()).hexdigest()[:32]


def small_image_or_none(path: str | os.PathLike[str]) -> np.ndarray | None:
    """The whole upright image as the audit lays it over others, its shape not kept; None where it cannot be read."""
    try:
        return np.asarray(load_rgb(path, least=ALIGNED).resize((ALIGNED, ALIGNED), Image.Resampling.BILINEAR))
    except UnreadableImage:
        return None


def _upright(image: Image.Image, least: int | None) -> tuple[Image.Image, int]:
    """The pixels as upright RGB, and the EXIF orientation (1 to 8) that was left to obey after decoding."""
    try:
        with _quiet():
            if least is not None and image.format == "JPEG":
                factor = 2 * least / min(image.size)
                image.draft("RGB", (int(image.width * factor) + 1, int(image.height * factor) + 1))
            image.load()
            orientation = 1
            with contextlib.suppress(Exception):  # a broken EXIF block does not spoil the pixels
                stated = image.getexif().get(0x0112, 1)
                orientation = stated if stated in UPRIGHT else 1
            if orientation != 1:
                image = image.transpose(UPRIGHT[orientation])
            return _to_rgb(image), orientation
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnreadableImage(f"damaged: {reason}") from None


@dataclass(frozen=True)
class ImagePreprocess:
    """Preprocessing that travels with the weights.

    The centre square of `crop` times the short side is resized to `size`; `mean` and `std` are in units of 0 to 1.
    """

    size: int
    crop: float
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
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
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})

    def host(self, item: Any, rng: np.random.Generator | None = None, augment: Augment | None = None) -> np.ndarray:
        """(size, size, 3) uint8 of a path, KnownFile, bytes, PIL image or array; augmented when `rng` and `augment` are given."""
        image = load_rgb(item, least=max(1, round(self.size / self.crop)))
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
