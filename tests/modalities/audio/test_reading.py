"""Sounds of any rate, depth and number of channels become the same samples; what is none says why."""

from __future__ import annotations

import builtins
import contextlib
import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from regraft.data.known import KnownFile, NewFile
from regraft.errors import ChangedError, Unreadable, UsageError
from regraft.modalities import modality_of
from regraft.modalities.audio.inspect import inspect_sound
from regraft.modalities.audio.preprocess import AudioPreprocess
from regraft.modalities.audio.reading import MAX_SECONDS, starts, waveform
from sounds import hiss, tone, write

RATE = 16_000


def heard(item: Any, windows: int = 1, length: int = RATE) -> np.ndarray:
    return waveform(item, RATE, windows, length)


@pytest.mark.parametrize(
    ("subtype", "close"),
    [("PCM_U8", 1 / 100), ("PCM_16", 1e-4), ("PCM_24", 1e-6), ("PCM_32", 1e-7), ("FLOAT", 0)],
)
def test_any_depth_is_on_one_scale(tmp_path: Path, subtype: str, close: float) -> None:
    samples = tone(440)
    assert np.abs(heard(write(tmp_path / "a.wav", samples, subtype=subtype)) - samples).max() <= close


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3"])
def test_any_format_and_rate_gives_the_same_tone(tmp_path: Path, ending: str) -> None:
    for rate in (8_000, 44_100):
        samples = heard(write(tmp_path / f"{rate}.{ending}", tone(440, 0.8, rate), rate), 1, RATE)
        assert len(samples) == pytest.approx(0.8 * RATE, rel=0.1)
        strongest = np.fft.rfftfreq(len(samples), 1 / RATE)[np.abs(np.fft.rfft(samples)).argmax()]
        assert strongest == pytest.approx(440, abs=10)


def test_channels_are_averaged_and_arrays_are_taken(tmp_path: Path) -> None:
    samples = tone(440)
    both = np.stack([samples, -samples / 2], axis=1)
    expected = samples / 4
    assert np.allclose(heard(write(tmp_path / "a.wav", both, subtype="FLOAT")), expected, atol=1e-7)
    assert np.allclose(heard(both), expected)
    assert np.allclose(heard((samples * 32_767).astype(np.int16)), samples, atol=1e-4)
    assert np.allclose(heard(((samples + 1) * 127).astype(np.uint8)), samples, atol=0.02)
    assert np.array_equal(heard((tmp_path / "a.wav").read_bytes()), heard(str(tmp_path / "a.wav")))


def test_of_long_ones_evenly_spaced_windows_are_heard(tmp_path: Path) -> None:
    samples = np.linspace(-0.5, 0.5, 10 * RATE).astype(np.float32)
    place = write(tmp_path / "a.wav", samples, subtype="FLOAT")
    found = heard(place, 3, 100)
    assert np.array_equal(found, np.concatenate([samples[s : s + 100] for s in starts(len(samples), 3, 100)]))
    assert np.array_equal(found, heard(samples, 3, 100))
    assert starts(50, 3, 100) == [0]
    assert starts(300, 3, 100) == [0]
    assert starts(1_000, 1, 100) == [450]


