"""Sounds in a report: pictures of their spectrum, short clips to be heard, and a sheet of a training batch."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from regraft.errors import ChangedError, Unreadable
from regraft.modalities import Shown
from regraft.modalities.audio.preprocess import HOP, RATE, AudioPreprocess
from regraft.modalities.audio.reading import libraries, resampled, waveform

HEARD = 4 * RATE  # samples of a clip that a page holds
KEPT_RATE = 8_000  # Hz of these
WIDE, HIGH, SMALL = 240, 128, 80  # pixels of a picture, and the height of a small one
TONES = 80  # of it
LEVELS = 16  # shades of a small picture
SHADES = np.array(
    [[0, 0, 4], [59, 15, 112], [140, 41, 129], [222, 73, 104], [254, 159, 109], [252, 253, 191]]
)
WARM = np.array([232, 89, 12])  # what a place that counts is tinted with
TINT = 0.7


def show(items: Sequence[Any], facts: pa.Table) -> list[Shown | None]:
    """A short clip of each item with its spectrum; None where it cannot be read or is another one by now."""

    def small(item: Any) -> Shown | None:
        try:
            samples = waveform(item, RATE, 1, HEARD)
            return Shown("sound", clip(samples), _uri(indexed(spectrum(samples, SMALL, 2 * SMALL))))
        except (Unreadable, ChangedError):
            return None

    with ThreadPoolExecutor() as pool:
        return list(pool.map(small, items))


def clip(samples: NDArray[np.float32]) -> str:
    """A data URI of samples at RATE: Ogg Vorbis at KEPT_RATE, some 3 kB a second."""
    soundfile, _ = libraries()
    content = io.BytesIO()
    peak = float(np.abs(samples).max()) or 1.0
    kept = np.clip(resampled(samples, RATE, KEPT_RATE) / max(1.0, peak), -1, 1)
    soundfile.write(content, kept, KEPT_RATE, format="OGG", subtype="VORBIS")
    return f"data:audio/ogg;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"


def overlay(preprocess: AudioPreprocess, item: Any, heat: NDArray[np.float64]) -> tuple[str, str]:
    """The spectrum of what the model hears of a sound, and the same in grey with (TONES, TIMES) heat on it:
    data URIs of pictures. Raises Unreadable.
    """
    grey = spectrum(preprocess.host(item), HIGH, WIDE)
    places = [
        np.linspace(0, side - 1e-6, length).astype(int)
        for side, length in zip(heat.shape, grey.shape, strict=True)
    ]
    share = heat[np.ix_(*places)][..., None]
    faint = 255 * (0.25 + 0.75 * grey[..., None])
    tinted = faint + TINT * share * (WARM - faint)
    warm = np.rint(np.broadcast_to(tinted, (*grey.shape, 3))).astype(np.uint8)
    return _uri(png(coloured(grey))), _uri(png(warm))


def sheet(batch: dict[str, np.ndarray]) -> bytes:
    """A PNG of the spectra of the first sounds of a batch, two rows of four at most."""
    some = [
        samples[:length] for samples, length in zip(batch["samples"][:8], batch["lengths"][:8], strict=True)
    ]
    columns = min(4, len(some))
    some = some[: len(some) // columns * columns]
    tiles = [np.pad(coloured(spectrum(one, HIGH, WIDE)), ((2, 2), (2, 2), (0, 0))) for one in some]
    rows = [np.concatenate(tiles[start : start + columns], axis=1) for start in range(0, len(tiles), columns)]
    return png(np.concatenate(rows))


def spectrum(samples: NDArray[np.float32], high: int, wide: int) -> NDArray[np.float64]:
    """(high, wide) shades from 0 to 1 of log-mel frames, high tones above, of (n,) samples at RATE."""
    import torch

    from regraft.modalities.audio.mel import RANGE, LogMel

    length = max(2 * HOP, HOP * -(-len(samples) // HOP))
    padded = np.zeros((1, max(length, 400)), dtype=np.float32)
    padded[0, : len(samples)] = samples
    with torch.no_grad():
        batch = {"samples": torch.from_numpy(padded), "lengths": torch.tensor([len(samples)])}
        logs = LogMel(TONES).frames(batch)[0][0, :, : -(-len(samples) // HOP)].numpy()
    shades = np.clip((logs - logs.max()) / RANGE + 1, 0, 1)[::-1]
    rows, columns = (
        np.linspace(0, n - 1, m).round().astype(int) for n, m in zip(shades.shape, (high, wide), strict=True)
    )
    return np.asarray(shades[np.ix_(rows, columns)], dtype=np.float64)


def coloured(shades: NDArray[np.float64]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 of shades from 0 to 1: from black over violet to yellow."""
    places = np.linspace(0, 1, len(SHADES))
    return np.stack([np.interp(shades, places, SHADES[:, channel]) for channel in range(3)], axis=-1).astype(
        np.uint8
    )


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG of (H, W, 3) pixels."""
    return _png(pixels.shape[1], pixels.reshape(len(pixels), -1), 8, 2)


def indexed(shades: NDArray[np.float64]) -> bytes:
    """A PNG of (H, W) shades from 0 to 1 in LEVELS colours, a tenth as large; W is even."""
    places = np.rint(shades * (LEVELS - 1)).astype(np.uint8)
    palette = coloured(np.linspace(0, 1, LEVELS)[None])[0]
    rows = (16 * places[:, ::2] + places[:, 1::2]).astype(np.uint8)
    return _png(shades.shape[1], rows, 4, 3, palette.tobytes())


def _png(width: int, rows: NDArray[np.uint8], depth: int, kind: int, palette: bytes = b"") -> bytes:
    """A PNG of (H, bytes) rows; `depth` and `kind` as its header names them."""
    lines = np.concatenate([np.zeros((len(rows), 1), np.uint8), rows], axis=1)

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), depth, kind, 0, 0, 0))
    colours = chunk(b"PLTE", palette) if palette else b""
    body = chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + colours + body


def _uri(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"
