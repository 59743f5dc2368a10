"""What a report shows of a sound: a clip, its spectrum, what the answer rests on; all small."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from regraft.errors import Unreadable
from regraft.modalities import modality_of
from regraft.modalities.audio.augment import Augment
from regraft.modalities.audio.hide import TIMES, TONES
from regraft.modalities.audio.preprocess import AudioPreprocess
from sounds import hiss, tone, write

SOUNDS = modality_of("audio")


def content(uri: str) -> bytes:
    return base64.b64decode(uri.partition(",")[2])


def test_a_clip_and_its_spectrum(tmp_path: Path) -> None:
    place = write(tmp_path / "a.wav", tone(1_000, 9.0))
    (tmp_path / "b.wav").write_bytes(b"no sound")
    one, none = SOUNDS.show([place, tmp_path / "b.wav"], SOUNDS.facts.empty_table())
    assert none is None
    assert one is not None
    assert one.kind == "sound"
    assert len(one.content) + len(one.picture) < 40_000
    samples, rate = soundfile.read(io.BytesIO(content(one.content)))
    assert len(samples) == pytest.approx(4 * rate, rel=0.05)
    picture = np.asarray(Image.open(io.BytesIO(content(one.picture))).convert("L"), float)
    assert picture.shape == (80, 160)
    assert picture[40:].mean() > picture[:20].mean()  # low tones are below


def test_places_are_hidden_and_laid_over_the_spectrum() -> None:
    pre, samples = AudioPreprocess(104, 80), np.concatenate([tone(300, 0.5), tone(4_000, 0.5)])
    copies = SOUNDS.hide(pre.host(samples))
    assert copies is not None
    assert copies.shape == (TONES, TIMES, len(samples))
    changed = np.abs(copies - samples).reshape(TONES, TIMES, TIMES, -1).sum(axis=3)
    assert all(changed[:, k, j].max() == 0 for k in range(TIMES) for j in range(TIMES) if j != k)
    strongest = np.abs(copies - samples).sum(axis=2).argmax(axis=0)
    assert strongest[0] > strongest[-1]  # the low tone lies in a lower band, further down
    heat = np.zeros((TONES, TIMES))
    heat[0, 0] = 1
    pictures = [
        Image.open(io.BytesIO(content(uri))).convert("RGB") for uri in SOUNDS.overlay(pre, samples, heat)
    ]
    assert pictures[0].size == pictures[1].size == (240, 128)
    warm = np.asarray(pictures[1], float)
    assert warm[:20, :20, 0].mean() > warm[:20, :20, 2].mean() + 20
    assert np.ptp(warm[-20:, -20:], axis=2).max() == 0


def test_a_sheet_of_a_training_batch() -> None:
    pre = AudioPreprocess(104, 80)
    png = SOUNDS.sheet(pre.collate([tone(440), hiss(1.0), hiss(0.2)]))
    assert Image.open(io.BytesIO(png)).size == (3 * 244, 132)
    assert SOUNDS.sheet(pre.collate([tone(440)] * 9))


def test_views_keep_the_length_and_depend_on_the_generator_only() -> None:
    samples = hiss(0.5)
    for name in ("shift", "gain", "masks", "noise"):
        view = Augment(**{name: True})
        one, again, other = (view(samples, np.random.default_rng(seed)) for seed in (1, 1, 2))
        assert one.shape == samples.shape
        assert one.dtype == np.float32
        assert np.array_equal(one, again)
        assert not np.array_equal(one, other)
    assert np.array_equal(Augment()(samples, np.random.default_rng(0)), samples)
    pre = AudioPreprocess(104, 80)
    assert len(pre.host(samples, np.random.default_rng(0), Augment(True, True, True, True))) == len(samples)
    with pytest.raises(Unreadable):
        pre.host(b"")
