"""Files that Pillow does not read as they are: what they are by their first bytes, and readers for some of
them.
"""

from __future__ import annotations

import io
import struct
from typing import Any

from PIL import Image

ENDINGS = frozenset(
    (
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".apng",
        ".gif",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
        ".webp",
        ".avif",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".jp2",
        ".tga",
        ".ico",
        ".heic",
        ".heif",
        ".hif",
    )
)
PNG = b"\x89PNG\r\n\x1a\n"
TEXTS = (b"iCCP", b"iTXt", b"zTXt", b"tEXt")  # chunks of a PNG that hold no pixels, and may be of any size
HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
STARTS = (
    (b"version https://git-lfs.github.com/", "a git-LFS pointer in place of the file: run git lfs pull"),
    (b"%PDF", "a PDF: save its pages as images"),
    (b"PK\x03\x04", "a zip archive: unpack it"),
    (b"\x1f\x8b", "a gzip archive: unpack it"),
    (b"Rar!", "a rar archive: unpack it"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it"),
    (b"\xff\x0a", "JPEG XL: convert it to PNG or JPEG"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL: convert it to PNG or JPEG"),
    (b"\x93NUMPY", "an array of NumPy: save it as PNG or TIFF"),
    (b"\x89HDF", "an HDF5 file: save its images as PNG or TIFF"),
    (b"\x1aE\xdf\xa3", "a video: save its frames as images"),
    (b"RIFF", "a RIFF file: a video or sound, or WebP, which this Pillow cannot read"),
)


def what_it_is(head: bytes) -> str:
    """What a file is that begins with these bytes, and what to do about it; "" where that does not show."""
    for start, said in STARTS:
        if head.startswith(start):
            return said
    if head[4:8] == b"ftyp":
        return _by_brand(head[8:12])
    if head[128:132] == b"DICM":
        return "DICOM: convert it to PNG or TIFF"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<script")):
        return "an HTML page: a download that went wrong?"
    if text.startswith(b"<svg") or (text.startswith(b"<?xml") and b"<svg" in text):
        return "an SVG drawing, which has no pixels: convert it to PNG"
    if text.startswith((b"<?xml", b"<error")):
        return "an XML text: a download that went wrong?"
    if text.startswith((b"{", b"[")):
        return "a JSON text: a download that went wrong?"
    if not head.strip(b"\0"):
        return "nothing but zero bytes: a copy that was cut off?"
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        return "a text"
    return ""


def is_heic(head: bytes) -> bool:
    """True for the first bytes of HEIC and HEIF, whatever the file's ending."""
    return head[4:8] == b"ftyp" and (
        head[8:12] in HEIC or (head[8:12] not in (b"avif", b"avis") and b"heic" in head[16:64])
    )


def open_heic(source: Any) -> Image.Image | None:
    """A HEIC image through pillow-heif, which is not told to Pillow; None where it is not installed."""
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        return None
    image: Image.Image = HeifImageFile(source)
    return image


def without_texts(data: bytes) -> io.BytesIO:
    """A PNG without its text and colour profile, of which Pillow takes up to a megabyte."""
    kept, place = [data[:8]], 8
    while place + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        end = place + 12 + length
        if kind not in TEXTS:
            kept.append(data[place:end])
        place = end
    return io.BytesIO(b"".join(kept))


def _by_brand(brand: bytes) -> str:
    if brand in (b"avif", b"avis"):
        return "AVIF, which this Pillow cannot read: pip install 'pillow>=11.3'"
    if brand in HEIC:
        return "HEIC: pip install 'regraft[heic]', or convert it to JPEG"
    return "a video: save its frames as images"