def test_what_is_no_sound_says_why(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.wav", tone(440)).read_bytes()
    flac = write(tmp_path / "whole.flac", hiss()).read_bytes()
    nothing = io.BytesIO()
    soundfile.write(nothing, np.zeros((0, 1), np.float32), RATE, format="WAV")
    numbers = tone(440)
    numbers[100] = np.nan
    bad = write(tmp_path / "nan.wav", numbers, subtype="FLOAT")
    for item, why in (
        (b"", "empty"),
        (b"RIFF and nothing else", "no sound"),
        (whole[: len(whole) // 2], "cut short"),
        (nothing.getvalue(), "no samples"),
        (bad, "no numbers"),
        (b"<html>not found</html>", "no sound"),
        (tmp_path, "a folder, not a file"),
        (tmp_path / "absent.wav", "No such file"),
        (np.zeros((2, 2, 2)), "an array of shape"),
        (np.array(["a"]), "samples as numbers"),
        (object(), "wanted a path"),
    ):
        with pytest.raises(Unreadable, match=why):
            heard(item)
        if not isinstance(item, np.ndarray):
            with pytest.raises(Unreadable, match=why):
                inspect_sound(item)
    with pytest.raises(Unreadable):
        inspect_sound(flac[: len(flac) // 2])


def mutants(content: bytes, rng: np.random.Generator, ending: str) -> Iterator[bytes]:
    """Files that are damaged: bytes changed in the header and anywhere, cut off, lengthened; absurd headers."""
    yield content + b"what follows"
    for _ in range(25):
        changed = bytearray(content[: rng.integers(1, len(content) + 1)])
        for place in rng.integers(0, min(len(changed), 64), 3):
            changed[place] = rng.integers(256)
        yield bytes(changed)
        changed = bytearray(content + bytes(rng.integers(0, 256, 40, dtype=np.uint8)))
        for place in rng.integers(0, len(changed), 12):
            changed[place] ^= 1 << rng.integers(8)
        yield bytes(changed)
    if ending == "wav":  # channels, rate, bits, what it claims to hold
        for place, form, values in (
            (22, "<H", (0, 3, 65_535)),
            (24, "<I", (0, 1, 7, 4_000_000_000)),
            (34, "<H", (0, 1, 65_535)),
            (40, "<I", (0, 1, 0x7FFFFFFF, 0xFFFFFFFF)),
        ):
            for value in values:
                changed = bytearray(content)
                struct.pack_into(form, changed, place, value)
                yield bytes(changed)


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3"])
def test_damaged_files_are_read_or_say_why_and_the_program_of_an_export_agrees(
    tmp_path: Path, ending: str
) -> None:
    preprocess = AudioPreprocess(size=100, mels=80)
    intake = preprocess.intake()
    names = {"np": np, "SETTINGS": intake.settings}
    exec(intake.reading, names)  # as the program has it, with what stands around it there
    rng, read, extent = np.random.default_rng(0), 0, modality_of("audio").extent
    content = write(tmp_path / f"a.{ending}", tone(440, 0.1)).read_bytes()
    for number, changed in enumerate(mutants(content, rng, ending)):
        place = tmp_path / f"{number}.{ending}"
        place.write_bytes(changed)
        with contextlib.suppress(Unreadable):
            assert extent.of(changed) >= 0
        with contextlib.suppress(Unreadable):  # the only error there may be
            assert np.isfinite(inspect_sound(changed).loudness)
        try:
            ours = preprocess.collate([preprocess.host(changed)])
        except Unreadable:
            with pytest.raises((OSError, ValueError)):
                names["read"](place)
            continue
        theirs = names["read"](place)
        assert theirs["lengths"] == ours["lengths"]
        np.testing.assert_array_equal(theirs["samples"], ours["samples"])
        read += 1
    assert read > (5 if ending in ("wav", "mp3") else 0)  # the others hold checksums


def test_a_recording_of_two_hours_does_not_hurt_and_days_are_refused(tmp_path: Path) -> None:
    import tracemalloc

    place = tmp_path / "long.flac"
    with soundfile.SoundFile(place, "w", 1_000, 1, subtype="PCM_16") as file:
        block = np.zeros(1_000 * 600, np.int16)
        for _ in range(12):
            file.write(block)
    tracemalloc.start()
    try:
        assert inspect_sound(place).seconds == 7_200
        assert len(heard(place, 4, 10 * RATE)) == 40 * RATE
        assert tracemalloc.get_traced_memory()[1] < 15e6
    finally:
        tracemalloc.stop()
    with soundfile.SoundFile(tmp_path / "days.flac", "w", 1_000, 1, subtype="PCM_16") as file:
        for _ in range(MAX_SECONDS // 3_600 + 1):
            file.write(np.zeros(1_000 * 3_600, np.int16))
    with pytest.raises(Unreadable, match="hours long"):
        inspect_sound(tmp_path / "days.flac")


def test_a_long_file_never_lies_in_memory_as_a_whole(tmp_path: Path) -> None:
    import tracemalloc

    place = tmp_path / "long.wav"
    soundfile.write(place, np.zeros(16_000_000, np.int16), 8_000)  # 32 MB
    known = NewFile(str(place))
    tracemalloc.start()
    try:
        assert inspect_sound(known).seconds == 2_000
        assert len(heard(KnownFile(str(place), known.id), 2, 10 * RATE)) == 20 * RATE
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    with pytest.raises(ChangedError, match="another"):
        heard(KnownFile(str(place), "0" * 32))


def test_without_its_libraries_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "soundfile":
            raise ImportError("no module named soundfile")
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"pip install 'regraft\[audio\]'"):
        inspect_sound(b"RIFF")
