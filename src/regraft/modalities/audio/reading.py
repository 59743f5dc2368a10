"""Reading sounds: whatever libsndfile decodes becomes mono float32 at the rate that a network takes, or is an
Unreadable that says why.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from regraft.data.known import stream
from regraft.errors import Unreadable, UsageError

ENDINGS = frozenset((".wav", ".flac", ".ogg", ".mp3"))
MAX_BYTES = 1 << 31  # three hours of stereo CD sound
MAX_SECONDS = 6 * 3_600  # a small FLAC file may hold days of silence
RATES = (1_000, 768_000)  # Hz that a recording may have
MOST_CHANNELS = 64
BLOCK = 1 << 18  # samples that are decoded at once
ENDLESS = (
    0,
    0xFFFFFFFF,
)  # lengths that a stream writes into the header of a WAV file, as it does not know better


def libraries() -> tuple[Any, Any]:
    """soundfile and soxr. Raises UsageError that names the extra where they are not installed."""
    try:
        import soundfile
        import soxr
    except (ImportError, OSError) as error:  # OSError: soundfile is there, and libsndfile is not
        raise UsageError(
            f"sounds are read with soundfile and soxr, which cannot be loaded ({error}): "
            "pip install 'regraft[audio]'"
        ) from None
    return soundfile, soxr


@contextlib.contextmanager
def opened(item: Any) -> Iterator[Any]:
    """The soundfile.SoundFile of a path, a KnownFile or bytes. Raises Unreadable for what is none, is cut
    short, or is absurdly long; also where reading it fails within the block.
    """
    soundfile, _ = libraries()
    try:
        with _content(item) as content:
            _check_whole(content)
            with soundfile.SoundFile(content) as sound:
                _check(sound)
                yield sound
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror or error}") from None
    except (soundfile.SoundFileError, RuntimeError, TypeError) as error:
        text = str(getattr(error, "error_string", "") or error).strip().rstrip(".")
        raise Unreadable(f"no sound that can be read ({text})") from None


def seconds_of(item: Any) -> int:
    """How long a recording is by its header, in whole seconds, none too few. Raises Unreadable."""
    with opened(item) as sound:
        return int(-(-sound.frames // sound.samplerate))


def _content(item: Any) -> BinaryIO:
    """An item as an open file: long recordings never lie in memory as a whole. Raises Unreadable."""
    if not isinstance(item, (str, os.PathLike, bytes, bytearray, memoryview)):
        raise Unreadable(f"a {type(item).__name__}; wanted a path, bytes or an array of samples")
    return stream(item, MAX_BYTES)


def _check_whole(content: BinaryIO) -> None:
    """Raise Unreadable for an empty file, and for a WAV file that has fewer bytes than its header announces,
    which libsndfile reads without a word. Leaves the file at its beginning.
    """
    total = content.seek(0, os.SEEK_END)
    if not total:
        raise Unreadable("empty (zero bytes)")
    content.seek(0)
    head, place = content.read(12), 12
    while head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        content.seek(place)
        part = content.read(8)
        if len(part) < 8:
            raise Unreadable("a WAV file without samples")
        name, size = part[:4], struct.unpack_from("<I", part, 4)[0]
        if name == b"data":
            lacking = place + 8 + size - total
            if lacking > 0 and size not in ENDLESS:
                raise Unreadable(
                    f"cut short: {lacking:,} of the {size:,} bytes that it announces are missing"
                )
            break
        place += 8 + size + size % 2
    content.seek(0)


def _check(sound: Any) -> None:
    """Raise Unreadable for what no recording is like."""
    if sound.frames <= 0:
        raise Unreadable("no samples in it")
    if not RATES[0] <= sound.samplerate <= RATES[1]:
        raise Unreadable(f"a sampling rate of {sound.samplerate:,} Hz, which no recording has")
    if sound.channels > MOST_CHANNELS:
        raise Unreadable(f"{sound.channels} channels")
    if sound.frames > MAX_SECONDS * sound.samplerate:
        raise Unreadable(
            f"{sound.frames / sound.samplerate / 3_600:.1f} hours long; at most {MAX_SECONDS // 3_600} are read: cut it"
        )


def blocks(sound: Any) -> Iterator[NDArray[np.float32]]:
    """(n, channels) samples from the first to the last, a bounded number at a time, from -1 to 1 whatever bits
    they are stored with. Raises Unreadable for numbers that are none.
    """
    length = 0
    while True:
        block = sound.read(max(1, BLOCK // sound.channels), dtype="float32", always_2d=True)
        if not len(block):
            break
        length += len(block)
        yield _finite(block)
    if not length:
        raise Unreadable("no samples in it")


def waveform(item: Any, rate: int, windows: int, length: int) -> NDArray[np.float32]:
    """(n,) mono samples at `rate` Hz of a path, KnownFile, bytes, or array of samples at that rate, (n,) or
    (n, channels): all of it, or of a longer one `windows` parts of `length` samples, evenly spaced, one
    behind the other. Of a long file only these are decoded. Raises Unreadable.
    """
    parts = [part for _, part in stretches(item, rate, windows, length)]
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
    if not len(whole):
        raise Unreadable("no samples in it")
    return whole[: windows * length]


def stretches(item: Any, rate: int, windows: int, length: int) -> list[tuple[float, NDArray[np.float32]]]:
    """What `waveform` puts one behind the other, and at which second each begins. Raises Unreadable."""
    if isinstance(item, np.ndarray):
        values = _finite(_scaled(item))
        some = starts(len(values), windows, length)
        long = length if len(some) > 1 or len(values) > windows * length else len(values)
        return [(start / rate, values[start : start + long]) for start in some]
    with opened(item) as sound:
        native = sound.samplerate
        wide = -(-length * native // rate)  # samples of a window at the file's own rate
        parts = []
        for start in starts(sound.frames, windows, wide):
            sound.seek(start)
            count = sound.frames if sound.frames <= windows * wide else wide
            part = _finite(sound.read(count, dtype="float32", always_2d=True)).mean(axis=1)
            parts.append((start / native, resampled(part, native, rate)))
    return parts


def starts(total: int, windows: int, length: int) -> list[int]:
    """Where the windows of a recording of `total` samples begin: at its beginning where it fits whole, else
    evenly spaced from the beginning to the end, a single one in the middle.
    """
    if total <= windows * length:
        return [0]
    if windows == 1:
        return [(total - length) // 2]
    return [round(number * (total - length) / (windows - 1)) for number in range(windows)]


def resampled(samples: NDArray[np.float32], native: int, rate: int) -> NDArray[np.float32]:
    """(n,) samples at another rate, by a filter that lets nothing fold over."""
    if native == rate:
        return samples
    return np.asarray(libraries()[1].resample(samples, native, rate), dtype=np.float32)


def _scaled(values: NDArray[Any]) -> NDArray[np.float32]:
    """(n,) samples from -1 to 1 of an array: whole numbers by the range of their type. Raises Unreadable."""
    if values.ndim not in (1, 2) or not values.size or (values.ndim == 2 and values.shape[1] > MOST_CHANNELS):
        raise Unreadable(f"an array of shape {values.shape}; wanted samples, (n,) or (n, channels)")
    if values.dtype.kind == "u":
        middle = (int(np.iinfo(values.dtype).max) + 1) // 2
        samples = (values.astype(np.float64) - middle) / middle
    elif values.dtype.kind == "i":
        samples = values.astype(np.float64) / (int(np.iinfo(values.dtype).max) + 1)
    elif values.dtype.kind == "f":
        samples = values
    else:
        raise Unreadable(f"an array of {values.dtype}; wanted samples as numbers")
    return np.asarray(samples if samples.ndim == 1 else samples.mean(axis=1), dtype=np.float32)


def _finite(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    if not np.isfinite(samples).all():
        raise Unreadable("some of its samples are no numbers (nan or infinity)")
    return samples
